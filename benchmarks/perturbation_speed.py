"""How close are the perturbation methods to the cost of their evaluations, and to Captum at its best setting?

The floor is evaluations × the best time per row of a plain batched forward pass, contiguous. Peak memory is how much it
grows while a side runs: beside it that of one plain forward pass of as many rows as the method gave the model at once. With
ten times the samples it must stay where it was.
"""

from __future__ import annotations

import re

import torch
from harness import Benchmark, floor, forward, lower_precisions, timed

import torchwhy as tw
from torchwhy.perturbation.segments import patches

SIZES = (8, 16, 32)  # of a plain call, and of Captum's
AS_MANY = "as many rows as torchwhy's largest"


def workloads(side, quick):
    """Name → (evaluations of a row, our method, Captum's call with its perturbations_per_eval)."""
    window, step = (45, 22) if quick else (32, 7)
    samples, masks = (100, 100) if quick else (500, 1000)
    windows = (-(-(side - window) // step) + 1) ** 2

    def captum(name, **options):
        def run(model, x, mask, per):
            from captum import attr

            extra = options if name == "Occlusion" else {**options, "feature_mask": mask}
            getattr(attr, name)(model).attribute(x, target=0, perturbations_per_eval=per, **extra)

        return run

    return {
        f"Occlusion, {windows} windows": (
            windows + 1,
            lambda model, **o: tw.Occlusion(model, sliding_window_shapes=window, strides=step, **o),
            captum("Occlusion", sliding_window_shapes=(3, window, window), strides=(3, step, step)),
        ),
        f"RISE, {masks} masks": (masks, lambda model, **o: tw.RISE(model, n_samples=masks, generator=0, **o), None),
        f"KernelSHAP, 49 patches, {samples}": (
            samples,
            lambda model, **o: tw.KernelSHAP(model, n_samples=samples, generator=0, **o),
            captum("KernelShap", n_samples=samples),
        ),
        f"LIME, 49 patches, {samples}": (
            samples,
            lambda model, **o: tw.LIME(model, n_samples=samples, generator=0, **o),
            captum("Lime", n_samples=samples),
        ),
        "FeatureAblation, 49 patches": (50, tw.FeatureAblation, captum("FeatureAblation")),
    }


def best_captum(model, x, mask):
    """Captum's fastest perturbations_per_eval, by one scan of its feature ablation."""
    from captum import attr

    ablation = lambda per: attr.FeatureAblation(model).attribute(  # noqa: E731
        x, target=0, feature_mask=mask, perturbations_per_eval=per
    )
    return min((max(1, s // len(x)) for s in SIZES), key=lambda per: timed(lambda: void(ablation(per))))


def main() -> None:
    from torchvision import models

    bench = Benchmark("perturbation_speed", "Perturbation methods against the floor of their evaluations")
    lower = lower_precisions()
    side = 112 if bench.quick else 224
    model, sizes = models.resnet18().eval(), []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    torch.manual_seed(0)
    for rows in (1,) if bench.quick else (1, 8):
        x = torch.randn(rows, 3, side, side)
        mask, per = patches(x, 7), None
        plain = f"one plain call of {AS_MANY}"
        for name, (evaluations, make, captum) in workloads(side, bench.quick).items():
            label = f"{name}, {rows} image{'s' * (rows > 1)}"
            if not re.search(bench.only, label):
                continue
            data = {} if name.startswith(("Occlusion", "RISE")) else {"feature_mask": mask}
            sides = {
                "floor": floor(forward(model, x), evaluations * rows, SIZES),
                "torchwhy": run(make(model), x, data, sizes),
                plain: plain_call(model, x, sizes),
                **{f"torchwhy {p}": run(make(model, precision=p), x, data) for p in lower},
            }
            if captum is not None:
                try:
                    per = per or best_captum(model, x, mask)
                    sides[f"captum perturbations_per_eval={per}"] = lambda captum=captum, mask=mask, x=x, per=per: (
                        captum(model, x, mask, per)
                    )
                except ImportError:
                    print("captum is not installed: left out")
            facts = {}
            for p in lower:
                both = (make(model, **o).attribute(x, 0, **data).flatten() for o in ({}, {"precision": p}))
                ranks = torch.stack([t.argsort().argsort().double() for t in both])
                facts[f"rank correlation of {p} with float32"] = float(torch.corrcoef(ranks)[0, 1])
            bench.case(label, sides, base="floor", memory=True, facts=facts)
            for name, rank in facts.items():
                print(f"    {name}: {rank:.4f}")
        many = tw.RISE(model, n_samples=200 if bench.quick else 3000, generator=0)
        few = tw.RISE(model, n_samples=20 if bench.quick else 300, generator=0)
        label = f"memory of RISE, ten times the masks, {rows} image{'s' * (rows > 1)}"
        sides = {"few": run(few, x, {}), "many": run(many, x, {}, sizes), plain: plain_call(model, x, sizes)}
        bench.case(label, sides, base="few", rounds=1, memory=True)
    bench.finish()


def run(method, x, data, sizes=None):
    """A side of the comparison; ``sizes`` then has the rows of its calls."""

    def side():
        if sizes is not None:
            sizes.clear()
        method.attribute(x, 0, **data)

    return side


def plain_call(model, x, sizes):
    """A side: one plain forward pass of as many rows as the largest call of the side before it."""

    def side():
        forward(model, x)(max(sizes))

    return side


def void(value: object) -> None:
    """Drop a result."""


if __name__ == "__main__":
    main()
