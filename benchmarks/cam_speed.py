"""What do the class activation maps cost, against their floor and the other libraries?

The floor of Grad-CAM is one forward pass of the batch and one backward pass from the score to the layer: below it nothing needs a
gradient. That of Score-CAM is one forward pass of the row and one of each channel's masked picture; of Ablation-CAM the part
above the layer, once for each channel.

``max_channels``: how the maps of Score-CAM and Ablation-CAM with fewer channels correlate with those of all.
"""

from __future__ import annotations

import copy

import torch
from harness import Benchmark
from measure import floor, forward, void

import torchwhy as tw
import torchwhy.models


def pass_and_back(model, layer, x):
    """One forward pass, and one backward pass from the scores to the layer."""

    def side():
        kept = []

        def hook(module, args, output):
            kept.append(output.detach().requires_grad_())
            return kept[0].clone()

        handle = layer.register_forward_hook(hook)
        try:
            with torch.enable_grad():
                scores = model(x)[:, 0].sum()
                torch.autograd.grad(scores, kept[0])
        finally:
            handle.remove()

    return side


def peers(method, model, layer, x):
    """The same method of Captum, torchcam and pytorch-grad-cam, at their defaults, where they have it."""
    sides = {}
    try:
        from captum import attr

        if method == "GradCAM":
            side = x.shape[2:]
            gradcam = attr.LayerGradCam(model, layer)
            sides["captum, up-sampled"] = lambda: void(
                attr.LayerAttribution.interpolate(
                    gradcam.attribute(x, target=0, relu_attributions=True), side, "bilinear"
                )
            )
    except ImportError:
        print("captum is not installed: left out")
    try:
        from torchcam import methods

        names = {"GradCAM": "GradCAM", "GradCAMPlusPlus": "GradCAMpp", "LayerCAM": "LayerCAM", "ScoreCAM": "ScoreCAM"}
        if method in names:

            def torchcam():
                leaf = x.clone().requires_grad_(method != "ScoreCAM")
                with getattr(methods, names[method])(model, layer) as extractor:
                    (maps,) = extractor([0] * len(x), model(leaf))
                    torch.nn.functional.interpolate(maps[:, None], x.shape[2:], mode="bilinear")

            sides["torchcam"] = torchcam
    except ImportError:
        print("torchcam is not installed: left out")
    try:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        def grad_cam():
            with getattr(pytorch_grad_cam, method)(model, [layer]) as extractor:
                extractor(input_tensor=x, targets=[ClassifierOutputTarget(0)] * len(x))

        sides["pytorch-grad-cam"] = grad_cam
    except ImportError:
        print("pytorch-grad-cam is not installed: left out")
    return sides


def gradient_maps(bench, models):
    """One forward and one backward pass from the layer up."""
    rows, side = (4, 96) if bench.quick else (16, 224)
    name = "resnet18" if bench.quick else "resnet50"
    model = getattr(models, name)().eval().to(bench.device)
    x = torch.randn(rows, 3, side, side).to(bench.device)
    frozen = copy.deepcopy(model).requires_grad_(False)  # so that nothing is kept of what is below the layer
    base = pass_and_back(frozen, frozen.layer4, x)
    base()
    for method in ("GradCAM",) if bench.quick else ("GradCAM", "GradCAMPlusPlus", "LayerCAM"):
        bench.case(
            f"{method}, {name}.layer4, {rows} images",
            {
                "forward, backward to the layer": base,
                "torchwhy": lambda m=method: void(getattr(tw, m)(model, layer="layer4").attribute(x, 0)),
                'torchwhy, layer="auto"': lambda m=method: void(getattr(tw, m)(model).attribute(x, 0)),
                **peers(method, model, model.layer4, x),
            },
            base="forward, backward to the layer",
            rounds=3 * bench.rounds if bench.quick else None,
            memory=True,
        )


def perturbed_maps(bench, models):
    """A pass for each channel."""
    side = 64 if bench.quick else 224
    model = models.resnet18().eval().to(bench.device)
    x = torch.randn(1, 3, side, side).to(bench.device)
    with torch.no_grad():
        channels = model.layer4[1].bn2.num_features
    plain = forward(model, x)
    plain(8)
    bench.case(
        f"ScoreCAM, resnet18.layer4, {channels} channels",
        {
            "floor": floor(plain, channels + 1, bench.sizes),
            "torchwhy": lambda: void(tw.ScoreCAM(model, layer="layer4").attribute(x, 0)),
            **peers("ScoreCAM", model, model.layer4, x),
        },
        base="floor",
        rounds=1,
        memory=True,
    )
    bench.case(
        f"AblationCAM, resnet18.layer4, {channels} channels",
        {
            "forward of all": floor(plain, channels + 1, bench.sizes),
            "torchwhy": lambda: void(tw.AblationCAM(model, layer="layer4").attribute(x, 0)),
            **peers("AblationCAM", model, model.layer4, x),
        },
        base="forward of all",
        rounds=bench.rounds,
    )


def fewer_channels(bench):
    """The strongest channels only, on a network that was trained: correlation with the map of all."""
    model, x = tw.models.shapes_resnet(), tw.models.shapes(8 if bench.quick else 32, seed=1).images
    bench.text = "| `shapes_resnet`, fewer channels against all | correlation | at least |\n|---|--:|--:|\n"
    for method in (tw.ScoreCAM, tw.AblationCAM):
        full = method(model).attribute(x, "predicted")
        print(f"{method.__name__}, trained network, fewer channels against all")
        for most in (4, 8, 16, 32):
            found = method(model, max_channels=most).attribute(x, "predicted")
            pairs = [torch.stack([a.flatten(), b.flatten()]) for a, b in zip(full, found) if a.any() and b.any()]
            both = [torch.corrcoef(pair)[0, 1].item() for pair in pairs]
            mean, least = sum(both) / len(both), min(both)
            print(f"    max_channels={most:4}   correlation {mean:.4f}, at least {least:.4f}")
            bench.text += f"| {method.__name__}, `max_channels={most}` | {mean:.4f} | {least:.4f} |\n"


def main() -> None:
    bench = Benchmark("cam_speed", "Class activation maps against the floor of their evaluations", gpu=True)
    from torchvision import models

    torch.manual_seed(0)
    gradient_maps(bench, models)
    perturbed_maps(bench, models)
    if bench.device == "cpu":
        fewer_channels(bench)
    bench.finish()


if __name__ == "__main__":
    main()
