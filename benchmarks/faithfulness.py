"""Are the maps true of a real network? Deletion, insertion and the drop of the score on photos, every method.

The EfficientNet-Lite0 trained on ImageNet, its own answer for each photo; every method with the settings of the demo,
at half its effort. Photos differ more than methods do, so each number is the difference from that of a random map of the
same photo.

    python benchmarks/faithfulness.py --save
"""

from __future__ import annotations

import functools
from typing import Any

from harness import TableBenchmark
from measure import blind_maps

import torchwhy as tw
from torchwhy import demo, models
from torchwhy import metrics as M
from torchwhy.comparison_table import Comparison

QUICK = ("Saliency", "IntegratedGradients", "GradCAM", "LRP", "Occlusion")
SLOW = (
    "ExtremalPerturbation",
    "GuidedIG",
    "SSCAM",
    "ISCAM",
    "ExactShapley",
    "Conductance",
    "InternalInfluence",
    "FullGrad",
)


class BesideRandom(Comparison):
    """A table of differences from a random map of the same row."""

    def best(self, metric: str) -> set[str]:
        """The methods that are better than it: their intervals do not hold 0."""
        cells, sign = {m: self.cell(m, metric) for m in self.methods}, 1 if self.better[metric] else -1
        return {m for m, c in cells.items() if min(sign * c.low, sign * c.high) > 0}

    def plot(self) -> Any:
        """With a line where the random map is."""
        figure = super().plot()
        for ax in figure.axes:
            ax.axvline(0, color="#4d4d4d", linewidth=0.8)
        return figure


def main() -> None:
    bench = TableBenchmark("faithfulness", "Faithfulness on EfficientNet-Lite0 and photos")
    import torch

    try:
        loaded = models.load("efficientnet-lite0")
    except ImportError as error:
        print(f"left out: {error}")
        return
    names = models.PHOTOS[:2] if bench.quick else models.PHOTOS
    x = torch.cat([loaded.preprocess(models.photo(name)) for name in names])
    with torch.no_grad():
        y = loaded.model(x).argmax(1)
    print(", ".join(f"{name}: {loaded.labels[k]}" for name, k in zip(names, y.tolist())), "\n")
    effort = 0.25 if bench.quick else 0.5
    methods: dict[str, Any] = blind_maps(x)
    cost: dict[str, tuple[float, float]] = {}
    for name in QUICK if bench.quick else demo.for_photos():
        if name in SLOW:
            continue
        try:
            (shown,) = demo.explain_photos([name], loaded.model, x, y, effort=effort)
        except (TypeError, ValueError, LookupError, FloatingPointError, NotImplementedError) as error:
            print(f"left out: {name}: {error}")
            continue
        e = shown.explanation
        if e.attributions.shape[-2:] != x.shape[-2:]:  # a layer's own shape, not the picture's
            print(f"left out: {name}: a map of a layer")
            continue
        methods[name], cost[name] = e.shown, (e.seconds / len(x), e.evaluations / len(x))
        print(f"{name}: {e.seconds:.1f} s", flush=True)
    steps = 10 if bench.quick else 16
    metrics = {
        "deletion": functools.partial(M.deletion, steps=steps),
        "insertion": functools.partial(M.insertion, steps=steps),
        "average drop": M.average_drop,
    }
    table = tw.compare(loaded.model, x, y, methods, metrics, baselines="blur")
    for name, of_method in table.values.items():
        random = of_method.pop("(random)")
        table.values[name] = {method: v - random for method, v in of_method.items()}
    del table.seconds["(random)"], table.evaluations["(random)"], table.attributions["(random)"]
    bench.table = table = BesideRandom(**vars(table))
    for name, (seconds, evaluations) in cost.items():
        table.seconds[name], table.evaluations[name] = seconds, evaluations
    print(f"\n{table}\nall less those of a random map")
    bench.text = (
        f"{len(x)} photos, {loaded.name}, its own first answer; pixels are removed in {steps} steps and replaced by a blurred "
        f"photo; each method with {effort:.0%} of the samples and steps of the demo. The scores are logits, and all numbers "
        "differences from those of a random map of the same photo. Mean ± half of the 95 % interval; bold (red in the plot): "
        "better than the random map. In brackets: maps that know nothing of the network either. Left out for their "
        f"time: {', '.join(SLOW)}.\n\n{table.to_markdown()}"
    )
    bench.finish()


if __name__ == "__main__":
    main()
