r"""The path of Guided IG: from a baseline to the input, the features with the smallest gradients first.

The idea: where the straight path moves all features at once, here each step moves only those whose gradient is among the
smallest, so that the path goes around steep regions, which say little about the input. How far feature i has come is a number
:math:`t_i` from 0 (the baseline) to 1 (the input). What a step has to do is fixed: the distance that is left,
:math:`\sum_i |x_i - b_i| (1 - t_i)`, falls by one n-th of the whole. The features of smallest gradient go there; where they
reach the end that ``max_dist`` allows before enough distance is gone, the next smallest go on (:func:`advance_features`). The
steps of a row follow one another, for each needs the gradient at the last; the rows take theirs together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.rows import at_least_float32, baseline_at, rows_between
from torchwhy.engine.run.runner import EvaluatedChunk
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


@dataclass
class GuidedPath:
    r"""A path on which feature i stands at :math:`b_i + t_i (x_i - b_i)`.

    Args:
        problem: whose ``x`` and ``baselines`` are joined.
        n: steps.
        fraction: the share of the features, those of smallest gradient, that may move at a time.
        max_dist: how far :math:`t_i` may be from that of the straight line.
        anchors: points of the straight line that the path passes, cutting it into equal parts.
    """

    problem: Problem
    n: int
    fraction: float
    max_dist: float
    anchors: int

    def evaluate(self, baseline: int) -> Iterator[tuple[EvaluatedChunk, Tensors]]:
        """Yield each point on the path from one baseline, evaluated, and the step taken from it, tensors ``(N, ...)``.

        The last one is the input itself, with a step of zero.
        """
        problem, rows = self.problem, self.problem.rows
        begin = _flatten_rows([baseline_at(b, torch.full((problem.n,), baseline), rows) for b in problem.baselines])
        end = _flatten_rows(problem.x)
        parts = self.anchors + 1
        for part in range(parts):
            low, high = torch.lerp(begin, end, part / parts), torch.lerp(begin, end, (part + 1) / parts)
            for step, (found, moved) in enumerate(self._between_anchors(low, high, self.n // parts)):
                k = torch.full((problem.n,), part * (self.n // parts) + step)
                yield found._replace(k=k), self._unflatten_rows((high - low) * moved)
        last = EvaluatedChunk(rows, torch.full((problem.n,), self.n), *self._gradients(problem.x))
        yield last, tuple(map(torch.zeros_like, problem.x))

    def _between_anchors(self, begin: Tensor, end: Tensor, n: int) -> Iterator[tuple[EvaluatedChunk, Tensor]]:
        """Yield the points between two anchors ``(N, d)``, evaluated, and how much further t is at the next, ``(N, d)``."""
        width = (end - begin).abs()
        t = (width == 0).to(width.dtype)
        for step in range(1, n + 1):
            z = tuple(part.to(x) for part, x in zip(self._unflatten_rows(torch.lerp(begin, end, t)), self.problem.x))
            scores, gradients = self._gradients(z)
            t_next = advance_features(t, width, _flatten_rows(gradients).abs(), step / n, self.fraction, self.max_dist)
            yield EvaluatedChunk(self.problem.rows, self.problem.rows, scores, gradients), t_next - t
            t = t_next

    def _gradients(self, z: Tensors) -> tuple[Tensor, Tensors]:
        """Return scores ``(N,)`` and gradients at ``z`` ``(N, ...)``."""
        run, rows = self.problem.run, self.problem.rows

        def work(a: int, b: int) -> Tensors:
            scores, gradients = run.gradients(rows_between(z, a, b), rows[a:b])
            return scores, *gradients

        scores, *gradients = run.concatenated(self.problem.n, work)
        return scores, tuple(gradients)

    def _unflatten_rows(self, flat: Tensor) -> Tensors:
        """Return ``(N, d)`` cut into the shapes of ``x``."""
        sizes = [x[0].numel() for x in self.problem.x]
        return tuple(part.reshape_as(x) for part, x in zip(flat.split(sizes, 1), self.problem.x))


def advance_features(t: Tensor, width: Tensor, size: Tensor, alpha: float, fraction: float, max_dist: float) -> Tensor:
    """Return where the features of each row stand once the remaining distance is ``1 - alpha`` of the whole, ``(N, d)``.

    Args:
        t: ``(N, d)`` in [0, 1], where they stand.
        width: ``(N, d)``, how far each has to go in all.
        size: ``(N, d)``, absolute gradients.
        alpha: the end of the step on the straight line.
        fraction, max_dist: see :class:`GuidedPath`.
    """
    low, high = max(alpha - max_dist, 0.0), min(alpha + max_dist, 1.0)
    goal = width.sum(1) * (1 - alpha)
    close = 10 * torch.finfo(width.dtype).eps * width.sum(1)
    active = torch.ones_like(goal, dtype=torch.bool)  # rows that still have to move
    rank = int(fraction * (t.shape[1] - 1)) + 1
    while True:
        t = torch.where(active[:, None], t.clamp(min=low), t)
        left = (width * (1 - t)).sum(1) - goal
        active = active & (left > close)
        if not bool(active.any()):
            return t
        ranked = torch.where(t >= high, torch.inf, size)
        # with those that are equal but for rounding
        kth = ranked.kthvalue(rank, 1, keepdim=True).values * (1 + 64 * torch.finfo(size.dtype).eps)
        chosen = (ranked <= kth) & ranked.isfinite() & active[:, None]
        room = (width * (high - t) * chosen).sum(1)
        part = torch.where(room > 0, left / room, 0)[:, None]  # above 1: they all reach the end, and others go on
        t = torch.where(chosen, torch.where(part > 1, high, t + part * (high - t)), t)
        active = active & (part[:, 0] > 1)


def _flatten_rows(tensors: Sequence[Tensor]) -> Tensor:
    """Return ``(N, d)``, in float32 at least: in half, sums over features overflow, and small steps round to nothing."""
    return torch.cat([at_least_float32(t.reshape(len(t), -1)) for t in tensors], 1)
