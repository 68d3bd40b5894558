"""How many evaluations does faithfulness correlation need?

Random sets, as in the paper and in Quantus, against the extremes of ten and twenty times as many (``oversample=``): the root
mean square error, over seeds and images, from the correlation over many random sets. Quantus's rows are counted at its default
of 100 sets.

    python benchmarks/correlation_accuracy.py --save
"""

from __future__ import annotations

import numpy as np
import torch
from harness import CurveBenchmark
from metrics_speed import Counted

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.models import shapes, shapes_resnet

COUNTS = [20, 50, 100, 200]
SIDES = {"random sets": 1, "torchwhy oversample=10": 10, "torchwhy oversample=20": 20}


class CorrelationAccuracy(CurveBenchmark):
    """A panel for each map."""

    ylabel = "error of the correlation"


def quantus_error(net, x, y, a, truth, seeds):
    """The same error of Quantus at its default of 100 sets, in words with the rows it takes."""
    try:
        import quantus
    except ImportError:
        return "Quantus is not installed: left out."
    settings = {"disable_warnings": True, "display_progressbar": False, "return_aggregate": False}
    metric = quantus.FaithfulnessCorrelation(
        nr_runs=100, subset_size=a[0].numel() // 10, perturb_baseline=0.0, **settings
    )
    data = {"x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": a.numpy(), "device": "cpu", "softmax": False}
    off = []
    for seed in range(seeds):
        np.random.seed(seed)
        rows, _ = net.count(lambda: off.append(np.asarray(metric(model=net, **data)) - truth.numpy()))
    error = float(np.sqrt(np.mean(np.square(off))))
    return f"Quantus at its default of 100 sets: {error:.4f}, with {rows / len(x):.0f} rows of an image."


def main() -> None:
    bench = CorrelationAccuracy(
        "correlation_accuracy", "How many evaluations does faithfulness correlation need?", rounds=12
    )
    net = Counted(shapes_resnet()).eval().requires_grad_(False)
    batch = shapes(8, seed=5)
    right = (net(batch.images).argmax(1) == batch.labels).nonzero()[: 2 if bench.quick else 4, 0]
    x, y = batch.images[right], batch.labels[right]
    counts, seeds, many = (COUNTS[:3:2], 6, 1500) if bench.quick else (COUNTS, bench.rounds, 6000)
    maps = {
        "input × gradient": tw.InputXGradient(net).attribute(x, y).sum(1, keepdim=True),
        "occlusion": tw.Occlusion(net, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4))
        .attribute(x, y)
        .sum(1, keepdim=True),
        "Grad-CAM": tw.GradCAM(net, layer="model.layer3").attribute(x, y),
        "random": torch.rand(len(x), 1, *x.shape[2:], generator=torch.Generator().manual_seed(0)),
    }
    maps = {name: (a / x.shape[1]).expand_as(x).contiguous() for name, a in maps.items()}  # as Quantus has them
    for name, a in list(maps.items())[: 2 if bench.quick else None]:
        ask = lambda seed, a=a, **o: M.faithfulness_correlation(net, x, a, y, generator=seed, **o)  # noqa: E731
        truth = ask(10**6, n_samples=many)
        lines: dict[str, list[float]] = {}
        for side, c in SIDES.items():
            lines[side] = []
            for n in counts:
                found = torch.stack([ask(seed, n_samples=n, oversample=c) for seed in range(seeds)])
                lines[side].append(float((found - truth).square().mean().sqrt()))
        rows = net.count(lambda ask=ask: ask(0, n_samples=20, oversample=20))[0] / len(x)
        note = (
            f"Correlations {', '.join(f'{t:.2f}' for t in truth.tolist())}; 20 sets take {rows:.0f} rows of an image. "
            + quantus_error(net, x, y, a, truth, min(seeds, 5))
        )
        bench.panel(name, counts, lines, note)
    bench.finish()


if __name__ == "__main__":
    main()
