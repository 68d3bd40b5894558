"""The base of the class activation maps: a layer's channels, weighted, added up and laid over the picture.

A method is its ``weights(a, g)``, from activations and gradients that lie on a grid; ``combine`` where it is no weighted sum;
``maps`` where it takes more than one pass forward and one back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.layers.dependence import pictures_alike
from torchwhy.engine.layers.grid_layout import GridLayout, InputPicture, ToGrid, find_layout, picture_of, resize_maps
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.run.autograd import compute_gradients
from torchwhy.engine.run.rows import at_least_float32, expand_like
from torchwhy.engine.run.runner import GradientFunction
from torchwhy.engine.structure import Keywords, Tensors, flatten
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.targets import Target


class ClassActivationMap(Attribution[LayerLike]):
    r"""The base class of the class activation maps: :math:`M_n = \mathrm{ReLU}(\sum_c w_{nc} A_{nc})`.

    ``A`` ``(N, C, *grid)`` are a layer's activations; a method is its weights. Maps are ``(N, 1, *size)``, of the size of
    the input ``(N, C, *size)`` that the layer sees, linearly interpolated, and not normalized: only the proportions within a map
    mean something. They say where the layer has evidence, at the coarseness of its grid, and do not add up to the score. Of
    several inputs ``details["inputs"]`` are the names or places of those that the map lies on.

    Args:
        layer: a layer, or a list of them, whose maps are each divided by their largest value and averaged. ``"auto"`` is
            the last layer with a grid of cells or tokens of the picture on which the target depends, found once for a model;
            tokens of something else, as of a question or of learned queries, are left out.
        relu: cut off the negative part, as most of the papers do (those of EigenCAM, KPCACAM and HiResCAM do not: there it is
            ours); without it a map is signed.
        upsample: bring the map to the input's size; otherwise it is the grid's ``(N, 1, *grid)``.
        interpolation: of the upsampled map: ``"linear"``, or ``"nearest"``, which leaves the cells as they are.
        reshape: a callable activations → ``(N, C, *grid)`` for layouts that are not known: convolutions of 1 to 3 dimensions,
            grids with the channels last, sequences of tokens, also with others before them, and windows of such grids need
            none.

    Raises:
        ValueError: the layer has no grid, or the target does not depend on it.
    """

    layer: LayerLike | Sequence[LayerLike] | None = "auto"  # type: ignore[assignment]  # one map of them all
    relu: bool = True
    upsample: bool = True
    interpolation: Literal["linear", "nearest"] = "linear"
    reshape: ToGrid | None = None

    layer_role: ClassVar[LayerRole] = "read"
    gives_one_map: ClassVar[bool] = True
    vectors_are_a_cell: ClassVar[bool] = False  # a layer (N, C) is a grid of one cell, where nothing is upsampled
    layer_gradient: ClassVar[GradientFunction] = staticmethod(compute_gradients)

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return weights ``(M, C)`` or ``(M, C, *grid)``, from activations and gradients ``(M, C, *grid)``."""
        raise NotImplementedError

    def combine(self, a: Tensor, g: Tensor) -> Tensor:
        """Return maps ``(M, *grid)``, from activations and gradients ``(M, C, *grid)``."""
        return weighted_sum(a, self.weights(a, g))

    def maps(self, problem: Problem) -> Sequence[Tensor]:
        """Return one map ``(N, *grid)`` for each layer, with its negative part."""

        def work(start: int, stop: int) -> list[Tensor]:
            z = [x[start:stop] for x in problem.x]
            _, slopes, activations = problem.run.gradients_and_activations(z, rows[start:stop], self.layer_gradient)
            found = []
            for layout, a, g in zip(self.grid_layouts(problem, activations, stop - start), activations, slopes):
                cells = layout(g)
                if isinstance(layout, GridLayout) and layout.extra:
                    _check_cells(g, cells)
                found.append(self.combine(at_least_float32(layout(a)), at_least_float32(cells)))
            return found

        rows = problem.rows
        return problem.run.concatenated(len(rows), work)

    def grid_layouts(self, problem: Problem, tensors: Tensors, m: int) -> list[ToGrid]:
        """Return what turns each layer's tensor, for m rows, into a grid ``(M, C, *grid)``."""
        vectors = self.vectors_are_a_cell and not self.upsample and self.reshape is None
        if vectors and all(t.dim() == 2 and len(t) == m for t in tensors):
            return [as_one_cell] * len(tensors)
        return [
            find_layout(problem, place, t, m, picture_of(problem, place).size, self.reshape)
            for place, t in zip(problem.read_layers, tensors)
        ]

    def activations(self, problem: Problem) -> list[Tensor]:
        """Return the activations ``(N, C, *grid)`` of each layer."""

        def arrange(passed: Tensors, m: int) -> list[Tensor]:
            return [layout(a) for layout, a in zip(self.grid_layouts(problem, passed, m), passed)]

        found = problem.run.activations(problem.read_layers, problem.x, problem.rows, arrange)
        return [at_least_float32(a) for a in found]

    def target_classes(self, problem: Problem) -> Tensor:
        """Return the class ``(N,)`` of each row, for methods that explain nothing else.

        Raises:
            TypeError: the target is no class.
        """
        target = problem.target
        if not isinstance(target, Target) or target.neuron is not None or len(target.largest) != 1:
            raise TypeError(
                f"target={target.given!r}: {type(self).__name__} explains a class; give an int or one per row"
            )
        return torch.as_tensor(target.index, device=problem.rows.device).flatten().expand(problem.n)

    def _attribute(self, problem: Problem) -> Result:
        maps = [m.clamp(min=0) if self.relu else m for m in self.maps(problem)]
        details: Keywords = {"layer": ", ".join(layer.name for layer in problem.read_layers)}
        if not self.upsample:
            return Result((maps[0][:, None],), details=details)
        picture = picture_of(problem, problem.read_layers[0])
        if len(problem.x) > 1:
            numbers = pictures_alike(problem, problem.read_layers[0])
            details["inputs"] = [problem.input_keys[i] for i in numbers]
        if len(maps) > 1:
            _check_one_picture(problem, picture)
            peaks = [expand_like(m.flatten(1).abs().amax(1), m) for m in maps]
            maps = [torch.where(p > 0, m / p, 0) for m, p in zip(maps, peaks)]
        large = [resize_maps(m[:, None], picture.size, self.interpolation) for m in maps]
        found = large[0] if len(large) == 1 else torch.stack(large).mean(0)
        channels = picture.channels or 1
        return Result((found if channels == 1 else found.movedim(1, channels),), details=details)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not self.upsample and self.layer is not None and len(flatten(self.layer)[0]) > 1:
            raise ValueError(
                "upsample=False: the maps of several layers are joined at the input's size; give one layer"
            )


def _check_one_picture(problem: Problem, picture: InputPicture) -> None:
    """Refuse layers whose maps lie on different inputs.

    Raises:
        ValueError: they do.
    """
    for layer in problem.read_layers[1:]:
        if picture_of(problem, layer).number != picture.number:
            raise ValueError(
                f"layer: {problem.read_layers[0]} and {layer} see different inputs, and their maps lie on these; explain by each "
                "in its own call"
            )


def as_one_cell(tensor: Tensor) -> Tensor:
    """Return vectors ``(N, C)`` as grids of one cell, ``(N, C, 1)``."""
    return tensor[..., None]


def weighted_sum(a: Tensor, w: Tensor) -> Tensor:
    """Return the sums over c of w A, ``(N, *grid)``: activations ``(N, C, *grid)``, weights ``(N, C)`` or one per cell."""
    if w.dim() == a.dim():
        return (w * a).sum(1)
    return torch.bmm(w.unsqueeze(1).to(a), a.flatten(2)).view(a.shape[0], *a.shape[2:])


def _check_cells(g: Tensor, cells: Tensor) -> None:
    """Refuse gradients that are zero on all cells, but not on the other tokens.

    Raises:
        ValueError: they are.
    """
    if bool(g.any() & ~cells.any()):
        raise ValueError(
            "layer: the target depends on this layer through its class or register tokens only, not through the cells of "
            "the picture; choose one below the last attention (such as the last block's first norm), or layer='auto'"
        )
