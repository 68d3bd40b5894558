"""Running means with error bars, and when to stop sampling."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class GrowingTensor:
    """Rows that arrive in parts and are kept, in one tensor whose room doubles.

    As many small tensors, made between large ones that come and go, they would keep the C library from using the place of
    the large ones again.

    >>> c = GrowingTensor(); c.add(torch.tensor([[1.0], [2.0]])); c.add(torch.tensor([[6.0]]))
    >>> c.rows.flatten()
    tensor([1., 2., 6.])
    """

    def __init__(self) -> None:
        self._room, self._count = torch.empty(0), 0

    @property
    def rows(self) -> Tensor:
        """All rows so far."""
        return self._room[: self._count]

    def add(self, rows: Tensor) -> None:
        """Take in rows (m, ...)."""
        count = self._count + len(rows)
        if count > len(self._room):
            room = rows.new_empty(max(count, 2 * self._count), *rows.shape[1:])
            if self._count:
                room[: self._count] = self.rows
            self._room = room
        self._room[self._count : count] = rows
        self._count = count


class RunningMean:
    """Mean and standard error of independent samples that arrive in batches, in one pass (Chan et al. 1983).

    >>> m = RunningMean(); m.add(torch.tensor([[1.0], [2.0]])); m.add(torch.tensor([[6.0]]))
    >>> m.mean.item(), round(m.standard_error.item(), 4)
    (3.0, 1.5275)
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = self._squares = torch.zeros(())

    def add(self, samples: Tensor) -> None:
        """Take in samples (m, ...)."""
        m, mean = len(samples), samples.mean(0)
        squares = (samples - mean).square().sum(0)
        if self.count:
            gap, both = mean - self.mean, self.count + m
            squares = self._squares + squares + gap.square() * (self.count * m / both)
            mean = self.mean + gap * (m / both)
        self.count, self.mean, self._squares = self.count + m, mean, squares

    @property
    def standard_error(self) -> Tensor:
        """Standard error of the mean; infinite for a single sample, which says nothing about it."""
        if self.count < 2:
            return torch.full_like(self.mean, torch.inf)
        return (self._squares / (self.count * (self.count - 1))).sqrt()


def relative_error(values: Tensor, standard_error: Tensor) -> float:
    """Return the largest relative standard error of the rows, ``norm(error) / norm(values)``; rows of zeros have none."""
    error, size = standard_error.flatten(1).norm(dim=1), values.flatten(1).norm(dim=1)
    return float(torch.where(error == 0, 0, error / size).max())


def sampling_rounds(first: int, most: int | None) -> Iterator[tuple[int, int]]:
    """Yield spans of samples to take until the caller is content: ``first``, then half as many again, up to ``most``.

    >>> list(sampling_rounds(100, 200)), list(sampling_rounds(100, None))
    ([(0, 100), (100, 150), (150, 200)], [(0, 100)])
    """
    start, stop, most = 0, first, first if most is None else max(first, most)
    while start < stop:
        yield start, stop
        start, stop = stop, min(most, stop + -(-stop // 2))
