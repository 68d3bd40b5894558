"""An adversary that looks for a point near the input where the explanation is another one and the prediction the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.run.rows import expand_like, index_rows, rows_between
from torchwhy.engine.structure import Tensors
from torchwhy.metrics.reexplain import attribute_points
from torchwhy.problem import Problem
from torchwhy.targets import find_logits


class Adversary:
    """Compare explanations at points of a cube with the one at its middle, and remember the best of those that count.

    A point counts where the prediction is kept: the score changes by at most ``tolerance`` times itself and, for an output
    (N, classes), the largest class stays. ``best`` (N,) is the largest distance, one minus the cosine, at a point that
    counts.
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
            problem.n, lambda a, b: self._output(rows_between(problem.x, a, b), problem.rows[a:b])
        )
        self.label = torch.cat([part.argmax(1) for part in parts]) if self.classes else torch.zeros(0)

    def _output(self, z: Sequence[Tensor], rows: Tensor) -> Tensor:
        with torch.no_grad():
            return find_logits(self.problem.run.outputs(z, rows))

    def look(self, n: int, point: Callable[[Tensor, Tensor], Tensors]) -> tuple[Tensor, Tensor]:
        """Return distances (n, N), and margins (n, N), which are not negative where the prediction is kept."""
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


def points_around(here: Tensors, x: Tensors, probes: Tensors, radius: float) -> Callable[[Tensor, Tensor], Tensors]:
    """Return points of the cube: 0 is here, 1 and 2 lie a probe to either side of it, 3 and 4 the next probe, ..."""

    def point(rows: Tensor, k: Tensor) -> Tensors:
        side = torch.where(k == 0, 0, 2 * (k % 2) - 1)
        which = ((k - 1) // 2).clamp(min=0)
        moves = [(p[which] * expand_like(side, p)).to(h) for h, p in zip(here, probes)]
        return tuple(_within(index_rows(h, rows) + m, index_rows(o, rows), radius) for h, m, o in zip(here, moves, x))

    return point


def _within(z: Tensor, x: Tensor, radius: float) -> Tensor:
    """Return the nearest point of the cube around x."""
    return torch.clamp(z, x - radius, x + radius)


def ascend(here: Tensor, x: Tensor, slope: Tensor, probes: Tensor, radius: float) -> Tensor:
    """Take one step up the slope along the probes (S, ...), within the cube."""
    gradient = (slope.to(x) @ probes.flatten(1)).view_as(x)
    return _within(here + radius / 4 * gradient.sign(), x, radius)
