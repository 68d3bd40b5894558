"""A report on how much a protected column moves the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.analysis import Analysis, one_tensor
from torchwhy.attribution import Attribution
from torchwhy.baselines import BaselineLike
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.settings import Count
from torchwhy.surrogate.intervals import IntervalEstimate, mean_interval
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

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
    """

    groups: Tensor
    sizes: list[int]
    score: list[IntervalEstimate]
    set_to: list[IntervalEstimate]
    gap: IntervalEstimate
    permutation: IntervalEstimate
    attribution: list[IntervalEstimate] | None

    def __str__(self) -> str:
        lines = [f"{'group':>16} {'rows':>6} {'score':>24} {'all rows set to it':>24} {'attribution':>24}"]
        for g in range(len(self.sizes)):
            name = ", ".join(f"{v:g}" for v in self.groups[g].reshape(-1).tolist())
            shown = [
                _show_interval(self.score[g]),
                _show_interval(self.set_to[g]),
                _show_interval(self.attribution[g]) if self.attribution else "-",
            ]
            lines.append(f"{name:>16} {self.sizes[g]:>6} " + " ".join(f"{s:>24}" for s in shown))
        lines.append(f"largest difference due to the column: {_show_interval(self.gap)}")
        lines.append(f"mean change when it is shuffled: {_show_interval(self.permutation)}")
        return "\n".join(lines)

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        given = {"scores as they are": self.score, "scores, all rows set to the group": self.set_to}
        columns = {
            name: torch.tensor([[float(v) for v in e] for e in estimates]).T for name, estimates in given.items()
        }
        panels = {name: _known_ends(*ends) for name, ends in columns.items()}
        notes = [f"{n} rows" for n in self.sizes]
        return pictures.panels_of_intervals(panels, self._names(), **{"notes": notes, **options})

    def _names(self) -> list[str]:
        return [", ".join(f"{v:g}" for v in row.reshape(-1).tolist()) for row in self.groups]

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
        generator: of the permutations.
    """

    method: Attribution | None = None
    n_repeats: Count = 10
    confidence: float = 0.95
    max_groups: int = 20
    generator: Seed = 0

    @torch_defaults()
    def measure(
        self,
        inputs: Tensor,
        target: TargetLike = None,
        *,
        column: int | Sequence[int],
        baselines: BaselineLike = None,
        additional_forward_args: object = None,
    ) -> Bias:
        """Report on one protected column of ``inputs`` ``(N, d)``, or for several that belong together (one-hot).

        Raises:
            TypeError: inputs that are no tensor, a method that is none.
            ValueError: not a table, no such column, one group only or more than ``max_groups``.
        """
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence!r}: expected a share between 0 and 1")
        if not (self.method is None or isinstance(self.method, Attribution)):
            raise TypeError(
                f"method={self.method!r}: expected an attribution method, IntegratedGradients(model), or None"
            )
        columns = [column] if isinstance(column, int) else list(column)
        groups, member = self._groups(one_tensor(inputs), columns)
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            x = problem.x[0]
            plain = problem.run.all_scores([x])
            given = torch.stack([problem.run.all_scores([_set_columns(x, columns, v)]) for v in groups], 1)  # (N, G)
            generator = make_generator(self.generator)
            changes = [
                (problem.run.all_scores([_set_columns(x, columns, x[order.to(x.device)][:, columns])]) - plain).abs()
                for order in (torch.randperm(len(x), generator=generator) for _ in range(self.n_repeats))
            ]
        means = given.mean(0)
        attribution = None
        if self.method is not None:
            values = self.method.attribute(
                inputs,
                target,
                baselines=baselines if self.method.uses_baselines else None,
                additional_forward_args=additional_forward_args,
            )
            attribution = [self._interval(values[member == g][:, columns].sum(1)) for g in range(len(groups))]
        return Bias(
            groups=groups,
            sizes=[int((member == g).sum()) for g in range(len(groups))],
            score=[self._interval(plain[member == g]) for g in range(len(groups))],
            set_to=[self._interval(given[:, g]) for g in range(len(groups))],
            gap=self._interval(given[:, means.argmax()] - given[:, means.argmin()]),
            permutation=self._interval(torch.stack(changes).mean(0)),
            attribution=attribution,
        )

    def _interval(self, values: Tensor) -> IntervalEstimate:
        """Return the mean of independent rows with its interval."""
        return mean_interval(values.double(), self.confidence)

    def _groups(self, inputs: Tensor, columns: list[int]) -> tuple[Tensor, Tensor]:
        """Return the different values ``(G, columns)`` and the group of each row ``(N,)``.

        Raises:
            ValueError: not a table, no such column, one group only or more than ``max_groups``.
        """
        if inputs.dim() != 2 or not columns or not all(hasattr(c, "__index__") for c in columns):
            raise ValueError(f"column={columns}: expected columns of a table, by number, inputs {tuple(inputs.shape)}")
        if not all(0 <= c < inputs.shape[1] for c in columns):
            raise ValueError(f"column={columns}: expected columns of a table, 0 to {inputs.shape[1] - 1}")
        groups, member = inputs[:, columns].unique(dim=0, return_inverse=True)
        if not 2 <= len(groups) <= self.max_groups:
            raise ValueError(
                f"column={columns}: {len(groups)} different values; 2 to {self.max_groups} are groups: cut a continuous "
                "column into few values, or raise max_groups"
            )
        return groups, member


def _set_columns(x: Tensor, columns: list[int], values: Tensor) -> Tensor:
    """Return ``x`` ``(N, d)`` with other values in the columns."""
    z = x.clone()
    z[:, columns] = values
    return z


def _show_interval(estimate: IntervalEstimate) -> str:
    """Return ``mean (low to high)``."""
    mean, low, high = map(float, estimate)
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"
