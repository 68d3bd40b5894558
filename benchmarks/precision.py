"""What do bf16 and fp16 give, and what do they cost? Time against float32, and rank correlation of the map with float32's.

Correlations are the same on every machine, so those of bf16 are measured where it is only imitated, too; times are not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from harness import Benchmark
from measure import lower_precisions
from scipy.stats import spearmanr

import torchwhy as tw
from torchwhy.models import load, photo


def methods(model, patches, n):
    """Name → (a method of a precision, what its call is given besides)."""
    data = {"feature_mask": patches}
    return {
        f"Occlusion, windows of {32 if n > 16 else 64}": (
            lambda p: tw.Occlusion(model, sliding_window_shapes=32 if n > 16 else 64, strides=16, precision=p),
            {},
        ),
        f"RISE, {4 * n} masks": (lambda p: tw.RISE(model, n_samples=4 * n, generator=0, precision=p), {}),
        f"KernelSHAP, {8 * n}": (lambda p: tw.KernelSHAP(model, n_samples=8 * n, generator=0, precision=p), data),
        f"LIME, {8 * n}": (lambda p: tw.LIME(model, n_samples=8 * n, generator=0, precision=p), data),
        "FeatureAblation": (lambda p: tw.FeatureAblation(model, precision=p), data),
        "GradCAM": (lambda p: tw.GradCAM(model, precision=p), {}),
        f"IntegratedGradients, {n} steps": (lambda p: tw.IntegratedGradients(model, n_steps=n, precision=p), {}),
        f"SmoothGrad, {n}": (lambda p: tw.SmoothGrad(model, n_samples=n, generator=0, precision=p), {}),
    }


class Precision(Benchmark):
    """A benchmark whose table and plot are of rank correlations."""

    def markdown(self, results):
        """A row for each method and precision."""
        return "| method | precision | elements | patches of 32 |\n|---|---|--:|--:|\n" + "".join(
            f"| {r['case']} | {p} | {ranks['elements']:.4f} | {ranks['patches']:.4f} |\n"
            for r in results
            for p, ranks in r.get("rank correlation", {}).items()
        )

    def plot(self, results):
        """Bars of the correlations at each scale."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.8 + 0.4 * len(results)))
        ax = figure.subplots()
        bars = [(r["case"], p, ranks) for r in results for p, ranks in r.get("rank correlation", {}).items()]
        for i, scale in enumerate(("elements", "patches")):
            at = [k + 0.4 * i for k in range(len(bars))]
            ax.barh(at, [ranks[scale] for *_, ranks in bars], 0.4, label=scale, color=("#8c9bb0", "#c44e52")[i])
        ax.set_yticks([k + 0.2 for k in range(len(bars))], [f"{case} — {p}" for case, p, _ in bars], fontsize=7)
        ax.axvline(0.98, color="black", linewidth=0.8)
        ax.invert_yaxis()
        ax.set_xlabel("rank correlation with float32's map")
        ax.set_title(self.title, fontsize=9)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)
        return figure


def main() -> None:
    bench = Precision(
        "precision", "Lower precision on EfficientNet-Lite0: the map against float32's, and time", rounds=3, gpu=True
    )
    try:
        loaded = load("efficientnet-lite0")
    except ImportError as error:
        print(f"left out: {error}")
        return
    model, x = loaded.model.to(bench.device), loaded.preprocess(photo("chelsea")).to(bench.device)
    timed = lower_precisions(bench.device)
    lower = timed or ("bf16",)
    for label, (make, data) in methods(model, tw.patches(x, 7), 16 if bench.quick else 64).items():
        maps: dict[str | None, torch.Tensor] = {}

        def side(precision, make=make, data=data, maps=maps):
            maps[precision] = make(precision).attribute(x, 282, **data).sum(1, keepdim=True).float()

        precisions = (None, *timed)
        sides = {p or "float32": (lambda p=p, side=side: side(p)) for p in precisions}
        result = bench.case(label, sides, base="float32")
        if not result:
            continue
        ranks = result["rank correlation"] = {}
        for p in lower:
            if p not in maps:
                side(p)
            both = [(maps[k], F.avg_pool2d(maps[k], 32) if maps[k].shape[-1] > 32 else maps[k]) for k in (None, p)]
            elements, patches = (float(spearmanr(*(t.flatten().cpu() for t in pair)).statistic) for pair in zip(*both))
            ranks[p] = {"elements": elements, "patches": patches}
            print(f"    {p}: rank correlation with float32 {elements:.4f}, of patches {patches:.4f}", flush=True)
    bench.finish()


if __name__ == "__main__":
    main()
