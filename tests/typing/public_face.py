"""What users write, for type checkers: ``mypy --strict`` finds nothing here. Read by tests/test_typing.py, never run."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor, nn
from typing_extensions import assert_type

import torchwhy as tw
from torchwhy import visualize
from torchwhy.models import load, photo, shapes, shapes_resnet


def methods(model: nn.Module) -> list[tw.Attribution]:
    ig = tw.IntegratedGradients(model, n_steps=64, tolerance=0.01, batch_size=16, precision="bf16", progress=True)
    assert_type(ig.n_steps, int)
    return [
        ig,
        tw.Saliency(model, layer="layer1"),
        tw.SmoothGrad(model, of=ig, n_samples=8, generator=0),
        tw.GradCAM(model, layer="auto", relu=False),
        tw.LRP(model, composite="epsilon", epsilon=1e-6),
        tw.LRP(model, composite={nn.Conv2d: tw.lrp.Gamma(0.25)}),
        tw.KernelSHAP(model, n_samples=64, generator=0),
        tw.Occlusion(model, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4)),
        tw.DeepLIFT(model),
        tw.Conductance(model, layer=tw.Layer("layer1", call=0)),
    ]


def attribute(method: tw.Attribution, x: Tensor, z: Tensor) -> None:
    assert_type(method.attribute(x, target=3), Tensor)
    assert_type(method.attribute((x, z), target=[3, 1]), tuple[Tensor, ...])
    assert_type(method.attribute({"x": x, "z": z}, target="predicted"), dict[str, Tensor])
    assert_type(method.attribute([x, z], target=[3, 1]), list[Tensor] | tuple[Tensor, ...])


def arrays(method: tw.Attribution, x: np.ndarray, classes: np.ndarray, z: Tensor) -> None:
    method.attribute(x, target=classes, baselines=x)
    method.explain((x, z), target=3, feature_mask=x)


def targets(method: tw.Attribution, x: Tensor) -> None:
    def margin(output: Tensor) -> Tensor:
        return output[:, 3] - output[:, 1]

    def weighted(output: Tensor, rows: Tensor) -> Tensor:
        return (output * x[rows]).sum(1)

    named = (
        tw.targets.Probability(),
        tw.targets.Probability(x.argmax(1)),
        tw.targets.LogProb(" Madrid", position=-1),
        tw.targets.Contrast([1, 2], 0),
        tw.targets.Entropy(),
        tw.targets.Span(1, [2, 3]),
        tw.targets.Similarity(x[0], output="image_embeds"),
        tw.targets.Box([0, 0, 8, 8], [1, (2, 3)]),
        tw.targets.Region(None, x > 0),
    )
    for one in (*named, weighted, (-1, "predicted")):
        assert_type(method.explain(x, target=one), tw.Explanation)
    method.explain(x, target=[margin, weighted])
    assert_type(method.explain_each(x, [3, *named, weighted]), list[tw.Explanation])
    assert_type(method.explain_each(x, "all"), list[tw.Explanation])
    method.attribute_each(x, range(3))
    for target in (3, [3, 1], (2, 5), "predicted", None, margin, tw.Neuron("layer1", (2, 5, 5)), x.argmax(1)):
        method.explain(x, target=target)


def baselines(model: nn.Module, x: Tensor) -> None:
    method = tw.IntegratedGradients(model)
    for baseline in (0.5, x, "blur", tw.Blur(sigma=8), tw.Distribution(x), tw.Noise(std=0.5, k=4, generator=0)):
        method.attribute(x, 3, baselines=baseline)
    tw.FeatureAblation(model).attribute(x, 3, feature_mask=tw.patches(x, 7), additional_forward_args=(x, None))


def explain(method: tw.Attribution, x: Tensor) -> None:
    e = method.explain(x, target="predicted")
    assert_type(e, tw.Explanation)
    assert_type(e.evaluations, int)
    assert_type(e.seconds, float)
    assert_type(e.completeness_gap, Tensor | None)
    assert_type(e.scores, Tensor | None)
    assert_type(len(e), int)
    assert_type(e[0], tw.Explanation)
    assert_type(e[1:3], tw.Explanation)
    assert_type(tw.concat([e, e]), tw.Explanation)
    assert_type(e.to("cpu"), tw.Explanation)
    assert_type(e.features(), list[Tensor])
    e.to_csv("e.csv", long=True)
    e.save("e.safetensors")
    assert_type(tw.Explanation.load("e.safetensors"), tw.Explanation)


def pictures(e: tw.Explanation, x: Tensor) -> None:
    assert_type(e.plot(), Figure)
    assert_type(e.overlay(alpha=0.5), Figure)
    assert_type(visualize.heatmap(x[0], image=x[0], title="why"), Figure)
    assert_type(visualize.grid({"IG": x, "Saliency": [x[0], x[1]]}, images=x, titles=["a", "b"]), Figure)
    assert_type(visualize.bars([0.5, -2.0], ["age", "bmi"]), Figure)
    assert_type(visualize.colored_text(["a", "b"], [2.0, 1.0]), str)
    assert_type(tw.visualize.to_png(e.plot()), bytes)


def metrics(model: nn.Module, x: Tensor, mask: Tensor, labels: Tensor) -> None:
    maps = tw.Saliency(model).attribute(x, labels)
    assert_type(tw.metrics.deletion(model, x, maps, labels, softmax=True), tw.metrics.Curve)
    assert_type(tw.metrics.relevance_mass(maps, mask), Tensor)
    assert_type(tw.metrics.sensitivity_max(tw.Saliency(model), x, labels), Tensor)


def compare(model: nn.Module, x: Tensor, labels: Tensor) -> None:
    table = tw.compare(model, x, labels, {"gradient": tw.Saliency(model), "own": x}, ["deletion", "sparseness"])
    assert_type(table, tw.Comparison)
    assert_type(table.plot(), Figure)
    assert_type(table.best("deletion"), set[str])
    assert_type(table.to_csv(), str)


def models() -> None:
    data = shapes(4, seed=1)
    assert_type(data.images, Tensor)
    assert_type(shapes_resnet().head, nn.Linear)
    loaded = load("resnet18", weights="random")
    assert_type(loaded.preprocess(photo("chelsea")), Tensor)


def tables() -> None:
    for name, method in tw.methods().items():
        assert_type(name, str)
        assert_type(method.needs_gradient, bool)
        assert_type(method.paper, str)


class Own(tw.baselines.Baseline):
    """A baseline of a user."""

    def rows(self, x: Tensor, generator: object) -> Tensor:
        """Return rows ``(1, 1, ...)``."""
        return x[:1][None]
