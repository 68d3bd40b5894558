"""What the calls of methods return: read by tests/test_typing.py as type checkers do, and run there to compare."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import torchwhy as tw
from torchwhy.arguments import Ragged
from torchwhy.engine.tables import Frame
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.samples.sample import Sample


class Pictures(nn.Module):
    """Two convolutions and a head, of a picture, or of the sum of two."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, a: Tensor, b: Tensor | None = None) -> Tensor:
        a = a if b is None else a + b
        scores: Tensor = self.head(self.last(self.first(a).relu()).relu().mean((2, 3)))
        return scores


class Sets(nn.Module):
    """The mean of each row's vectors, and something besides."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(3, 2)

    def forward(self, rows: list[Tensor], besides: Tensor | None = None) -> Tensor:
        scores = torch.stack([self.table(row).mean(0) for row in rows])
        return scores if besides is None else scores + besides


class Nodes(nn.Module):
    """The sum of each graph's nodes."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(3, 2)

    def forward(self, nodes: Tensor, graph: Tensor) -> Tensor:
        return torch.zeros(int(graph.max()) + 1, 2).index_add(0, graph, self.table(nodes))


class Own(tw.Attribution[GivenLayer]):
    """A method of a user."""

    scale: float = 1.0

    def _attribute(self, problem: Problem) -> tuple[Tensor, ...]:
        return tuple(self.scale * g for g in problem.run.all_gradients(problem.x))


torch.manual_seed(0)
model, sets, nodes, line = Pictures(), Sets(), Nodes(), nn.Linear(4, 3)
x, z = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
table: np.ndarray = np.ones((2, 4), np.float32)
ig = tw.IntegratedGradients(model, n_steps=2)
graphs = Ragged(torch.randn(5, 3), [2, 3])
graph_of = Ragged(torch.tensor([0, 0, 1, 1, 1]), [2, 3], points_into="rows")
Part = Tensor | Ragged | list[Tensor]
Anything = Part | tuple[Part, ...] | dict[str, Part]


def as_the_inputs() -> None:
    method = tw.Saliency(model)
    assert_type(method.attribute(x, 1), Tensor)
    assert_type(method.attribute((x, z), 1), tuple[Tensor, ...])
    assert_type(method.attribute({"a": x}, 1), dict[str, Tensor])
    assert_type(method.attribute([x, z], 1), tuple[Tensor, ...] | list[Tensor])
    assert_type(method.attribute((x, z), tw.Neuron("first", (0, 2, 2))), tuple[Tensor, ...])
    assert_type(tw.NeuronConductance(model, neuron=tw.Neuron("first", (0, 2, 2))).attribute(x, 1), Tensor)


def arrays() -> None:
    pictures: np.ndarray = x.numpy()
    assert_type(tw.Saliency(line).attribute(table, 1), Tensor)
    assert_type(tw.FeatureAblation(line).attribute(table, 1, baselines=table), Tensor)
    assert_type(tw.Saliency(model).attribute((pictures, z), 1), tuple[Tensor, ...])
    assert_type(tw.Saliency(model).attribute([pictures, pictures], 1), tuple[Tensor, ...])
    assert_type(tw.Saliency(model).attribute({"a": pictures}, 1), dict[str, Tensor])
    assert_type(tw.Saliency(model, layer="first").attribute((pictures, pictures), 1), Tensor)
    assert_type(tw.Saliency(model, layer=["first"]).attribute(pictures, 1), tuple[Tensor, ...])
    assert_type(tw.GradCAM(model).attribute({"a": pictures, "b": pictures}, 1), Tensor)
    assert_type(tw.FullGrad(model).attribute((pictures, z), 1), Tensor | tuple[Tensor, ...])
    assert_type(tw.Saliency(line).attribute_each(table, "all"), list[Tensor])


def frames() -> None:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]

    frame: Frame = pd.DataFrame(table, columns=list("abcd"))
    assert_type(tw.KernelSHAP(line).attribute(frame, 1), Tensor)
    assert_type(tw.KernelSHAP(line).attribute_each(frame, [0, 1]), list[Tensor])


def one_map() -> None:
    assert_type(tw.GradCAM(model).attribute((x, z), 1), Tensor)
    assert_type(tw.GradCAM(model, layer="auto").attribute((x, z), 1), Tensor)
    assert_type(tw.GradCAM(model, layer="last").attribute({"a": x, "b": z}, 1), Tensor)
    assert_type(tw.LayerCAM(model, layer=["first", "last"]).attribute((x, z), 1), Tensor)
    assert_type(tw.GradCAM(model).attribute_each((x, z), [0, 1]), list[Tensor])


def layers() -> None:
    assert_type(tw.Saliency(model, layer="first").attribute(x, 1), Tensor)
    assert_type(tw.Saliency(model, layer="first").attribute((x, z), 1), Tensor)
    assert_type(tw.LayerActivation(model, layer=model.first).attribute({"a": x, "b": z}, 1), Tensor)
    assert_type(tw.Conductance(model, layer=tw.Layer("first")).attribute((x, z), 1), Tensor)
    assert_type(tw.Saliency(model, layer=["first", "last"]).attribute(x, 1), tuple[Tensor, ...])
    assert_type(tw.IntegratedGradients(model, layer=["first"]).attribute((x, z), 1), tuple[Tensor, ...])
    assert_type(tw.Saliency(model, layer=["first", None]).attribute(x, 1), tuple[Tensor, ...])
    assert_type(
        tw.InputXGradient(model, layer=(model.first, "last")).attribute({"a": x, "b": z}, 1), tuple[Tensor, ...]
    )
    assert_type(tw.Saliency(model, layer="first").attribute_each((x, z), [0, 1]), list[Tensor])
    assert_type(tw.Saliency(model, layer=["first", "last"]).attribute_each(x, "all"), list[tuple[Tensor, ...]])


def some_of_the_inputs() -> None:
    assert_type(tw.FullGrad(model).attribute(x, 1), Tensor)
    assert_type(tw.FullGrad(model).attribute((x, z), 1), Tensor | tuple[Tensor, ...])
    assert_type(tw.FullGrad(model).attribute({"a": x}, 1), Tensor | dict[str, Tensor])
    assert_type(tw.GuidedGradCAM(model).attribute(x, 1), Tensor)
    assert_type(tw.GuidedGradCAM(model, layer="first").attribute((x, z), 1), Tensor | tuple[Tensor, ...])
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3))
    ids = torch.tensor([[1, 2], [3, 4]])
    assert_type(tw.Saliency(words, layer="embeddings").attribute(ids, 1), Tensor)
    assert_type(tw.Saliency(words, layer="embeddings").attribute((ids,), 1), Tensor | tuple[Tensor, ...])


def samples() -> None:
    words = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3))
    sample = Sample(torch.tensor([[1, 2], [3, 4]]), names=["first", "second"])
    assert_type(tw.FeatureAblation(words).attribute(sample, 1), Tensor)
    assert_type(tw.Saliency(words, layer="embeddings").attribute(sample, 1), Tensor)
    assert_type(tw.Saliency(words, layer=["0"]).attribute(sample, 1), Tensor)
    assert_type(tw.Saliency(words, layer=["0"]).attribute_each(sample, [0, 1]), list[Tensor])


def methods_of_methods() -> None:
    cam, of_layer = tw.GradCAM(model), tw.Saliency(model, layer="first")
    assert_type(tw.SmoothGrad(model, n_samples=2).attribute((x, z), 1), tuple[Tensor, ...])
    assert_type(tw.SmoothGrad(model, of=ig, n_samples=2).attribute((x, z), 1), tuple[Tensor, ...])
    assert_type(tw.SmoothGrad(model, of=cam, n_samples=2).attribute((x, z), 1), Tensor)
    assert_type(tw.SquareGrad(model, layer=["first"], n_samples=2).attribute(x, 1), tuple[Tensor, ...])
    assert_type(tw.VarGrad(model, of=of_layer, n_samples=2).attribute({"a": x}, 1), Tensor)
    assert_type(tw.Processed(model, of=cam).attribute((x, z), 1), Tensor)
    assert_type(tw.Processed(model, of=ig, after=torch.abs).attribute({"a": x, "b": z}, 1), dict[str, Tensor])
    assert_type(tw.IDGI(model, of=ig).attribute((x, z), 1), tuple[Tensor, ...])


def each_target() -> None:
    assert_type(tw.Saliency(model).attribute_each(x, [0, 1]), list[Tensor])
    assert_type(tw.Saliency(model).attribute_each((x, z), [0, 1]), list[tuple[Tensor, ...]])
    assert_type(tw.Saliency(model).attribute_each({"a": x}, "all"), list[dict[str, Tensor]])


def rows_of_their_own() -> None:
    method, rows, besides = tw.Saliency(sets), [torch.randn(2, 3), torch.randn(5, 3)], torch.randn(2, 2)
    assert_type(tw.Saliency(nodes).attribute(graphs, 1, additional_forward_args=graph_of), Ragged)
    assert_type(method.attribute((rows, besides), 1), Anything)
    assert_type(method.attribute({"rows": rows, "besides": besides}, 1), Anything)
    at_layer = tw.Saliency(nodes, layer="table")
    assert_type(at_layer.attribute(graphs, 1, additional_forward_args=graph_of), Anything)


def any_method(method: tw.Attribution, inputs: Tensor | tuple[Tensor, ...]) -> None:
    assert_type(method.attribute(inputs, 1), Tensor | tuple[Tensor, ...])


def a_method_of_ones_own() -> None:
    assert_type(Own(model, scale=2.0).attribute((x, z), 1), tuple[Tensor, ...])
    assert_type(Own(model, layer="first").attribute((x, z), 1), Tensor)
    assert_type(Own(model, layer=["first"]).attribute(x, 1), tuple[Tensor, ...])
    assert_type(tw.SmoothGrad(model, of=Own(model, layer="first"), n_samples=2).attribute({"a": x}, 1), Tensor)


def several_methods() -> None:
    methods: list[tw.Attribution] = [tw.Saliency(model), tw.Saliency(model, layer="first"), tw.GradCAM(model)]
    for method in methods:
        any_method(method, x)


PARTS = [
    as_the_inputs,
    arrays,
    frames,
    one_map,
    layers,
    some_of_the_inputs,
    methods_of_methods,
    each_target,
    rows_of_their_own,
]
PARTS += [a_method_of_ones_own, several_methods]
