"""Circuits in GPT-2, Llama with grouped keys and T5, against hooks: units, edges, the lenses, direct logits, latents."""

from functools import partial

import numpy as np
import pytest
import torch
from cases import in_turn
from reference import circuits as slow
from torch import nn

import torchwhy as tw
from torchwhy.circuits.logit_lens import LensReading

transformers = pytest.importorskip("transformers")
from test_patching import MODELS, PROJECTIONS, build, margin, name_of  # noqa: E402

CLOSE = {"rtol": 1e-6, "atol": 1e-9}
POSITIONS = [(torch.arange(7) == t)[:, None] for t in range(7)]
HEADS = [(torch.arange(32) // 8 == h) for h in range(4)]
BOTH = [p & h for p in POSITIONS for h in HEADS]


def runs(name):
    """The model, two functions that run it on the clean and the corrupted texts, and the call of a method."""
    model, blocks, clean, corrupted, more = build(name)
    call = {"inputs": {"input_ids": clean}, "target": margin, "additional_forward_args": more}
    places = [(model.get_submodule(name_of(block)), False) for block in blocks]
    clean_run, corrupted_run = (partial(model, ids, **(more or {})) for ids in (clean, corrupted))
    return model, clean_run, corrupted_run, {**call, "baselines": corrupted}, places


def lengths(name):
    """How many positions the blocks have."""
    return [7, 7, 3, 3] if name == "t5" else [7, 7, 7]


@pytest.mark.parametrize("name, denoise", in_turn(MODELS, [False, True], 1))
def test_positions_of_all_blocks(name, denoise):
    model, run, other, call, places = runs(name)
    one, two, sign = (other, run, -1) if denoise else (run, other, 1)
    exact = tw.ActivationPatching(model, denoise=denoise).attribute(**call)
    fast = tw.AttributionPatching(model, denoise=denoise).attribute(**call)
    assert exact.shape == fast.shape == (2, len(places), 7)
    for i, (place, n) in enumerate(zip(places, lengths(name))):
        units = [p[:n] for p in POSITIONS[:n]]
        for found, reference in ((exact, slow.activation_patching), (fast, slow.attribution_patching)):
            torch.testing.assert_close(found[:, i, :n], sign * reference(one, two, margin, place, units), **CLOSE)
            assert not found[:, i, n:].any()
    assert bool(exact.any())


@pytest.mark.parametrize("name", MODELS)
def test_heads(name):
    model, run, other, call, _ = runs(name)
    place = (model.get_submodule(PROJECTIONS[name]), True)
    n, layer = (3 if name == "t5" else 7), tw.Layer(PROJECTIONS[name], input=True)
    both = [b[:n] for b in BOTH[: 4 * n]]
    for units, masks, shape in (
        ("head", HEADS, (4,)),
        ("position and head", both, (n, 4)),
        ("layer", [HEADS[0] | ~HEADS[0]], (1,)),
    ):
        exact = tw.ActivationPatching(model, layer=layer, units=units).attribute(**call)
        fast = tw.AttributionPatching(model, layer=layer, units=units).attribute(**call)
        assert exact.shape == fast.shape == (2, 1, *shape)
        torch.testing.assert_close(
            exact.flatten(1), slow.activation_patching(run, other, margin, place, masks), **CLOSE
        )
        torch.testing.assert_close(
            fast.flatten(1), slow.attribution_patching(run, other, margin, place, masks), **CLOSE
        )
    every = tw.ActivationPatching(model, units="head").explain(**call)
    own = tw.ActivationPatching(model, layer=layer, units="head", heads=4).attribute(**call)
    assert every.details["axes"] == ["layer", "head"]
    assert any(torch.allclose(every.attributions[:, i], own[:, 0]) for i in range(every.attributions.shape[1]))


def test_the_cost_is_as_stated():
    model, _, _, call, _ = runs("gpt2")
    assert tw.AttributionPatching(model, check=False).explain(**call).evaluations == 2 * 2
    assert tw.ActivationPatching(model, check=False).explain(**call).evaluations == 2 * (2 + 3 * 8)
    assert tw.EdgeAttribution(model, check=False).explain(**call).evaluations == 2 * 2
    assert tw.EdgeAttribution(model, check=False, n_steps=5).explain(**call).evaluations == 2 * (2 + 5 + 2) + 1
    del call["baselines"]
    assert tw.LogitLens(model, check=False).explain(**call).evaluations == 2 * (3 + 1)


# ---- edges


class Norm(nn.Module):
    """A norm that changes nothing, so that the model is linear."""

    def forward(self, x):
        return x * 1.0


class Mixing(nn.Module):
    """What an attention with fixed weights does."""

    def __init__(self, width, length):
        super().__init__()
        self.at = nn.Parameter(torch.randn(length, length).tril() / length)
        self.value = nn.Linear(width, width)

    def forward(self, x):
        return self.at @ self.value(x), None


class LinearBlock(nn.Module):
    def __init__(self, width, length):
        super().__init__()
        self.norm_1, self.attn, self.norm_2, self.mlp = Norm(), Mixing(width, length), Norm(), nn.Sequential()
        self.mlp.append(nn.Linear(width, width))

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))[0]
        return x + self.mlp(self.norm_2(x))


class LinearTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.h = nn.Embedding(20, 6), nn.ModuleList([LinearBlock(6, 5) for _ in range(3)])
        self.norm, self.head = Norm(), nn.Linear(6, 4)
        self.double()

    def forward(self, ids):
        x = self.table(ids)
        for block in self.h:
            x = block(x)
        return self.head(self.norm(x))[:, -1]


def edges_of(model, stack):
    """The places of senders and receivers by hand."""
    writes, reads = [], []
    for block in stack:
        norms = [m for n, m in block.named_modules() if "norm" in n or n.startswith("ln_")]
        parts = [block.attn if hasattr(block, "attn") else block.self_attn, block.mlp]
        reads += [(norm, True) for norm in norms]
        writes += [(part, False) for part in parts]
    return [(reads[0][0], True), *writes], [*reads, (model, True)]


def test_edges_of_a_linear_model_are_path_patching():
    model = LinearTransformer()
    ids = torch.randint(0, 20, (2, 2, 5), generator=torch.Generator().manual_seed(1))
    run, other = (partial(model, i) for i in ids)
    writes, reads = edges_of(model.norm, model.h)
    order = torch.arange(7)

    def score(output):
        return output[:, 2]

    by_hand = slow.path_patching(run, other, score, writes, reads)
    by_hand = by_hand * (order[:, None] <= order)  # a sender that runs later reaches nothing
    for n_steps in (None, 3):
        e = tw.EdgeAttribution(model, n_steps=n_steps).explain(ids[0], 2, baselines=ids[1])
        assert e.details["columns"] == ["0.attn", "0.mlp", "1.attn", "1.mlp", "2.attn", "2.mlp", "output"]
        torch.testing.assert_close(e.attributions, by_hand, **CLOSE)
    whole = e.scores - model(ids[1])[:, 2].detach()
    torch.testing.assert_close(e.attributions[:, :, -1].sum(1), whole)


def test_edges_of_a_transformer():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=40, n_embd=32, n_layer=2, n_head=4, n_positions=16, initializer_range=0.15
    )
    model = transformers.GPT2LMHeadModel(config).double().eval()
    ids = torch.randint(1, 40, (2, 4, 7), generator=torch.Generator().manual_seed(2))
    ids[1, :, [0, 1, 3, 4, 5, 6]] = ids[0, :, [0, 1, 3, 4, 5, 6]]
    run, other = (partial(model, i) for i in ids)
    writes, reads = edges_of(model.transformer.ln_f, model.transformer.h)
    upper = torch.ones(5, 5, dtype=torch.bool).triu()
    plain = tw.EdgeAttribution(model).attribute(ids[0], margin, baselines=ids[1])
    by_hand = slow.edge_attribution(run, other, margin, writes, reads) * upper
    torch.testing.assert_close(plain, by_hand, **CLOSE)
    exact = slow.path_patching(run, other, margin, writes, reads)[:, upper]
    for found in (plain, tw.EdgeAttribution(model, n_steps=8).attribute(ids[0], margin, baselines=ids[1])):
        assert np.corrcoef(found[:, upper].flatten(), exact.flatten())[0, 1] > 0.9


@pytest.mark.parametrize("name", MODELS)
def test_edges_of_every_model(name):
    model, _, _, call, _ = runs(name)
    e = tw.EdgeAttribution(model, n_steps=2).explain(**call)
    s = len(e.details["layers"])
    assert e.attributions.shape == (2, s, s)
    order = torch.arange(s)
    assert not e.attributions[:, order[:, None] > order].any()  # nothing goes back
    assert bool(e.attributions.any())
    with pytest.raises(ValueError, match="give components="):
        tw.EdgeAttribution(model, layer="x")
    with pytest.raises(TypeError, match=r"components=.*: expected a list"):
        tw.EdgeAttribution(model, components=["x"])


def test_components_of_your_own():
    model = LinearTransformer()
    ids = torch.randint(0, 20, (2, 2, 5), generator=torch.Generator().manual_seed(1))
    parts = [
        tw.circuits.Component("start", writes=tw.Layer("h.0.norm_1", input=True)),
        tw.circuits.Component("mlp", tw.Layer("h.1.norm_2", input=True), tw.Layer("h.1.mlp")),
        tw.circuits.Component("end", tw.Layer("norm", input=True)),
    ]
    every = tw.EdgeAttribution(model).attribute(ids[0], 2, baselines=ids[1])
    some = tw.EdgeAttribution(model, components=parts).attribute(ids[0], 2, baselines=ids[1])
    torch.testing.assert_close(some, every[:, [0, 4]][:, :, [3, 6]])
    of_method = tw.EdgeAttribution(model.forward, components=parts).attribute(ids[0], 2, baselines=ids[1])
    torch.testing.assert_close(of_method, some)


@pytest.mark.parametrize("n_steps", [None, 3])
@pytest.mark.parametrize("kind", ["largest", "mean", "strided", "finer"])
def test_ends_of_an_edge_that_have_other_shapes_are_refused(kind, n_steps):
    between = {
        "largest": torch.nn.MaxPool1d(2), "mean": torch.nn.AvgPool1d(3), "strided": torch.nn.Conv1d(4, 4, 2, stride=2),
        "finer": torch.nn.Upsample(scale_factor=2),
    }[kind]  # fmt: skip
    net = torch.nn.Sequential(
        torch.nn.Conv1d(3, 4, 1), between, torch.nn.Conv1d(4, 4, 1), torch.nn.Flatten(), torch.nn.LazyLinear(2)
    )
    x = torch.rand(2, 3, 12)
    net(x)
    parts = [
        tw.circuits.Component("first", writes=tw.Layer("0")),
        tw.circuits.Component("second", tw.Layer("2", input=True), tw.Layer("2")),
    ]
    method = tw.EdgeAttribution(net.eval(), components=parts, n_steps=n_steps)
    with pytest.raises(
        ValueError, match=r"components: 'first' writes \(4, 12\) and 'second' reads \(4, \d+\) for a row"
    ):
        method.attribute(x, 1)


# ---- the lenses, and direct logits


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_the_logit_lens(name):
    model, run, _, call, places = runs(name)
    call.pop("baselines")
    e = tw.LogitLens(model).explain(**call)
    torch.testing.assert_close(e.attributions, slow.logit_lens(run, margin, places), **CLOSE)
    torch.testing.assert_close(e.attributions[:, -1], e.scores)
    said = tw.LogitLens(model).read(call["inputs"], top=2)
    (state,) = slow.read(run, places[1:2])
    last, head = (model.transformer.ln_f, model.lm_head) if name == "gpt2" else (model.model.norm, model.lm_head)
    probabilities, tokens = head(last(state)).softmax(-1).topk(2)
    torch.testing.assert_close(said.probabilities[:, 1], probabilities.detach(), **CLOSE)
    assert torch.equal(said.tokens[:, 1], tokens)
    figure = said.plot(decode=lambda ids: f"<{ids[0]}>", names=list("abcdefg"))
    words = [t.get_text() for t in figure.get_axes()[0].texts]
    assert words == [f"<{t}>" for t in said.tokens[0, ..., 0].flatten().tolist()]
    assert len(said.to_dataframe()) == said.tokens.numel()


def test_the_tuned_lens():
    model, run, _, call, places = runs("gpt2")
    call.pop("baselines")
    lens = tw.TunedLens(model, n_steps=25, learning_rate=0.03)
    plain = tw.LogitLens(model).attribute(**call)
    torch.testing.assert_close(lens.attribute(**call), plain)
    texts = torch.randint(1, 40, (16, 7), generator=torch.Generator().manual_seed(5))
    lens.fit([{"input_ids": texts[:8]}, {"input_ids": texts[8:]}])
    assert all(after < 0.6 * before for before, after in lens.losses)
    w, b = lens.maps[0]

    def change(number, state):
        return state + state @ lens.maps[number][0].T + lens.maps[number][1] if number in lens.maps else state

    torch.testing.assert_close(lens.attribute(**call), slow.logit_lens(run, margin, places, change), **CLOSE)
    assert w.shape == (32, 32)
    assert b.shape == (32,)
    assert not any(p.grad is not None for p in model.parameters())
    with pytest.raises(ValueError, match="batches: there are none"):
        lens.fit([])


def test_layers_of_another_shape():
    model, _, _, call, _ = runs("t5")
    call.pop("baselines")
    with pytest.raises(ValueError, match="has its shape"):
        tw.LogitLens(model).attribute(**call)


@pytest.mark.parametrize("name", MODELS)
def test_direct_logits_add_up(name):
    model, _, _, call, _ = runs(name)
    call.pop("baselines")
    e = tw.DirectLogitAttribution(model).explain(**call)
    torch.testing.assert_close(e.attributions.sum(1), e.scores, rtol=1e-5, atol=1e-5)
    assert float(e.completeness_gap.max()) < 1e-5
    assert e.details["layers"][-1].endswith(("mlp", "DenseReluDense"))


def test_direct_logits_by_hand():
    model, run, _, call, _ = runs("gpt2")
    call.pop("baselines")
    writes, _ = edges_of(model.transformer.ln_f, model.transformer.h)
    parts = [t[:, -1] for t in slow.read(run, writes)]
    norm, head = model.transformer.ln_f, model.lm_head.weight.detach()
    by_hand = slow.layer_norm_contributions(parts, sum(parts), norm.weight.detach(), norm.eps, head[3] - head[11])
    torch.testing.assert_close(tw.DirectLogitAttribution(model).attribute(**call), by_hand, **CLOSE)


# ---- latents of an autoencoder


class Sparse(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.into, self.out = nn.Linear(32, 12).double(), nn.Linear(12, 32).double()

    def encode(self, x):
        return self.into(x).relu()

    def decode(self, codes):
        return self.out(codes)


def test_latents_as_features_and_targets():
    model, _, _, call, places = runs("gpt2")
    sae, more = Sparse(), {"input_ids": call["inputs"]["input_ids"]}
    layer = tw.Layer("transformer.h.1", latents=sae)
    (state,) = slow.read(partial(model, **more), places[1:2])
    codes = sae.encode(state).detach()

    def above(z):
        with slow.hook(places[1], lambda t: sae.decode(z) + (t - sae.decode(codes))):
            return margin(model(**more))

    torch.testing.assert_close(tw.LayerActivation(model, layer=layer).attribute(more), codes)
    leaf = codes.clone().requires_grad_()
    (slope,) = torch.autograd.grad(above(leaf).sum(), leaf)
    found = tw.InputXGradient(model, layer=["transformer.h.0", layer]).attribute(more, margin)
    torch.testing.assert_close(found[1], codes * slope, **CLOSE)
    plain = tw.InputXGradient(model, layer="transformer.h.0").attribute(more, margin)
    torch.testing.assert_close(found[0], plain, rtol=1e-6, atol=1e-8)  # below, nothing changes
    off = tw.FeatureAblation(model, layer=layer).attribute(
        more, margin, layer_baselines=0.0, feature_mask=torch.arange(12)[None]
    )
    for k in (0, 5):
        drop = above(codes) - above(codes * (torch.arange(12) != k))
        torch.testing.assert_close(off[:, 0, k], drop.detach(), **CLOSE)
    ig = tw.IntegratedGradients(model, layer=layer, n_steps=200).explain(more, margin, baselines=call["baselines"])
    assert ig.attributions.shape == codes.shape
    unit = tw.Saliency(model, layer="transformer.h.0", signed=True).attribute(more, tw.Neuron(layer, (6, 4)))
    (below,) = slow.read(partial(model, **more), places[:1])
    assert unit.shape == below.shape
    assert bool(unit.any()) == bool((codes[:, 6, 4] > 0).any())
    with pytest.raises(TypeError, match="latents: Linear has no encode"):
        tw.Saliency(model, layer=tw.Layer("transformer.h.1", latents=nn.Linear(2, 2))).attribute(more, margin)


# ---- pictures, and what is refused


def test_pictures():
    model, _, _, call, _ = runs("gpt2")
    e = tw.AttributionPatching(model).explain(**call)
    ax = e.plot(row=1, columns=list("abcdefg"), numbers=True).get_axes()[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["0", "1", "2"]
    assert [t.get_text() for t in ax.get_xticklabels()] == list("abcdefg")
    np.testing.assert_allclose(ax.get_images()[0].get_array(), e.attributions[1].numpy(), rtol=1e-5)
    bars = tw.LogitLens(model).explain(**{k: v for k, v in call.items() if k != "baselines"}).plot().get_axes()[0]
    assert len(bars.patches) == 3
    edges = tw.EdgeAttribution(model).explain(**call).plot().get_axes()[0]
    assert edges.get_ylabel() == "sender"


def test_the_tokens_of_a_lens_can_be_read():
    shape = (1, 2, 3, 1)
    tokens, probabilities = torch.arange(6).view(shape), torch.tensor([0.0, 0.1, 0.3, 0.6, 0.8, 1.0]).view(shape)
    said = ["a", "\n", "$b", "Barcelona", "", "é"]
    figure = LensReading(tokens, probabilities, ["0", "1"]).plot(decode=lambda ids: said[ids[0]])
    figure.canvas.draw()
    ax = figure.get_axes()[0]
    image, texts = ax.get_images()[0], ax.texts
    assert [t.get_text() for t in texts] == ["a", "\\n", "$b", "Barcelona", "", "é"]
    cells = image.to_rgba(image.get_array())[..., :3].reshape(-1, 3)

    def luminance(rgb):
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722] + 0.05

    for text, cell in zip(texts, cells):
        ink = luminance(np.array([int(text.get_color()[i : i + 2], 16) / 255 for i in (1, 3, 5)]))
        light, dark = max(ink, luminance(cell)), min(ink, luminance(cell))
        assert light / dark > 4.5  # what WCAG asks for
        width = ax.transData.transform([[-0.5, 0], [0.5, 0]])[:, 0]
        assert text.get_window_extent().width < width[1] - width[0]


@pytest.mark.parametrize("method", [tw.ActivationPatching, tw.AttributionPatching, tw.EdgeAttribution, tw.LogitLens])
def test_a_method_of_the_model_has_its_layers(method):
    model, _, _, call, _ = runs("gpt2")
    call = {name: value for name, value in call.items() if method is not tw.LogitLens or name != "baselines"}
    torch.testing.assert_close(method(model.forward).attribute(**call), method(model).attribute(**call))


def test_what_is_refused():
    model, _, _, call, _ = runs("gpt2")
    with pytest.raises(ValueError, match="heads=5: 32 numbers are not so many heads"):
        tw.ActivationPatching(model, units="head", heads=5).attribute(**call)
    with pytest.raises(LookupError, match="no blocks with an attention"):
        tw.ActivationPatching(nn.Linear(3, 2)).attribute(torch.randn(2, 3), 1)
    with pytest.raises(ValueError, match="expected \\(positions, width\\)"):
        tw.ActivationPatching(nn.Sequential(nn.Linear(3, 2)), layer="0").attribute(torch.randn(2, 3), 1)
    with pytest.raises(TypeError, match="a plain callable has no layers"):
        tw.AttributionPatching(lambda x: x).attribute(torch.randn(2, 3), 1)
    two = tw.Distribution(call["baselines"])
    with pytest.raises(ValueError, match="with denoise=True one for each row"):
        tw.ActivationPatching(model, denoise=True).attribute(**{**call, "baselines": two})
    mean = tw.AttributionPatching(model).attribute(**{**call, "baselines": two})
    each = [tw.AttributionPatching(model).attribute(**{**call, "baselines": b[None]}) for b in call["baselines"]]
    torch.testing.assert_close(mean, torch.stack(each).mean(0))


def test_prompts():
    from language import WordTokenizer
    from language import make as language_model

    model, prompt = language_model("gpt2"), tw.Prompt(WordTokenizer(), "Dave lives in Palm Coast")
    why = tw.targets.Contrast("golf", "dull")
    for method in (tw.LogitLens(model), tw.DirectLogitAttribution(model)):
        e = method.explain(prompt, why)
        assert e.attributions.shape == (1, len(e.details["layers"]))
        assert e.names == e.details["layers"]
        assert set(e.names) <= set(e.to_dataframe())
        assert e.plot()
    torch.testing.assert_close(tw.LogitLens(model).attribute(prompt, why)[:, -1], e.scores)


SMALL = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
WIDE = {**SMALL, "intermediate_size": 64}
GROUPED = {**WIDE, "num_key_value_heads": 2, "head_dim": 8}
KINDS = {
    "Qwen3": GROUPED,
    "Gemma2": GROUPED,
    "GPTNeoX": WIDE,
    "GPTJ": {"vocab_size": 40, "n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4},
}


def of_kind(name, options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**options)
    return getattr(transformers, f"{name}ForCausalLM")(config).double().eval()


@pytest.mark.parametrize("name", KINDS)
def test_components_of_other_models(name):
    """Norms of heads, norms behind the parts, parts side by side."""
    model, ids = of_kind(name, KINDS[name]), torch.randint(1, 40, (2, 2, 6), generator=torch.Generator().manual_seed(0))
    e = tw.DirectLogitAttribution(model).explain(ids[0], margin)
    assert e.attributions.shape == (2, 5)
    assert float(e.completeness_gap.max()) < 1e-6
    edges = tw.EdgeAttribution(model).attribute(ids[0], margin, baselines=ids[1])
    beside = name in ("GPTNeoX", "GPTJ")  # the feed-forward part does not read the attention's
    assert bool(edges[:, 1, 1].any()) != beside
    assert tw.ActivationPatching(model, units="head").attribute(ids[0], margin, baselines=ids[1]).shape == (2, 2, 4)


def test_components_that_are_not_all_there():
    sizes = {**SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32}
    model, ids = of_kind("OPT", sizes), torch.tensor([[5, 6, 7]])
    for method in (tw.DirectLogitAttribution, tw.EdgeAttribution):
        with pytest.raises(LookupError, match="do not add up to what 'output' reads"):
            method(model).attribute(ids, margin)
