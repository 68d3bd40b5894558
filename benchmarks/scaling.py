"""How do time and memory grow with rows, samples, the side of the image, threads, and on a GPU where there is one?

Each method against the floor of its evaluations (× the best time per row of a plain batched forward pass, or forward and
backward where it takes gradients) at the same setting: a ratio that stays where it is means that nothing but the
evaluations grows.

    python benchmarks/scaling.py --save
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from harness import Benchmark
from measure import floor, forward, forward_backward, void

import torchwhy as tw

USUAL_SIDE = 224  # on a GPU, where smaller images only time what starts the kernels
METHODS: dict[str, tuple[Callable[..., Any], bool]] = {  # its settings for n samples, and whether it takes gradients
    "IntegratedGradients": (lambda model, n: tw.IntegratedGradients(model, n_steps=n), True),
    "RISE": (lambda model, n: tw.RISE(model, n_samples=n, generator=0), False),
    "KernelSHAP": (lambda model, n: tw.KernelSHAP(model, n_samples=n, generator=0), False),
}


def case(bench: Benchmark, model: Any, name: str, what: str, *, rows: int, samples: int, side: int) -> None:
    """One point of a curve."""
    value = {"rows": rows, "samples": samples, "side": side, "threads": torch.get_num_threads(), "device": bench.device}
    label = f"{name}, {what} {value[what]}"
    if not bench.wanted(label):
        return
    make, gradient = METHODS[name]
    x = torch.randn(rows, 3, side, side, generator=torch.Generator().manual_seed(0)).to(bench.device)
    data = {"feature_mask": tw.patches(x, 4)} if name == "KernelSHAP" else {}
    method = make(model, samples)
    evaluations = method.explain(x, 0, **data).evaluations if rows * samples <= 200 else rows * samples
    plain = (forward_backward if gradient else forward)(model, x)
    plain(8)
    bench.case(
        label,
        {
            "floor": floor(plain, evaluations, (8, *bench.sizes[1:], 128)),
            "torchwhy": lambda: void(method.attribute(x, 0, **data)),
        },
        base="floor",
        rounds=1 if rows * samples > 1000 else 3,
        memory=True,
        facts={"method": name, "what": what, **value},
    )


def series(results: list[dict[str, Any]], what: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The cases in which ``what`` grows, for each method and device."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for r in results:
        if r["what"] == what:
            found.setdefault((r["method"], r["device"]), []).append(r)
    return found


class Scaling(Benchmark):
    """A benchmark whose plot has a panel for what grows."""

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """Time over the floor, and peak memory, against what grows."""
        from matplotlib.figure import Figure

        grows = list(dict.fromkeys(r["what"] for r in results))
        figure = Figure(figsize=(2.9 * len(grows), 5), layout="constrained")
        axes = figure.subplots(2, len(grows), sharey="row", squeeze=False)
        for column, what in enumerate(grows):
            for (name, device), rows in series(results, what).items():
                at, line = [r[what] for r in rows], {"linestyle": "-" if device == "cpu" else ":", "marker": "o"}
                colour = f"C{list(METHODS).index(name)}"
                label = name if device == "cpu" else f"{name}, {device} ({USUAL_SIDE} pixels)"
                axes[0][column].plot(at, [r["ratio"]["torchwhy"] for r in rows], color=colour, label=label, **line)
                axes[1][column].plot(at, [r["peak_mib"]["torchwhy"] or 0 for r in rows], color=colour, **line)
            for ax in axes[:, column]:
                ax.set_xscale("log", base=2)
                ax.grid(linewidth=0.4)
            axes[1][column].set_xlabel(what)
        axes[0][0].set_ylabel("time / floor")
        axes[1][0].set_ylabel("peak growth, MiB")
        axes[0][0].axhline(1, color="black", linewidth=0.8)
        axes[0][0].legend(fontsize=7)
        figure.suptitle(self.title, fontsize=10)
        return figure


def main() -> None:
    bench = Scaling("scaling", "Time over the floor and memory as the work grows, resnet18", gpu=True)
    from torchvision import models

    model, quick = models.resnet18().eval().requires_grad_(False).to(bench.device), bench.quick
    threads, usual = torch.get_num_threads(), 64 if bench.device == "cpu" else USUAL_SIDE
    for name in METHODS:
        for rows in (1, 8) if quick else (1, 4, 16, 64, 256):
            case(bench, model, name, "rows", rows=rows, samples=50, side=usual)
        for samples in (50, 100) if quick else (50, 200, 1000, 5000):
            case(bench, model, name, "samples", rows=1, samples=samples, side=usual)
        for side in (64, 128) if quick else (64, 128, 256, 512):
            case(bench, model, name, "side", rows=1, samples=50, side=side)
        for count in () if bench.device != "cpu" else (1,) if threads == 1 else (1, 2):
            torch.set_num_threads(count)
            case(bench, model, name, "threads", rows=1, samples=200, side=64)
        torch.set_num_threads(threads)
    bench.finish()


if __name__ == "__main__":
    main()
