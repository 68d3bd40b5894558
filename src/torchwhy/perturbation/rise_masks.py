"""The masks of RISE: coarse random grids, enlarged and shifted by a part of a cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from torchwhy.engine.axes import axes_of
from torchwhy.engine.run.randomness import Draws, draw_uniform, draws_per_block
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem

MOST_KNOTS = 256  # where a mask is looked at to predict its score
MOST_WEIGHTS = 2**22  # of the elements of a line, made together for a mean over shifts


@dataclass
class RandomGridMasks:
    """Masks ``(M, *spatial)`` by number: random grids, enlarged and shifted.

    Args:
        problem: of which the spatial shape and the generator are taken.
        cells: of the grid along each axis of places.
        p: the chance of a cell to be visible.
        unit: 2 makes an odd number's grid the opposite of the one before.
    """

    problem: Problem
    cells: Sequence[int]
    p: float
    unit: int
    chances: Draws = field(init=False)
    shifts: Draws = field(init=False)

    def __post_init__(self) -> None:
        self.axes = axes_of(self.problem, 0)
        self.shape = torch.Size(self.axes.size_of(self.problem.x[0]))
        number, dims = math.prod(self.cells), len(self.shape)
        each = int(MOST_KNOTS ** (1 / dims) + 1e-9)
        self.knots = [torch.linspace(0, n - 1, min(each, n), dtype=torch.float).round().long() for n in self.shape]
        self.chances = _uniform_draws(number, self.problem.generator, draws_per_block(number))
        self.shifts = _uniform_draws(dims, self.problem.generator, draws_per_block(number))

    def make(self, index: Tensor, device: torch.device) -> Tensor:
        """Return the masks with these numbers ``(M,)``."""
        chance = self.chances[index // self.unit]
        chance = torch.where((index % self.unit == 1)[:, None], 1 - chance, chance)
        on = (chance < self.p).float().view(-1, *self.cells)
        return enlarge_grids(to_device(on, device), to_device(self.shifts[index // self.unit], device), self.shape)

    def for_rows(self, index: Tensor, rows: Tensor) -> Tensors:
        """Return the masks with the numbers ``(M,)``, which rise, for the engine: ``(M, 1, *spatial)`` in the input's order."""
        low = int(index[0])  # one mask serves several rows and baselines: it is made once
        made = self.make(torch.arange(low, int(index[-1]) + 1), rows.device)
        return (self.axes.restore(made[to_device(index - low, rows.device)][:, None]),)

    def covariance(self, like: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return the covariance of the mask at the knots, what carries knots to all elements, and the variance this leaves out.

        The first two as their factors along each dimension, the last ``(elements,)``.
        Given the shifts a mask is linear in its cells, which are independent; so the factors are those of a mean over all
        shifts, and the best linear prediction of the mask from its knots.
        """
        known, carry, whole, told = [], [], [], []
        for dim, (n, cells) in enumerate(zip(self.shape, self.cells)):
            knots = self.knots[dim].to(like.device)
            scale = self.p * (1 - self.p) if dim == 0 else 1
            near, own = _line_covariance(n, cells, knots, like, scale)
            known.append(near[knots])
            carry.append(near @ torch.linalg.pinv(known[-1], hermitian=True, rtol=1e-6))
            whole.append(own[None])
            told.append((carry[-1] * near).sum(1)[None])
        return known, carry, (kronecker_product(whole) - kronecker_product(told))[0].clamp(min=0)


def _line_covariance(n: int, cells: int, knots: Tensor, like: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Return along one axis of n elements their covariance with the knots ``(n, knots)`` and their variance ``(n,)``."""
    cell = -(-n // cells)
    near, own = like.new_zeros(n, len(knots)), like.new_zeros(n)
    for start in torch.arange(cell, dtype=torch.float).split(max(1, MOST_WEIGHTS // (n * cells))):
        weights = line_weights(n, cells, start[:, None]).to(like)
        near += torch.einsum("sng,smg->nm", weights, weights[:, knots])
        own += weights.square().sum((0, 2))
    return near * (scale / cell), own * (scale / cell)


def _uniform_draws(size: int, generator: torch.Generator, per_block: int) -> Draws:
    """Return uniform draws ``(M, size)`` in [0, 1] by number."""

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return draw_uniform(count, size, generator=generator)

    return Draws(draw, generator, per_block)


def kronecker_product(factors: Sequence[Tensor]) -> Tensor:
    """Return the Kronecker product of all the factors."""
    out = factors[0]
    for f in factors[1:]:
        out = torch.kron(out, f)
    return out


def enlarge_grids(grid: Tensor, shift: Tensor, shape: Sequence[int]) -> Tensor:
    """Enlarge grids bilinearly to one cell more than the shape, and cut the shape out of them.

    Args:
        grid: ``(M, g, ..., g)``.
        shift: ``(M, D)``, where the cut begins, in cells from 0 to 1.
        shape: of the D spatial dimensions; the result is ``(M, *shape)``.
    """
    out = grid
    for dim, n in enumerate(shape):
        g = grid.shape[1 + dim]
        cell = -(-n // g)
        start = (shift[:, dim, None] * cell).floor()
        line = line_weights(n, g, start).to(grid)
        wide = torch.einsum("mgr,mng->mrn", out.reshape(len(grid), g, -1), line)
        out = wide.reshape(len(grid), *out.shape[2:], n)
    return out


def line_weights(n: int, g: int, start: Tensor) -> Tensor:
    """Return how n elements, cut from ``start`` ``(M, 1)`` on out of an enlarged line of g cells, weigh these: ``(M, n, g)``."""
    cell = -(-n // g)
    at = ((torch.arange(n, device=start.device) + start + 0.5) * (g / ((g + 1) * cell)) - 0.5).clamp(0, g - 1)
    return (1 - (at[..., None] - torch.arange(g, device=start.device)).abs()).clamp(min=0)
