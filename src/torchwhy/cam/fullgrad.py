"""The shares of the input and of every bias in the score, laid over the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.attribution import Attribution
from torchwhy.cam.biases import adds_constant, constant_of, result_layer
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.axes import axes_of
from torchwhy.engine.layers.dependence import Pictures, first_row_leaves
from torchwhy.engine.layers.drawn_row import find_once
from torchwhy.engine.layers.grid_layout import find_grid, in_proportion, picture_of, resize_maps
from torchwhy.engine.layers.layer import ResolvedLayer, hook_layers, record_with_grad
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.run.autograd import compute_gradients, enable_grad_for
from torchwhy.engine.run.rows import at_least_float32, expand_like
from torchwhy.engine.structure import Tensors, structure_of_some
from torchwhy.engine.torch_internals import is_graph
from torchwhy.input_types import SomeInputs
from torchwhy.problem import Problem
from torchwhy.result import Result


class FullGrad(Attribution[SomeInputs]):
    r"""The input's and the biases' gradients, each brought to [0, 1] and added up over the picture:
    :math:`M_n = \sum_c \psi(x_n \odot \nabla_x f)_c + \sum_l \sum_c \psi(b_l \odot \nabla_{z_l} f)_c`.

    :math:`z_l` is what a layer l with a bias gives: convolutions, linear layers, norms (of a batch norm the constant that it
    adds). ψ takes absolute values, brings them to [0, 1] over the layer's channels and cells, and interpolates to the input's
    size. Maps are ``(N, 1, *size)``, never negative, without a unit; layers without a grid, and those
    inside attention windows, are left out of the map. Several pictures have a map each, of the layers that see them, in the
    form of the inputs.

    Before ψ the terms add up to the score in networks of ReLUs and linear layers: the explanation's ``completeness_gap`` is how
    far they are from that (attention, smooth activations, biases outside of such modules).

    Paper: Srinivas and Fleuret 2019, arXiv:1905.00780, equations 2 and 4.
    """

    layer_role: ClassVar[LayerRole] = "own"
    finds_layers: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1905.00780"

    def _attribute(self, problem: Problem) -> Result:
        layers = find_once(problem, None, _layers_with_constants)
        problem = problem.replace(read_layers=tuple(result_layer(one.layer) for one in layers))

        def work(start: int, stop: int) -> list[Tensor]:
            each = _maps_and_gaps(problem, layers, problem.rows[start : stop : problem.n_targets])
            return [torch.stack(of_targets, 1).flatten(0, 1) for of_targets in zip(*each)]

        numbers = _pictures_of(problem)
        *maps, gaps = problem.run.concatenated(problem.n, work)
        shown = tuple(m.unsqueeze(picture_of(problem, number=i).channels or 1) for i, m in zip(numbers, maps))
        return Result(shown, gaps, form=structure_of_some(problem.inputs.names, len(problem.x), numbers))

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: FullGrad adds up all layers; leave it out")


class LayerWithConstant(NamedTuple):
    """A layer that adds a constant, where the rows are in what it gives, and which picture's cells its own may be."""

    layer: ResolvedLayer
    rows: BatchAxis
    picture: int | None


def _pictures_of(problem: Problem) -> list[int]:
    """Return the numbers of the inputs that are pictures: those with the most dimensions.

    Raises:
        ValueError: all have a single number a row.
    """
    most = picture_of(problem).number
    return [i for i, x in enumerate(problem.x) if x.dim() == problem.x[most].dim()]


def _layers_with_constants(problem: Problem) -> list[LayerWithConstant]:
    """Return the layers that add a constant, found by running the model on the first row it is given."""
    if not isinstance(problem.model, nn.Module):
        raise TypeError("model: a plain callable has no layers whose biases FullGrad could read")
    for name, module in problem.model.named_modules():
        if is_graph(module):
            raise TypeError(
                f"model: {f'its module {name!r}' if name else 'it'} is a graph, scripted, traced or exported, in which no layer "
                "runs by itself, so that their biases would be left out; give the nn.Module that it came from"
            )
    z, graph = first_row_leaves(problem)
    passed = problem.run.trace(z, problem.rows[:1], complete=True)[1]
    pictures = Pictures(problem, graph, [t for _, t in passed])

    def picture_under(layer: ResolvedLayer, tensor: Tensor) -> int | None:
        grid = pictures.grid(layer, tensor)
        return pictures.seen_by(tensor) if grid is None or pictures.are_cells(tensor, grid) else None

    calls = Counter(layer.name for layer, _ in passed)
    return [
        LayerWithConstant(
            layer if calls[layer.name] > 1 else replace(layer, call=None),
            batch_axis_of_one_row(tuple(t.shape)),
            picture_under(layer, t),
        )
        for layer, t in passed
        if adds_constant(layer.module)
    ]


def _maps_and_gaps(problem: Problem, layers: Sequence[LayerWithConstant], rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield for each target the maps ``(M, *size)`` of each picture, and how far their terms are from its score, ``(M,)``."""
    sizes = {i: picture_of(problem, number=i).size for i in _pictures_of(problem)}
    inputs = [x[rows] for x in problem.x]
    for scores, by_input, by_layer in _gradients(problem, layers, inputs, rows):
        left = at_least_float32(scores)
        maps = {i: [left.new_zeros(len(rows), *size)] for i, size in sizes.items()}
        for term, on_grid, picture in _terms(problem, layers, inputs, by_input, by_layer):
            left = left - term.flatten(1).sum(1)
            if on_grid is not None and picture is not None:
                maps[picture].append(_unit_map(on_grid, sizes[picture]))
        yield *(torch.stack(of_one).sum(0) for of_one in maps.values()), left.abs()


def _gradients(
    problem: Problem, layers: Sequence[LayerWithConstant], inputs: list[Tensor], rows: Tensor
) -> Iterator[tuple[Tensor, list[Tensor | None], Tensors]]:
    """Yield for each target its scores ``(M,)``, their gradients by the inputs (None for whole numbers), and by the layers
    times the constants that these add."""
    leaves = [x.requires_grad_() for x in inputs if x.is_floating_point()]
    constants: dict[
        int, Tensor
    ] = {}  # as they are while the model runs: it may be called with other parameters than its own

    def read(i: int, result: Tensor) -> None:
        constants[i] = constant_of(layers[i].layer.module, result.shape)

    reading = hook_layers([one.layer for one in layers], read, own=True)
    recording = record_with_grad(problem.read_layers, own=True)
    with enable_grad_for(problem.model, inputs[0].device), reading, recording as recorded:
        each = problem.run.scores_of_targets([x.clone() for x in inputs], rows)
    at = [recorded[i] for i in range(len(problem.read_layers))]
    for number, scores in enumerate(each, 1):
        found = compute_gradients(scores, [*leaves, *at], what=problem.read_layers, keep=number < len(each))
        by_leaf = iter(found[: len(leaves)])
        by_input = [next(by_leaf) if x.is_floating_point() else None for x in inputs]
        yield scores.detach(), by_input, tuple(g * constants[i] for i, g in enumerate(found[len(leaves) :]))


def _terms(
    problem: Problem,
    layers: Sequence[LayerWithConstant],
    inputs: Sequence[Tensor],
    by_input: Sequence[Tensor | None],
    by_layer: Sequence[Tensor],
) -> Iterator[tuple[Tensor, Tensor | None, int | None]]:
    """Yield x ⊙ ∇x f and each b ⊙ ∇z f, ``(M, ...)``, the same on a grid ``(M, C, *grid)``, and that of which picture.

    The grid is None where there is none.

    A layer that runs for other rows than the inputs', as for a reference, is left out where the score does not depend on it.
    """
    pictures = _pictures_of(problem)
    for i, (x, g) in enumerate(zip(inputs, by_input)):
        if g is not None:
            term = at_least_float32(x.detach() * g)
            yield term, axes_of(problem, i).channels_first(term) if i in pictures else None, i
    for (layer, rows, picture), each in zip(layers, by_layer):
        if rows.axis is not None and each.shape[rows.axis] != len(inputs[0]):
            if bool(each.any()):
                raise ValueError(
                    f"model: {layer} runs for {len(each)} rows of {len(inputs[0])}, so that its bias belongs to no row"
                )
            continue
        term = rows.split(at_least_float32(each), len(inputs[0]))
        if picture is None or rows.axis is None:
            yield term, None, None
            continue
        size = picture_of(problem, number=picture).size
        grid = find_grid(layer, term, len(term), size)
        yield term, grid(term) if grid is not None and in_proportion(grid.size, size) else None, picture


def _unit_map(term: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return the sum over the channels of ψ(term ``(M, C, *grid)``), ``(M, *size)``; 0 where the term is the same everywhere."""
    values = term.abs()
    flat = values.flatten(1)
    low, high = expand_like(flat.amin(1), values), expand_like(flat.amax(1), values)
    return resize_maps(torch.where(high > low, (values - low) / (high - low), 0).sum(1, keepdim=True), size)[:, 0]
