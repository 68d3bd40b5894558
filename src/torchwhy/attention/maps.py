"""From one number for each token to a map over the picture or video that the tokens are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, axes_by_shape, axes_of
from torchwhy.engine.layers.grid_layout import resize_maps, token_grid
from torchwhy.problem import Problem


class Ground(NamedTuple):
    """What the tokens of a sequence are of.

    Args:
        number: of the input, None where it is none.
        shape: of the tensor.
        axes: where it has its channels and its places, None where it is no picture and no video.
        grid: the size of the grid that its cells make, where that is known.
    """

    number: int | None
    shape: torch.Size
    axes: Axes | None
    grid: tuple[int, ...] = ()

    @property
    def is_picture(self) -> bool:
        """Whether the tokens are patches."""
        return self.axes is not None

    @property
    def size(self) -> tuple[int, ...]:
        """The size of the picture or video, in places."""
        return () if self.axes is None else tuple(self.shape[i] for i in self.axes.spatial)


def ground_of_tokens(problem: Problem, number: int | None, shape: torch.Size) -> Ground:
    """Return what tokens are of that were an input, or another tensor of a shape, at first."""
    axes = None
    if len(shape) in (4, 5):
        axes = axes_by_shape(shape, problem.model) if number is None else axes_of(problem, number)
    return Ground(number, shape, axes)


def grid_of_tokens(count: int, ground: Ground, grid: Sequence[int] | None) -> tuple[tuple[int, ...], int]:
    """Return the size of the grid that so many tokens make over a picture, and how many of them come before it.

    Raises:
        ValueError: they make none, or not the one that was given.
    """
    if grid is not None:
        cells = math.prod(grid)
        if not 0 <= count - cells < count or len(grid) != len(ground.size):
            raise ValueError(
                f"grid={grid}: {cells} cells over {len(ground.size)} axes, but the model has {count} tokens"
            )
        return tuple(grid), count - cells
    found = token_grid(count, ground.size)
    if found is None:
        shown = " × ".join(map(str, ground.size))
        raise ValueError(f"grid: {count} tokens make no grid of patches over an image of {shown}; give it")
    return found.size, found.extra


def mean_map(found: Sequence[tuple[Ground, Tensor]], *, upsample: bool) -> Tensor:
    """Return values ``(N, T)`` of tokens, of the cells of a picture as a map over it, with one channel.

    Of several the mean, of maps at the picture's size.

    Raises:
        ValueError: different numbers of tokens, where these are no patches, or are not to be brought to one size.
    """
    ground, maps = found[0][0], [v for _, v in found]
    if ground.is_picture:
        maps = [v.unflatten(1, of_one.grid)[:, None] for of_one, v in found]
        if upsample:
            maps = [resize_maps(m, ground.size) for m in maps]
    if len({m.shape for m in maps}) > 1:
        shapes = ", ".join(str(tuple(m.shape[1:])) for m in maps)
        raise ValueError(
            f"layers: the chosen attentions are over different numbers of tokens, {shapes}; choose some of one size"
        )
    mean = maps[0] if len(maps) == 1 else torch.stack(maps).mean(0)
    return mean.movedim(1, ground.axes.channels or 1) if ground.axes is not None and upsample else mean
