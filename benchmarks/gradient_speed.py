"""How close are Saliency, IG and SmoothGrad to the cost of their evaluations, and to Captum at its best setting?

The floor is evaluations × the best time per row of a plain batched forward and backward pass, contiguous, parameters frozen.
"""

from __future__ import annotations

import torch
from harness import Benchmark
from measure import floor, forward_backward, timed, void

import torchwhy as tw

STEPS = 64


def captum_sides(model, x, n, sizes):
    """Captum at the best of its batch sizes, found by one scan with few steps."""
    try:
        from captum import attr
    except ImportError:
        print("captum is not installed: left out")
        return {}, {}, {}
    ig, tunnel = attr.IntegratedGradients(model), attr.NoiseTunnel(attr.Saliency(model))

    def quiet(run):
        def side():
            run()

        return side

    scan = max(4, sizes[-1] // len(x))  # so many that the largest size is reached
    integrate = lambda n, size: ig.attribute(x, target=0, n_steps=n, internal_batch_size=size)  # noqa: E731
    smooth = lambda n, size: tunnel.attribute(  # noqa: E731
        x, target=0, nt_samples=n, stdevs=0.3, nt_samples_batch_size=size
    )
    best, per = (
        min({max(s, least) // share for s in sizes}, key=lambda size: timed(quiet(lambda: run(scan, size))))
        for run, least, share in ((integrate, len(x), 1), (smooth, len(x), len(x)))
    )
    return (
        {f"captum internal_batch_size={best}": quiet(lambda: integrate(n, best))},
        {f"captum nt_samples_batch_size={per}": quiet(lambda: smooth(n, per))},
        {"captum": quiet(lambda: attr.Saliency(model).attribute(x, target=0))},
    )


def main() -> None:
    bench = Benchmark("gradient_speed", "Gradient methods against the floor of their evaluations", gpu=True)
    from torchvision import models

    side = 64 if bench.quick else 224
    n = 16 if bench.quick else STEPS
    for name in ("resnet18",) if bench.quick else ("resnet18", "vit_b_16"):
        model = getattr(models, name)().eval().to(bench.device)
        for p in model.parameters():
            p.requires_grad_(False)
        for rows in (1, 8):
            label = f"{name}, {rows} image{'s' * (rows > 1)}"
            if not bench.wanted(*(f"{method}, {label}" for method in ("IG", "SmoothGrad", "Saliency"))):
                continue
            x = torch.randn(rows, 3, side, side).to(bench.device)
            base = forward_backward(model, x)
            base(8)
            rounds = min(bench.rounds, 3) if rows > 1 else None
            ig, smooth, plain = captum_sides(model, x, n, bench.sizes)
            ours = tw.IntegratedGradients(model, n_steps=n)
            bench.case(
                f"IG, {label}",
                {"floor": floor(base, n * rows, bench.sizes), "torchwhy": lambda: void(ours.attribute(x, 0)), **ig},
                base="floor",
                rounds=rounds,
            )
            noisy = tw.SmoothGrad(model, n_samples=n, stdevs=0.3, generator=0)
            bench.case(
                f"SmoothGrad, {label}",
                {
                    "floor": floor(base, n * rows, bench.sizes),
                    "torchwhy": lambda: void(noisy.attribute(x, 0)),
                    **smooth,
                },
                base="floor",
                rounds=rounds,
            )
            bench.case(
                f"Saliency, {label}",
                {
                    "forward + backward": lambda: base(rows),
                    "torchwhy": lambda: void(tw.Saliency(model).attribute(x, 0)),
                    **plain,
                },
                base="forward + backward",
                rounds=3 * bench.rounds,
            )
    bench.finish()


if __name__ == "__main__":
    main()
