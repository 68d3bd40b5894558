"""``layer="embeddings"``: the table that turns the token ids that are given into vectors, whatever else the model has."""

import pytest
import torch
from language import VOCABULARY, WordTokenizer, ids_of, make
from torch import nn

import torchwhy as tw

IDS, OTHERS = ids_of("Dave lives in Palm Coast"), ids_of("Anna lives")
TOKEN = 7


def by_autograd(model, arguments, table, ids, score):
    """Input times gradient at the vectors that a table gives some ids, by a hook of its own."""
    kept = {}

    def hook(module, args, out):
        if "leaf" not in kept and args[0].shape == ids.shape and bool((args[0] == ids).all()):
            kept["leaf"] = out.detach().clone().requires_grad_()
            return kept["leaf"].clone()
        return None

    handle = table.register_forward_hook(hook)
    total = score(model(**arguments)).sum()
    handle.remove()
    (slope,) = torch.autograd.grad(total, kept["leaf"])
    return (slope * kept["leaf"]).detach()


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_an_encoder_decoder_has_both(kind):
    model = make(kind)
    inputs = {"input_ids": IDS, "decoder_input_ids": OTHERS}
    e = tw.InputXGradient(model, layer="embeddings").explain(inputs, lambda out: out.logits[:, -1, TOKEN])
    inner = model if kind == "t5" else model.model
    for name, part in (("input_ids", inner.encoder), ("decoder_input_ids", inner.decoder)):
        expected = by_autograd(model, inputs, part.embed_tokens, inputs[name], lambda out: out.logits[:, -1, TOKEN])
        torch.testing.assert_close(e.attributions[name], expected, atol=1e-5, rtol=1e-4)
    assert e.details["layer"].count("embed_tokens") == 2
    ig = tw.IntegratedGradients(model, n_steps=400, layer="embeddings").explain(
        inputs, lambda out: out.logits[:, -1, TOKEN], baselines=TOKEN
    )
    assert float(ig.completeness_gap) < 2e-3
    game = tw.FeatureAblation(model, layer="embeddings").attribute(
        inputs, lambda out: out.logits[:, -1, TOKEN], baselines=TOKEN,
        feature_mask={"input_ids": torch.arange(6)[:, None], "decoder_input_ids": 6 + torch.arange(3)[:, None]},
    )  # fmt: skip
    plain = tw.FeatureAblation(model).attribute(inputs, lambda out: out.logits[:, -1, TOKEN], baselines=TOKEN)
    for name in inputs:
        torch.testing.assert_close(game[name][..., 0], plain[name].to(game[name]), atol=1e-5, rtol=1e-4)
    source = tw.InputXGradient(model, layer="embeddings").attribute(
        {"input_ids": IDS}, lambda out: out.logits[:, -1, TOKEN], additional_forward_args={"decoder_input_ids": OTHERS}
    )
    torch.testing.assert_close(source, e.attributions["input_ids"])


@pytest.mark.parametrize("kind", ["gpt2", "llama", "bert"])
def test_a_wrapped_model_has_the_table_of_the_model_inside(kind):
    inner = make(kind)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.extra, self.m = nn.Embedding(3, 4), inner

        def forward(self, ids):
            return self.m(ids).logits.flatten(1)

    found = tw.InputXGradient(Wrapped().eval(), layer="embeddings").attribute(IDS, 1)
    expected = tw.InputXGradient(inner, layer="embeddings").attribute(IDS, lambda out: out.logits.flatten(1)[:, 1])
    torch.testing.assert_close(found, expected)


def test_a_prompt_of_an_encoder_decoder_is_explained_by_gradients():
    for kind in ("t5", "bart"):
        start = VOCABULARY["<pad>" if kind == "t5" else "<eos>"]
        model, prompt = make(kind), tw.Prompt(WordTokenizer(), ["Dave lives in Palm", "Tom"], "a lawyer", absent=TOKEN)
        e = tw.IntegratedGradients(model, tolerance=1e-3).explain(prompt)
        game = tw.ExactShapley(model).explain(prompt)
        torch.testing.assert_close(e.attributions.sum(1), game.attributions.sum(1), atol=1e-2, rtol=2e-3)
        expected = by_autograd(
            model,
            {"input_ids": ids_of("Tom"), "decoder_input_ids": torch.tensor([[start, VOCABULARY["a"]]])},
            (model if kind == "t5" else model.model).encoder.embed_tokens,
            ids_of("Tom"),
            lambda out: out.logits.log_softmax(2).gather(2, ids_of("a lawyer", special=False)[..., None])[..., 0].sum(1),
        )  # fmt: skip
        found = tw.InputXGradient(model).explain(prompt).features()[1]
        torch.testing.assert_close(found, expected.sum(2)[0, 1:], atol=1e-5, rtol=1e-4)


def llava():
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 3}
    vision = transformers.CLIPVisionConfig(**sizes, image_size=16, patch_size=8)
    text = transformers.LlamaConfig(vocab_size=50, num_key_value_heads=3, pad_token_id=2, **sizes)
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(
        transformers.LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=48,
            vision_feature_layer=-1,
            image_seq_length=4,
            vision_feature_select_strategy="default",
        )
    ).eval()


def test_the_words_of_a_vision_language_model_not_its_patches():
    model = llava()
    ids = torch.tensor([[48, 48, 48, 48, 5, 6, 9]])
    inputs = {"input_ids": ids, "pixel_values": torch.rand(1, 3, 16, 16)}
    e = tw.InputXGradient(model, layer="embeddings").explain(inputs, (6, TOKEN))
    assert e.attributions.shape == (1, 7, 24)
    assert bool((e.attributions[0, :4] == 0).all())  # the picture's vectors take their place
    assert "vision" not in e.details["layer"]


def test_two_texts_through_one_table_are_two_calls():
    class Siamese(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(50, 6), nn.Linear(6, 6)

        def forward(self, a, b):
            left, right = (torch.tanh(self.out(self.words(ids))).mean(1) for ids in (a, b))
            return (left * right).sum(1)

    torch.manual_seed(0)
    model = Siamese().eval()
    found = tw.IntegratedGradients(model, layer="embeddings").explain((IDS, OTHERS), baselines=3)
    assert [tuple(t.shape) for t in found.attributions] == [(1, 6, 6), (1, 3, 6)]
    assert float(found.completeness_gap) < 1e-5
    with torch.no_grad():
        change = model(IDS, OTHERS) - model(torch.full_like(IDS, 3), torch.full_like(OTHERS, 3))
    torch.testing.assert_close(sum(t.sum() for t in found.attributions), change[0], atol=1e-5, rtol=1e-5)


def test_what_is_not_clear_is_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.kinds = nn.Embedding(50, 4), nn.Embedding(50, 4)

        def forward(self, ids):
            return (self.words(ids) + self.kinds(ids)).sum((1, 2))

    with pytest.raises(LookupError, match="2 embedding tables, words, kinds: name one"):
        tw.InputXGradient(Two(), layer="embeddings").attribute(IDS)
    with pytest.raises(LookupError, match="no embedding table"):
        tw.InputXGradient(nn.Linear(2, 1), layer="embeddings").attribute(torch.rand(1, 2))

    class Positions(Two):
        def forward(self, ids):
            return (self.words(ids) + self.kinds(torch.arange(1, 1 + ids.shape[1]))).sum((1, 2))

    e = tw.InputXGradient(Positions(), layer="embeddings").explain(IDS)
    assert e.details["layer"] == "words"
