"""Accumulated local effects: how the score moves with a feature, among rows that are like the ones there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, overload

import torch
from torch import Tensor

from torchwhy.analysis import Analysis
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.structure import as_tuple
from torchwhy.engine.tables import column_names
from torchwhy.explanation.table import label_of
from torchwhy.input_types import Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Bounds
from torchwhy.surrogate.accumulated_pairs import LocalEffectsOfTwo, effects_of_two
from torchwhy.surrogate.quantiles import QuantileIntervals
from torchwhy.surrogate.table import TableColumns
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.engine.structure import Keywords
    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True, repr=False)
class LocalEffects(Viewable):
    """The accumulated local effects of a feature.

    Args:
        grid: ``(K + 1,)``, the ends of the K intervals.
        values: ``(K + 1,)``, the effect at each end, in the units of the score; its mean over the rows is 0.
        counts: ``(K,)``, how many rows lie in each interval.
        changes: ``(K,)``, the mean change of the score from one end of an interval to the other.
        standard_error: ``(K,)``, of each of these means; NaN where an interval has one row.
        name: of the feature, where it has one.
        labels: of a feature whose values are numbers of labels.
    """

    grid: Tensor
    values: Tensor
    counts: Tensor
    changes: Tensor
    standard_error: Tensor
    name: str | None = None
    labels: Sequence[str] | None = None

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        named: Keywords = {} if self.name is None else {"names": [self.name]}
        named |= {} if self.labels is None else {"labels": [self.labels]}
        return pictures.partial_dependence(
            self.grid, self.values, **{"ylabel": "effect on the score", **named, **options}
        )

    def _table(self) -> Table:
        nothing = self.changes.new_tensor([torch.nan])
        columns = (
            self.grid,
            self.values,
            *(torch.cat([nothing, part]) for part in (self.changes, self.standard_error)),
        )
        lines: list[list[object]] = torch.stack([c.double() for c in columns], 1).tolist()
        if self.labels is not None:
            for line, number in zip(lines, self.grid.tolist()):
                line[0] = label_of(self.labels, number)
        counts: list[object] = [0, *self.counts.tolist()]
        head = ["value", "effect", "change from the value before", "standard error", "rows between"]
        return head, [[*line, count] for line, count in zip(lines, counts)]


class AccumulatedLocalEffects(Analysis):
    r"""How the score changes with a feature from interval to interval, each asked of the rows that lie in it, added up.

    Of the ends :math:`z_0 < \dots < z_K` of K intervals with :math:`n_k` rows each,

    .. math:: g(z_m) = \sum_{k=1}^{m} \frac{1}{n_k} \sum_{i: x_{ij} \in (z_{k-1}, z_k]}
              \left[ f(z_k, x_{i, \setminus j}) - f(z_{k-1}, x_{i, \setminus j}) \right],

    less its mean over the rows. Where features go together, partial dependence asks the model about rows that do not exist, such
    as large flats with one room; here a feature moves no further than to the ends of its row's own interval.

    The effect is in the units of the score and is 0 on the mean: it says how the score goes up and down, not how high it is. It
    is no effect in the world.

    Of two features it is what they do together, beyond what each does: the same of differences of differences,

    .. math:: h(z_m, w_q) = \sum_{k \le m} \sum_{l \le q} \frac{1}{n_{kl}} \sum_{i \in (k, l)}
              \left[ f(z_k, w_l) - f(z_{k-1}, w_l) - f(z_k, w_{l-1}) + f(z_{k-1}, w_{l-1}) \right],

    less the accumulated effects that each feature has in h, less its mean over the rows: 0 everywhere for a score that is a sum
    of a function of each. A cell without rows has the value of the nearest one with some.

    The ends are quantiles of the feature, as in the paper (equal ones taken once), so that intervals have about as many rows;
    a feature with few values has one interval between each two. For the mean the paper takes the effect at the upper end of each
    row's interval (equation 16); here it is half of both ends', so that a straight line is 0 in the middle of its rows; of two
    features likewise, where a cell counts by the mean of its corners. Evaluations: two for each row, of two features four.

    Args:
        n_intervals: K; more show finer steps and are less certain.

    Paper: Apley and Zhu 2020, arXiv:1612.08468, equations 15 and 16, and 19 to 21 for two.
    """

    n_intervals: Annotated[int, Bounds(1)] = 20

    @overload
    def measure(
        self, inputs: Inputs, target: TargetLike = None, *, feature: int | str, additional_forward_args: object = None,
    ) -> LocalEffects: ...  # fmt: skip
    @overload
    def measure(
        self, inputs: Inputs, target: TargetLike = None, *, feature: tuple[int | str, ...] | list[int | str],
        additional_forward_args: object = None,
    ) -> LocalEffectsOfTwo: ...  # fmt: skip
    @torch_defaults()
    def measure(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        feature: int | str | tuple[int | str, ...] | list[int | str],
        additional_forward_args: object = None,
    ) -> LocalEffects | LocalEffectsOfTwo:
        """Measure the effect of a feature, or of two together, on ``target``.

        Args:
            inputs: ``(N, ...)``, also an array, a data frame, or several tensors, whose columns are numbered through.
            target: as of every method.
            feature: a column, or two of them: the index of an element of a flattened row, or the name of a column of a data
                frame.
            additional_forward_args: further arguments of the model.

        Raises:
            TypeError: inputs that are no tensors.
            ValueError: no such feature, the same twice, more than two, one that is the same in every row, or is NaN in one.
        """
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            table = TableColumns(problem.x, column_names(inputs))
            features = as_tuple(feature)
            columns = [_column_of(table, f) for f in features]
            if len(columns) not in (1, 2) or len(set(columns)) < len(columns):
                raise ValueError(f"feature={feature!r}: expected one column, or two different ones")
            if len(columns) == 2:
                return effects_of_two(problem, table, columns, self.n_intervals, features)
            intervals = QuantileIntervals.of(table.column(columns[0]), self.n_intervals, feature)
            change = _changes_within(problem, table, columns[0], intervals)
            labels = None if problem.table is None else problem.table.labels.get(columns[0])
        name = table.names[columns[0]] if table.names is not None else None
        found = _accumulated(intervals.ends, intervals.place, change.double(), name)
        return found if labels is None else replace(found, labels=[str(label) for label in labels])


def _column_of(table: TableColumns, feature: int | str) -> int:
    """Return the number of a feature's column.

    Raises:
        ValueError: there is no such column.
    """
    column = table.number(feature)
    if column is None:
        named = f" or {', '.join(map(repr, table.names))}" if table.names is not None else ""
        raise ValueError(f"feature={feature!r}: expected one of 0 to {table.d - 1}{named}")
    return column


def _changes_within(problem: Problem, table: TableColumns, column: int, intervals: QuantileIntervals) -> Tensor:
    """Return by how much each row's score rises from the lower to the upper end of its interval, ``(N,)``."""

    def work(start: int, stop: int) -> Tensor:
        rows, side = problem.run.rows_and_samples(start, stop)
        return problem.run.scores(table.with_columns(rows, [column], intervals.end_of(rows, side)[:, None]), rows)

    low, high = problem.run.concatenated(2 * problem.n, work).split(problem.n)
    return high - low


def _accumulated(ends: Tensor, place: Tensor, change: Tensor, name: str | None) -> LocalEffects:
    """Return the effects: means within the intervals, added up, less their mean over the rows."""
    k = len(ends) - 1
    place = place.to(change.device)
    counts = torch.bincount(place, minlength=k)
    mean = change.new_zeros(k).index_add_(0, place, change) / counts.clamp(min=1)
    squares = change.new_zeros(k).index_add_(0, place, (change - mean[place]).square())
    error = (squares / (counts - 1).clamp(min=1) / counts.clamp(min=1)).sqrt()
    error = torch.where(counts > 1, error, torch.nan)
    total = torch.cat([mean.new_zeros(1), mean.cumsum(0)])
    middle = ((total[1:] + total[:-1]) / 2 * counts).sum() / counts.sum()
    return LocalEffects(ends.double().cpu(), (total - middle).cpu(), counts.cpu(), mean.cpu(), error.cpu(), name)
