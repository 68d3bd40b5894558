"""A report on how much a protected column moves the prediction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.analysis import Analysis, outputs
from torchwhy.attribution import Attribution
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.structure import Keywords, flatten
from torchwhy.engine.tables import FrameForm, column_names
from torchwhy.input_types import Baselines, Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Count, Fraction
from torchwhy.surrogate.fairness import FairnessRates, fairness_rates
from torchwhy.surrogate.importance import classes_in, label_columns
from torchwhy.surrogate.intervals import IntervalEstimate, mean_interval
from torchwhy.surrogate.table import TableColumns
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable
from torchwhy.wrapper import check_inner_method

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True, repr=False)
class Bias(Viewable):
    """The effect of a protected column, in units of the score; every figure with its confidence interval.

    Args:
        groups: the column's different values, one for each group ``(G,)`` (of several columns their combinations).
        sizes: rows in each group.
        score: the mean score of each group as it is: differences may come from the other columns.
        set_to: the mean score when *all* rows get the group's value, its partial dependence: differences come from the column.
        gap: the largest difference between two of ``set_to``, and its interval, from the rows' own differences.
        permutation: the mean absolute change of the score when the column is shuffled among the rows.
        attribution: the mean attribution of the column in each group; None where no method was given.
        rates: how often the decision is favourable in each group, and how far these rates are apart
            (:class:`~torchwhy.surrogate.fairness.FairnessRates`); None where there is no decision.
        names: what the groups are called: the labels of a column of a data frame, of one-hot columns the name of the one that
            is 1; empty: their values.
    """

    groups: Tensor
    sizes: list[int]
    score: list[IntervalEstimate]
    set_to: list[IntervalEstimate]
    gap: IntervalEstimate
    permutation: IntervalEstimate
    attribution: list[IntervalEstimate] | None
    rates: FairnessRates | None = None
    names: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{'group':>16} {'rows':>6} {'score':>24} {'all rows set to it':>24} {'attribution':>24}"]
        for g, name in enumerate(self._names()):
            shown = [
                _show_interval(self.score[g]),
                _show_interval(self.set_to[g]),
                _show_interval(self.attribution[g]) if self.attribution else "-",
            ]
            lines.append(f"{name:>16} {self.sizes[g]:>6} " + " ".join(f"{s:>24}" for s in shown))
        lines.append(f"largest difference due to the column: {_show_interval(self.gap)}")
        lines.append(f"mean change when it is shuffled: {_show_interval(self.permutation)}")
        if self.rates is not None:
            lines.append(str(self.rates))
        return "\n".join(lines)

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        given = {"scores as they are": self.score, "scores, all rows set to the group": self.set_to}
        columns = {
            name: torch.tensor([[float(v) for v in e] for e in estimates], dtype=torch.double).T
            for name, estimates in given.items()
        }
        panels = {name: _known_ends(*ends) for name, ends in columns.items()}
        notes = [f"{n} rows" for n in self.sizes]
        return pictures.panels_of_intervals(panels, self._names(), **{"notes": notes, **options})

    def _names(self) -> list[str]:
        if self.names:
            return list(self.names)
        return [", ".join(f"{v:g}" for v in row.reshape(-1).tolist()).replace("-", "−") for row in self.groups]

    def _table(self) -> Table:
        parts = {"score": self.score, "set to": self.set_to}
        parts |= {} if self.attribution is None else {"attribution": self.attribution}
        columns = [f"{name}{end}" for name in parts for end in ("", ", low", ", high")]
        lines: list[list[object]] = [
            [name, n, *(float(v) for estimates in parts.values() for v in estimates[g])]
            for g, (name, n) in enumerate(zip(self._names(), self.sizes))
        ]
        return ["group", "rows", *columns], lines


def _known_ends(mean: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return numbers and the ends of their intervals; the number itself where an end is not known."""
    return mean, low.where(low.isfinite(), mean), high.where(high.isfinite(), mean)


class BiasReport(Analysis):
    """The effect of a protected column on the prediction: permutation, partial dependence and attribution by group.

    A column that moves nothing can still be reconstructed by the model from others: compare ``score``, the groups as they
    are, with ``set_to``. Intervals are Student's, over independent rows.

    Args:
        method: the attribution method, on the same model; None leaves the attributions out.
        n_repeats: permutations.
        confidence: of the intervals.
        max_groups: more different values than this are refused.
        threshold: the decision is favourable where the score is above it, in units of the score; None: where the target, a
            class, is the largest output.
        generator: of the permutations.
    """

    method: Attribution | None = None
    n_repeats: Count = 10
    confidence: Fraction = 0.95
    max_groups: Count = 20
    threshold: float | None = None
    generator: Seed = 0

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.method is not None:
            check_inner_method("method", self.method, self)

    @torch_defaults()
    def measure(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        *,
        column: int | str | Sequence[int | str],
        labels: object = None,
        baselines: Baselines = None,
        additional_forward_args: object = None,
    ) -> Bias:
        """Report on one protected column of ``inputs`` ``(N, d)``, or for several that belong together (one-hot).

        Args:
            inputs: a table, also an array, a data frame, or several tensors whose columns are numbered through.
            target: the favourable class, or any target; see ``threshold``.
            column: by number, or of a data frame by name.
            labels: the true classes ``(N,)``, or of a single score whether the row deserves the favourable decision: for
                the rates of errors.
            baselines, additional_forward_args: as for a method.

        Raises:
            TypeError: inputs that are no tensors.
            ValueError: not a table, no such column, one group only or more than ``max_groups``, labels that do not fit.
        """
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            table, rows = TableColumns(problem.x, column_names(inputs)), problem.rows
            columns = self._columns(table, column)
            values = torch.stack([table.column(c).double() for c in columns], 1)
            groups, member = self._groups(values, columns)
            plain = problem.run.all_scores(problem.x)
            set_to = [table.with_columns(rows, columns, v.expand(len(rows), -1)) for v in groups]
            given = torch.stack([problem.run.all_scores(z) for z in set_to], 1)  # (N, G)
            generator = make_generator(self.generator)
            changes = [
                (problem.run.all_scores(table.with_columns(rows, columns, values[order.to(rows.device)])) - plain).abs()
                for order in (torch.randperm(len(rows), generator=generator) for _ in range(self.n_repeats))
            ]
            rates = self._rates(problem, plain, labels, member, len(groups))
            names = _names_of_values(groups, columns, table, problem.table)
        means = given.mean(0)
        attribution = None
        if self.method is not None:
            given_baselines = baselines if self.method.uses_baselines else None
            how: Keywords = {"baselines": given_baselines, "additional_forward_args": additional_forward_args}
            each = TableColumns(flatten(self.method.attribute(inputs, target, **how))[0])
            of_column = torch.stack([each.column(c).double() for c in columns], 1).sum(1)
            attribution = [self._interval(of_column[member == g]) for g in range(len(groups))]
        return Bias(
            groups=groups.to(table.column(columns[0])),
            sizes=[int((member == g).sum()) for g in range(len(groups))],
            score=[self._interval(plain[member == g]) for g in range(len(groups))],
            set_to=[self._interval(given[:, g]) for g in range(len(groups))],
            gap=self._interval(given[:, means.argmax()] - given[:, means.argmin()]),
            permutation=self._interval(torch.stack(changes).mean(0)),
            attribution=attribution,
            rates=rates,
            names=names,
        )

    def _rates(
        self, problem: Problem, plain: Tensor, labels: object, member: Tensor, groups: int
    ) -> FairnessRates | None:
        """Return the rates of favourable decisions; None where the target says no class and no threshold is given.

        Raises:
            ValueError: labels without a decision, or not one for each row.
        """
        index = getattr(problem.target, "index", None)
        if self.threshold is not None:
            favourable, wanted = plain > self.threshold, None
        elif isinstance(index, tuple) and len(index) == 1:
            out = outputs(problem, problem.x, problem.rows)
            if out.dim() != 2 or out.shape[1] < 2:
                return self._without_decisions(labels)
            favourable, wanted = out.argmax(1) == index[0], index[0]
        else:
            return self._without_decisions(labels)
        if labels is None:
            return fairness_rates(favourable, None, member, groups, self.confidence)
        true = label_columns(problem, labels, as_columns=wanted is not None)
        if true.dim() != 1:
            raise ValueError(f"labels: shape {tuple(true.shape)}; expected one for each row")
        if wanted is not None:
            classes_in(out, true)
        elif not bool(((true == 0) | (true == 1)).all()):
            raise ValueError(
                "labels: with a threshold give 1 for rows that deserve the favourable decision, and 0 for others"
            )
        return fairness_rates(
            favourable, true.bool() if wanted is None else true == wanted, member, groups, self.confidence
        )

    @staticmethod
    def _without_decisions(labels: object) -> None:
        """Refuse labels where there are no decisions that they could be compared with."""
        if labels is not None:
            raise ValueError(
                "labels: there is no decision to compare them with; give a class as the target, or threshold="
            )

    def _interval(self, values: Tensor) -> IntervalEstimate:
        """Return the mean of independent rows with its interval."""
        return mean_interval(values.double(), self.confidence)

    def _columns(self, table: TableColumns, column: Any) -> list[int]:
        """Return the numbers of the columns.

        Raises:
            ValueError: not a table, or no such column.
        """
        several = isinstance(column, Iterable) and not isinstance(column, str) and getattr(column, "ndim", 1) > 0
        columns = [table.number(c) for c in column] if several else [table.number(column)]
        found = [c for c in columns if c is not None]
        if any(t.dim() != 2 for t in table.tensors) or not found or found != columns:
            shapes = ", ".join(str(tuple(t.shape)) for t in table.tensors)
            named = f" or by name: {', '.join(map(repr, table.names))}" if table.names is not None else ""
            raise ValueError(
                f"column={column!r}: expected columns of a table, 0 to {table.d - 1}, by number{named}; inputs {shapes}"
            )
        return found

    def _groups(self, values: Tensor, columns: list[int]) -> tuple[Tensor, Tensor]:
        """Return the different values ``(G, columns)`` and the group of each row ``(N,)``.

        Raises:
            ValueError: one group only or more than ``max_groups``.
        """
        groups, member = values.unique(dim=0, return_inverse=True)
        if not 2 <= len(groups) <= self.max_groups:
            raise ValueError(
                f"column={columns}: {len(groups)} different values; 2 to {self.max_groups} are groups: cut a continuous "
                "column into few values, or raise max_groups"
            )
        return groups, member


def _names_of_values(
    groups: Tensor, columns: list[int], table: TableColumns, form: FrameForm | None
) -> tuple[str, ...]:
    """Return what groups of values ``(G, columns)`` are called, where columns or their labels have names; else nothing."""
    if table.names is not None and len(columns) > 1 and table.is_one_hot(columns):
        return tuple(table.names[columns[k]] for k in groups.argmax(1).tolist())
    if form is None or not any(c in form.labels for c in columns):
        return ()
    rows = [[form.value(c, v) for c, v in zip(columns, row)] for row in groups.tolist()]
    return tuple(", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in row) for row in rows)


def _show_interval(estimate: IntervalEstimate) -> str:
    """Return ``mean (low to high)``."""
    mean, low, high = map(float, estimate)
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"
