"""Does the rule that decides on channels-last images and folded batch norms choose right, on models it was not made for?

Each model runs plain, channels-last, with batch norms folded, with both, and as the rule chooses from the shapes of one plain
call: gradients and evaluations, of images of 224 pixels and of small ones. On a CPU the seconds are the processor's, of all
threads, which other processes do not lengthen. ``OMP_WAIT_POLICY=passive`` in the environment keeps threads that wait from
taking any. With one thread torch computes some convolutions of few rows in another way than with more.
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

# the rule was made on torchvision's resnet18, resnet50, resnext50_32x4d, mobilenet_v2, mobilenet_v3_large,
# efficientnet_b0, efficientnet_v2_s, vgg11, googlenet, squeezenet1_1, densenet121, convnext_tiny, shufflenet_v2_x1_0,
# mnasnet1_0, regnet_x_400mf, regnet_y_400mf, vit_b_16, swin_t, swin_v2_t and timm's cspresnet50, dla34, dpn68,
# edgenext_x_small, ese_vovnet19b_dw, ghostnet_100, hgnetv2_b0, hrnet_w18_small, mixnet_s, mobilenetv4_conv_small,
# mobilevit_s, poolformer_s12, repvgg_a0, resnest14d, selecsls42b
MODELS = (
    "timm eca_nfnet_l0",
    "timm efficientvit_b0",
    "timm fastvit_t8",
    "timm fbnetc_100",
    "timm gernet_s",
    "timm mobileone_s0",
    "timm res2net50_14w_8s",
    "timm resnetv2_18",
    "timm rexnet_100",
    "timm skresnet18",
    "timm starnet_s1",
    "timm vovnet39a",
)
LONG_CALLS = ((224, 8), (64, 64), (32, 256))  # pixels, and about the rows that calls of long work have
SHORT_CALLS = ((64, 16), (32, 32))
FORMS: dict[str, dict[str, bool]] = {
    "channels-last": {"channels_last": True, "fold": False},
    "folded": {"channels_last": False, "fold": True},
    "channels-last, folded": {"channels_last": True, "fold": True},
}


class FormatBenchmark(Benchmark):
    """A benchmark whose page and figure are of the rule, beside the best of the four."""

    def markdown(self, results: list[dict[str, Any]]) -> str:
        """How often the rule is as fast as the best, in calls as long work has them, and in short ones."""
        text = ""
        for what, calls in (("Calls of long work", LONG_CALLS), ("Short calls", SHORT_CALLS)):
            here = [r for r in results if r["case"].endswith(tuple(size_of(*call) for call in calls))]
            near = sum(r["ratio"]["rule"] <= 1.05 * best_of(r) for r in here)
            most = max((r["ratio"]["rule"] for r in here), default=1.0)
            sizes = ", ".join(size_of(*call) for call in calls)
            text += (
                f"{what} ({sizes}): the rule takes at most 5 % more than the best of the four in {near} of {len(here)} cases, "
                f"and at most {most:.2f} × what the model takes as it is.\n\n"
            )
        return text

    def plot(self, results: list[dict[str, Any]]) -> Any:
        """A table of colours for each kind of call: what the rule takes beside plain calls, and the best of the four."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(13, 5.5), layout="constrained")
        models = list(dict.fromkeys(r["case"].split(",")[0] for r in results))
        sizes = list(dict.fromkeys(r["case"].rpartition(", ")[2] for r in results))
        for ax, kind in zip(figure.subplots(1, 2, sharey=True), ("evaluations", "gradients")):
            here = {r["case"]: r for r in results}
            each = [[here.get(f"{model}, {kind}, {size}") for size in sizes] for model in models]
            values = [[float("nan") if r is None else r["ratio"]["rule"] for r in row] for row in each]
            image = ax.imshow(values, cmap="RdYlBu_r", vmin=0.5, vmax=1.5, aspect="auto")
            for y, row in enumerate(each):
                for x, r in enumerate(row):
                    if r is not None:
                        text = f"{r['ratio']['rule']:.2f} ({best_of(r):.2f})"
                        ax.text(x, y, text, ha="center", va="center", fontsize=8)
            ax.set(title=kind, xticks=range(len(sizes)), yticks=range(len(models)), yticklabels=models)
            ax.set_xticklabels([size.replace(" of ", "\nof ") for size in sizes], fontsize=8)
        figure.colorbar(image, ax=figure.axes, label="time of the rule's choice, × that of the model as it is")
        figure.suptitle("What the rule takes (the best of the four)", fontsize=10)
        return figure


def size_of(pixels: int, rows: int) -> str:
    """Return what a size of calls is called."""
    return f"{rows} images of {pixels} px"


def best_of(result: dict[str, Any]) -> float:
    """Return what the fastest form takes, beside plain calls."""
    return min(result["ratio"][form] for form in ("plain", *FORMS))


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
    """Return a side that states the seconds of a run: of the processor, where it does all of it."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time

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
    bench = FormatBenchmark(
        "memory_format", "What the rule for memory formats chooses, beside what there is", rounds=9, gpu=True
    )
    misses = []
    for name in MODELS[:2] if bench.quick else MODELS:
        model = network(name).eval().requires_grad_(False).to(bench.device)
        for side, rows in LONG_CALLS + SHORT_CALLS:
            if bench.quick and side == 224:
                continue
            x = torch.randn(rows, 3, side, side, device=bench.device)
            for graph in (False, True):
                label = f"{name}, {'gradients' if graph else 'evaluations'}, {size_of(side, rows)}"
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
                if result["ratio"]["rule"] > 1.05 * best_of(result):
                    misses.append(f"{label}: {name_of(rule)} where the best takes {best_of(result):.2f} ×")
    print(f"\nmore than 5 % slower than the best of the four: {len(misses)}", *misses, sep="\n    ")
    bench.finish()


if __name__ == "__main__":
    main()
