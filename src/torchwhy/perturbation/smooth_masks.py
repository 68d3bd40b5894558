"""Smooth masks from few parameters, and images between sharp and hidden that they choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

SHARPNESS = 20.0  # of the smooth maximum: larger is nearer to the maximum


class SmoothMasks:
    """Masks ``(M, 1, H, W)`` from parameters ``(M, rows, columns)`` on a grid of points, one in the middle of each cell.

    Beyond the picture the grid goes on as its mirror image, as far as a point reaches, so that a pixel at the border has as many
    points around it as any other. Else even parameters gave the largest masks at the border, and what sorts the pixels of a mask
    by size, as the error of its area does, kept the border from the first step on. Points of their own out there would reach
    few pixels, follow their gradient later than the others, and so keep the border too.

    Args:
        size: height and width.
        step: pixels between the points.
        sigma: the radius, in pixels, within which a point's parameter holds.
        like: a tensor of the masks' type and device.
    """

    def __init__(self, size: Sequence[int], step: int, sigma: float, like: Tensor) -> None:
        self.size, self.step = tuple(size), step
        self.cells = tuple(math.ceil(n / step) for n in size)  # of the picture itself
        self.sigma, self.like = sigma, like
        self.reach = math.ceil(2 * sigma / step)  # beyond two radii the kernel has fallen below 0.012
        self.mirror = [_mirrored(n, self.reach, like.device) for n in self.cells]
        at = torch.arange(step, device=like.device, dtype=like.dtype) - (step - 1) / 2
        cells = torch.arange(-self.reach, self.reach + 1, device=like.device, dtype=like.dtype) * step
        line = (at[None, :] - cells[:, None]).square()  # (neighbours, pixels of a cell) along one side
        distance = (line[:, None, :, None] + line[None, :, None, :]).flatten(2).flatten(0, 1).sqrt()
        self.kernel = torch.exp(-2 * (distance / sigma - 0.5).clamp(min=0).square())

    def __call__(self, p: Tensor) -> Tensor:
        """Return the masks of parameters p ``(M, rows, columns)``."""
        side, (rows, columns) = 2 * self.reach + 1, self.mirror
        near = F.unfold(p[:, None, rows][..., columns], side)  # (M, neighbours, cells of the picture)
        v = near[:, :, None] * self.kernel[None, :, :, None]
        m = (torch.softmax(SHARPNESS * v, 1) * v).sum(1)  # (M, pixels of a cell, cells)
        m = F.pixel_shuffle(m.unflatten(2, self.cells), self.step)
        return m[..., : self.size[0], : self.size[1]]

    def discs(self, area: float) -> Tensor:
        """Return the parameters ``(K, rows, columns)`` of discs of a share of the picture, a radius or less apart.

        At the border less of a disc is in the picture.
        """
        radius = math.sqrt(area * math.prod(self.size) / math.pi)
        counts = [math.ceil(n / radius) for n in self.size]
        middles = [(torch.arange(k).to(self.like) + 0.5) * n / k for k, n in zip(counts, self.size)]
        places = torch.cartesian_prod(*middles).view(-1, 2)
        low, high = 0.0, float(sum(self.size))
        middle = torch.tensor([self.size]).to(self.like) / 2
        for _ in range(
            16
        ):  # the radius of the points that are on, for which the smooth mask in the middle has the area
            half = (low + high) / 2
            if float(self(self._within(middle, half)).mean()) < area:
                low = half
            else:
                high = half
        return self._within(places, (low + high) / 2)

    def _within(self, places: Tensor, radius: float) -> Tensor:
        """Return parameters ``(K, rows, columns)``: 1 where a point is nearer than a radius to a place ``(K, 2)``, 0 beyond."""
        rows, columns = ((torch.arange(n).to(self.like) + 0.5) * self.step for n in self.cells)
        distance = torch.hypot(rows[:, None] - places[:, :1, None], columns - places[:, 1:, None])
        return (0.5 + (radius - distance) / self.step).clamp(0, 1)

    @staticmethod
    def area_error(m: Tensor, areas: Tensor) -> Tensor:
        """Return how far the sorted pixels of each mask are from 1 for a share of them and 0 for the rest, ``(M,)``."""
        pixels = m.flatten(1).sort(1).values
        place = torch.arange(pixels.shape[1], device=m.device, dtype=torch.float) + 0.5
        ones = (place[None] >= (1 - areas[:, None]) * pixels.shape[1]).to(m)
        return (pixels - ones).square().mean(1)


def _mirrored(n: int, beyond: int, device: torch.device) -> Tensor:
    """Return which of n points stands at each place of a line that goes on as its mirror image, ``(n + 2 * beyond,)``.

    >>> _mirrored(3, 2, torch.device("cpu"))
    tensor([1, 0, 0, 1, 2, 2, 1])
    """
    at = torch.arange(-beyond, n + beyond, device=device) % (2 * n)
    return torch.minimum(at, 2 * n - 1 - at)


def blend_levels(levels: Tensor, m: Tensor) -> Tensor:
    """Return images ``(M, C, H, W)`` between levels.

    Args:
        levels: each image, from sharp to hidden, ``(M, L, C, H, W)``.
        m: ``(M, 1, H, W)``, 1 where the first level is taken, 0 where the last is.
    """
    at = (1 - m) * (levels.shape[1] - 1)
    number = torch.arange(levels.shape[1], device=m.device, dtype=m.dtype).view(-1, 1, 1)
    weights = (1 - (at - number).abs()).clamp(min=0)
    return torch.einsum("mlchw,mlhw->mchw", levels, weights)
