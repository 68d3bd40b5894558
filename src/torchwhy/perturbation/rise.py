"""Random masks, weighed by the scores of what they leave visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.engine.features.masks import evaluate_masks
from torchwhy.engine.features.statistics import GrowingTensor, penalty_by_cross_validation
from torchwhy.engine.layers.grid_layout import resize_maps
from torchwhy.engine.run.randomness import Draws, draws_per_block
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.perturbation.sampling import SamplingMethod
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count
from torchwhy.targets import DerivedTarget, logits_per_row

AT_ONCE = 64  # masks whose scores are summed up together
MOST_KNOTS = 256  # where a mask is looked at to predict its score
MOST_WEIGHTS = 2**22  # of the elements of a line, made together for a mean over shifts


class RISE(SamplingMethod):
    r"""The mean score among the randomly masked inputs in which an element is visible:

    :math:`A_{nu} = \mathbb{E}[f(x_n \odot M)\, M_u] / \mathbb{E}[M_u]`.

    M is a coarse grid of random cells, enlarged bilinearly and shifted by a random part of a cell; what it hides takes the
    baseline. In units of the score; only differences within a map mean anything, as an element without influence gets the
    mean score of all masks, (N, maps) in ``details["neutral"]``: pictures show the difference from it. Maps are
    (N, 1, \*spatial). The standard error is reported; ``tolerance`` is its share of the difference from the neutral value.
    Takes K n_samples evaluations of a row; reduced variance makes an odd ``n_samples`` even.

    Args:
        n_samples: the number m of masks; None is 1000.
        grid: cells along each side.
        keep_probability: the chance p of a cell to be visible.
        variance_reduced: use each grid with its opposite, centre, :math:`\overline f + \mathrm{cov}(f, M_u) / p`, and take
            out the noise of what is linear in the mask (:class:`ReducedMoments`): the same limit with far less noise.
            False is the estimator of the paper,
            :math:`\frac{1}{p m} \sum_k f(x \odot M_k) M_{ku}`.
        targets: ``"all"`` gives a map for every output (N, classes, \*spatial) from one run, whatever the target.

    Raises:
        ValueError: several inputs, or one without spatial dimensions (N, C, ...).

    Paper: Petsiuk et al. 2018, arXiv:1806.07421, equations 5 and 6.
    """

    grid: Count = 7
    keep_probability: float = 0.5
    variance_reduced: bool = True
    targets: Literal["all"] | None = None

    paper: ClassVar[str] = "arXiv:1806.07421"

    def _attribute(self, problem: Problem) -> Result:
        self._check(problem)
        masks = Grids(problem, self.grid, self.keep_probability, 2 if self.variance_reduced else 1)
        sums = ReducedMoments(masks) if self.variance_reduced else PlainMoments(self.keep_probability)
        m = 1000 if self.n_samples is None else self.n_samples
        if self.targets == "all":
            problem = problem.replace(target=EveryOutput(problem.target))
        for start, stop in self._rounds(-(-m // masks.unit), masks.unit * problem.n_baselines):
            span = start * masks.unit, stop * masks.unit
            for first, s in evaluate_masks(problem, masks, span, unit=masks.unit):
                for a in range(0, len(s), AT_ONCE):
                    part = s[a : a + AT_ONCE]
                    sums.add(part.flatten(1), masks.make(torch.arange(first + a, first + a + len(part)), s.device))
            values, error = sums.summary()
            if self._enough(values - sums.mean_score()[:, None], error):
                break
        shape = (problem.n, -1, *problem.x[0].shape[2:])
        neutral = sums.mean_score().view(problem.n, -1).to(problem.x[0].dtype)
        error = error.view(shape).to(problem.x[0].dtype)
        return Result((values.view(shape),), standard_error=(error,), details={"neutral": neutral})

    def _check(self, problem: Problem) -> None:
        x = problem.x[0]
        if len(problem.x) != 1 or x.dim() < 3 or not x.is_floating_point():
            raise ValueError(
                "inputs: RISE masks one tensor (N, C, ...) with spatial dimensions, got "
                f"{', '.join(f'{tuple(t.shape)} of {t.dtype}' for t in problem.x)}; LIME and KernelSHAP take any"
            )
        if not 0 < self.keep_probability < 1:
            raise ValueError(f"keep_probability={self.keep_probability!r}: expected a number between 0 and 1")
        if self.grid > min(x.shape[2:]):
            raise ValueError(
                f"grid={self.grid!r}: expected 1 to {min(x.shape[2:])} cells, the shortest side of the input"
            )
        if self.targets not in (None, "all"):
            raise ValueError(f"targets={self.targets!r}: expected 'all' or None")


@dataclass
class EveryOutput(DerivedTarget):
    """All outputs of a row, whatever the target."""

    def select(self, output: Any, rows: Tensor) -> Tensor:
        """Scores (M, classes)."""
        return logits_per_row(output, len(rows)).reshape(len(rows), -1)


@dataclass
class Grids:
    """Random grids by number, enlarged to masks (M, \\*spatial).

    With ``unit`` 2 an odd number's grid is the opposite of the one before.
    """

    problem: Problem
    cells: int
    p: float
    unit: int
    chances: Draws = field(init=False)
    shifts: Draws = field(init=False)

    def __post_init__(self) -> None:
        self.shape = self.problem.x[0].shape[2:]
        number, dims = self.cells ** len(self.shape), len(self.shape)
        each = int(MOST_KNOTS ** (1 / dims) + 1e-9)
        self.knots = [torch.linspace(0, n - 1, min(each, n)).round().long() for n in self.shape]
        g = self.problem.generator
        self.chances = Draws(lambda n, g: torch.rand(n, number, generator=g), g, draws_per_block(number))
        self.shifts = Draws(lambda n, g: torch.rand(n, dims, generator=g), g, draws_per_block(number))

    def make(self, index: Tensor, device: torch.device) -> Tensor:
        """The masks with these numbers (M,)."""
        chance = self.chances[index // self.unit]
        chance = torch.where((index % self.unit == 1)[:, None], 1 - chance, chance)
        on = (chance < self.p).to(torch.get_default_dtype()).view(-1, *[self.cells] * len(self.shape))
        return enlarge(to_device(on, device), to_device(self.shifts[index // self.unit], device), self.shape)

    def covariance(self, like: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The covariance of the mask at the knots, what carries knots to all elements, and the variance this leaves out.

        The first two as their factors along each dimension, the last (elements,).
        Given the shifts a mask is linear in its cells, which are independent; so the factors are those of a mean over all
        shifts, and the best linear prediction of the mask from its knots.
        """
        known, carry, whole, told = [], [], [], []
        for dim, (n, knots) in enumerate(zip(self.shape, self.knots)):
            cell, knots = -(-n // self.cells), knots.to(like.device)
            near, own = like.new_zeros(n, len(knots)), like.new_zeros(n)  # with the knots, and of each element
            for start in torch.arange(cell).split(max(1, MOST_WEIGHTS // (n * self.cells))):
                weights = line_weights(n, self.cells, start[:, None]).to(like)
                near += torch.einsum("sng,smg->nm", weights, weights[:, knots])
                own += weights.square().sum((0, 2))
            share = (self.p * (1 - self.p) if dim == 0 else 1) / cell
            near, own = near * share, own * share
            known.append(near[knots])
            carry.append(near @ torch.linalg.pinv(known[-1], hermitian=True, rtol=1e-6))
            whole.append(own[None])
            told.append((carry[-1] * near).sum(1)[None])
        return known, carry, (kron(whole) - kron(told))[0].clamp(min=0)

    def __call__(self, index: Tensor, rows: Tensor) -> Tensors:
        """The masks for the engine, (M, 1, \\*spatial)."""
        low = int(index[0])  # one mask serves several rows and baselines: it is made once
        made = self.make(torch.arange(low, int(index[-1]) + 1), rows.device)
        return (made[to_device(index - low, rows.device)][:, None],)


class PlainMoments:
    """The sums over masks of the paper's estimator and its standard error."""

    def __init__(self, p: float) -> None:
        self.p, self.m = p, 0
        self.total: Any = 0.0
        self.product: Any = 0.0
        self.squares: Any = 0.0

    def add(self, s: Tensor, masks: Tensor) -> None:
        """Take in scores (m, N) and their masks (m, \\*spatial)."""
        z = masks.flatten(1).double()
        self.product = self.product + s.T @ z
        self.squares = self.squares + s.square().T @ z.square()
        self.total = self.total + s.sum(0)
        self.m += len(s)

    def mean_score(self) -> Tensor:
        """The mean score of all masks, (N,)."""
        return self.total / self.m

    def summary(self) -> tuple[Tensor, Tensor]:
        """The map and its standard error, (N, elements)."""
        mean = self.product / self.m
        if self.m < 2:
            return mean / self.p, torch.full_like(mean, torch.inf)
        variance = (self.squares / self.m - mean.square()).clamp(min=0) / (self.m - 1)
        return mean / self.p, variance.sqrt() / self.p


class ReducedMoments:
    r"""What the estimator with reduced variance needs: sums over masks, and each mask at a few *knots*.

    The covariance of a linear function of the mask with the mask is known (:meth:`Grids.covariance`), so what the sample
    says of it is pure noise. A linear function :math:`\beta^T h` of the mask at the knots h is fitted to the scores
    (ridge regression by generalised cross-validation, on the differences of opposite masks), and its noise
    :math:`(\hat C_{hh} - C_{hh}) \beta`, carried from the knots to all elements, is subtracted.
    """

    def __init__(self, grids: Grids) -> None:
        self.grids, self.p, self.m = grids, grids.p, 0
        self.product: Any = 0.0
        self.mean: Any = 0.0
        self.scores, self.knots = GrowingTensor(), GrowingTensor()

    def add(self, s: Tensor, masks: Tensor) -> None:
        """Take in scores (m, N) and their masks (m, \\*spatial)."""
        u = masks.flatten(1).double().sub_(self.p)
        self.product, self.mean = self.product + s.T @ u, self.mean + u.sum(0)
        at = masks
        for dim, points in enumerate(self.grids.knots):
            at = at.index_select(1 + dim, points.to(at.device))
        self.scores.add(s)
        self.knots.add(at.flatten(1))
        self.m += len(s)

    def mean_score(self) -> Tensor:
        """The mean score of all masks, (N,)."""
        return self.scores.rows.mean(0)

    def summary(self) -> tuple[Tensor, Tensor]:
        """The map and its standard error, (N, elements)."""
        s, h = self.scores.rows, self.knots.rows.double() - self.p
        beta, inflate = self._fit((h[0::2] - h[1::2]) / 2, (s[0::2] - s[1::2]) / 2)
        centre = (s - h @ beta).mean(0)
        known, carry, missed = self.grids.covariance(s)
        noise = (h.T @ h / self.m - kron(known)) @ beta  # (knots, N)
        product = (self.product - centre[:, None] * self.mean) / self.m
        values = centre[:, None] + (product - interpolation_along(carry, noise.T)) / self.p
        if self.m < 4:
            return values, torch.full_like(values, torch.inf)
        rest = (s - centre - h @ beta).view(-1, 2, s.shape[1])
        odd = (rest[:, 0] - rest[:, 1]) / 2 * inflate  # what was fitted
        rest = (rest.mean(1)[:, None] + torch.stack([odd, -odd], 1)).flatten(0, 1)
        each = [(e[:, None] * (1 + h / self.p)).view(-1, 2, h.shape[1]).mean(1).var(0) for e in rest.unbind(1)]
        variance = torch.stack(each).view(-1, 1, *(len(k) for k in self.grids.knots))
        variance = resize_maps(variance, tuple(self.grids.shape)).flatten(1)
        # between the knots, what they do not tell of the mask meets what is linear in it
        variance = variance + (h @ beta).square().mean(0)[:, None] * missed / self.p**2
        return values, (variance / (self.m // 2)).sqrt()

    @staticmethod
    def _fit(v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Ridge coefficients (knots, N) of t (J, N) on v (J, knots), and what makes residuals leave-one-out ones (J, N)."""
        s, axes = torch.linalg.eigh(v.T @ v)  # squares are precise enough: the least penalty is 1e-7 of the largest
        there = s >= 1e-13 * s[-1:]
        s, axes = s[there].clamp(min=1e-300), axes[:, there]
        along_axes = v @ axes
        part = along_axes.T @ t
        y = part / s.sqrt()[:, None]
        rest = (t.square().sum(0) - y.square().sum(0)).clamp(min=0)
        lam = penalty_by_cross_validation(s, y, rest, len(v))
        weight = 1 / (s[:, None] + lam)
        return axes @ (part * weight), 1 / (1 - along_axes.square() @ weight).clamp(min=0.05)


def kron(factors: Sequence[Tensor]) -> Tensor:
    """The Kronecker product of all the factors."""
    out = factors[0]
    for f in factors[1:]:
        out = torch.kron(out, f)
    return out


def interpolation_along(factors: Sequence[Tensor], values: Tensor) -> Tensor:
    """Apply a matrix (n, k) along each dimension of values (N, k * k * ...): (N, n * n * ...)."""
    out = values.view(-1, *(f.shape[1] for f in factors))
    for f in factors:
        out = torch.tensordot(out, f, ([1], [1]))
    return out.flatten(1)


def enlarge(grid: Tensor, shift: Tensor, shape: Sequence[int]) -> Tensor:
    """Enlarge grids bilinearly to one cell more than the shape, and cut the shape out of them.

    Args:
        grid: (M, g, ..., g).
        shift: (M, D), where the cut begins, in cells from 0 to 1.
        shape: of the D spatial dimensions; the result is (M, \\*shape).
    """
    out = grid
    for dim, n in enumerate(shape):
        g = grid.shape[1 + dim]
        cell = -(-n // g)
        start = (shift[:, dim, None] * cell).floor()
        out = torch.einsum("mgr,mng->mrn", out.reshape(len(grid), g, -1), line_weights(n, g, start).to(grid)).reshape(
            len(grid), *out.shape[2:], n
        )
    return out


def line_weights(n: int, g: int, start: Tensor) -> Tensor:
    """How n elements, cut out of an enlarged line of g cells at ``start`` (M, 1), are weighed from the cells: (M, n, g)."""
    cell = -(-n // g)
    at = ((torch.arange(n, device=start.device) + start + 0.5) * (g / ((g + 1) * cell)) - 0.5).clamp(0, g - 1)
    return (1 - (at[..., None] - torch.arange(g, device=start.device)).abs()).clamp(min=0)
