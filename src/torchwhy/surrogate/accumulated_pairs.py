"""Accumulated local effects of two features together: what they do to the score beyond what each does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.explanation.table import label_of
from torchwhy.problem import Problem
from torchwhy.surrogate.quantiles import QuantileIntervals
from torchwhy.surrogate.table import TableColumns
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True, repr=False)
class LocalEffectsOfTwo(Viewable):
    """The accumulated local effects of two features together, without what each does by itself.

    Args:
        grid: ``(K + 1,)`` and ``(M + 1,)``, the ends of the intervals of each feature.
        values: ``(K + 1, M + 1)``, the effect at each pair of ends, in the units of the score; its mean over the rows is 0.
        counts: ``(K, M)``, how many rows lie in each cell.
        changes: ``(K, M)``, the mean in each cell of how much the score's change along one feature differs between the ends of
            the other; where a cell has no rows, that of the nearest one that has.
        names: of the features, where they have any.
        labels: of each feature whose values are numbers of labels; None of the others.
    """

    grid: tuple[Tensor, Tensor]
    values: Tensor
    counts: Tensor
    changes: Tensor
    names: tuple[str, ...] | None = None
    labels: tuple[Sequence[str] | None, ...] = (None, None)

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        known = {"names": self.names, "labels": self.labels, "ylabel": "effect on the score beyond each one's"}
        return pictures.partial_dependence(self.grid, self.values, **{**known, **options})

    def _table(self) -> Table:
        points = torch.cartesian_prod(*(g.double() for g in self.grid))
        lines: list[list[object]] = torch.cat([points, self.values.double().reshape(-1, 1)], 1).tolist()
        for i, labels in enumerate(self.labels):
            for line, number in zip(lines, points[:, i].tolist()):
                line[i] = number if labels is None else label_of(labels, number)
        return ["first value", "second value", "effect"], lines


def effects_of_two(
    problem: Problem, table: TableColumns, columns: Sequence[int], n_intervals: int, features: Sequence[object]
) -> LocalEffectsOfTwo:
    """Return the effects of two columns together.

    Raises:
        ValueError: one that is the same in every row, or is NaN in one.
    """
    first, second = (
        QuantileIntervals.of(table.column(column), n_intervals, feature) for column, feature in zip(columns, features)
    )

    def work(start: int, stop: int) -> Tensor:
        rows, corner = problem.run.rows_and_samples(start, stop)
        at = torch.stack([first.end_of(rows, corner // 2), second.end_of(rows, corner % 2)], 1)
        return problem.run.scores(table.with_columns(rows, columns, at), rows)

    low, right, up, both = problem.run.concatenated(4 * problem.n, work).double().split(problem.n)
    change = ((both - up) - (right - low)).cpu()
    cells = first.place.cpu() * len(second) + second.place.cpu()
    shape = (len(first), len(second))
    counts = torch.bincount(cells, minlength=shape[0] * shape[1]).view(shape)
    mean = torch.zeros(shape, dtype=torch.double).view(-1).index_add_(0, cells, change).view(shape) / counts.clamp(
        min=1
    )
    ends = first.ends.double().cpu(), second.ends.double().cpu()
    mean = _fill_empty_cells(mean, counts, ends)
    names = None if table.names is None else tuple(table.names[column] for column in columns)
    known = {} if problem.table is None else problem.table.labels
    labels = tuple([str(label) for label in known[c]] if c in known else None for c in columns)
    return LocalEffectsOfTwo(ends, _beyond_each(mean, counts), counts, mean, names, labels)


def _fill_empty_cells(mean: Tensor, counts: Tensor, ends: tuple[Tensor, Tensor]) -> Tensor:
    """Return the means, of cells without rows that of the nearest cell with some, distances in shares of each feature's range."""
    if bool((counts > 0).all()):
        return mean
    middles = [(e[1:] + e[:-1]) / 2 / (e[-1] - e[0]) for e in ends]
    places = torch.cartesian_prod(*middles)
    there = (counts > 0).flatten().nonzero()[:, 0]
    nearest = there[torch.cdist(places, places[there]).argmin(1)]
    return torch.where(counts > 0, mean, mean.flatten()[nearest].view(mean.shape))


def _beyond_each(mean: Tensor, counts: Tensor) -> Tensor:
    """Return the means added up over both features, less the effect of each in what is added up, less the mean over the rows."""
    k, m = mean.shape
    total = torch.zeros(k + 1, m + 1, dtype=torch.double)
    total[1:, 1:] = mean.cumsum(0).cumsum(1)
    along_first = (total.diff(dim=0)[:, 1:] + total.diff(dim=0)[:, :-1]) / 2  # of each cell, (K, M)
    along_second = (total.diff(dim=1)[1:] + total.diff(dim=1)[:-1]) / 2
    of_first = (along_first * counts).sum(1) / counts.sum(1)
    of_second = (along_second * counts).sum(0) / counts.sum(0)
    nothing = torch.zeros(1, dtype=torch.double)
    beyond = total - torch.cat([nothing, of_first.cumsum(0)])[:, None] - torch.cat([nothing, of_second.cumsum(0)])
    middle = (beyond[1:, 1:] + beyond[:-1, 1:] + beyond[1:, :-1] + beyond[:-1, :-1]) / 4
    return beyond - (middle * counts).sum() / counts.sum()
