"""Patching of language models, against hooks by hand: GPT-2, Llama with grouped keys, T5."""

from contextlib import contextmanager

import pytest
import torch

import torchwhy as tw

transformers = pytest.importorskip("transformers")
SIZES = {"vocab_size": 40, "initializer_range": 0.3}
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "initializer_factor": 2.0}


def gpt2():
    config = transformers.GPT2Config(**SIZES, n_embd=32, n_layer=3, n_head=4, n_positions=16)
    return transformers.GPT2LMHeadModel(config), [f"transformer.h.{i}" for i in range(3)]


def llama():
    config = transformers.LlamaConfig(**SIZES, **LLAMA, num_key_value_heads=2)
    return transformers.LlamaForCausalLM(config), [f"model.layers.{i}" for i in range(3)]


def t5():
    config = transformers.T5Config(vocab_size=40, **T5, decoder_start_token_id=0)
    blocks = [f"{side}.block.{i}" for side in ("encoder", "decoder") for i in range(2)]
    return transformers.T5ForConditionalGeneration(config), [tw.Layer(name, output=0) for name in blocks]


MODELS = {"gpt2": gpt2, "llama": llama, "t5": t5}


def build(name):
    """The model in float64, its blocks, two texts of 7 tokens, clean and corrupted, and further arguments."""
    torch.manual_seed(0)
    model, blocks = MODELS[name]()
    generator = torch.Generator().manual_seed(1)
    clean = torch.randint(1, 40, (2, 7), generator=generator)
    corrupted = clean.clone()
    corrupted[:, 2:4] = torch.randint(1, 40, (2, 2), generator=generator)
    more = {"decoder_input_ids": torch.tensor([[0, 5, 6], [0, 9, 8]])} if name == "t5" else None
    return model.double().eval(), blocks, clean, corrupted, more


def margin(output):
    """The logit of one token less that of another, at the last position."""
    return output.logits[:, -1, 3] - output.logits[:, -1, 11]


def name_of(block):
    return block.module if isinstance(block, tw.Layer) else block


@contextmanager
def hooks(model, places, act):
    """Let ``act(i, tensor)`` see the first tensor that modules pass, and put another one in its place."""

    def hook(i):
        def see(module, args, output):
            first = output[0] if isinstance(output, tuple) else output
            new = act(i, first)
            if new is None:
                return None
            return (new, *output[1:]) if isinstance(output, tuple) else new

        return see

    handles = [model.get_submodule(name_of(place)).register_forward_hook(hook(i)) for i, place in enumerate(places)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def passed(model, places, ids, more, grad=False):
    """What passes modules, and the margin, with a graph from the lowest one on."""
    seen = {}

    def act(i, tensor):
        if not grad:
            seen[i] = tensor.detach()
            return None
        seen[i] = tensor if tensor.requires_grad else tensor.detach().requires_grad_()
        return seen[i]

    for p in model.parameters():
        p.requires_grad_(False)
    with hooks(model, places, act):
        score = margin(model(ids, **(more or {})))
    return [seen[i] for i in range(len(places))], score


@pytest.mark.parametrize("name", MODELS)
def test_attribution_patching_of_all_blocks_in_one_pass(name):
    model, blocks, clean, corrupted, more = build(name)
    calls = []
    model.register_forward_pre_hook(lambda module, args: calls.append(1))
    for method in (tw.LinearApproximation, tw.InputXGradient):
        calls.clear()
        e = method(model, layer=blocks, check=False).explain(
            {"input_ids": clean}, margin, baselines=corrupted, additional_forward_args=more
        )
        assert e.evaluations == 2 * len(clean)
        calls.clear()
        found = method(model, layer=blocks, check=False).attribute(
            {"input_ids": clean}, margin, baselines=corrupted, additional_forward_args=more
        )
        assert len(calls) == 2, "two passes forward, one of which goes back"
        activations, score = passed(model, blocks, clean, more, grad=True)
        slopes = torch.autograd.grad(score.sum(), activations)
        below, _ = passed(model, blocks, corrupted, more)
        for one, other, a, b, g in zip(found, e.attributions, activations, below, slopes):
            torch.testing.assert_close(one, ((a - b) * g).detach(), rtol=1e-6, atol=1e-10)
            torch.testing.assert_close(other, one)


def patched(model, place, clean, other, more, where):
    """The drop of the margin where what passes a module is, at ``where``, what it is on the other input."""
    (there,), _ = passed(model, [place], other, more)
    whole = margin(model(clean, **(more or {})))

    def act(i, tensor):
        return torch.where(where, there, tensor)

    with torch.no_grad(), hooks(model, [place], act):
        return whole - margin(model(clean, **(more or {})))


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_positions_of_a_block_by_hooks(name):
    model, blocks, clean, corrupted, more = build(name)
    how = {"additional_forward_args": more, "feature_mask": torch.arange(7)[:, None]}
    ablation = tw.FeatureAblation(model, layer=blocks[1])
    noising = ablation.attribute({"input_ids": clean}, margin, baselines=corrupted, **how)[..., 0]
    denoising = -ablation.attribute({"input_ids": corrupted}, margin, baselines=clean, **how)[..., 0]
    for t in range(7):
        here = (torch.arange(7) == t)[:, None]
        drop = patched(model, blocks[1], clean, corrupted, more, here)
        torch.testing.assert_close(noising[:, t], drop, rtol=1e-6, atol=1e-9)
        restored = -patched(model, blocks[1], corrupted, clean, more, here)
        torch.testing.assert_close(denoising[:, t], restored, rtol=1e-6, atol=1e-9)
    assert bool(noising.any())


PROJECTIONS = {
    "gpt2": "transformer.h.1.attn.c_proj",
    "llama": "model.layers.1.self_attn.o_proj",
    "t5": "decoder.block.1.layer.1.EncDecAttention.o",
}


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_heads_by_hooks(name):
    model, _, clean, corrupted, more = build(name)
    module, heads = model.get_submodule(PROJECTIONS[name]), torch.arange(32) // 8
    layer = tw.Layer(PROJECTIONS[name], input=True)
    found = tw.FeatureAblation(model, layer=layer).attribute(
        {"input_ids": clean}, margin, baselines=corrupted, additional_forward_args=more, feature_mask=heads[None]
    )[:, 0, ::8]
    kept = {}
    handle = module.register_forward_pre_hook(lambda m, args: kept.update(value=args[0].clone()))
    model(corrupted, **(more or {}))
    handle.remove()
    whole = margin(model(clean, **(more or {})))
    for h in range(4):
        handle = module.register_forward_pre_hook(
            lambda m, args, h=h: (torch.where(heads == h, kept["value"], args[0]),)
        )
        drop = whole - margin(model(clean, **(more or {})))
        handle.remove()
        torch.testing.assert_close(found[:, h], drop, rtol=1e-6, atol=1e-9)
