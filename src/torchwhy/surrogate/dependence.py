"""Partial dependence: the mean prediction as one or two features take each value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from numbers import Real
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor

from torchwhy.analysis import Analysis
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.structure import as_tuple
from torchwhy.engine.tables import column_names
from torchwhy.explanation.table import label_of
from torchwhy.input_types import Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Bounds, UnitShare
from torchwhy.surrogate.table import TableColumns
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption

Values = Tensor | Sequence[float]
Column = int | str


@dataclass(frozen=True, repr=False)
class Dependence(Viewable):
    """The dependence of a score on features.

    Args:
        grid: the values of each feature, ``(G,)`` for each; of one-hot columns 0, 1, ..., the numbers of the categories.
        values: the mean score, ``(G,)`` or ``(G, G')``.
        ice: the score of each row, ``(N, G)`` or ``(N, G, G')``.
        names: of the features, where they have any.
        labels: of each feature whose values are numbers of labels, or of one-hot columns, these; None of the others.
    """

    grid: tuple[Tensor, ...]
    values: Tensor
    ice: Tensor
    names: tuple[str, ...] | None = None
    labels: tuple[Sequence[str] | None, ...] | None = None

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        one = len(self.grid) == 1
        grid, ice = (self.grid[0], self.ice) if one else (self.grid, None)
        known = {"ice": ice, "names": self.names, "labels": self.labels}
        return pictures.partial_dependence(grid, self.values, **{**known, **options})

    def _table(self) -> Table:
        points = torch.cartesian_prod(*self.grid).view(-1, len(self.grid))
        names = ["value"] if len(self.grid) == 1 else ["first value", "second value"]
        each = self.ice.flatten(1)
        spread = each.std(0) if len(each) > 1 else torch.full_like(each[0], torch.nan)
        columns = torch.cat([points.to(each), self.values.reshape(-1, 1).to(each), spread[:, None]], 1)
        lines: list[list[object]] = columns.tolist()
        for i, labels in enumerate(self.labels or ()):
            for line, number in zip(lines, points[:, i].tolist()):
                line[i] = number if labels is None else label_of(labels, number)
        return [*names, "score", "std over rows"], lines


class PartialDependence(Analysis):
    r"""The mean score with a feature set to each value of a grid; the rows one by one are the ICE curves.

    :math:`\mathrm{PD}(v) = \frac{1}{N} \sum_n f(x_n \,|\, x_{nk} = v)`.

    Not what happens when the feature changes in the world: the other features stay, also where such rows do not exist. Equal to
    ``sklearn.inspection.partial_dependence`` with ``method="brute"``.

    Args:
        grid_resolution: the number of values; of a feature with fewer different values, these.
        percentiles: where the grid begins and ends, as shares of the data.

    Papers: Friedman 2001, doi:10.1214/aos/1013203451, section 8.2; Goldstein et al. 2015, arXiv:1309.6392.
    """

    grid_resolution: Annotated[int, Bounds(2)] = 100
    percentiles: tuple[UnitShare, UnitShare] = (0.05, 0.95)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not self.percentiles[0] < self.percentiles[1]:
            raise ValueError(f"percentiles={self.percentiles!r}: expected (low, high), shares from 0 to 1")

    @torch_defaults()
    def measure(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        feature: Column | Sequence[Column | Sequence[Column]],
        grid: Values | Sequence[Values] | None = None,
        additional_forward_args: object = None,
    ) -> Dependence:
        """Measure the dependence of ``target`` on a feature or a pair of them.

        Args:
            inputs: ``(N, ...)``, also an array, a data frame, or several tensors, whose columns are numbered through.
            target: as of every method.
            feature: a column, or two of them: the index of an element of a flattened row, or the name of a column of a data
                frame. One-hot columns are one feature: ``[[5, 6, 7]]``, of a pair ``(2, [5, 6, 7])``; the columns are set
                together.
            grid: the values to take instead, ``(G,)``, of a pair one for each; of a column of labels, labels.
            additional_forward_args: further arguments of the model.

        Raises:
            TypeError: inputs that are no tensors.
            ValueError: no such feature, the same twice, no such grid, values that the inputs' type does not hold.
        """
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            table = TableColumns(problem.x, column_names(inputs))
            groups = _columns(table, feature)
            known = {} if problem.table is None else problem.table.labels
            if grid is None:
                axes = [self._grid(table, g) for g in groups]
            else:
                axes = _given(grid, table, groups, known)
            points = torch.cartesian_prod(*(torch.arange(len(a)) for a in axes)).view(-1, len(axes))
            scores = _scores_at(problem, table, groups, axes, points)
        n = problem.n
        ice = scores.view(len(points), n).T.reshape(n, *map(len, axes))
        labels = [_labels_of(g, table, known) for g in groups]
        return Dependence(
            tuple(axes), ice.mean(0), ice, _names_of_features(groups, table), tuple(labels) if any(labels) else None
        )

    def _grid(self, table: TableColumns, columns: list[int]) -> Tensor:
        """Return the values of a feature, ``(G,)``: all of its own where they are few, else a grid between percentiles."""
        if len(columns) > 1:
            return torch.arange(len(columns), device=table.tensors[0].device)
        values = table.column(columns[0])
        different = values.unique()
        different = different[~different.isnan()] if different.is_floating_point() else different
        if len(different) < self.grid_resolution:
            return different
        from scipy.stats.mstats import mquantiles

        numbers = values.double().cpu()
        low, high = mquantiles(numbers[~numbers.isnan()].numpy(), prob=self.percentiles)
        return table.held_by(
            columns[0], torch.linspace(float(low), float(high), self.grid_resolution, dtype=torch.double), "grid"
        )


def _names_of_features(groups: list[list[int]], table: TableColumns) -> tuple[str, ...] | None:
    """Return what one or two features are called, where the columns have names: one-hot ones by what theirs have in common."""
    names = table.names
    if names is None:
        return None
    return tuple(_in_common([names[c] for c in g]) or ", ".join(names[c] for c in g) for g in groups)


def _in_common(names: Sequence[str]) -> str:
    """Return what names begin with, all of them: ``"housing"`` of ``"housing_own"`` and ``"housing_rent"``."""
    letters = takewhile(lambda each: len(set(each)) == 1, zip(*names))
    found = "".join(each[0] for each in letters)
    return found.rstrip("_= ") if len(names) > 1 else found


def _labels_of(columns: list[int], table: TableColumns, known: Mapping[int, Sequence[object]]) -> list[str] | None:
    """Return the labels of a column that has any, and the names of one-hot columns; None where there are none."""
    if len(columns) > 1:
        return None if table.names is None else [table.names[c] for c in columns]
    return [str(label) for label in known[columns[0]]] if columns[0] in known else None


def _columns(table: TableColumns, feature: Any) -> list[list[int]]:
    """Return the columns of each of one or two features.

    Raises:
        ValueError: no such columns, or the same twice.
    """
    several = isinstance(feature, Iterable) and not isinstance(feature, str) and getattr(feature, "ndim", 1) > 0
    parts = list(feature) if several else [feature]
    if len(parts) > 2 and not any(isinstance(p, (list, tuple)) for p in parts):
        parts = [parts]  # one-hot, if anything
    groups = [[table.number(c) for c in as_tuple(p)] for p in parts]
    found = [[c for c in g if c is not None] for g in groups]
    named = f" or {', '.join(map(repr, table.names))}" if table.names is not None else ""
    if not 1 <= len(found) <= 2 or found != groups or not all(found):
        raise ValueError(f"feature={feature!r}: expected one or two of 0 to {table.d - 1}{named}")
    for g in found:
        if len(g) > 1 and not table.is_one_hot(g):
            raise ValueError(
                f"feature={feature!r}: expected one or two of 0 to {table.d - 1}{named}, or columns of which one is 1 and the "
                "others are 0 in every row"
            )
    every = [c for g in found for c in g]
    if len(set(every)) < len(every):
        raise ValueError(
            f"feature={feature!r}: the same column twice; the dependence on a column with itself has no second axis"
        )
    return found


def _given(
    grid: Any, table: TableColumns, groups: list[list[int]], known: Mapping[int, Sequence[object]]
) -> list[Tensor]:
    """Return the caller's values, ``(G,)`` for each feature; ``known`` has the labels of columns.

    Raises:
        ValueError: no values, not one list of them for each feature, or values that the column cannot hold.
    """
    n = len(groups)
    flat = isinstance(grid, Tensor) or getattr(grid, "ndim", 0) == 1 or all(isinstance(g, (Real, str)) for g in grid)
    parts = (grid,) if n == 1 and flat else tuple(grid)
    if len(parts) == n:
        parts = tuple(_numbers_of_labels(g, known[c[0]]) if c[0] in known else g for g, c in zip(parts, groups))
    axes = [torch.as_tensor(g, dtype=torch.double) for g in parts] if len(parts) == n else []
    if not axes or not all(g.dim() == 1 and len(g) for g in axes):
        raise ValueError(f"grid: expected values (G,), at least one, for each of {n} features")
    found = []
    for g, columns in zip(axes, groups):
        if len(columns) > 1 and not all(v in range(len(columns)) for v in g.tolist()):
            raise ValueError(
                f"grid: {g.tolist()}; of {len(columns)} one-hot columns give numbers from 0 to {len(columns) - 1}"
            )
        found.append(g.long() if len(columns) > 1 else table.held_by(columns[0], g, "grid"))
    return found


def _numbers_of_labels(values: Any, labels: Sequence[object]) -> list[int]:
    """Return the numbers of labels of a column; of values that are none their own, where they are such numbers.

    Raises:
        ValueError: neither.
    """
    given = values.tolist() if hasattr(values, "tolist") else list(values)
    unknown = [v for v in given if v not in labels]
    if not unknown:
        return [labels.index(v) for v in given]
    if any(v not in range(len(labels)) for v in given):
        raise ValueError(f"grid: {unknown[0]!r} is none of the column's labels, {', '.join(map(repr, labels))}")
    return [int(v) for v in given]


def _scores_at(
    problem: Problem, table: TableColumns, groups: list[list[int]], axes: list[Tensor], points: Tensor
) -> Tensor:
    """Return the scores of all rows at each point ``(P, features)``, flat, the rows of a point together."""
    columns = [c for g in groups for c in g]

    def work(start: int, stop: int) -> Tensor:
        rows, k = problem.run.rows_and_samples(start, stop)
        at = points[k.to(points.device)]
        values = []
        for i, (g, axis) in enumerate(zip(groups, axes)):
            chosen = axis[at[:, i].to(axis.device)]
            one_hot = torch.arange(len(g), device=axis.device) == chosen[:, None]
            values.append(one_hot.double() if len(g) > 1 else chosen[:, None].double())
        return problem.run.scores(table.with_columns(rows, columns, torch.cat(values, 1).to(rows.device)), rows)

    return problem.run.concatenated(len(points) * problem.n, work)
