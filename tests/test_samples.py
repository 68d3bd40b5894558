"""Samples in the place of inputs: features with names, whose absence the sample knows."""

import itertools
import math

import pytest
import torch
from language import WordTokenizer, ids_of, make
from torch import nn

import torchwhy as tw


def shapley(value, d):
    """Shapley values by their definition; ``value`` takes the set of features that are there."""
    known = {frozenset(s): value(set(s)) for k in range(d + 1) for s in itertools.combinations(range(d), k)}
    found = []
    for i in range(d):
        total = 0.0
        for k in range(d):
            for s in itertools.combinations([j for j in range(d) if j != i], k):
                weight = math.factorial(k) * math.factorial(d - k - 1) / math.factorial(d)
                total += weight * (known[frozenset({*s, i})] - known[frozenset(s)])
        found.append(total)
    return torch.tensor(found)


@pytest.fixture
def columns():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    x = torch.randn(2, 4)
    mask = torch.tensor([[0, 0, 1, -1], [2, 1, 0, 2]])
    return net, x, tw.Sample(x, mask, baselines=0.5, names=[["ab", "c"], ["c", "b", "ad"]])


def alone(sample, row):
    d = len(sample.names[row])
    return tw.Sample(
        sample.tensors[[row]], sample.feature_mask[[row]], baselines=sample.baselines, names=[sample.names[row]]
    ), d


METHODS = {
    "ExactShapley": lambda m: tw.ExactShapley(m),
    "KernelSHAP": lambda m: tw.KernelSHAP(m, generator=0),
    "FeatureAblation": lambda m: tw.FeatureAblation(m),
    "LIME": lambda m: tw.LIME(m, n_samples=40, generator=0),
    "Occlusion": lambda m: tw.Occlusion(m, sliding_window_shapes=(1,)),
    "IntegratedGradients": lambda m: tw.IntegratedGradients(m),
    "DeepLIFT": lambda m: tw.DeepLIFT(m),
    "InputXGradient": lambda m: tw.InputXGradient(m),
    "ExpectedGradients": lambda m: tw.ExpectedGradients(m, generator=0, n_samples=40),
}


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_a_sample_equal_rows_alone(columns, name):
    net, _, sample = columns
    e = METHODS[name](net).explain(sample, 1)
    assert e.attributions.shape == (2, 3)
    assert e.attributions[0, 2] == 0  # a row with fewer features
    for row in range(2):
        one, d = alone(sample, row)
        torch.testing.assert_close(e.features()[row], METHODS[name](net).attribute(one, 1)[0], atol=1e-5, rtol=1e-4)
        assert len(e.features()[row]) == d
    assert e.names == [["ab", "c"], ["c", "b", "ad"]]


def test_shapley_of_a_sample_is_that_of_its_definition(columns):
    net, x, sample = columns
    found = tw.ExactShapley(net).attribute(sample, 1)
    for row in range(2):

        def value(there, row=row):
            keep = [int(k) in there or int(k) < 0 for k in sample.feature_mask[row]]
            z = torch.where(torch.tensor(keep), x[row], torch.tensor(0.5))
            return float(net(z[None])[0, 1].detach())

        d = len(sample.names[row])
        torch.testing.assert_close(found[row, :d], shapley(value, d), atol=1e-5, rtol=0)


def test_gradients_are_summed_over_a_feature(columns):
    net, x, sample = columns
    ig = tw.IntegratedGradients(net).attribute(x, 1, baselines=torch.where(sample.feature_mask < 0, x, 0.5))
    found = tw.IntegratedGradients(net).attribute(sample, 1)
    torch.testing.assert_close(found[0], torch.stack([ig[0, 0] + ig[0, 1], ig[0, 2], torch.tensor(0.0)]))
    torch.testing.assert_close(found[1], torch.stack([ig[1, 2], ig[1, 1], ig[1, 0] + ig[1, 3]]))


class Spelled(tw.Sample):
    """A sample of a user: three switches that choose what a model of numbers is given."""

    names = ["a", "b", "c"]

    def masked(self, kept, rows):
        return kept.double() @ torch.tensor([1.0, 2.0, 4.0], dtype=torch.double)[:, None], {
            "shift": torch.ones(len(rows))
        }


def test_a_sample_of_ones_own():
    seen = []

    def model(x, shift):
        seen.extend(x[:, 0].tolist())
        return x[:, 0] ** 2 + shift

    e = tw.ExactShapley(model).explain(Spelled())
    assert sorted(set(seen)) == list(range(8))
    v = {frozenset(s): sum((1, 2, 4)[i] for i in s) ** 2 for k in range(4) for s in itertools.combinations(range(3), k)}
    torch.testing.assert_close(e.attributions[0], shapley(lambda s: v[frozenset(s)], 3))
    assert e.names == [["a", "b", "c"]]


def test_a_sample_of_a_foreign_class():
    class Foreign:
        tensors, arguments, names = torch.tensor([[1.0, 2.0]]), {}, ["a", "b"]
        feature_mask = torch.tensor([0, 1])

        def bind(self, model):
            return self

        def masked(self, kept, rows):
            return self.tensors[rows] * kept, {}

    e = tw.ExactShapley(lambda x: x[:, 0] + 3 * x[:, 1]).explain(Foreign())
    assert e.attributions.tolist() == [[1.0, 6.0]]
    assert e.names == [["a", "b"]]
    assert tw.InputXGradient(nn.Linear(2, 1)).attribute(Foreign()).shape == (1, 2)


def test_several_tensors_and_arguments_follow_the_rows():
    torch.manual_seed(0)

    class Two(nn.Module):
        def forward(self, a, b, scale):
            return (a.sum(1) * scale) ** 2 + (b.sum(1)) ** 2

    a, b, scale = torch.randn(3, 2), torch.randn(3, 4), torch.rand(3)
    sample = tw.Sample(
        {"a": a, "b": b}, {"a": torch.tensor([0, 1]), "b": torch.tensor([1, 1, 2, 2])}, arguments={"scale": scale}
    )
    found = tw.ExactShapley(Two(), batch_size=2).attribute(sample)
    expected = tw.ExactShapley(Two()).attribute(
        {"a": a, "b": b}, feature_mask={"a": torch.tensor([0, 1]), "b": torch.tensor([1, 1, 2, 2])},
        additional_forward_args={"scale": scale},
    )  # fmt: skip
    torch.testing.assert_close(found, torch.stack([expected["a"][:, 0], expected["a"][:, 1], expected["b"][:, 3]], 1))
    ig = tw.IntegratedGradients(Two()).explain(sample)
    assert float(ig.completeness_gap.max()) < 1e-5
    torch.testing.assert_close(ig.attributions.sum(1), found.sum(1))


def test_metrics_and_comparisons_take_samples(columns):
    net, x, sample = columns
    methods = {"shap": tw.ExactShapley(net), "ixg": tw.InputXGradient(net)}
    table = tw.compare(net, sample, 1, methods, ["deletion", "insertion"])
    for row in range(2):
        one, _ = alone(sample, row)
        single = tw.compare(net, one, 1, methods, ["deletion", "insertion"])
        for metric in ("deletion", "insertion"):
            for method in methods:
                torch.testing.assert_close(table.values[metric][method][row], single.values[metric][method][0])
    curve = tw.metrics.deletion(net, alone(sample, 0)[0], torch.tensor([[1.0, 2.0]]), 1, softmax=False)
    there = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 1]], dtype=torch.bool)
    expected = net(torch.where(there, x[[0]], torch.tensor(0.5)))[:, 1].detach()
    torch.testing.assert_close(curve.scores[0], expected)


@pytest.mark.parametrize(
    "given, words",
    [
        (dict(feature_mask=torch.tensor([0, 2, 2, 2])), "row 0 of the sample has the features"),
        (dict(feature_mask=torch.tensor([0.0, 1, 1, 1])), "expected integers"),
        (dict(feature_mask=torch.tensor([0, 1])), "does not broadcast"),
        (dict(feature_mask=torch.full((4,), -1)), "row 0 of the sample has the features"),
        (dict(feature_mask=torch.tensor([0, 0, 1, 1]), names=["one"]), "names"),
        (dict(baselines=tw.Distribution(torch.zeros(3, 4))), "one for each row"),
    ],
)
def test_nonsense_in_a_sample_is_refused(given, words):
    with pytest.raises(ValueError, match=words):
        tw.ExactShapley(nn.Linear(4, 1)).attribute(tw.Sample(torch.ones(1, 4), **given))


@pytest.mark.parametrize("given", [{"baselines": 0}, {"feature_mask": torch.tensor(0)}, {"additional_forward_args": 1}])
def test_what_a_sample_knows_is_not_given_besides(columns, given):
    with pytest.raises(TypeError, match="the sample has its own"):
        tw.ExactShapley(columns[0]).attribute(columns[2], 1, **given)


def test_a_sample_without_tensors_needs_a_method_that_masks():
    with pytest.raises(TypeError, match="choose a method that masks"):
        tw.Saliency(nn.Linear(1, 1)).attribute(Spelled())
    with pytest.raises(ValueError, match="names of its features"):
        tw.ExactShapley(len).attribute(tw.Sample())


# ---- texts for encoders

TEXTS = ["a film of great charm", "dull , no end"]


@pytest.fixture(scope="module")
def bert():
    return make("bert")


def score(model, ids, **arguments):
    with torch.no_grad():
        return float(model(ids, **arguments).logits[0, 1])


@pytest.mark.parametrize("absent", ["mask", "pad", "remove", 7])
def test_shapley_of_a_text_is_that_of_texts_made_by_hand(bert, absent):
    tokenizer = WordTokenizer(ends=True)
    e = tw.ExactShapley(bert, batch_size=3).explain(tw.Text(tokenizer, TEXTS, absent=absent), 1)
    for row, text in enumerate(TEXTS):
        words = text.split()
        token = {"mask": "<mask>", "pad": "<pad>", 7: next(iter(tokenizer.decode([7]).split()))}.get(absent)

        def value(there, words=words, token=token):
            shown = [w if i in there else token for i, w in enumerate(words) if i in there or token]
            return score(bert, ids_of(" ".join(shown), ends=True))

        torch.testing.assert_close(e.features()[row], shapley(value, len(words)), atol=1e-5, rtol=1e-5)
        assert e.names[row] == words


class WithoutBeginning(WordTokenizer):
    """A tokenizer that adds nothing to a text."""

    def __call__(self, text, pair=None, **options):
        return super().__call__(text, pair, **{**options, "add_special_tokens": False})


@pytest.mark.parametrize("text", ["film", "great film"])
def test_where_all_of_a_text_is_removed_a_beginning_is_left(bert, text):
    e = tw.ExactShapley(bert).explain(tw.Text(WithoutBeginning(), text, absent="remove"), 1)
    gain = score(bert, ids_of(text, special=False)) - score(bert, torch.tensor([[WordTokenizer.bos_token_id]]))
    assert float(e.attributions.sum()) == pytest.approx(gain, abs=1e-5)


def test_pairs_keep_their_segments(bert):
    e = tw.ExactShapley(bert).explain(tw.Text(WordTokenizer(ends=True), "great film", "no end", absent="remove"), 1)

    def value(there):
        a = " ".join(w for i, w in enumerate(["great", "film"]) if i in there)
        b = " ".join(w for i, w in enumerate(["no", "end"]) if i + 2 in there)
        made = WordTokenizer(ends=True)(a, b)
        types = torch.tensor([made["token_type_ids"]])
        return score(bert, torch.tensor([made["input_ids"]]), token_type_ids=types)

    torch.testing.assert_close(e.attributions[0], shapley(value, 4), atol=1e-5, rtol=1e-5)
    assert e.names == [["great", "film", "no", "end"]]


@pytest.mark.parametrize(
    "units, names",
    [
        ("word", [["Dave", "lives", "in", "Berlin.", "Where", "does", "Tom", "live?"]]),
        ("token", [["Dave", "lives", "in", "Berlin", ".", "Where", "does", "Tom", "live", "?"]]),
        ("sentence", [["Dave lives in Berlin.", "Where does Tom live?"]]),
        ("Dave|Tom", [["Dave", "Tom"]]),
        (r"lives in \w+", [["lives in Berlin"]]),
    ],
)
def test_units(units, names):
    assert tw.Text(WordTokenizer(), "Dave lives in Berlin. Where does Tom live?", units=units).names == names


def test_characters_of_tokens_are_found_by_decoding_where_the_tokenizer_does_not_say():
    text, slow = "Dave lives in Berlin . Where does Tom live ?", WordTokenizer(offsets=False)
    for units in ("word", "sentence", "token", "Dave|Tom"):
        quick = tw.Text(WordTokenizer(), text, units=units)
        assert tw.Text(slow, text, units=units).feature_mask["input_ids"].equal(quick.feature_mask["input_ids"])
    with pytest.raises(ValueError, match="give a fast tokenizer"):
        tw.Text(slow, "Dave  lives")


def test_skipped_texts_are_no_features():
    sample = tw.Text(WordTokenizer(), "Be brief . Where does Tom live ?", skip="Be brief .")
    assert sample.names == [["Where", "does", "Tom", "live", "?"]]
    assert sample.feature_mask["input_ids"].tolist() == [[-1, -1, -1, -1, 0, 1, 2, 3, 4]]


@pytest.mark.parametrize("method", [tw.IntegratedGradients, tw.DeepLIFT])
def test_gradients_of_texts_add_up_to_the_change(bert, method):
    e = method(bert).explain(tw.Text(WordTokenizer(ends=True), TEXTS, absent="pad"), 1)
    game = tw.ExactShapley(bert).attribute(tw.Text(WordTokenizer(ends=True), TEXTS, absent="pad"), 1)
    torch.testing.assert_close(e.attributions.sum(1), game.sum(1), atol=1e-4, rtol=1e-4)
    assert float(e.completeness_gap.max()) < 1e-4
    assert e.attributions[1, 4] == 0


def test_features_at_a_layer_are_those_of_the_ids(bert):
    sample = tw.Text(WordTokenizer(ends=True), TEXTS)
    at_layer = tw.ExactShapley(bert, layer="embeddings").attribute(sample, 1)
    torch.testing.assert_close(at_layer, tw.ExactShapley(bert).attribute(sample, 1), atol=1e-5, rtol=1e-5)


def test_a_function_of_texts():
    asked = []

    def remote(texts):
        asked.extend(texts)
        return [float(len(t.split()) ** 2) for t in texts]

    e = tw.ExactShapley(remote).explain(
        tw.Text(None, ["one two. three!", "four five"], units="sentence", absent="remove")
    )
    assert set(asked) == {"one two. three!", "one two.", "three!", "", "four five"}
    torch.testing.assert_close(e.attributions, torch.tensor([[6.0, 3.0], [4.0, 0.0]]))
    assert e.names == [["one two.", "three!"], ["four five"]]


@pytest.mark.parametrize(
    "make_it, error, words",
    [
        (lambda t: tw.Text(t, "a film", units="nothing"), ValueError, "matches nothing in 'a film'"),
        (lambda t: tw.Text(t, "a film", units="sentences"), ValueError, "'a film'; did you mean 'sentence'"),
        (lambda t: tw.Text(t, "a film", units="("), ValueError, "no regular expression"),
        (lambda t: tw.Text(t, "a film", units=3), TypeError, "units=3"),
        (lambda t: tw.Text(t, ["a film", ""]), ValueError, "row 1 is empty"),
        (lambda t: tw.Text(t, 3), TypeError, "got int"),
        (lambda t: tw.Text(t, []), ValueError, "none given"),
        (lambda t: tw.Text(t, "a film", ["no", "end"]), ValueError, "2 given for 1"),
        (lambda t: tw.Text(t, "a film", absent="gone"), ValueError, "absent='gone'"),
        (lambda t: tw.Text(t, "a film", absent=None), TypeError, "absent=None"),
        (lambda t: tw.Text(t, "a film", skip="dull"), ValueError, "skip='dull'"),
        (lambda t: tw.Text(t, "a film", skip=["a", "film"]), ValueError, "nothing is left"),
        (
            lambda t: tw.ExactShapley(len).attribute(tw.Text(t, "a film")),
            ValueError,
            "a function, which is given texts",
        ),
        (
            lambda t: tw.ExactShapley(len).attribute(tw.Text(t, "a", units="token", absent="remove")),
            ValueError,
            "token",
        ),
        (
            lambda t: tw.ExactShapley(nn.Linear(1, 1)).attribute(tw.Text(None, "a film")),
            TypeError,
            "give the tokenizer",
        ),
        (
            lambda t: tw.IntegratedGradients(make("bert")).attribute(tw.Text(t, "a film", absent="remove"), 1),
            ValueError,
            "give absent='pad'",
        ),
    ],
)
def test_nonsense_in_a_text_is_refused(make_it, error, words):
    with pytest.raises(error, match=words):
        make_it(WordTokenizer())


def test_a_token_that_there_is_not_is_refused():
    tokenizer = WordTokenizer()
    tokenizer.mask_token_id = None
    with pytest.raises(ValueError, match="absent='pad' or 'remove'"):
        tw.Text(tokenizer, "a film")


@pytest.mark.parametrize("method", [tw.SmoothGrad, tw.VarGrad])
def test_noise_around_the_embeddings_of_texts(bert, method):
    noisy = method(bert, n_samples=3, generator=0)
    e = noisy.explain(tw.Text(WordTokenizer(ends=True), ["Dave lives in Palm", "Tom lives"], units="lives|Palm|Tom"), 1)
    assert e.details["layer"] == "bert.embeddings"
    for row, (text, units) in enumerate([("Dave lives in Palm", [[2], [4]]), ("Tom lives", [[1], [2]])]):
        at_layer = method(bert, layer="embeddings", n_samples=3, generator=0)
        by_token = at_layer.attribute(ids_of(text, ends=True), 1).sum(2)[0]
        torch.testing.assert_close(e.features()[row], torch.stack([by_token[u].sum() for u in units]))
    each = noisy.explain_each(tw.Text(WordTokenizer(ends=True), "Dave lives"), [0, 2])
    for found, target in zip(each, (0, 2)):
        torch.testing.assert_close(
            found.attributions, noisy.attribute(tw.Text(WordTokenizer(ends=True), "Dave lives"), target)
        )
