"""Targets with a name give what a plain loop over rows gives, and so do their gradients."""

import math

import pytest
import torch
from nets import inputs, make
from torch import nn

import torchwhy as tw
from torchwhy.targets import Contrast, Entropy, LogProb, Probability

LABELS = [2, 0, 1]


class Language(nn.Module):
    """Rows (N, 5) → logits (N, 4 positions, 6 tokens)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 24)

    def forward(self, x):
        return torch.tanh(self.linear(x)).view(-1, 4, 6) * 2


def language():
    torch.manual_seed(0)
    return Language().double(), inputs("smooth")


def softmax(logits):
    """The probabilities of one row, one by one."""
    e = [math.exp(v) for v in logits.tolist()]
    return [v / sum(e) for v in e]


def scores(target, output, rows=None):
    """What a target says of each row of an output, checked for as many rows."""
    rows = torch.arange(len(output)) if rows is None else rows
    return target.for_rows(len(output))(output, rows).tolist()


def same_gradients(net, x, target, plain):
    """Check the scores and gradients of each row's own part of the model, whatever calls it is cut into."""
    for method, options in ((tw.Saliency, {"signed": True}), (tw.IntegratedGradients, {"n_steps": 3})):
        alone = [lambda o, i=i: torch.stack([plain(row, i) for row in o]) for i in range(len(x))]
        expected = torch.cat([method(net, **options).attribute(x[i : i + 1], f) for i, f in enumerate(alone)])
        for batch_size in (None, 1, 2):
            found = method(net, batch_size=batch_size, **options).attribute(x, target)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


# ---- probabilities


@pytest.mark.parametrize("labels", [LABELS, tuple(LABELS), torch.tensor(LABELS)], ids=["list", "tuple", "tensor"])
def test_the_probability_of_each_rows_label(labels):
    net, x = make("smooth"), inputs("smooth")
    out = net(x)
    assert scores(Probability(labels), out) == pytest.approx([softmax(out[i])[k] for i, k in enumerate(LABELS)])
    assert scores(Probability(1), out) == pytest.approx([softmax(row)[1] for row in out])
    same_gradients(net, x, Probability(labels), lambda o, i: o.softmax(0)[LABELS[i]])


def test_without_labels_the_probability_of_the_predicted_class():
    net, x = make("smooth"), inputs("smooth", 6)
    out = net(x)
    predicted = out.argmax(1).tolist()
    assert len(set(predicted)) > 1
    found = tw.IntegratedGradients(net, n_steps=3, batch_size=2).explain(x, Probability())
    expected = tw.IntegratedGradients(net, n_steps=3).attribute(x, Probability(predicted))  # also at the baseline
    torch.testing.assert_close(found.attributions, expected)
    assert found.target.labels == predicted
    assert scores(Probability(), out) == pytest.approx([max(softmax(row)) for row in out])


def test_an_output_that_holds_probabilities_is_left_as_it_is():
    net, x = make("smooth"), inputs("smooth")
    whole = nn.Sequential(net, nn.Softmax(1))
    for target in (Probability(LABELS), LogProb(LABELS), Entropy()):
        a, b = (tw.IntegratedGradients(m, n_steps=3).attribute(x, target) for m in (net, whole))
        torch.testing.assert_close(a, b)
    chances = torch.tensor([[0.2, 0.8]])
    assert scores(Probability(1), chances) == pytest.approx([0.8])
    assert scores(Probability(1, from_logits=True), chances) == pytest.approx([softmax(chances[0])[1]])
    assert scores(Probability(1, from_logits=False), chances * 2) == pytest.approx([1.6])


def test_whether_outputs_are_probabilities_is_seen_once():
    score = Probability(0).for_rows(1)
    row = torch.tensor([0])
    assert score(torch.tensor([[3.0, 0.0]]), row).item() == pytest.approx(softmax(torch.tensor([3.0, 0]))[0])
    assert score(torch.tensor([[1.0, 0.0]]), row).item() == pytest.approx(softmax(torch.tensor([1.0, 0]))[0])
    score = Probability(0).for_rows(1)
    assert score(torch.tensor([[1.0, 0.0]]), row).item() == 1
    assert score(torch.tensor([[3.0, 0.0]]), row).item() == 3


def test_metrics_take_it_as_they_take_a_class():
    net, x = make("smooth"), inputs("smooth")
    a = torch.randn(3, 5, dtype=torch.double)
    expected = tw.metrics.deletion(net, x, a, LABELS, softmax=True)
    for target, softmax_ in ((Probability(LABELS), False), (Probability(LABELS), True)):
        found = tw.metrics.deletion(net, x, a, target, softmax=softmax_)
        assert found.scores.equal(expected.scores)
    one = tw.metrics.deletion(net, x, a, 1, softmax=True).scores
    torch.testing.assert_close(one[:, 0], net(x).softmax(1)[:, 1].double())


# ---- tokens


@pytest.mark.parametrize("position", [-1, 1, [0, 3, -2], torch.tensor([3, 2, 0])], ids=str)
def test_the_log_probability_of_a_token(position):
    net, x = language()
    where = torch.as_tensor(position).expand(3).tolist()
    target, out = LogProb(LABELS, position), net(x)
    expected = [math.log(softmax(out[i, p])[k]) for i, (p, k) in enumerate(zip(where, LABELS))]
    assert scores(target, out) == pytest.approx(expected)
    same_gradients(net, x, target, lambda o, i: o[where[i]].log_softmax(0)[LABELS[i]])
    assert scores(LogProb(LABELS), out[:, 1]) == pytest.approx(
        [math.log(softmax(out[i, 1])[k]) for i, k in enumerate(LABELS)]
    )


def test_a_contrast_is_a_difference():
    net, x = language()
    out, others = net(x).detach(), [5, 5, 4]
    expected = [float(out[i, -1, a] - out[i, -1, b]) for i, (a, b) in enumerate(zip(LABELS, others))]
    assert scores(Contrast(LABELS, others), out) == pytest.approx(expected)
    assert scores(Contrast(2, 5, position=1), out) == pytest.approx((out[:, 1, 2] - out[:, 1, 5]).tolist())
    same_gradients(net, x, Contrast(LABELS, others), lambda o, i: o[-1, LABELS[i]] - o[-1, others[i]])
    classes = make("smooth")
    found = tw.Saliency(classes, signed=True).attribute(x, Contrast(0, LABELS))
    same = tw.Saliency(classes, signed=True).attribute(
        x, lambda o, rows: o[:, 0] - o[torch.arange(len(o)), torch.tensor(LABELS)[rows]]
    )
    torch.testing.assert_close(found, same)


def test_entropy():
    net, x = language()
    out = net(x)
    expected = [-sum(p * math.log(p) for p in softmax(row[-1])) for row in out]
    assert scores(Entropy(), out) == pytest.approx(expected)
    same_gradients(net, x, Entropy(position=2), lambda o, i: -(o[2].softmax(0) * o[2].log_softmax(0)).sum())
    assert scores(Entropy(), torch.tensor([[0.0, 1.0], [0.5, 0.5]])) == pytest.approx([0, math.log(2)])  # probabilities


class WordTokenizer:
    """Words and blanks as tokens, as much of a tokenizer as is asked for."""

    words = ("<s>", " ", "Berlin", " Berlin", "Mad", "rid", "Rome")

    def __call__(self, text, *, add_special_tokens):
        ids, left = [] if not add_special_tokens else [0], text
        while left:
            word = max((w for w in self.words if left.startswith(w)), key=len)
            ids.append(self.words.index(word))
            left = left[len(word) :]
        return {"input_ids": ids}

    def decode(self, ids):
        return "".join(self.words[i] for i in ids)


def test_texts_become_tokens():
    tokenizer = WordTokenizer()
    assert LogProb(" Berlin", -2).resolve(tokenizer).token == 3
    assert LogProb(" Berlin", -2).resolve(tokenizer).position == -2
    assert LogProb(["Rome", 5]).resolve(tokenizer).token == [6, 5]
    assert LogProb(" Rome").resolve(tokenizer).token == 6  # a blank of its own before it
    assert LogProb(" ").resolve(tokenizer).token == 1
    both = Contrast("Rome", "Berlin", position=1).resolve(tokenizer)
    assert (both.a, both.b, both.position) == (6, 2, 1)
    assert LogProb(torch.tensor([1, 2])).resolve(tokenizer).token.tolist() == [1, 2]
    with pytest.raises(ValueError, match=r"token='Madrid': 2 tokens .*\['Mad', 'rid'\]"):
        LogProb("Madrid").resolve(tokenizer)
    with pytest.raises(ValueError, match=r"a='Madrid': 2 tokens .*response of a tw.Prompt"):
        Contrast("Madrid", "Rome").resolve(tokenizer)
    with pytest.raises(ValueError, match="a=' Rome': a text needs a tokenizer"):
        tw.Saliency(make("smooth")).attribute(inputs("smooth"), Contrast(" Rome", 1))
    with pytest.raises(ValueError, match="a text needs a tokenizer"):
        LogProb(["a", 1])(torch.zeros(2, 3), torch.tensor([0, 1]))


class Pieces(WordTokenizer):
    """Words that are one token behind a blank alone, and a token for what is unknown."""

    words, unk_token_id = ("<unk>", " ninety", "n", "inety", "three", " "), 0

    def __call__(self, text, *, add_special_tokens):
        if not any(text.strip().startswith(w.strip() or "?") for w in self.words):
            return {"input_ids": [0]}
        return super().__call__(text, add_special_tokens=add_special_tokens)


def test_a_blank_that_was_forgotten_and_a_text_that_is_unknown():
    assert Contrast("three", " ninety").resolve(Pieces()).b == 1
    with pytest.raises(ValueError, match=r"b='ninety': 2 tokens .* did you mean ' ninety', which is one token"):
        Contrast("three", "ninety").resolve(Pieces())
    with pytest.raises(ValueError, match="token='Rome': this tokenizer does not know it, and has '<unk>'"):
        LogProb("Rome").resolve(Pieces())
    assert LogProb("<unk>").resolve(Pieces()).token == 0


# ---- places in outputs of more dimensions


def test_places_from_the_end():
    net, x = language()
    expected = tw.Saliency(net, signed=True).attribute(x, (3, 4))
    for target in ((-1, 4), (3, -2), (-1, -2), [(-1, 4), (3, -2), (-1, -2)]):
        assert tw.Saliency(net, signed=True).attribute(x, target).equal(expected)


@pytest.mark.parametrize("batch_size", [None, 1, 2])
def test_what_is_predicted_at_a_place(batch_size):
    net, x = language()
    out = net(x)
    method = tw.IntegratedGradients(net, n_steps=3, batch_size=batch_size)
    last = [(3, k) for k in out[:, -1].argmax(1).tolist()]
    found = method.explain(x, (-1, "predicted"))
    assert found.target == last
    torch.testing.assert_close(found.attributions, method.attribute(x, last))
    where = [(p, 2) for p in out[:, :, 2].argmax(1).tolist()]
    assert method.explain(x, ("predicted", 2)).target == where
    best = [divmod(i, 6) for i in out.flatten(1).argmax(1).tolist()]
    assert method.explain(x, ("predicted", "predicted")).target == best
    each = [(0, "predicted"), (1, 5), Probability()]
    mixed = method.explain(x, each).target
    assert mixed[:2] == [(0, int(out[0, 0].argmax())), (1, 5)]
    assert mixed[2].labels == [int(out[2, -1].argmax())]
    torch.testing.assert_close(
        method.attribute(x, each)[2], method.attribute(x, lambda o: o[:, -1].softmax(1)[:, mixed[2].labels[0]])[2]
    )


# ---- what makes no sense


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        (Probability([0, 1]), ValueError, "labels: 2 given for 3 rows"),
        (Probability([0, 1, 2, 2]), ValueError, "labels: 4 given for 3 rows"),
        (Probability(3), ValueError, r"labels: 3 is out of range, the output has 3 \(0 to 2\)"),
        (Probability([0, -1, 2]), ValueError, "labels: -1 is out of range"),
        (Probability(1.5), TypeError, "labels=1.5: expected an int, or one for each row"),
        (Probability(True), TypeError, "labels=True"),
        (Probability([0.5, 1, 2]), TypeError, "labels: .*float32"),
        (Probability([[0], [1], [2]]), TypeError, r"labels: .*shape \(3, 1\)"),
        (Probability("cat"), TypeError, "labels='cat'"),
        (LogProb([0, 1]), ValueError, "token: 2 given for 3 rows"),
        (LogProb(None), TypeError, "token=None"),
        (LogProb(1, [0, 1]), ValueError, "position: 2 given for 3 rows"),
        (Contrast(0, [1, 2]), ValueError, "b: 2 given for 3 rows"),
        ((-1, "likely"), ValueError, "the only word is 'predicted'"),
        ("likely", ValueError, "the only word is 'predicted'"),
        ((0, "predicted"), ValueError, r"has shape \(3, 3\)"),
        ((1.5, "predicted"), TypeError, "a tuple of ints and 'predicted'"),
    ],
    ids=str,
)
def test_nonsense_is_refused(target, error, message):
    with pytest.raises(error, match=message):
        tw.Saliency(make("smooth")).attribute(inputs("smooth"), target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ((-5, 0), "index -5 is out of range, the output has 4"),
        ((0, 6), "index 6 is out of range, the output has 6"),
        ([(0, 0), (-5, 0), (3, 0)], "index -5 is out of range"),
        ((4, "predicted"), "index 4 is out of range, the output has 4"),
        (("predicted", -7), "index -7 is out of range, the output has 6"),
        ("predicted", r"\(N, classes\).*\(3, 4, 6\).*'predicted'"),
        (LogProb(0, 4), "position=4: the output has 4 positions"),
        (LogProb(0, [0, -5, 1]), "the output has 4 positions"),
        (LogProb(6), "token: 6 is out of range, the output has 6"),
    ],
    ids=str,
)
def test_places_that_there_are_not(target, message):
    net, x = language()
    with pytest.raises(ValueError, match=message):
        tw.Saliency(net).attribute(x, target)


def test_outputs_of_other_dimensions():
    x = torch.rand(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r"Entropy needs an output \(N, classes\).*\(2, 3, 4, 4\)"):
        tw.Saliency(nn.Identity()).attribute(x, Entropy())
    with pytest.raises(ValueError, match=r"softmax is 1 everywhere.*sigmoid"):
        tw.Saliency(nn.Identity()).attribute(x[:, :1, 0, 0], Probability(0))


def test_a_target_of_ones_own():
    class Above(tw.targets.ScoreTarget):
        def __init__(self, bounds):
            self.bounds = bounds

        def __call__(self, output, rows):
            return output[:, 0] - self.bounds[rows]

    bounds = torch.tensor([1.0, 2, 3])
    found = tw.FeatureAblation(nn.Identity()).explain(torch.ones(3, 2), Above(bounds), baselines=0.5)
    assert found.attributions[:, 0].tolist() == [0.5] * 3
    with pytest.raises(NotImplementedError):
        tw.targets.ScoreTarget()(torch.ones(1, 1), torch.tensor([0]))


def test_looking_whether_outputs_are_probabilities_is_no_operation_of_the_score():
    model, x = language()
    for make_target in (lambda: LogProb(2), lambda: Probability([0, 1, 2]), lambda: Entropy()):
        found = tw.DeepLIFT(model, check=False).explain(
            x, make_target()
        )  # the baseline's run would be the first to look
        told = tw.DeepLIFT(model, check=False).explain(
            x, make_target().__class__(**{**vars(make_target()), "from_logits": True})
        )
        torch.testing.assert_close(found.attributions, told.attributions)
        assert found.details == told.details


@pytest.mark.parametrize(
    "make_it",
    [
        lambda: tw.targets.Probability(1, -1),
        lambda: tw.targets.LogProb(1, -1, True),
        lambda: tw.targets.Contrast(1, 2, -1),
        lambda: tw.targets.Entropy(-1),
    ],
    ids=["Probability", "LogProb", "Contrast", "Entropy"],
)
def test_how_an_output_is_read_is_said_by_name(make_it):
    with pytest.raises(TypeError, match="positional argument"):
        make_it()
