"""What does one small call cost, on a network with next to no work? Beside Captum, and the plain calls of torch alone.

The network and the images are so small that nearly all of the time is the library's own: it is what a user waits for who
explains one row at a time, on a GPU above all. A side states the time of one call, the mean of many, with the methods built
before. *torch* is the model's calls that the method cannot do without, in one batch, with the arithmetic on them and without any
check. Captum's sides take all perturbed rows in one call, which is its fastest setting here. An object of its DeepLift keeps the
handles of all hooks of all its calls, so that each call takes longer than the one before: *captum, made anew* makes one for each
call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from captum import attr
from harness import Benchmark
from measure import timed
from torch import Tensor, nn

import torchwhy as tw

STEPS, SAMPLES = 8, 32
SIDE = 12  # of an image: 4 windows of 6 x 6, 9 patches of 4 x 4
WINDOW = SIDE // 2

Call = Callable[[Tensor], Any]


class Sides(NamedTuple):
    """Hold one method several times, each a function of the images."""

    captum: Call
    torchwhy: Call
    torch: Call
    made_anew: Call | None = None


def network() -> nn.Sequential:
    """Return a small convolutional network with a linear head; its second convolution has the number 2."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    ).eval()


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of the first class's score, by one forward and one backward pass."""
    x = x.detach().requires_grad_()
    return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]


def scores(model: nn.Module, z: Tensor) -> Tensor:
    """Return the scores (M, N) of z (M, N, C, H, W), by one forward pass."""
    with torch.no_grad():
        return model(z.flatten(0, 1))[:, 0].view(z.shape[:2])


def saliency(model: nn.Sequential) -> Sides:
    theirs, ours = attr.Saliency(model), tw.Saliency(model)
    return Sides(
        captum=lambda x: theirs.attribute(x, 0),
        torchwhy=lambda x: ours.attribute(x, 0),
        torch=lambda x: gradient(model, x).abs(),
    )


def integrated_gradients(model: nn.Sequential) -> Sides:
    theirs, ours = attr.IntegratedGradients(model), tw.IntegratedGradients(model, n_steps=STEPS)

    def alone(x: Tensor) -> Tensor:
        shares = (torch.arange(STEPS, device=x.device) + 0.5) / STEPS
        points = shares.view(-1, 1, 1, 1, 1) * x
        return x * gradient(model, points.flatten(0, 1)).view(points.shape).mean(0)

    return Sides(
        captum=lambda x: theirs.attribute(x, target=0, n_steps=STEPS),
        torchwhy=lambda x: ours.attribute(x, 0),
        torch=alone,
    )


def grad_cam(model: nn.Sequential) -> Sides:
    layer = model[2]
    theirs, ours = attr.LayerGradCam(model, layer), tw.GradCAM(model, layer=layer)

    def of_captum(x: Tensor) -> Tensor:
        maps = theirs.attribute(x, 0, relu_attributions=True)
        return attr.LayerAttribution.interpolate(maps, x.shape[2:], "bilinear")

    def alone(x: Tensor) -> Tensor:
        kept = []

        def keep(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_())
            return kept[0]

        handle = layer.register_forward_hook(keep)
        try:
            (slopes,) = torch.autograd.grad(model(x)[:, 0].sum(), kept)
        finally:
            handle.remove()
        weighted = slopes.mean((2, 3), keepdim=True) * kept[0].detach()
        return F.interpolate(weighted.sum(1, keepdim=True).relu(), x.shape[2:], mode="bilinear")

    return Sides(captum=of_captum, torchwhy=lambda x: ours.attribute(x, 0), torch=alone)


def guided_backprop(model: nn.Sequential) -> Sides:
    theirs, ours = attr.GuidedBackprop(model), tw.GuidedBackprop(model)
    rectifiers = [module for module in model if isinstance(module, nn.ReLU)]

    def positive(module: nn.Module, signals: tuple[Tensor, ...], _: Any) -> tuple[Tensor]:
        return (signals[0].relu(),)

    def alone(x: Tensor) -> Tensor:
        handles = [module.register_full_backward_hook(positive) for module in rectifiers]
        try:
            return gradient(model, x)
        finally:
            for handle in handles:
                handle.remove()

    return Sides(captum=lambda x: theirs.attribute(x, 0), torchwhy=lambda x: ours.attribute(x, 0), torch=alone)


def occlusion(model: nn.Sequential) -> Sides:
    theirs, ours = attr.Occlusion(model), tw.Occlusion(model, sliding_window_shapes=WINDOW, strides=WINDOW)
    window = (3, WINDOW, WINDOW)
    corners = torch.eye(4).view(4, 1, 1, 2, 2).repeat_interleave(WINDOW, 3).repeat_interleave(WINDOW, 4)

    def alone(x: Tensor) -> Tensor:
        windows = corners.to(x.device)
        found = scores(model, torch.cat([x[None], x * (1 - windows)]))
        drops = found[0] - found[1:]
        return (drops.view(*drops.shape, 1, 1, 1) * windows).sum(0).expand_as(x)

    return Sides(
        captum=lambda x: theirs.attribute(x, window, strides=window, target=0, perturbations_per_eval=4),
        torchwhy=lambda x: ours.attribute(x, 0),
        torch=alone,
    )


def deep_lift(model: nn.Sequential) -> Sides:
    theirs, ours = attr.DeepLift(model), tw.DeepLIFT(model)

    def alone(x: Tensor) -> Tensor:
        return x * gradient(model, torch.cat([x, torch.zeros_like(x)]))[: len(x)]

    return Sides(
        captum=lambda x: theirs.attribute(x, target=0),
        torchwhy=lambda x: ours.attribute(x, 0),
        torch=alone,
        made_anew=lambda x: attr.DeepLift(model).attribute(x, target=0),
    )


def kernel_shap(model: nn.Sequential) -> Sides:
    theirs, ours = attr.KernelShap(model), tw.KernelSHAP(model, n_samples=SAMPLES, generator=0)
    patches = tw.patches(torch.zeros(1, 3, SIDE, SIDE), 3)
    features = int(patches.max()) + 1
    options = {"n_samples": SAMPLES, "perturbations_per_eval": SAMPLES}

    def of_captum(x: Tensor) -> Tensor:
        return theirs.attribute(x, target=0, feature_mask=patches.to(x.device), **options)

    def alone(x: Tensor) -> Tensor:
        mask = patches[0, 0].to(x.device)
        kept = torch.randint(2, (SAMPLES, features), device=x.device).to(x.dtype)
        found = scores(model, x * kept[:, None, None, mask])
        values = torch.linalg.solve(kept.mT @ kept + torch.eye(features, device=x.device), kept.mT @ found)
        return values.mT[:, None, mask].expand_as(x)

    return Sides(
        captum=of_captum, torchwhy=lambda x: ours.attribute(x, 0, feature_mask=patches.to(x.device)), torch=alone
    )


METHODS = {
    "Saliency": saliency,
    f"IG, {STEPS} steps": integrated_gradients,
    "GradCAM": grad_cam,
    "GuidedBackprop": guided_backprop,
    "Occlusion, 4 windows": occlusion,
    "DeepLIFT": deep_lift,
    f"KernelSHAP, {SAMPLES}": kernel_shap,
}


def per_call(call: Call, x: Tensor, calls: int) -> Callable[[], float]:
    """Return a side that states the seconds of one call: the mean of so many, each waited for."""

    def run() -> None:
        for _ in range(calls):
            call(x)
            if x.is_cuda:
                torch.cuda.synchronize()

    return lambda: timed(run) / calls


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="captum")  # it says at every call that it sets hooks
    bench = Benchmark("call_overhead", "One small call, where the network is next to no work", rounds=31, gpu=True)
    torch.manual_seed(0)
    model = network().to(bench.device)
    calls = 10 if bench.quick else 20
    for rows in (1, 2):
        x = torch.randn(rows, 3, SIDE, SIDE).to(bench.device)
        for name, method in METHODS.items():
            each = method(model)
            sides = {"captum": each.captum, "torchwhy": each.torchwhy, "torch": each.torch}
            if each.made_anew is not None:
                sides["captum, made anew"] = each.made_anew
            for call in sides.values():  # what only the first calls do
                per_call(call, x, 5)()
            label = f"{name}, {rows} row{'s' * (rows > 1)}"
            bench.case(label, {side: per_call(call, x, calls) for side, call in sides.items()}, base="captum")
    bench.finish()


if __name__ == "__main__":
    main()
