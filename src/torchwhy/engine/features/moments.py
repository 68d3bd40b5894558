"""Sums, means and variances of what is found at many points of each row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.run.rows import at_least_float32, expand_like
from torchwhy.engine.structure import Tensors


class RunningMoments:
    """Weighted sums over evaluated points, one accumulator ``(N, ...)`` for each tensor, in float32 or better.

    With ``square=True`` also those of the squares, around each row's first value, for the variance; rows then come in turn.

    Args:
        rows: the numbers of all N rows, ``problem.rows``.
        square: sum up the squares, too.
    """

    def __init__(self, rows: Tensor, *, square: bool = False) -> None:
        self.rows, self.n, self.square = rows, rows.shape[0], square
        self.begun = 0  # rows that have their first value
        self.total: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.first: list[Tensor] = []

    def add(self, rows: Tensor, values: Sequence[Tensor], weights: Tensor | None = None) -> None:
        """Add ``values`` ``(M, ...)``, times ``weights`` ``(M,)``, to rows ``(M,)``."""
        values = [at_least_float32(v) for v in values]
        if not (self.total or self.square) and weights is None and rows is self.rows:
            self.total = [v.clone() for v in values]  # one of each row, in their order
            return
        if not self.total:
            self.total = [v.new_zeros(self.n, *v.shape[1:]) for v in values]
            if self.square:
                self.squares = [torch.zeros_like(t) for t in self.total]
                self.first = [torch.zeros_like(t) for t in self.total]
        if self.square and self.begun < self.n:
            m = min(self.n - self.begun, len(rows))
            for first, v in zip(self.first, values):
                first.index_copy_(0, rows[:m], v[:m])
            self.begun += m
        for i, v in enumerate(values):
            if self.square:
                v = v - self.first[i][rows]
                self.squares[i].index_add_(0, rows, v.square())
            self.total[i].index_add_(0, rows, v if weights is None else expand_like(weights, v) * v)

    def mean(self, n: int) -> Tensors:
        """Return means over ``n`` values of each row."""
        means = [t / n for t in self.total] if n > 1 else self.total
        return tuple(m + first for m, first in zip(means, self.first)) if self.square else tuple(means)

    def variance(self, n: int) -> Tensors:
        """Return unbiased variances over ``n`` values of each row; zero for a single one."""
        return tuple(((s - t.square() / n) / max(1, n - 1)).clamp(min=0) for s, t in zip(self.squares, self.total))

    def standard_error(self, n: int) -> Tensors:
        """Return that of :meth:`mean`; infinite for a single value, which says nothing about it."""
        return tuple((v / n).sqrt() if n > 1 else torch.full_like(v, torch.inf) for v in self.variance(n))
