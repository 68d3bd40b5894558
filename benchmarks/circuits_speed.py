"""What does patching cost, against hooks by hand?

A GPT-2 of random weights (12 blocks, width 768, 12 heads; the cost does not depend on the weights), a text of 32 tokens. By hand:
hooks that read, and hooks that replace; attribution patching is two passes forward and one back, which is also its floor;
activation patching puts several patched copies of the text into a call, or takes one at a time, as most code does.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from harness import Benchmark
from measure import void
from torch import Tensor, nn

import torchwhy as tw

LENGTH, BATCH = 32, 33


def score(output: object) -> Tensor:
    """Return the logit of one token less that of another."""
    logits = output.logits[:, -1]  # type: ignore[attr-defined]
    return logits[:, 3] - logits[:, 11]


def read(model: nn.Module, blocks: list[nn.Module], ids: Tensor, *, grad: bool) -> tuple[list[Tensor], Tensor]:
    """Return what comes out of blocks, and the score."""
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: tuple, output: object) -> object:
        tensor = output[0] if isinstance(output, tuple) else output
        tensor = tensor if tensor.requires_grad or not grad else tensor.detach().requires_grad_()
        seen.append(tensor)
        return (tensor, *output[1:]) if isinstance(output, tuple) else tensor

    with ExitStack() as hooks, torch.set_grad_enabled(grad):
        for block in blocks:
            hooks.callback(block.register_forward_hook(keep).remove)
        return seen, score(model(ids))


def attribution_by_hand(model: nn.Module, blocks: list[nn.Module], clean: Tensor, corrupted: Tensor) -> Tensor:
    """Return (a(x) - a(b)) times the gradient, summed over the width, ``(blocks, positions)``."""
    a, value = read(model, blocks, clean, grad=True)
    slopes = torch.autograd.grad(value.sum(), a)
    b, _ = read(model, blocks, corrupted, grad=False)
    return torch.stack([((x - y) * g)[0].sum(-1) for x, y, g in zip(a, b, slopes)])


def activation_by_hand(model: nn.Module, block: nn.Module, clean: Tensor, corrupted: Tensor, batch: int) -> Tensor:
    """Return the drop of the score for each position of a block, ``batch`` patched copies in a call."""
    (there,), _ = read(model, [block], corrupted, grad=False)
    kept = torch.cat([torch.ones(1, LENGTH), 1 - torch.eye(LENGTH)]).bool()
    found = []
    for mask in kept.split(batch):

        def patch(module: nn.Module, args: tuple, output: object, mask: Tensor = mask) -> object:
            tensor = output[0] if isinstance(output, tuple) else output
            new = torch.where(mask[..., None], tensor, there)
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = block.register_forward_hook(patch)
        with torch.no_grad():
            found.append(score(model(clean.expand(len(mask), -1))))
        handle.remove()
    scores = torch.cat(found)
    return scores[0] - scores[1:]


class Autoencoder(nn.Module):
    """Four latents for each number that passes a block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def encode(self, x: Tensor) -> Tensor:
        """Return the latents."""
        return self.into(x).relu()

    def decode(self, latents: Tensor) -> Tensor:
        """Return what they stand for."""
        return self.out(latents)


def main() -> None:
    bench = Benchmark("circuits_speed", "Patching, against hooks by hand", rounds=7)
    bench.text = (
        "The kept times are of a machine that was busy with other work: sides take turns, so that the ratios hold better than "
        "the seconds. An edge reads what every part writes and reads; the lens runs the model once for each block."
    )
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    sizes = {"n_embd": 96, "n_layer": 4, "n_head": 4} if bench.quick else {"n_embd": 768, "n_layer": 12, "n_head": 12}
    config = GPT2Config(vocab_size=5000, n_positions=64, bos_token_id=0, eos_token_id=0, **sizes)
    model = GPT2LMHeadModel(config).eval().requires_grad_(False)
    blocks = list(model.transformer.h)
    clean, corrupted = torch.randint(0, 5000, (2, 1, LENGTH), generator=torch.Generator().manual_seed(0))
    ask = {"inputs": clean, "target": score, "baselines": corrupted}

    fast = tw.AttributionPatching(model)
    torch.testing.assert_close(
        fast.attribute(**ask)[0], attribution_by_hand(model, blocks, clean, corrupted), rtol=1e-3, atol=1e-5
    )
    bench.case(
        f"attribution patching, {len(blocks)} blocks × {LENGTH} positions",
        {
            "by hooks": lambda: void(attribution_by_hand(model, blocks, clean, corrupted)),
            "torchwhy": lambda: void(fast.attribute(**ask)),
        },
        base="by hooks",
        memory=True,
    )
    name = f"transformer.h.{len(blocks) // 2}"
    exact, block = tw.ActivationPatching(model, layer=name), blocks[len(blocks) // 2]
    by_hand = activation_by_hand(model, block, clean, corrupted, BATCH)
    torch.testing.assert_close(exact.attribute(**ask)[0, 0], by_hand, rtol=1e-3, atol=1e-4)
    bench.case(
        f"activation patching, one block × {LENGTH} positions",
        {
            "by hooks, all in one call": lambda: void(activation_by_hand(model, block, clean, corrupted, BATCH)),
            "by hooks, one at a time": lambda: void(activation_by_hand(model, block, clean, corrupted, 1)),
            "torchwhy": lambda: void(exact.attribute(**ask)),
        },
        base="by hooks, all in one call",
        rounds=3,
        memory=True,
    )
    tuned = tw.TunedLens(model)
    tuned.maps = {
        i: (torch.zeros(sizes["n_embd"], sizes["n_embd"]), torch.zeros(sizes["n_embd"])) for i in range(len(blocks) - 1)
    }
    place = tw.Layer(name, latents=Autoencoder(sizes["n_embd"]).requires_grad_(False))
    for label, method, data in (
        ("edges, the gradient at x", tw.EdgeAttribution(model), ask),
        ("edges, 8 points", tw.EdgeAttribution(model, n_steps=8), ask),
        ("the logit lens", tw.LogitLens(model), {"inputs": clean, "target": score}),
        ("the tuned lens", tuned, {"inputs": clean, "target": score}),
        ("latents of an autoencoder at one of", tw.LinearApproximation(model, layer=place), ask),
        ("direct logits", tw.DirectLogitAttribution(model), {"inputs": clean, "target": score}),
    ):
        bench.case(
            f"{label}, {len(blocks)} blocks",
            {
                "two forward, one back": lambda: void(attribution_by_hand(model, blocks, clean, corrupted)),
                "torchwhy": lambda method=method, data=data: void(method.attribute(**data)),
            },
            base="two forward, one back",
            rounds=3,
        )
    bench.finish()


if __name__ == "__main__":
    main()
