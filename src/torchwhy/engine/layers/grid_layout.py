"""Grids of cells: where the parts of a picture are in what passes a layer, and the last layer that has them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.engine.axes import COLOURS, axes_by_shape
from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.engine.torch_internals import (
    AdaptiveAvgPoolModule,
    AdaptiveMaxPoolModule,
    AvgPoolModule,
    ConvModule,
    MaxPoolModule,
    NormModule,
)

if TYPE_CHECKING:
    from torchwhy.problem import Problem

MAX_EXTRA_TOKENS = 9  # the most tokens that are no cells: a class token and eight registers
MAX_SKEW = math.log(2)  # a grid's height / width may differ from the picture's by this factor
ADAPTIVE_POOLS = (AdaptiveAvgPoolModule, AdaptiveMaxPoolModule)
PLAIN_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CHANNELS_FIRST_MODULES = (
    ConvModule,
    NormModule,
    nn.GroupNorm,
    AvgPoolModule,
    MaxPoolModule,
    *ADAPTIVE_POOLS,
)  # have their channels in the second axis
HEAD_MODULES = (nn.Linear, *ADAPTIVE_POOLS)  # a projection inside a block, and what ends a grid

ToGrid = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class GridLayout:
    """How a layer's tensor becomes ``(N, C, *size)``.

    Args:
        size: the grid, (L,), (H, W) or (D, H, W).
        channels: the axis of the channels.
        rows: the axis of the rows.
        extra: how many tokens before the first cell are none.
        sure: whether the sizes leave no other reading, such as that of windows of cells.
    """

    size: tuple[int, ...]
    channels: int = 1
    rows: int = 0
    extra: int = 0
    sure: bool = True

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the grid, without copying where it can be."""
        if tensor.shape[2:] == self.size and (self.rows, self.channels, self.extra) == (0, 1, 0):
            return tensor
        cells = tensor.movedim((self.rows, self.channels), (0, 1)).flatten(2)
        return cells[..., self.extra :].unflatten(2, self.size)


class InputPicture(NamedTuple):
    """The input tensor that maps lie on.

    Args:
        number: which of the input tensors it is.
        size: in places, (L,), (H, W) or (D, H, W).
        channels: the axis of its channels, where maps ``(N, 1, *size)`` get their 1 to go with it; None where it has none.
    """

    number: int
    size: tuple[int, ...]
    channels: int | None


def picture_of(problem: Problem, place: ResolvedLayer | None = None, *, number: int | None = None) -> InputPicture:
    """Return the input tensor that a map lies on: with this number, that a layer sees, or the one with the most dimensions.

    Raises:
        ValueError: the layer sees none of the inputs, or the tensor has a single number a row.
    """
    tensors, data, index = problem.x, problem.inputs, number or 0
    if number is None and place is not None and (len(tensors) > 1 or data.args or data.kwargs):
        from torchwhy.engine.layers.dependence import find_picture

        index = find_picture(problem, place)
    elif number is None and len(tensors) > 1:
        index = max(range(len(tensors)), key=lambda i: tensors[i].dim())
    shape = tensors[index].shape
    told = problem.axes[index] if problem.axes else None
    if told is None and (len(shape) == 3 or (len(shape) == 4 and shape[3] not in COLOURS)):  # there is no other reading
        return InputPicture(index, tuple(shape[2:]), 1)
    channels, spatial, _ = told or axes_by_shape(shape, problem.model)
    return InputPicture(index, tuple(shape[i] for i in spatial), channels)


def find_grid(place: ResolvedLayer, tensor: Tensor, n: int, size: tuple[int, ...]) -> GridLayout | None:
    """Return the grid over a picture of ``size`` in what passes ``place`` for n rows, None if there is none of two cells.

    Channels may come first ``(N, C, *grid)`` or last ``(N, *grid, C)``; tokens may be ``(N, T, C)``, ``(T, N, C)`` or
    ``(N, C, T)``. Sizes of the layer's parameters tell which axis is the channels', else the grid's proportions.
    """
    shape, dims = tuple(tensor.shape), len(size)
    module = place.module
    if type(module) in PLAIN_CONVOLUTIONS and len(shape) == 2 + dims and shape[0] == n and math.prod(shape[2:]) > 1:
        width = module.in_channels if place.input else module.out_channels
        if shape[1] == width and shape[-1] != width:  # there is no other reading
            return GridLayout(shape[2:])
    axis = 1 if place.input else 0  # a weight's first size counts what comes out, its second what goes in
    sizes = {p.shape[axis if p.dim() > 1 else 0] for p in place.module.parameters() if p.dim()}
    widths = sizes - {1}  # how many channels may pass here
    if len(shape) == 3 and shape[0] != n and shape[1] == n and dims:
        found = replace(g, rows=1) if (g := token_grid(shape[0], size)) else None
    elif shape[0] != n or not 1 <= dims <= 3:
        return None
    elif len(shape) == 2 + dims:
        found = dense_grid(shape, size, widths, place.module)
    elif len(shape) == 3:
        after, before = token_grid(shape[1], size), token_grid(shape[2], size)
        known = (shape[1] in widths) - (shape[2] in widths)
        sure = known != 0 or after is None or before is None
        if after and before and known == 0:  # which one has the picture's proportions?
            known = dims > 1 and _skew(before.size, size) < _skew(after.size, size)
        found = replace(before, channels=1) if before and (known > 0 or not after) else after
        found = replace(found, sure=sure) if found else None
    else:
        return None
    return found if found and math.prod(found.size) > 1 else None


def dense_grid(
    shape: tuple[int, ...], size: tuple[int, ...], widths: set[int], module: nn.Module | None = None
) -> GridLayout | None:
    """Return the grid of a tensor with as many dimensions as the pictures."""
    first, last = GridLayout(shape[2:]), GridLayout(shape[1:-1], channels=-1)
    known = (shape[1] in widths) - (shape[-1] in widths)
    if known == 0:  # some layers have their channels in a fixed place
        fixed = shape[-1] in widths and (isinstance(module, nn.Linear) or type(module) is nn.LayerNorm)
        known = isinstance(module, CHANNELS_FIRST_MODULES) - fixed
    if len(size) == 1:
        if known == 0 and size == last.size != first.size:  # tokens, or as many channels as the signal has points
            return replace(last, sure=False)
        return last if known < 0 else first
    found = first if known > 0 or (known == 0 and _skew(first.size, size) <= _skew(last.size, size)) else last
    if known <= 0 and _skew(found.size, size) > MAX_SKEW:
        return None
    if known > 0:
        return replace(found, sure=True)
    fits = [in_proportion(grid.size, size) for grid in (first, last)]
    sure = (
        fits[found is last]
        and (known != 0 or not all(fits))
        and not (found is last and _may_be_windows(last.size, size))
    )
    return replace(found, sure=sure)


def in_proportion(grid: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Say whether a grid has the picture's proportions, up to a cell."""
    if len(size) < 2:
        return True
    (h, w), (height, width) = grid[-2:], size[-2:]
    return abs(h * width - w * height) <= max(height, width)


def _may_be_windows(sizes: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Say whether two sizes may be the number of square windows in a plane and of cells in each, in either order."""
    planes = [any(n % h == 0 and in_proportion((h, n // h), size) for h in range(1, n + 1)) for n in sizes[-2:]]
    squares = [n > 1 and math.isqrt(n) ** 2 == n for n in sizes[-2:]]
    return (squares[0] and planes[1]) or (squares[1] and planes[0])


def _skew(grid: tuple[int, ...], size: tuple[int, ...]) -> float:
    """Return how far a grid's height / width is from the picture's, as a logarithm."""
    return abs(math.log(max(1, grid[-2]) / max(1, grid[-1])) - math.log(size[-2] / size[-1]))


@lru_cache(maxsize=256)
def token_grid(tokens: int, size: tuple[int, ...]) -> GridLayout | None:
    """Return the grid of square patches that ``tokens`` tokens make, with as few others before them as can be."""
    if len(size) == 1:
        return GridLayout((tokens,), channels=2)
    found = []
    depths = {f(size[0], q) for q in range(1, size[0] + 1) for f in (_down, _up)} if len(size) == 3 else {1}
    for patch in range(1, max(size[-2:]) + 1):
        for f in (_down, _up):
            plane = (f(size[-2], patch), f(size[-1], patch))
            for depth in depths:
                cells = depth * plane[0] * plane[1]
                extra = tokens - cells
                if 0 <= extra <= MAX_EXTRA_TOKENS and 2 * extra <= cells:
                    grid = (depth, *plane) if len(size) == 3 else plane
                    found.append((extra, -depth, _skew(grid, size), grid))  # in doubt the finest in time
    return GridLayout(min(found)[-1], channels=2, extra=min(found)[0]) if found else None


def _down(a: int, b: int) -> int:
    return a // b


def _up(a: int, b: int) -> int:
    return -(-a // b)


def find_layout(
    problem: Problem, place: ResolvedLayer, tensor: Tensor, n: int, size: tuple[int, ...], reshape: ToGrid | None = None
) -> ToGrid:
    """Return what turns the tensor that passes ``place`` for n rows into ``(N, C, *grid)``.

    Raises:
        ValueError: it has no grid over a picture of ``size``, or ``reshape`` gives none.
    """
    if reshape is None:
        grid = find_grid(place, tensor, n, size)
        found: ToGrid | None = grid
        # a sequence before the rows, or as many windows of n tokens?
        either = tensor.dim() == 3 and n > 1 and tensor.shape[1] == n and len(tensor) % n == 0
        if grid is None or not grid.sure or either:
            from torchwhy.engine.layers.window_layout import layout_by_dependence  # which asks for plain grids itself

            found = layout_by_dependence(problem, place, n, size) or grid
        if found is None:
            what = " × ".join(map(str, size)) or "no extent"
            raise ValueError(
                f"layer: {place} passes a tensor of shape {tuple(tensor.shape)}, which is no grid of cells over inputs "
                f"of {what}; choose a convolutional or token layer, the block around this one, layer='auto', or give "
                "reshape="
            )
        if tensor.dim() == 3:
            from torchwhy.engine.layers.dependence import check_cells

            check_cells(problem, place, found, size)
        return found
    shape = tuple(reshape(tensor).shape)
    if len(shape) != 2 + len(size) or shape[0] != n:
        raise ValueError(
            f"reshape: expected a result (N, C, *grid) of {2 + len(size)} dimensions with N = {n}, it has shape {shape}"
        )
    return reshape


def resize_maps(maps: Tensor, size: tuple[int, ...], interpolation: str = "linear") -> Tensor:
    """Return maps ``(N, C, ...)`` resized to ``size`` over 1, 2 or 3 dimensions, linearly or by the ``"nearest"`` cell."""
    if interpolation == "nearest":
        return F.interpolate(maps, size=size, mode="nearest")
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
    return F.interpolate(maps, size=size, mode=mode, align_corners=False)
