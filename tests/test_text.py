"""Text: token ids are explained through the embedding layer, by its name or as "embeddings"."""

from collections import OrderedDict

import pytest
import torch
from nets import tiny_bert
from torch import nn

import torchwhy as tw
from torchwhy.engine.run.randomness import make_generator, normal_draws


@pytest.fixture(scope="module")
def bert():
    return tiny_bert(num_hidden_layers=2, initializer_range=0.3).double()


IDS = torch.tensor([[1, 7, 9, 12, 2], [1, 30, 31, 2, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
BLANK = torch.tensor([[1, 0, 0, 0, 2]])


def slow_ig(bert, row, target, steps=400):
    """The middle rule on the line between the two embeddings, through the layers above them, one point at a time."""
    with torch.no_grad():
        at, base = bert.bert.embeddings(IDS[row : row + 1]), bert.bert.embeddings(BLANK)
    total = torch.zeros_like(at)
    for k in range(steps):
        z = (base + (k + 0.5) / steps * (at - base)).requires_grad_()
        handle = bert.bert.embeddings.register_forward_hook(lambda m, i, o, z=z: z)
        try:
            out = bert(IDS[row : row + 1], attention_mask=MASK[row : row + 1]).logits[0, target]
        finally:
            handle.remove()
        total += torch.autograd.grad(out, z)[0]
    return ((at - base) * total / steps)[0]


def test_integrated_gradients_of_token_ids(bert):
    ig = tw.IntegratedGradients(bert, layer="embeddings", n_steps=60)
    e = ig.explain({"input_ids": IDS}, target=[1, 2], baselines=BLANK, additional_forward_args={"attention_mask": MASK})
    assert e.attributions.shape == (2, 5, 16)
    for row, target in enumerate([1, 2]):
        assert torch.allclose(e.attributions[row], slow_ig(bert, row, target), atol=1e-4)
    assert e.completeness_gap.max() < 1e-4
    named = tw.IntegratedGradients(bert, layer="bert.embeddings", n_steps=60)
    again = named.attribute(IDS, target=[1, 2], baselines=BLANK, additional_forward_args={"attention_mask": MASK})
    assert torch.equal(again, e.attributions)


def test_the_table_of_words_by_its_name_equals_captum(bert):
    captum = pytest.importorskip("captum.attr")
    theirs = captum.LayerIntegratedGradients(lambda ids: bert(ids).logits, bert.bert.embeddings.word_embeddings)
    expected = theirs.attribute(IDS, BLANK.expand(2, -1), target=1, n_steps=30)
    ig = tw.IntegratedGradients(bert, layer="bert.embeddings.word_embeddings", n_steps=30)
    assert torch.allclose(ig.attribute(IDS, 1, baselines=BLANK), expected, atol=1e-9)


@pytest.mark.parametrize(
    "method, options, data",
    [
        ("InputXGradient", {}, {}),
        ("DeepLIFT", {}, {"baselines": BLANK}),
        ("LRP", {}, {}),
        ("GradientSHAP", {"n_samples": 4, "generator": 0, "stdevs": 0.0}, {"baselines": BLANK}),
    ],
)
def test_other_methods_of_token_ids(bert, method, options, data):
    found = getattr(tw, method)(bert, layer="embeddings", **options).explain(IDS, 1, **data)
    assert found.attributions.shape == (2, 5, 16)
    assert found.attributions.abs().sum() > 0
    if method == "DeepLIFT":
        change = (bert(IDS).logits - bert(BLANK).logits)[:, 1]
        assert torch.allclose(found.attributions.sum((1, 2)), change.detach(), atol=1e-6)


def test_attributions_of_embeddings_are_measured_as_one_number_for_each_token(bert):
    of_embeddings = tw.InputXGradient(bert, layer="embeddings").attribute(IDS, 1)
    assert of_embeddings.shape == (2, 5, 16)
    for metric in (tw.metrics.deletion, tw.metrics.faithfulness_correlation):
        found, expected = (metric(bert, IDS, a, 1, baselines=0) for a in (of_embeddings, of_embeddings.sum(2)))
        torch.testing.assert_close(*(getattr(value, "scores", value) for value in (found, expected)))
    methods = {"embeddings": tw.InputXGradient(bert, layer="embeddings"), "summed": of_embeddings.sum(2)}
    table = tw.compare(bert, IDS, 1, methods, ["deletion", "sparseness"], baselines=0)
    for values in table.values.values():
        torch.testing.assert_close(values["embeddings"], values["summed"])


@pytest.mark.parametrize("batch_size", [1, 3, None])
@pytest.mark.parametrize("method", [tw.SmoothGrad, tw.SquareGrad, tw.VarGrad])
def test_noise_goes_to_the_embeddings_of_token_ids(bert, method, batch_size):
    more = {"additional_forward_args": {"attention_mask": MASK}}
    noisy = method(bert, layer="embeddings", noise_level=0.2, n_samples=4, generator=0, batch_size=batch_size)
    found = noisy.attribute({"input_ids": IDS}, [1, 2], **more)
    with torch.no_grad():
        at = bert.bert.embeddings(IDS)
    noise = normal_draws(at, make_generator(0))[torch.arange(4)].double()
    sigma = 0.2 * (at.amax((1, 2)) - at.amin((1, 2)))
    for row, target in enumerate([1, 2]):
        slopes = []
        for k in range(4):
            z = (at[row : row + 1] + sigma[row] * noise[k]).requires_grad_()
            handle = bert.bert.embeddings.register_forward_hook(lambda m, i, o, z=z: z)
            try:
                out = bert(IDS[row : row + 1], attention_mask=MASK[row : row + 1]).logits[0, target]
            finally:
                handle.remove()
            slopes.append(torch.autograd.grad(out, z)[0][0])
        slopes = torch.stack(slopes)
        expected = {
            tw.SmoothGrad: slopes.mean(0).abs(),
            tw.SquareGrad: slopes.square().mean(0),
            tw.VarGrad: slopes.var(0, unbiased=False),
        }[method]
        torch.testing.assert_close(found[row], expected)


def test_noise_has_no_meaning_for_token_ids(bert):
    word_table = "bert.embeddings.word_embeddings"
    for noisy in (
        tw.SmoothGrad(bert, layer=word_table, n_samples=2),
        tw.SmoothGrad(
            bert, layer=word_table, stdevs=0.1, n_samples=2
        ),  # would change no rounded id: the plain gradient
    ):
        with pytest.raises(TypeError, match=r"noise has no meaning for whole numbers.*layer='embeddings'"):
            noisy.attribute(IDS, 1)
    with pytest.raises(TypeError, match="integers have no gradient; pass their embeddings as the inputs"):
        tw.SmoothGrad(bert, of=tw.InputXGradient(bert, layer="embeddings"), n_samples=2).attribute(IDS, 1)
    z = {"inputs_embeds": bert.bert.embeddings.word_embeddings(IDS).detach()}
    found = tw.SmoothGrad(bert, stdevs=0.1, n_samples=4, generator=0).attribute(z, 1)["inputs_embeds"]
    assert found.shape == (2, 5, 16)
    assert not torch.allclose(found, tw.Saliency(bert).attribute(z, 1)["inputs_embeds"])


def test_noise_passes_whole_numbers_among_several_inputs():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.lin = nn.Embedding(50, 4), nn.Linear(4, 2)

        def forward(self, values, ids):
            return self.lin(values.tanh() + self.table(ids).mean(1))

    net, data = Mixed().eval(), (torch.randn(2, 4), IDS)
    found = tw.SmoothGrad(net, layer="lin", attribute_to_layer_input=True, noise_level=0.5, generator=0).attribute(
        data, 1
    )
    assert found.shape == (2, 4)
    assert torch.allclose(found, net.lin.weight[1].abs().expand(2, -1), atol=1e-6)


def test_shapley_values_of_whole_tokens(bert):
    """Tokens replaced by the blank one, in all coalitions."""
    got = tw.ExactShapley(bert).attribute(IDS, 1, baselines=BLANK)
    assert got.shape == (2, 5)
    change = (bert(IDS).logits - bert(BLANK.expand(2, -1)).logits)[:, 1]
    assert torch.allclose(got.double().sum(1), change.detach(), atol=1e-5)


def test_coloured_text():
    from torchwhy.visualize import colored_text

    html = colored_text(["good", "##ness", "no"], torch.tensor([1.0, 0.5, -1.0]))
    assert "good" in html
    assert "no</span>" in html


def test_what_embeddings_means():
    class Named(nn.Module):
        def __init__(self, **tables):
            super().__init__()
            for name, table in tables.items():
                setattr(self, name, table)

        def forward(self, ids):
            return sum(table(ids) for table in self.children()).sum((1, 2))

    ids = torch.tensor([[1, 2, 3]])
    only = Named(wte=nn.Embedding(5, 4))
    assert tw.LayerActivation(only, layer="embeddings").attribute(ids).equal(only.wte(ids))
    two = Named(words=nn.Embedding(5, 4), kinds=nn.Embedding(5, 4))
    with pytest.raises(LookupError, match="2 embedding tables, words, kinds: name one"):
        tw.LayerActivation(two, layer="embeddings").attribute(ids)
    two.get_input_embeddings = lambda: two.words
    assert tw.LayerActivation(two, layer="embeddings").attribute(ids).equal(two.words(ids))
    outer = Named(embeddings=nn.Sequential(OrderedDict(embeddings=nn.Embedding(5, 4), norm=nn.LayerNorm(4))))
    assert tw.LayerActivation(outer, layer="embeddings").attribute(ids).equal(outer.embeddings(ids))
    with pytest.raises(LookupError, match="no embedding table"):
        tw.LayerActivation(nn.Sequential(nn.Linear(3, 2)), layer="embeddings").attribute(torch.rand(1, 3))
    with pytest.raises(TypeError, match="explain by the embedding layer, layer='wte'"):
        tw.Saliency(only).attribute(ids)


ABOUT = {"token_type_ids": torch.zeros_like(IDS), "attention_mask": MASK}  # what a tokenizer gives besides


@pytest.mark.parametrize(
    "method",
    [tw.ExactShapley, tw.KernelSHAP, tw.LIME, tw.FeatureAblation, tw.FeaturePermutation],
    ids=lambda m: m.__name__,
)
@pytest.mark.parametrize("by_name", [True, False])
def test_what_a_tokenizer_says_about_tokens_is_no_feature(bert, method, by_name):
    inputs = {"input_ids": IDS, **ABOUT} if by_name else (IDS, MASK)
    with pytest.raises(TypeError, match=r"'attention_mask' would be masked.*additional_forward_args.*tw.Text"):
        method(bert).attribute(inputs, 1)


def test_metrics_mask_no_fact_about_tokens_either(bert):
    inputs = {"input_ids": IDS, **ABOUT}
    e = tw.InputXGradient(bert, layer="embeddings").explain(inputs, 1)
    with pytest.raises(TypeError, match="'token_type_ids', 'attention_mask' would be masked"):
        tw.metrics.deletion(bert, inputs, {key: e.attributions.sum(-1) for key in inputs}, 1)


@pytest.mark.parametrize("name", ["IntegratedGradients", "InputXGradient", "DeepLIFT", "AttentionRollout"])
def test_methods_that_mask_no_input_take_what_a_tokenizer_gives(bert, name):
    settings = {} if name == "AttentionRollout" else {"layer": "embeddings"}
    method = tw.methods()[name](bert, **settings)
    given = method.attribute({"input_ids": IDS, **ABOUT}, 1)
    assert torch.equal(given, method.attribute({"input_ids": IDS}, 1, additional_forward_args=ABOUT))


def test_a_fact_about_tokens_that_is_meant_is_a_feature(bert):
    inputs, each = {"input_ids": IDS, "attention_mask": MASK}, torch.arange(5)
    shapley = tw.ExactShapley(bert)
    together = shapley.explain(inputs, 1, feature_mask={"input_ids": each, "attention_mask": each})
    assert together.evaluations == 2 * 2**5  # a token is away when its id is that of padding and nobody attends to it
    alone = shapley.explain({"attention_mask": MASK}, 1, additional_forward_args={"input_ids": IDS})
    assert alone.attributions["attention_mask"].abs().max() > 1e-3
    soft = {"input_ids": IDS, "attention_mask": MASK.double()}  # how much a token is attended to
    assert shapley.explain({k: v[:1] for k, v in soft.items()}, 1).evaluations == 2**10


@pytest.mark.parametrize("text", ["a film", ["a film", "dull"]])
def test_texts_alone_are_refused_with_what_takes_them(bert, text):
    with pytest.raises(TypeError, match=r"tw\.Text or tw\.Prompt"):
        tw.KernelSHAP(bert).attribute(text, 1)


def test_lists_of_token_ids_are_refused_with_what_makes_tensors_of_them(bert):
    with pytest.raises(TypeError, match="return_tensors='pt'"):
        tw.KernelSHAP(bert).attribute({"input_ids": IDS.tolist()}, 1)
