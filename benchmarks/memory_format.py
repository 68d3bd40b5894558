"""Does the rule that decides on channels-last images and folded batch norms choose right, on models it was not made for?

Each model runs plain, channels-last, with batch norms folded, with both, and as the rule chooses from the shapes of one plain
call: gradients and evaluations, of images of 224 pixels and of small ones. With one thread the seconds are those of the
processor, which other processes do not lengthen; with more, those of the clock.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from harness import Benchmark

from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.run.optimizations import CallOptimizations, channels_last, choose_optimizations

# the rule was made on resnet18, resnet50, mobilenet_v2, efficientnet_b0, vgg11, vit_b_16, squeezenet1_1, densenet121,
# convnext_tiny, shufflenet_v2_x1_0, mnasnet1_0, regnet_y_400mf and ghostnet_100
MODELS = (
    "resnext50_32x4d",
    "mobilenet_v3_large",
    "googlenet",
    "regnet_x_400mf",
    "efficientnet_v2_s",
    "swin_t",
    "timm dla34",
    "timm mobilevit_s",
    "timm poolformer_s12",
    "timm hrnet_w18_small",
)
SIZES = ((224, 8), (64, 64), (64, 16), (32, 256), (32, 32))  # pixels, rows of a call: as long work has them, and less
FORMS: dict[str, dict[str, bool]] = {
    "channels-last": {"channels_last": True, "fold": False},
    "folded": {"channels_last": False, "fold": True},
    "channels-last, folded": {"channels_last": True, "fold": True},
}


def network(name: str) -> torch.nn.Module:
    """Return a model by its name, with random weights."""
    if name.startswith("timm "):
        import timm

        return timm.create_model(name.removeprefix("timm "), pretrained=False)
    from torchvision import models

    with warnings.catch_warnings():  # of googlenet, that its weights will be drawn in another way
        warnings.simplefilter("ignore")
        return models.get_model(name, **({"aux_logits": False} if name == "googlenet" else {}))


def call(model: Any, x: torch.Tensor, optimizations: CallOptimizations | None, graph: bool) -> None:
    """Make one call of the model, and its backward pass to the images."""
    last = optimizations is not None and optimizations.channels_last
    with torch.set_grad_enabled(graph):
        leaf = (channels_last(x) if last else x).detach().requires_grad_(graph)
        with optimizations or nullcontext():
            scores = model(leaf.clone())[:, 0]
        if graph:
            torch.autograd.grad(scores.sum(), leaf)


def seconds(run: Callable[[], Any]) -> Callable[[], float]:
    """Return a side that states the seconds of a run: of the processor, where one thread does all of it."""
    clock = time.process_time if torch.get_num_threads() == 1 and not torch.cuda.is_available() else time.perf_counter

    def side() -> float:
        begun = clock()
        run()
        return clock() - begun

    return side


def chosen(model: Any, x: torch.Tensor, graph: bool) -> CallOptimizations | None:
    """Return what the rule chooses for calls of as many rows as x has."""
    with CallCost() as cost:
        call(model, x[:2], None, graph)
    return choose_optimizations(model, cost, len(x) / 2, device=x.device, graph=graph)


def name_of(optimizations: CallOptimizations | None) -> str:
    """Return the name of the side that runs with the same optimizations."""
    if optimizations is None:
        return "plain"
    made = {"channels_last": optimizations.channels_last, "fold": optimizations.fold}
    return next(name for name, form in FORMS.items() if form == made)


def main() -> None:
    bench = Benchmark(
        "memory_format", "What the rule for memory formats chooses, beside what there is", rounds=9, gpu=True
    )
    misses = []
    for name in MODELS[:2] if bench.quick else MODELS:
        model = network(name).eval().requires_grad_(False).to(bench.device)
        for side, rows in SIZES:
            if (side < 224 and name == "swin_t") or (bench.quick and side == 224):
                continue
            x = torch.randn(rows, 3, side, side, device=bench.device)
            for graph in (False, True):
                label = f"{name}, {'gradients' if graph else 'evaluations'}, {rows} images of {side} px"
                if not bench.wanted(label):
                    continue
                rule = chosen(model, x, graph)
                forms = {
                    "plain": None,
                    **{form: CallOptimizations(**kinds) for form, kinds in FORMS.items()},
                    "rule": rule,
                }
                sides = {form: seconds(lambda o=o: call(model, x, o, graph)) for form, o in forms.items()}
                for run in sides.values():
                    run()
                result = bench.case(label, sides, base="plain", facts={"chosen": name_of(rule)})
                best = min(FORMS, key=result["ratio"].__getitem__)
                if result["ratio"]["rule"] > 1.05 * min(1, result["ratio"][best]):
                    misses.append(f"{label}: {name_of(rule)} where {best} takes {result['ratio'][best]:.2f} ×")
    print(f"\nmore than 5 % slower than the best of the four: {len(misses)}", *misses, sep="\n    ")
    bench.finish()


if __name__ == "__main__":
    main()
