r"""Integration along the straight path with steps put where they are needed.

The idea: on the line from baseline to input the gradients tell the *slope* of the score, :math:`f'(\alpha) = \nabla f \cdot
(x - b)`, whose integral over an interval is known beforehand: it is the change of the score. So the trapezoid rule knows its
own error in every interval, without a finer rule to compare with. Each round halves the intervals with the largest errors,
of all rows and baselines together so that calls stay full, until the errors add up to less than the tolerance. An attribution
is then the sum of the trapezoids of the *gradients*, whose nodes have to be kept as long as their interval may be halved again:
intervals that need it least are *closed*, which adds their trapezoid to the sum and forgets their nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from torchwhy.engine.run.rows import at_least_float32, sum_per_row
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Tensors
from torchwhy.gradient.paths import StraightPath
from torchwhy.problem import Problem
from torchwhy.result import Result

Node = tuple[float, float, Tensors]  # score, slope, gradients

FIRST_INTERVALS = 8  # equal intervals at first
INTERVALS_PER_ROUND = 8  # intervals halved at a time
MAX_OPEN_NODES = 128, 4096  # nodes of a row whose gradients are kept at once: of large rows, of small ones
MAX_GRADIENT_BYTES = 2**30  # bytes of gradients kept at once, in all: so many lines are at work
FEW_LINES = 64  # that are at work at once: while so many fit, each keeps more nodes
SHORTEST_INTERVAL = 1e-6  # is not halved


@dataclass
class AdaptiveLine:
    """The trapezoids on the path from one baseline to one row.

    Args:
        row, baseline: which path this is.
        most: how many nodes it may get.
    """

    row: int
    baseline: int
    most: int
    alphas: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    slopes: list[float] = field(default_factory=list)  # the derivative of the score by alpha
    gradients: dict[float, Tensors] = field(default_factory=dict)  # of the nodes of open intervals
    closed: set[float] = field(default_factory=set)  # left ends of the intervals in `done`
    done: Tensors | None = None

    def errors(self) -> list[float]:
        """Return for each interval the trapezoid's integral minus the change of the score, which it should equal."""
        a, s, f = self.alphas, self.slopes, self.scores
        return [(a[i + 1] - a[i]) * (s[i] + s[i + 1]) / 2 - (f[i + 1] - f[i]) for i in range(len(a) - 1)]

    def converged(self, tolerance: float) -> bool:
        """Say whether the gap is small, and not by errors that happen to cancel."""
        errors, whole = self.errors(), abs(self.scores[-1] - self.scores[0])
        return abs(sum(errors)) <= tolerance * whole and sum(map(abs, errors)) <= 5 * tolerance * whole

    @property
    def is_spent(self) -> bool:
        """Whether it has all the nodes that it may get."""
        return len(self.alphas) >= self.most

    def wanted(self) -> list[float]:
        """Return where to evaluate next: the midpoints of the open intervals with the largest errors."""
        room = self.most - len(self.alphas)
        if not self.alphas:
            n = min(FIRST_INTERVALS, room - 1)
            return [i / n for i in range(n + 1)]
        errors, a = self.errors(), self.alphas
        least = sum(map(abs, errors)) / len(errors) / 4
        large = [i for i in self._open_intervals() if abs(errors[i]) > least]
        chosen = sorted(large, key=lambda i: -abs(errors[i]))[: min(INTERVALS_PER_ROUND, room)]
        return sorted((a[i] + a[i + 1]) / 2 for i in chosen if a[i + 1] - a[i] > SHORTEST_INTERVAL)

    def add(self, alpha: float, score: float, slope: float, gradients: Tensors) -> None:
        """Put in a node."""
        at = sum(a < alpha for a in self.alphas)
        self.alphas.insert(at, alpha)
        self.scores.insert(at, score)
        self.slopes.insert(at, slope)
        self.gradients[alpha] = gradients

    def close(self, most: int) -> None:
        """Close intervals, those with the smallest errors first, until at most ``most`` nodes are kept."""
        errors, a = self.errors(), self.alphas
        order = sorted(self._open_intervals(), key=lambda i: abs(errors[i]))
        while len(self.gradients) > most and order:
            i = order.pop(0)
            self.closed.add(a[i])
            left, right = self.gradients[a[i]], self.gradients[a[i + 1]]
            part = tuple((a[i + 1] - a[i]) / 2 * (p + q) for p, q in zip(left, right))
            self.done = part if self.done is None else tuple(map(torch.add, self.done, part))
            ends = {e for j in range(len(a) - 1) if a[j] not in self.closed for e in (a[j], a[j + 1])}
            self.gradients = {e: g for e, g in self.gradients.items() if e in ends}

    def _open_intervals(self) -> list[int]:
        """Return the numbers of the intervals that are not closed."""
        return [i for i, left in enumerate(self.alphas[:-1]) if left not in self.closed]


def integrate_adaptively(problem: Problem, tolerance: float, most: int, *, multiply: bool) -> Result:
    """Return integrated gradients of ``problem.x``, averaged over its baselines, with steps added until the gap is small.

    Args:
        problem: with ``x`` and ``baselines``.
        tolerance: the gap that is allowed, as a fraction of the change of the score.
        most: the most steps per row and baseline; a warning says where they were too few.
        multiply: with the factor x − b.
    """
    lines = [AdaptiveLine(row, k, most) for k in range(problem.n_baselines) for row in range(problem.n)]
    total = [torch.zeros_like(at_least_float32(x)) for x in problem.x]
    size = sum(t[0].numel() * t.element_size() for t in total)
    few, many = MAX_OPEN_NODES
    kept = min(many, max(few, MAX_GRADIENT_BYTES // (FEW_LINES * max(1, size))))
    width = max(1, MAX_GRADIENT_BYTES // ((kept + INTERVALS_PER_ROUND) * max(1, size)))
    waiting, active = iter(lines), list[AdaptiveLine]()
    while active := active + list(islice(waiting, width - len(active))):
        _evaluate_wanted(problem, active)
        going = []
        for line in active:
            line.close(kept)
            if line.converged(tolerance) or not line.wanted():
                _add_finished_line(problem, line, total, multiply)
            else:
                going.append(line)
        active = going
    for spent, why in (
        (True, f"with max_steps={most}"),
        (False, "and further steps are lost in rounding: use float64"),
    ):
        short = sorted({line.row for line in lines if line.is_spent == spent and not line.converged(tolerance)})
        if short:
            warn(
                f"tolerance={tolerance}: not reached {why}, for rows {short[:8]}; the completeness gap on the explanation says "
                "what is missing"
            )
    return Result(tuple(total), details={"n_steps": [len(line.alphas) for line in lines]})


def _add_finished_line(problem: Problem, line: AdaptiveLine, total: Sequence[Tensor], multiply: bool) -> None:
    """Add a finished line's integral to its row of ``total``."""
    line.close(0)
    path = StraightPath(problem, torch.zeros(1, dtype=torch.double), torch.full((1,), line.baseline))
    velocity = path.velocity(problem.rows[line.row : line.row + 1], torch.zeros(1, dtype=torch.long))
    for t, d, v in zip(total, line.done or (), velocity):
        t[line.row] += (d * v[0] if multiply else d) / problem.n_baselines
    line.done = None


def _evaluate_wanted(problem: Problem, lines: Sequence[AdaptiveLine]) -> None:
    """Add to each line the nodes that it wants, many lines to a call."""
    jobs = [(line, alpha) for line in lines for alpha in line.wanted()]
    for start, nodes in _evaluate_jobs(problem, jobs):
        for (line, alpha), node in zip(jobs[start:], nodes):
            line.add(alpha, *node)


def _evaluate_jobs(problem: Problem, jobs: Sequence[tuple[AdaptiveLine, float]]) -> Iterator[tuple[int, list[Node]]]:
    """Yield for chunks of jobs their first number, and score, slope and gradients of each."""

    def work(start: int, stop: int) -> tuple[int, list[Node]]:
        chunk = jobs[start:stop]
        rows = torch.tensor([line.row for line, _ in chunk], device=problem.x[0].device)
        path = StraightPath(
            problem,
            torch.tensor([a for _, a in chunk], dtype=torch.double),
            torch.tensor([line.baseline for line, _ in chunk]),
        )
        k = torch.arange(len(chunk))
        scores, gradients = problem.run.gradients(path.point(rows, k), rows)
        slopes = sum_per_row([g * v for g, v in zip(gradients, path.velocity(rows, k))])
        numbers = zip(scores.tolist(), slopes.tolist())
        return start, [(s, d, tuple(g[i].clone() for g in gradients)) for i, (s, d) in enumerate(numbers)]

    return problem.run.batches(len(jobs), work)
