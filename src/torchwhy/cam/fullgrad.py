"""The shares of the input and of every bias in the score, laid over the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.attribution import Attribution
from torchwhy.cam.biases import adds_constant, constant_of, is_exported_graph, result_layer
from torchwhy.engine.axes import axes_of
from torchwhy.engine.layers.dependence import Pictures, first_row_leaves
from torchwhy.engine.layers.grid_layout import find_grid, in_proportion, picture_of, resize_maps
from torchwhy.engine.layers.layer import ResolvedLayer, record_with_grad
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.prepare import LayerRole
from torchwhy.engine.run.autograd import compute_gradients, enable_grad_for
from torchwhy.engine.run.rows import at_least_float32, expand_like
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem
from torchwhy.result import Result


class FullGrad(Attribution):
    r"""The input's and the biases' gradients, each brought to [0, 1] and added up over the picture:
    :math:`M_n = \sum_c \psi(x_n \odot \nabla_x f)_c + \sum_l \sum_c \psi(b_l \odot \nabla_{z_l} f)_c`.

    :math:`z_l` is what a layer l with a bias gives: convolutions, linear layers, norms (of a batch norm the constant that it
    adds). ψ takes absolute values, brings them to [0, 1] over the layer's channels and cells, and interpolates to the input's
    size. Maps are ``(N, 1, *size)``, never negative, without a unit; layers without a grid, and those
    inside attention windows, are left out of the map.

    Before ψ the terms add up to the score in networks of ReLUs and linear layers: the explanation's ``completeness_gap`` is how
    far they are from that (attention, smooth activations, biases outside of such modules).

    Paper: Srinivas and Fleuret 2019, arXiv:1905.00780, equations 2 and 4.
    """

    layer_role: ClassVar[LayerRole] = "own"
    paper: ClassVar[str] = "arXiv:1905.00780"

    def _attribute(self, problem: Problem) -> Result:
        layers = _layers_with_constants(problem)
        problem = problem.replace(read_layers=tuple(result_layer(one.layer) for one in layers))

        def work(start: int, stop: int) -> list[Tensor]:
            each = _maps_and_gaps(problem, layers, problem.rows[start : stop : problem.n_targets])
            return [torch.stack(of_targets, 1).flatten(0, 1) for of_targets in zip(*each)]

        maps, gaps = problem.run.concatenated(problem.n, work)
        return Result((maps.unsqueeze(picture_of(problem).channels or 1),), gaps)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: FullGrad adds up all layers; leave it out")


class LayerWithConstant(NamedTuple):
    """A layer that adds a constant, where the rows are in what it gives, and whether its cells may be the picture's."""

    layer: ResolvedLayer
    rows: BatchAxis
    on_picture: bool


def _layers_with_constants(problem: Problem) -> list[LayerWithConstant]:
    """Return the layers that add a constant, found by running the model on the first row."""
    if not isinstance(problem.model, nn.Module):
        raise TypeError("model: a plain callable has no layers whose biases FullGrad could read")
    for name, module in problem.model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or is_exported_graph(module):
            raise TypeError(
                f"model: {f'its module {name!r}' if name else 'it'} is a graph, scripted, traced or exported, in which no layer "
                "runs by itself, so that their biases would be left out; give the nn.Module that it came from"
            )
    z, graph = first_row_leaves(problem)
    passed = problem.run.trace(z, problem.rows[:1])[1]
    pictures, at = Pictures(problem, graph, [t for _, t in passed]), picture_of(problem).number
    calls = Counter(layer.name for layer, _ in passed)
    return [
        LayerWithConstant(
            layer if calls[layer.name] > 1 else replace(layer, call=None),
            batch_axis_of_one_row(tuple(t.shape)),
            pictures.seen_by(t) == at and ((grid := pictures.grid(layer, t)) is None or pictures.are_cells(t, grid)),
        )
        for layer, t in passed
        if adds_constant(layer.module)
    ]


def _maps_and_gaps(
    problem: Problem, layers: Sequence[LayerWithConstant], rows: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield for each target the maps ``(M, *size)`` of some rows, and how far their terms are from its score, ``(M,)``."""
    size = picture_of(problem).size
    inputs = [x[rows] for x in problem.x]
    for scores, by_input, by_layer in _gradients(problem, inputs, rows):
        left, maps = at_least_float32(scores), []
        for term, on_grid in _terms(problem, layers, inputs, by_input, by_layer):
            left = left - term.flatten(1).sum(1)
            if on_grid is not None:
                maps.append(_unit_map(on_grid, size))
        yield torch.stack(maps).sum(0), left.abs()


def _gradients(
    problem: Problem, inputs: list[Tensor], rows: Tensor
) -> Iterator[tuple[Tensor, list[Tensor | None], Tensors]]:
    """Yield for each target its scores ``(M,)``, and their gradients by the inputs (None for whole numbers) and the layers."""
    leaves = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    with enable_grad_for(problem.model, inputs[0].device), record_with_grad(problem.read_layers) as recorded:
        each = problem.run.scores_of_targets([x.clone() for x in inputs], rows)
    at = [recorded[i] for i in range(len(problem.read_layers))]
    for number, scores in enumerate(each, 1):
        found = compute_gradients(scores, [*leaves, *at], what=problem.read_layers, keep=number < len(each))
        by_leaf = iter(found[: len(leaves)])
        by_input = [next(by_leaf) if x.is_floating_point() else None for x in inputs]
        yield scores.detach(), by_input, found[len(leaves) :]


def _terms(
    problem: Problem,
    layers: Sequence[LayerWithConstant],
    inputs: Sequence[Tensor],
    by_input: Sequence[Tensor | None],
    by_layer: Sequence[Tensor],
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield x ⊙ ∇x f and each b ⊙ ∇z f, ``(M, ...)``, and the same on a grid ``(M, C, *grid)``, None where it has none."""
    picture = picture_of(problem)
    for i, (x, g) in enumerate(zip(inputs, by_input)):
        if g is not None:
            term = at_least_float32(x.detach() * g)
            yield term, axes_of(problem, i).channels_first(term) if i == picture.number else None
    for (layer, rows, on_picture), g in zip(layers, by_layer):
        term = rows.split(at_least_float32(g * constant_of(layer.module, g.shape)), len(inputs[0]))
        found = on_picture and rows.axis is not None
        grid = find_grid(layer, term, len(term), picture.size) if found else None
        yield term, grid(term) if grid is not None and in_proportion(grid.size, picture.size) else None


def _unit_map(term: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the sum over the channels of ψ(term ``(M, C, *grid)``), ``(M, *size)``; 0 where the term is the same everywhere."""
    values = term.abs()
    flat = values.flatten(1)
    low, high = expand_like(flat.amin(1), values), expand_like(flat.amax(1), values)
    return resize_maps(torch.where(high > low, (values - low) / (high - low), 0).sum(1, keepdim=True), size)[:, 0]
