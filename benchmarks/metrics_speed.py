"""How fast are deletion and faithfulness correlation, against their floor and against Quantus?

Both sides replace the same number of elements as often, on the same images and attributions, and give raw scores. The
floor is evaluations × the best time per row of a plain batched forward pass. The values are compared too: Quantus's
pixel flipping is our curve after its first point.
"""

from __future__ import annotations

import numpy as np
import torch
from harness import Benchmark, floor, forward

import torchwhy as tw
from torchwhy import metrics as M

IMAGES = 8


def quantus_sides(net, x, a, y, in_step, size, runs):
    """Pixel flipping and faithfulness correlation of Quantus; nothing where it is not installed."""
    try:
        import quantus
    except ImportError:
        print("quantus is not installed: left out")
        return None, None
    quiet = {"disable_warnings": True, "display_progressbar": False}
    flip = quantus.PixelFlipping(features_in_step=in_step, perturb_baseline=0.0, **quiet)
    correlation = quantus.FaithfulnessCorrelation(nr_runs=runs, subset_size=size, perturb_baseline=0.0, **quiet)
    data = {
        "model": net,
        "x_batch": x.numpy(),
        "y_batch": y.numpy(),
        "a_batch": a.numpy(),
        "device": "cpu",
        "softmax": False,
    }
    return (lambda: flip(**data)), (lambda: correlation(**data))


def main() -> None:
    bench = Benchmark("metrics_speed", "Metrics against their floor and Quantus", rounds=3)
    from torchvision import models

    net = models.resnet18().eval().requires_grad_(False)
    for side in (64,) if bench.quick else (32, 64):
        x = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
        y = net(x).argmax(1)
        a = tw.InputXGradient(net).attribute(x, y)
        steps, runs = (24, 20) if bench.quick else (48, 50)
        in_step, size = x[0].numel() // steps, x[0].numel() // 10
        flip, correlation = quantus_sides(net, x, a, y, in_step, size, runs)
        base = forward(net, x)
        base(8)
        facts = {"images": IMAGES, "side": side, "steps": steps, "sets": runs}
        sides = {
            "floor": floor(base, IMAGES * steps),
            "torchwhy": lambda x=x, a=a, y=y, steps=steps: keep(M.deletion(net, x, a, y, steps=steps)),
        }
        if flip is not None:
            ours, theirs = M.deletion(net, x, a, y, steps=steps).scores[:, 1:].numpy(), np.asarray(flip())
            print(f"largest difference from Quantus: {np.abs(ours - theirs).max():.1e} of {np.abs(theirs).max():.1e}")
            sides["quantus"] = lambda flip=flip: keep(flip())
        bench.case(f"deletion, {steps} steps, resnet18 at {side}", sides, base="torchwhy", facts=facts)
        options = {"subset_size": size, "n_samples": runs}
        sides = {
            "floor": floor(base, IMAGES * runs),
            "torchwhy": lambda x=x, a=a, y=y, options=options: keep(
                M.faithfulness_correlation(net, x, a, y, **options)
            ),
        }
        if correlation is not None:
            sides["quantus"] = lambda correlation=correlation: keep(correlation())
        bench.case(f"faithfulness correlation, {runs} sets, resnet18 at {side}", sides, base="torchwhy", facts=facts)
    bench.finish()


def keep(value: object) -> None:
    """Drop a result."""


if __name__ == "__main__":
    main()
