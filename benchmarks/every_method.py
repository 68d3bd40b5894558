"""What does every method cost on a photo-sized image, over the floor of its evaluations?

Each method of one image, with the settings of `torchwhy demo`, on resnet18. The floor: the rows that it ran through the model ×
the best time per row of a plain batched forward pass, or forward and backward where it takes gradients; what a method does
besides (second derivatives, an optimizer, rules of its own for the backward pass) is on top of it, and what it leaves out (CAMs
and methods of a layer go back to the layer only, Ablation-CAM runs the part above it) makes it less.
"""

from __future__ import annotations

import torch
from harness import Benchmark
from measure import floor, forward, forward_backward, void

import torchwhy as tw
from torchwhy.demo import explain_photos, for_photos


def main() -> None:
    bench = Benchmark(
        "every_method", "Every method on one image, over the floor of its evaluations", rounds=3, gpu=True
    )
    from torchvision import models

    side, effort = (64, 0.1) if bench.quick else (224, 1.0)
    model = models.resnet18().eval().requires_grad_(False).to(bench.device)
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(bench.device)
    for name in for_photos():
        if not bench.wanted(name):
            continue
        run = lambda name=name: explain_photos([name], model, x, 0, effort=effort)[0].explanation  # noqa: E731
        try:
            rows = run().evaluations
        except (TypeError, ValueError, LookupError, FloatingPointError) as error:
            print(f"left out: {name}: {error}")
            continue
        gradients = tw.methods()[name].needs_gradient
        plain = (forward_backward if gradients else forward)(model, x)
        bench.case(
            name,
            {"floor": floor(plain, rows, bench.sizes), "torchwhy": lambda run=run: void(run())},
            base="floor",
            rounds=1 if rows > 200 else None,
            memory=True,
            facts={"note": f"{rows} rows {'forward and backward' if gradients else 'forward'}"},
        )
    bench.finish()


if __name__ == "__main__":
    main()
