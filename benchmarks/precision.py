"""What do bf16 and fp16 give on this machine, and what do they cost? Speed-up, and rank correlation with float32."""

from __future__ import annotations

import torch
from harness import Benchmark, lower_precisions
from scipy.stats import spearmanr

import torchwhy as tw
from torchwhy.models import load, photo


def main() -> None:
    bench = Benchmark("precision", "Lower precision: time, and rank correlation of the map with float32", rounds=3)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load("efficientnet-lite0")
    model, x = loaded.model.to(device), loaded.preprocess(photo("chelsea")).to(device)
    lower = lower_precisions()
    n = 8 if bench.quick else 64
    for name, make in (
        ("IntegratedGradients", lambda p: tw.IntegratedGradients(model, n_steps=n, precision=p)),
        ("SmoothGrad", lambda p: tw.SmoothGrad(model, n_samples=n, generator=0, precision=p)),
    ):
        maps: dict[str, torch.Tensor] = {}

        def side(precision, make=make, maps=maps):
            maps[str(precision)] = make(precision).attribute(x, 282)

        precisions = (None, *lower)
        ratios = bench.case(
            f"{name}, efficientnet-lite0, {device}",
            {str(p): (lambda p=p, side=side: side(p)) for p in precisions},
            base="None",
        )
        for p in precisions[1:] if ratios else ():
            exact, found = (maps[k].abs().sum(1).flatten().float().cpu().numpy() for k in ("None", p))
            rank = float(spearmanr(exact, found).statistic)
            bench.results[-1].setdefault("rank correlation", {})[p] = rank
            print(f"    {p}: rank correlation of |map| with float32 {rank:.4f}", flush=True)
    bench.finish()


if __name__ == "__main__":
    main()
