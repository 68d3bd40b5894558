"""What do deletion and faithfulness correlation cost, against their floor and against Quantus?

At equal settings both sides replace the same number of elements as often, on the same images and attributions, and give raw
scores; the values are compared too: Quantus's pixel flipping is our curve after its first point. Then each side gives the same
figure in the cheapest way it offers: Quantus removes one element a step unless told otherwise, and takes random sets only.
Rows and calls of the network are counted. The floor is our rows × the best time per row of a plain batched forward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from harness import Benchmark
from measure import floor, forward

import torchwhy as tw
from torchwhy import metrics as M

IMAGES = 8


class Counted(torch.nn.Module):
    """A model that counts its rows and calls."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.rows, self.calls = model, 0, 0

    def forward(self, x: torch.Tensor) -> object:
        """The model's output."""
        self.rows, self.calls = self.rows + len(x), self.calls + 1
        return self.model(x)

    def count(self, side: Callable[[], Any]) -> tuple[int, int]:
        """Rows and calls that a side takes."""
        self.rows = self.calls = 0
        side()
        return self.rows, self.calls


def quantus_sides(net, x, a, y):
    """A metric of Quantus, by its name and settings, as a function without arguments; None where it is not installed."""
    try:
        import quantus
    except ImportError:
        print("quantus is not installed: left out")
        return None
    data = {
        "model": net,
        "x_batch": x.cpu().numpy(),
        "y_batch": y.cpu().numpy(),
        "a_batch": a.cpu().numpy(),
        "device": str(x.device),
        "softmax": False,
    }

    def side(name, **settings):
        quiet = {"disable_warnings": True, "display_progressbar": False, "return_aggregate": False}
        metric = getattr(quantus, name)(perturb_baseline=0.0, **quiet, **settings)
        return lambda: np.asarray(metric(**data))

    return side


def compare(bench, label, net, x, sides, note=None, **options):
    """A case of the benchmark with the rows and calls of its sides, and what ``note`` says of their values."""
    sides = {name: side for name, side in sides.items() if side is not None}
    given: dict[str, np.ndarray] = {}
    counted = {n: net.count(lambda n=n, side=side: given.update({n: side()})) for n, side in sides.items()}
    run = {
        "floor": floor(forward(net.model, x), counted["torchwhy"][0], (8, *bench.sizes[1:], 128, 256)),
        **{n: drop(s) for n, s in sides.items()},
    }
    facts = {
        "images": len(x),
        "evaluated": {n: c[0] for n, c in counted.items()},
        "calls": {n: c[1] for n, c in counted.items()},
    }
    result = bench.case(label, run, base="torchwhy", facts=facts, **options)
    if not result:
        return
    for name, (rows, calls) in counted.items():
        print(f"    {name:42} {rows / len(x):9.0f} rows an image, {calls} calls")
    if note is not None and "quantus" in sides:
        result["note"] = note(given["torchwhy"], given["quantus"])
        print(f"    {result['note']}", flush=True)


def main() -> None:
    bench = Benchmark("metrics_speed", "Metrics against their floor and Quantus", rounds=3, gpu=True)
    from torchvision import models

    net = Counted(models.resnet18()).eval().requires_grad_(False).to(bench.device)
    for side in (16,) if bench.quick else (32, 64):
        x = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0)).to(bench.device)
        y = net(x).argmax(1)
        a = tw.InputXGradient(net).attribute(x, y)
        steps, runs, size = 48, 50, x[0].numel() // 10
        theirs = quantus_sides(net, x, a, y) or (lambda *_, **__: None)
        deletion = lambda x=x, a=a, y=y, **o: M.deletion(net, x, a, y, **o).scores.cpu().numpy()  # noqa: E731
        correlation = lambda x=x, a=a, y=y, **o: M.faithfulness_correlation(net, x, a, y, **o).cpu().numpy()  # noqa: E731
        compare(
            bench,
            f"deletion, {steps} steps each, resnet18 at {side}",
            net,
            x,
            {
                "torchwhy": lambda: deletion(steps=steps),
                "quantus": theirs("PixelFlipping", features_in_step=x[0].numel() // steps),
            },
            lambda ours, other: (
                f"largest difference {np.abs(ours[:, 1:] - other).max():.1e} of {np.abs(other).max():.1e}"
            ),
        )
        compare(
            bench,
            f"faithfulness correlation, {runs} sets each, resnet18 at {side}",
            net,
            x,
            {
                "torchwhy": lambda: correlation(n_samples=runs, subset_size=size),
                "quantus": theirs("FaithfulnessCorrelation", nr_runs=runs, subset_size=size),
            },
        )
        if side <= 32:  # thousands of steps
            compare(
                bench,
                f"deletion, area at the default settings of each, resnet18 at {side}",
                net,
                x,
                {"torchwhy": deletion, "quantus": theirs("PixelFlipping")},
                areas,
                rounds=1,
            )
        compare(
            bench,
            f"faithfulness correlation, to about the same standard error (correlation_accuracy.py), resnet18 at {side}",
            net,
            x,
            {
                "torchwhy": lambda: correlation(n_samples=26, subset_size=size, oversample=20),
                "quantus": theirs("FaithfulnessCorrelation", nr_runs=100, subset_size=size),
            },
        )
    bench.finish()


def areas(ours, other):
    """How far the areas under the two curves differ, as a share of how far the score moves."""
    height = (ours[:, :-1] + ours[:, 1:]).mean(1) / 2
    whole = np.concatenate([ours[:, :1], other], 1)  # theirs lacks the untouched image
    gap = np.abs(height - (whole[:, :-1] + whole[:, 1:]).mean(1) / 2)
    return f"mean difference of the areas: {(gap / np.ptp(whole, axis=1)).mean():.2%} of the range of the curve"


def drop(side):
    """The same without a result, which would be taken for a time."""

    def run() -> None:
        side()

    return run


if __name__ == "__main__":
    main()
