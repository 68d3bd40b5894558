"""Smooth masks from few parameters, and images between sharp and hidden that they choose from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

SHARPNESS = 20.0  # of the smooth maximum: larger is nearer to the maximum


class SmoothMasks:
    """Masks ``(M, 1, *size)`` from parameters ``(M, *cells)`` on a grid of points, one in the middle of each cell.

    Beyond the picture the grid goes on as its mirror image, as far as a point reaches, so that a pixel at the border has as many
    points around it as any other. Else even parameters gave the largest masks at the border, and what sorts the pixels of a mask
    by size, as the error of its area does, kept the border from the first step on. Points of their own out there would reach
    few pixels, follow their gradient later than the others, and so keep the border too.

    Args:
        size: how many pixels (steps of a series, frames of a video) each axis of places has.
        step: pixels between the points, along each axis.
        sigma: the radius, in pixels along each axis, within which a point's parameter holds.
        like: a tensor of the masks' type and device.
    """

    def __init__(self, size: Sequence[int], step: Sequence[int], sigma: Sequence[float], like: Tensor) -> None:
        self.size, self.step, self.sigma, self.like = tuple(size), tuple(step), tuple(sigma), like
        self.cells = tuple(math.ceil(n / k) for n, k in zip(size, step))  # of the picture itself
        # beyond two radii the kernel has fallen below 0.012
        self.reach = tuple(math.ceil(2 * s / k) for s, k in zip(sigma, step))
        self.mirror = [_mirrored(n, beyond, like.device) for n, beyond in zip(self.cells, self.reach)]
        squares, axes = torch.zeros((), device=like.device, dtype=like.dtype), len(self.size)
        for axis, (s, k, beyond) in enumerate(zip(self.sigma, self.step, self.reach)):
            at = torch.arange(k, device=like.device, dtype=like.dtype) - (k - 1) / 2
            points = torch.arange(-beyond, beyond + 1, device=like.device, dtype=like.dtype) * k
            line = ((at[None, :] - points[:, None]) / s).square()  # (neighbours, pixels of a cell) along one axis
            squares = squares + _along(line, axis, axes)
        distance = squares.flatten(0, axes - 1).flatten(1).sqrt()  # (neighbours, pixels of a cell)
        self.kernel = torch.exp(-2 * (distance - 0.5).clamp(min=0).square())

    def __call__(self, p: Tensor) -> Tensor:
        """Return the masks of parameters p ``(M, *cells)``."""
        axes = range(1, len(self.size) + 1)
        for axis, mirror, beyond in zip(axes, self.mirror, self.reach):
            p = p.index_select(axis, mirror).unfold(axis, 2 * beyond + 1, 1)
        neighbours = [axis + len(self.size) for axis in axes]
        near = p.permute(0, *neighbours, *axes).flatten(1, len(self.size)).flatten(2)  # (M, neighbours, cells)
        v = near[:, :, None] * self.kernel[None, :, :, None]
        m = (torch.softmax(SHARPNESS * v, 1) * v).sum(1)  # (M, pixels of a cell, cells)
        m = m.unflatten(2, self.cells).unflatten(1, self.step)
        m = m.permute(0, *(i for axis in axes for i in (axis + len(self.size), axis)))
        for axis, n in zip(axes, self.size):
            m = m.flatten(axis, axis + 1).narrow(axis, 0, n)
        return m[:, None]

    def discs(self, area: float) -> Tensor:
        """Return the parameters ``(K, *cells)`` of discs of a share of the picture, a radius or less apart.

        Along each axis a disc is as long as :math:`\\sigma` is there. At the border less of a disc is in the picture.
        """
        return self.within(self.places(area), self.radius(area))

    @property
    def size_in_sigmas(self) -> list[float]:
        """The picture's size in units of :math:`\\sigma`, along each axis."""
        return [n / s for n, s in zip(self.size, self.sigma)]

    def places(self, area: float) -> Tensor:
        """Return middles ``(K, axes)`` a radius or less apart, in units of :math:`\\sigma`, as radii are."""
        size = self.size_in_sigmas
        counts = [math.ceil(n / self.ideal_radius(area)) for n in size]
        middles = [(torch.arange(k).to(self.like) + 0.5) * n / k for k, n in zip(counts, size)]
        return torch.cartesian_prod(*middles).view(-1, len(size))

    def ideal_radius(self, area: float) -> float:
        """Return the radius of a disc of a share of the picture."""
        size = self.size_in_sigmas
        return (area * math.prod(size) / ball(len(size))) ** (1 / len(size))

    def radius(self, area: float) -> float:
        """Return within which radius the points are on for which the smooth mask in the middle has the area."""
        size = self.size_in_sigmas
        low, high = 0.0, float(sum(size))
        middle = torch.tensor([size], device=self.like.device, dtype=self.like.dtype) / 2
        for _ in range(16):
            half = (low + high) / 2
            if float(self(self.within(middle, half)).mean()) < area:
                low = half
            else:
                high = half
        return (low + high) / 2

    def within(self, places: Tensor, radius: float) -> Tensor:
        """Return parameters ``(K, *cells)``: 1 where a point is nearer than a radius to a place ``(K, axes)``, 0 beyond.

        Places and radius are in units of :math:`\\sigma`.
        """
        squares, apart = self.like.new_zeros(()), [k / s for k, s in zip(self.step, self.sigma)]
        for axis, (n, gap) in enumerate(zip(self.cells, apart)):
            points = (torch.arange(n).to(self.like) + 0.5) * gap
            line = (points - places[:, axis, None]).square()
            squares = squares + line.view(len(places), *(n if k == axis else 1 for k in range(len(self.size))))
        return (0.5 + (radius - squares.sqrt()) / max(apart)).clamp(0, 1)

    @staticmethod
    def area_error(m: Tensor, areas: Tensor) -> Tensor:
        """Return how far the sorted pixels of each mask are from 1 for a share of them and 0 for the rest, ``(M,)``."""
        pixels = m.flatten(1).sort(1).values
        place = torch.arange(pixels.shape[1], device=m.device, dtype=torch.float) + 0.5
        ones = (place[None] >= (1 - areas[:, None]) * pixels.shape[1]).to(m)
        return (pixels - ones).square().mean(1)


def ball(axes: int) -> float:
    """Return the length, area or volume of a ball of radius 1 in a space of so many axes."""
    return math.pi ** (axes / 2) / math.gamma(axes / 2 + 1)


def _along(line: Tensor, axis: int, axes: int) -> Tensor:
    """Return ``(a, b)`` as ``(1, ..., a, ..., 1, ..., b, ..., 1)``: a in place ``axis`` of the first axes, b of the last ones."""
    first = [len(line) if k == axis else 1 for k in range(axes)]
    last = [line.shape[1] if k == axis else 1 for k in range(axes)]
    return line.view(*first, *last)


def _mirrored(n: int, beyond: int, device: torch.device) -> Tensor:
    """Return which of n points stands at each place of a line that goes on as its mirror image, ``(n + 2 * beyond,)``.

    >>> _mirrored(3, 2, torch.device("cpu"))
    tensor([1, 0, 0, 1, 2, 2, 1])
    """
    at = torch.arange(-beyond, n + beyond, device=device) % (2 * n)
    return torch.minimum(at, 2 * n - 1 - at)


def blend_levels(levels: Tensor, m: Tensor) -> Tensor:
    """Return images ``(M, C, *size)`` between levels.

    Args:
        levels: each image, from sharp to hidden, ``(M, L, C, *size)``.
        m: ``(M, 1, *size)``, 1 where the first level is taken, 0 where the last is.
    """
    at = (1 - m) * (levels.shape[1] - 1)
    number = torch.arange(levels.shape[1], device=m.device, dtype=m.dtype).view(-1, *(1,) * (m.dim() - 2))
    weights = (1 - (at - number).abs()).clamp(min=0)
    return torch.einsum("mlc...,ml...->mc...", levels, weights)
