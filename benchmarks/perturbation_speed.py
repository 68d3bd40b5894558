"""How close are the perturbation methods to the cost of their evaluations, and other packages at good settings?

The floor is evaluations × the best time per row of a plain batched forward pass, contiguous. Peak memory is how much it
grows in a process of its own, against one plain forward pass of as many rows as the methods give the model at once; with ten
times the samples it must stay where it was.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import torch
from harness import Benchmark
from measure import floor, forward, lower_precisions, timed, void

import torchwhy as tw
from torchwhy.perturbation.segments import patches

MEMORY = {
    "RISE, {n} masks": "tw.RISE(model, n_samples={n}, generator=0).attribute(x, 0)",
    "RISE, {m} masks": "tw.RISE(model, n_samples={m}, generator=0).attribute(x, 0)",
    "Occlusion": "tw.Occlusion(model, sliding_window_shapes={w}, strides={w}).attribute(x, 0)",
    "KernelSHAP, {n}": "tw.KernelSHAP(model, n_samples={n}, generator=0).attribute(x, 0, feature_mask=tw.patches(x, 7))",
    "KernelSHAP, {m}": "tw.KernelSHAP(model, n_samples={m}, generator=0).attribute(x, 0, feature_mask=tw.patches(x, 7))",
    "LIME, {n}": "tw.LIME(model, n_samples={n}, generator=0).attribute(x, 0, feature_mask=tw.patches(x, 7))",
    "LIME, {m}": "tw.LIME(model, n_samples={m}, generator=0).attribute(x, 0, feature_mask=tw.patches(x, 7))",
    "FeatureAblation": "tw.FeatureAblation(model).attribute(x, 0, feature_mask=tw.patches(x, 7))",
}


def workloads(side, quick):
    """Name → (evaluations of a row, our method, Captum's call with its perturbations_per_eval)."""
    window, step = (45, 22) if quick else (42, 7)
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


def packages(name, model, x, mask, samples, size):
    """Other packages that have the method, on one image: name → call; the rows of a call of the model as good as ours."""
    if len(x) > 1:
        return {}
    ids = mask[0].expand(x.shape[1:]).to(x.device)

    def game(z):
        keep = torch.from_numpy(np.atleast_2d(np.asarray(z, dtype=bool))).to(x.device)
        with torch.inference_mode():
            return torch.cat([model(x * k[:, ids])[:, 0] for k in keep.split(size)]).double().cpu().numpy()

    def with_shap():
        import shap

        explainer = shap.KernelExplainer(game, np.zeros((1, 49)), silent=True)
        explainer.shap_values(np.ones((1, 49)), nsamples=samples - 2, silent=True, l1_reg=False)

    def with_shapiq():
        import shapiq

        shapiq.approximator.KernelSHAP(n=49, random_state=0).approximate(samples, game)

    def with_lime():
        from lime.lime_image import LimeImageExplainer

        def classes(images):
            with torch.inference_mode():
                return (
                    model(torch.from_numpy(images).permute(0, 3, 1, 2).float().to(x.device))
                    .softmax(1)
                    .double()
                    .cpu()
                    .numpy()
                )

        LimeImageExplainer(random_state=0).explain_instance(
            x[0].permute(1, 2, 0).double().cpu().numpy(),
            classes,
            labels=(0,),
            top_labels=None,
            hide_color=0,
            num_samples=samples,
            batch_size=size,
            segmentation_fn=lambda image: ids[0].cpu().numpy(),
        )

    every = {
        "KernelSHAP": {"shap KernelExplainer": with_shap, "shapiq KernelSHAP": with_shapiq},
        "LIME": {"lime": with_lime},
    }
    found = {}
    for label, run in every.get(name.split(",")[0], {}).items():
        if importlib.util.find_spec(label.split()[0]):
            found[label] = run
        else:
            print(f"{label} is not installed: left out")
    return found


def best_captum(model, x, mask, sizes):
    """Captum's fastest perturbations_per_eval, by one scan of its feature ablation: of so many rows a perturbation."""
    from captum import attr

    ablation = lambda per: attr.FeatureAblation(model).attribute(  # noqa: E731
        x, target=0, feature_mask=mask, perturbations_per_eval=per
    )
    return min((max(1, s // len(x)) for s in sizes), key=lambda per: timed(lambda: void(ablation(per))))


def main() -> None:
    from torchvision import models

    bench = Benchmark("perturbation_speed", "Perturbation methods against the floor of their evaluations", gpu=True)
    lower = lower_precisions(bench.device)
    side = 112 if bench.quick else 224
    model = models.resnet18().eval().to(bench.device)
    torch.manual_seed(0)
    for rows in (1,) if bench.quick else (1, 8):
        x = torch.randn(rows, 3, side, side).to(bench.device)
        mask, best = patches(x, 7), {}
        for name, (evaluations, make, captum) in workloads(side, bench.quick).items():
            label = f"{name}, {rows} image{'s' * (rows > 1)}"
            if not bench.wanted(label):
                continue
            data = {} if name.startswith(("Occlusion", "RISE")) else {"feature_mask": mask}
            sides = {
                "floor": floor(forward(model, x), evaluations * rows, bench.sizes),
                "torchwhy": run(make(model), x, data),
                **{f"torchwhy {p}": run(make(model, precision=p), x, data) for p in lower},
            }
            if captum is not None:
                try:
                    together = (
                        1 if name.startswith(("KernelSHAP", "LIME")) else rows
                    )  # these take one image after another
                    per = best[together] = best.get(together) or best_captum(model, x[:together], mask, bench.sizes)
                    sides[f"captum perturbations_per_eval={per}"] = lambda captum=captum, mask=mask, x=x, per=per: (
                        captum(model, x, mask, per)
                    )
                except ImportError:
                    print("captum is not installed: left out")
            sides |= packages(name, model, x, mask, evaluations, bench.sizes[0])
            facts = {}
            for p in lower:
                both = (make(model, **o).attribute(x, 0, **data).flatten() for o in ({}, {"precision": p}))
                ranks = torch.stack([t.argsort().argsort().double() for t in both])
                facts[f"rank correlation of {p} with float32"] = float(torch.corrcoef(ranks)[0, 1])
            bench.case(label, sides, base="floor", facts=facts)
            for name, rank in facts.items():
                print(f"    {name}: {rank:.4f}")
        memory(bench, model, x)
    bench.finish()


def memory(bench, model, x):
    """Peak growth of each method, in a process of its own, against a plain call of as many rows."""
    label = f"memory, {len(x)} image{'s' * (len(x) > 1)}"
    if bench.device != "cpu" or not bench.wanted(label):
        return
    n, sizes = 100 if bench.quick else 300, []
    handle = model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    tw.RISE(model, n_samples=n, generator=0).attribute(x, 0)
    handle.remove()
    base, side = f"one plain forward pass of {max(sizes)} rows", x.shape[-1]
    plain = f"torch.no_grad()(model)(x[:1].expand({max(sizes)}, *x.shape[1:]).contiguous())"
    numbers = {"n": n, "m": 10 * n, "w": side // 14}
    ours = {f"torchwhy {name.format(**numbers)}": call.format(**numbers) for name, call in MEMORY.items()}
    bench.memory(label, {base: plain, **ours}, "resnet18", side, len(x))


def run(method, x, data):
    """A side of the comparison."""

    def side():
        method.attribute(x, 0, **data)

    return side


if __name__ == "__main__":
    main()
