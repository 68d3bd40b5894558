"""Robustness: does the explanation stay when the input hardly changes? The method explains again at changed inputs.

All take the method, and what it is called with (see :class:`torchwhy.metrics.Data`) by keyword.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.attribution import Attribution, Inputs
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.run.rows import expand_like, index_rows, to_device
from torchwhy.engine.structure import Tensors
from torchwhy.metrics.metric_function import metric
from torchwhy.metrics.reexplain import (
    Data,
    attribute_points,
    make_deterministic,
    make_problem,
    perturb,
    relative,
    steps_in_ball,
)
from torchwhy.problem import Problem
from torchwhy.targets import TargetLike, find_logits

if TYPE_CHECKING:
    from typing_extensions import Unpack

inf = float("inf")


@metric(better="lower", span=(0, inf), needs="method", paper="arXiv:1901.09392")
def sensitivity_max(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""The largest relative change of the explanation within a small cube, (N,).

    :math:`\max_k \|A(x_n + \delta_k) - A(x_n)\| / \|A(x_n)\|`, :math:`\delta_k` uniform in [−r, r], the same for all rows; a
    lower bound of the maximum, which more samples raise. NaN where A(x) is all zero.

    Args:
        method: the method with its settings.
        inputs, target: as for the method.
        radius: r, in the units of the inputs.
        n_samples: how many δ.
        generator: where they come from.
        data: baselines, feature_mask and additional_forward_args of the method.

    Paper: Yeh et al. 2019, arXiv:1901.09392, definition 4.1, relative to the explanation as in Captum.
    """
    change, _, size = _changes(method, inputs, target, radius, n_samples, generator, data)
    return relative(change, size).amax(0)


@metric(better="lower", span=(0, inf), needs="method", paper="arXiv:1901.09392")
def sensitivity_avg(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    """The mean over the samples of which :func:`sensitivity_max` takes the maximum, (N,). Arguments as there."""
    change, _, size = _changes(method, inputs, target, radius, n_samples, generator, data)
    return relative(change, size).mean(0)


@metric(better="lower", span=(0, inf), needs="method", paper="arXiv:1806.08049")
def local_lipschitz(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: float = 0.02,
    n_samples: int = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""The largest change of the explanation for the change of the input, (N,).

    :math:`\max_k \|A(x_n + \delta_k) - A(x_n)\|_2 / \|\delta_k\|_2`, in units of attribution per unit of input, so only to
    be compared between methods of one scale. Arguments as for :func:`sensitivity_max`.

    Paper: Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049, equation 2, with samples for the maximum.
    """
    change, step, _ = _changes(method, inputs, target, radius, n_samples, generator, data)
    return torch.where(step > 0, change / step, 0).amax(0)


@metric(better="lower", span=(0, inf), needs="method", paper="arXiv:1706.07979")
def continuity(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    shifts: Sequence[int] = (1, 2, 4),
    **data: Unpack[Data],
) -> Tensor:
    r"""The largest change of the explanation for the change of the image, as the image is shifted sideways, (N,).

    :math:`\max_s \|A(x_n) - A(x_n^s)\|_1 / \|x_n - x_n^s\|_2`, edges replicated.

    Args:
        method, inputs, target, data: as for :func:`sensitivity_max`; inputs (N, C, W) or (N, C, H, W).
        shifts: pixels to the right (negative: to the left).

    Paper: Montavon et al. 2018, arXiv:1706.07979, section 7.1.
    """
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, 0, data)
    if isinstance(shifts, int):
        raise TypeError(f"shifts={shifts}: expected several, as ({shifts},)")
    if any(x.dim() not in (3, 4) for x in problem.x) or not shifts or 0 in shifts:
        raise ValueError("inputs, shifts: expected images (N, C, H, W) or series (N, C, W), and shifts other than 0")

    def shifted(x: Tensor, k: Tensor) -> Tensor:
        width = x.shape[-1]
        column = torch.arange(width) - torch.tensor([0, *shifts])[k, None]
        index = column.clamp(0, width - 1).to(x.device)
        return x.gather(-1, index.view(-1, *[1] * (x.dim() - 2), width).expand_as(x))

    def point(rows: Tensor, k: Tensor) -> Tensors:
        return tuple(shifted(index_rows(x, rows), k) for x in problem.x)

    with problem.open():
        found = attribute_points(method, problem, len(shifts) + 1, point)
    every = [torch.full((problem.n,), k + 1) for k in range(len(shifts))]
    moves = [torch.stack([(x - shifted(x, k)).flatten(1).norm(dim=1) for k in every]) for x in problem.x]
    step = torch.stack(moves).norm(dim=0).to(found)
    return ((found[1:] - found[0]).abs().sum(2) / step).amax(0)


@metric(better="lower", span=(0, 2), needs="method", paper="arXiv:1710.10547")
def explanation_attack(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: float = 0.02,
    steps: int = 10,
    n_samples: int = 8,
    tolerance: float = 0.1,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""How far an adversary can move the explanation without moving the prediction, (N,): one minus the cosine.

    Projected ascent on :math:`1 - \cos(A(x'), A(x_n))` in the cube :math:`|x' - x_n| \le r`, each step r/4 times the sign
    of a gradient that is estimated from pairs of explanations at :math:`x' \pm (r/4) u`, so that it takes every method,
    differentiable or not; where the prediction is lost, the ascent is back to it. Reported is the best of all points seen
    that keep it: a lower bound, 0 (nowhere) to 2 (opposite). It begins at the furthest of n_samples random points, and
    takes (2 steps + 1) · n_samples + steps + 2 explanations of a row.

    Args:
        method, inputs, target, generator, data: as for :func:`sensitivity_max`.
        radius: r, in the units of the inputs.
        steps: of the ascent.
        n_samples: pairs for each estimate.
        tolerance: the prediction is kept where the score changes by at most this share of itself and, for an output
            (N, classes), the largest class stays.

    Paper: after Ghorbani et al. 2019, arXiv:1710.10547, algorithm 1, which needs a second derivative.
    """
    pairs = check_count("n_samples", n_samples)
    if not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance}: expected a share of the score, not negative")
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, generator, data)
    first = tuple(d[torch.arange(pairs)] for d in steps_in_ball(problem, radius))
    with problem.open():
        start = attribute_points(method, problem, 1, lambda rows, k: tuple(index_rows(x, rows) for x in problem.x))[0]
        look = _Look(method, problem, start, tolerance)
        away, margin = look(pairs, lambda rows, k: perturb(problem, first, rows, k))
        here = perturb(problem, first, problem.rows, torch.where(margin >= 0, away, margin).argmax(0).cpu())
        for _ in range(check_count("steps", steps)):
            probes = tuple(d[torch.arange(pairs)] / 4 for d in steps_in_ball(problem, radius))
            away, margin = look(2 * pairs + 1, _points_around(here, problem.x, probes, radius))
            up = torch.where(margin[0] >= 0, away, margin)  # where the prediction is lost, back to it first
            slope = (up[1::2] - up[2::2]).T  # (N, pairs)
            here = tuple(_ascend(h, x, slope, p.to(x), radius) for h, x, p in zip(here, problem.x, probes))
        look(1, lambda rows, k: tuple(index_rows(h, rows) for h in here))
    return torch.where(start.norm(dim=1) > 0, look.best, torch.nan)


class _Look:
    """How far the explanation is from its start at some points, and by how much the prediction is kept there.

    ``best`` (N,) is the largest distance seen at a point that keeps it.
    """

    def __init__(self, method: Attribution, problem: Problem, start: Tensor, tolerance: float) -> None:
        self.method, self.problem, self.start, self.tolerance = method, problem, start, tolerance
        self.best = start.new_zeros(problem.n)
        given = problem.target.given
        self.classes = problem.neuron is None and given is not None and not callable(given)
        self.score = problem.run.all_scores(problem.x)
        first = self._output([x[:1] for x in problem.x], problem.rows[:1]) if self.classes else None
        self.classes = first is not None and first.dim() == 2
        parts = problem.run.batches(
            problem.n, lambda a, b: self._output([x[a:b] for x in problem.x], problem.rows[a:b])
        )
        self.label = torch.cat([part.argmax(1) for part in parts]) if self.classes else torch.zeros(0)

    def _output(self, z: Sequence[Tensor], rows: Tensor) -> Tensor:
        with torch.no_grad():
            return find_logits(self.problem.run.outputs(z, rows))

    def __call__(self, n: int, point: Callable[[Tensor, Tensor], Tensors]) -> tuple[Tensor, Tensor]:
        """Distances (n, N), and margins (n, N), which are not negative where the prediction is kept."""
        found = attribute_points(self.method, self.problem, n, point)
        away = 1 - torch.cosine_similarity(found, self.start.expand_as(found), dim=2, eps=0.0).nan_to_num(0.0)

        def margins(start: int, stop: int) -> Tensor:
            rows, k = self.problem.run.rows_and_samples(start, stop)
            z, own = point(rows, k), self.score[rows]
            margin = self.tolerance * own.abs() - (self.problem.run.scores(z, rows) - own).abs()
            if not self.classes:
                return margin
            out, label = self._output(z, rows), self.label[rows, None]
            others = out.scatter(1, label, -torch.inf).amax(1)
            return torch.minimum(margin, (out.gather(1, label)[:, 0] - others).to(margin))

        margin = self.problem.run.concatenated(n * self.problem.n, margins).view(n, -1).to(away)
        self.best = torch.maximum(self.best, torch.where(margin >= 0, away, 0).amax(0))
        return away, margin


def _points_around(here: Tensors, x: Tensors, probes: Tensors, radius: float) -> Callable[[Tensor, Tensor], Tensors]:
    """Points of the cube: 0 is here, 1 and 2 lie a probe to either side of it, 3 and 4 the next probe, ..."""

    def point(rows: Tensor, k: Tensor) -> Tensors:
        side = torch.where(k == 0, 0, 2 * (k % 2) - 1)
        which = ((k - 1) // 2).clamp(min=0)
        moves = [(p[which] * expand_like(side, p)).to(h) for h, p in zip(here, probes)]
        return tuple(_within(index_rows(h, rows) + m, index_rows(o, rows), radius) for h, m, o in zip(here, moves, x))

    return point


def _within(z: Tensor, x: Tensor, radius: float) -> Tensor:
    return torch.clamp(z, x - radius, x + radius)


def _ascend(here: Tensor, x: Tensor, slope: Tensor, probes: Tensor, radius: float) -> Tensor:
    """One step up the slope along the probes (S, ...), within the cube."""
    gradient = (slope.to(x) @ probes.flatten(1)).view_as(x)
    return _within(here + radius / 4 * gradient.sign(), x, radius)


def _changes(
    method: Attribution, inputs: Inputs, target: TargetLike, radius: float, n_samples: int, generator: Seed, data: Data
) -> tuple[Tensor, Tensor, Tensor]:
    """How far the explanation moves (S, N), how far the input was moved (S, N), and the explanation's norm (N,)."""
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, generator, data)
    draws, n = steps_in_ball(problem, radius), check_count("n_samples", n_samples)
    step = torch.zeros(n, problem.n, dtype=torch.double, device=problem.x[0].device)

    def point(rows: Tensor, k: Tensor) -> Tensors:
        z = perturb(problem, draws, rows, k)
        # as far as rounding lets
        taken = [(a.double() - index_rows(x, rows).double()).flatten(1) for a, x in zip(z, problem.x)]
        step[to_device(k, rows.device), rows] = torch.cat(taken, 1).norm(dim=1)
        return z

    with problem.open():
        start = attribute_points(method, problem, 1, lambda rows, k: tuple(index_rows(x, rows) for x in problem.x))[0]
        change = attribute_points(method, problem, n, point, lambda found, rows: (found - start[rows]).norm(dim=1))
    still = (step == 0).all(0).nonzero()[:, 0].tolist()
    if still:
        raise ValueError(f"radius={radius}: too small to change row {still[0]} of inputs of type {problem.x[0].dtype}")
    return change, step.to(change), start.norm(dim=1)
