"""Random masks, weighed by the scores of what they leave visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..engine.masks import evaluate
from ..engine.problem import Problem, Tensors
from ..engine.randomness import Draws, block_for
from ..sampled import Sampled
from ..target import only_tensor

AT_ONCE = 64  # masks whose scores are summed up together


@dataclass(kw_only=True, repr=False)
class RISE(Sampled):
    r"""The mean score among the randomly masked inputs in which an element is visible:

    :math:`A_{nu} = \mathbb{E}[f(x_n \odot M)\, M_u] / \mathbb{E}[M_u]`.

    M is a coarse grid of random cells, enlarged bilinearly and shifted by a random part of a cell; what it hides takes the
    baseline. In units of the score; only differences within a map mean anything, as an element without influence gets the
    mean score of all masks. Maps are (N, 1, \*spatial). The standard error is reported. Takes K n_samples evaluations of
    a row.

    Args:
        n_samples: the number m of masks; None is 1000.
        grid: cells along each side.
        keep_probability: the chance p of a cell to be visible.
        variance_reduced: use each grid with its opposite, and centre: :math:`\overline f + \mathrm{cov}(f, M_u) / p`, which
            has the same limit and far less noise. False is the estimator of the paper,
            :math:`\frac{1}{p m} \sum_k f(x \odot M_k) M_{ku}`.
        targets: ``"all"`` gives a map for every output (N, classes, \*spatial) from one run, whatever the target.

    Raises:
        ValueError: several inputs, or one without spatial dimensions (N, C, ...).

    Paper: Petsiuk et al. 2018, arXiv:1806.07421, equations 5 and 6.
    """

    grid: int = 7
    keep_probability: float = 0.5
    variance_reduced: bool = True
    targets: Literal["all"] | None = None

    paper: ClassVar[str] = "arXiv:1806.07421"

    def _attribute(self, problem: Problem) -> Tensors:
        self._check(problem)
        masks = Grids(problem, self.grid, self.keep_probability, 2 if self.variance_reduced else 1)
        sums, m = Moments(self.keep_probability, masks.unit), 1000 if self.n_samples is None else self.n_samples
        score = _every_output(problem) if self.targets == "all" else None
        for start, stop in self._rounds(-(-m // masks.unit), masks.unit * len(problem.baselines[0])):
            span = start * masks.unit, stop * masks.unit
            for first, s in evaluate(problem, masks, span, unit=masks.unit, score=score):
                for a in range(0, len(s), AT_ONCE):
                    part = s[a : a + AT_ONCE]
                    sums.add(part.flatten(1), masks.make(torch.arange(first + a, first + a + len(part)), s.device))
            values, error = sums.summary()
            if self._enough(values, error):
                break
        shape = (problem.n, -1, *problem.x[0].shape[2:])
        problem.report(standard_error=error.view(shape).to(problem.x[0].dtype))
        return (values.view(shape),)

    def _check(self, problem: Problem) -> None:
        x = problem.x[0]
        if len(problem.x) != 1 or x.dim() < 3 or not x.is_floating_point():
            raise ValueError(
                "inputs: RISE masks one tensor (N, C, ...) with spatial dimensions, got "
                f"{', '.join(f'{tuple(t.shape)} of {t.dtype}' for t in problem.x)}; LIME and KernelSHAP take any"
            )
        if not 0 < self.keep_probability < 1:
            raise ValueError(f"keep_probability={self.keep_probability!r}: expected a number between 0 and 1")
        if not 1 <= self.grid <= min(x.shape[2:]):
            raise ValueError(
                f"grid={self.grid!r}: expected 1 to {min(x.shape[2:])} cells, the shortest side of the input"
            )
        if self.targets not in (None, "all"):
            raise ValueError(f"targets={self.targets!r}: expected 'all' or None")


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
        g = self.problem.generator
        self.chances = Draws(lambda n, g: torch.rand(n, number, generator=g), g, block_for(number))
        self.shifts = Draws(lambda n, g: torch.rand(n, dims, generator=g), g, block_for(number))

    def make(self, index: Tensor, device: torch.device) -> Tensor:
        """The masks with these numbers (M,)."""
        chance = self.chances[index // self.unit]
        chance = torch.where((index % self.unit == 1)[:, None], 1 - chance, chance)
        on = (chance < self.p).to(torch.get_default_dtype()).view(-1, *[self.cells] * len(self.shape))
        return enlarge(on.to(device), self.shifts[index // self.unit].to(device), self.shape)

    def __call__(self, index: Tensor, rows: Tensor) -> Tensors:
        """The masks for the engine, (M, 1, \\*spatial)."""
        low = int(index[0])  # one mask serves several rows and baselines: it is made once
        made = self.make(torch.arange(low, int(index[-1]) + 1), rows.device)
        return (made[(index - low).to(rows.device)][:, None],)


class Moments:
    """The sums over masks from which the map and its standard error are computed."""

    def __init__(self, p: float, unit: int) -> None:
        self.p, self.unit, self.m = p, unit, 0

    def add(self, s: Tensor, masks: Tensor) -> None:
        """Take in scores (m, N) and their masks (m, \\*spatial)."""
        z = masks.flatten(1).double()
        if not self.m:  # centred near the scores, which keeps digits; the paper's estimator is not centred
            self.centre = s[0] if self.unit > 1 else torch.zeros_like(s[0])
            self.sums: list[Any] = [0.0] * 4
        s, z = s - self.centre, z - self.p if self.unit > 1 else z
        t, u = (v.view(-1, self.unit, v.shape[1]) for v in (s, z))
        squares = sum((t[:, a].square().T @ u[:, a].square()) for a in range(self.unit))  # of a unit's sum of s z
        if self.unit > 1:
            squares = squares + 2 * (t[:, 0] * t[:, 1]).T @ (u[:, 0] * u[:, 1])
        for i, new in enumerate((s.T @ z, s.sum(0)[:, None], z.sum(0), squares)):
            self.sums[i] = self.sums[i] + new
        self.m += len(s)

    def summary(self) -> tuple[Tensor, Tensor]:
        """The map and its standard error, (N, elements)."""
        m, units, p = self.m, self.m // self.unit, self.p
        product, score, z, squares = self.sums
        values = product / m / p
        if self.unit > 1:
            values = values + self.centre[:, None] + score / m - score * z / m**2 / p
        if units < 2:
            return values, torch.full_like(values, torch.inf)
        variance = (squares / self.unit**2 / units - (product / m) ** 2).clamp(min=0)
        return values, (variance / (units - 1)).sqrt() / p


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
        at = ((torch.arange(n, device=grid.device) + start + 0.5) * (g / ((g + 1) * cell)) - 0.5).clamp(0, g - 1)
        weight = (1 - (at[..., None] - torch.arange(g, device=grid.device)).abs()).clamp(min=0).to(grid)  # (M, n, g)
        out = torch.einsum("mgr,mng->mrn", out.flatten(2), weight).reshape(len(grid), *out.shape[2:], n)
    return out


def _every_output(problem: Problem) -> Any:
    """A score for each of a row's outputs, (M, classes)."""

    def score(z: Sequence[Tensor], rows: Tensor) -> Tensor:
        problem.evaluations += len(rows)
        return only_tensor(problem.output(z, rows)).flatten(1)

    return score
