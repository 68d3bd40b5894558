"""What matters over all rows, by cohorts: mean sizes with intervals, and rows for swarms and dependence plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.randomness import Seed
from torchwhy.explanation import Explanation
from torchwhy.explanation.labels import add_labels, renumbered
from torchwhy.explanation.table import column_labels, facts_of
from torchwhy.global_view.rows import Explained, FeatureRows, MapSize, RowKeys, RowSample, feature_rows, named
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption, PictureOption

Cohorts = Sequence[object] | Tensor | Callable[[Explanation], Sequence[object] | Tensor] | str | None
EVERYTHING = "all rows"


class CohortRows(NamedTuple):
    """Rows of a cohort, drawn at random where there are more than are kept.

    Attributes:
        rows: ``(m,)``, their numbers.
        values: ``(m, d)``, the attributions.
        inputs: ``(m, d)``, the features' own values; None where they are no numbers.
    """

    rows: Tensor
    values: Tensor
    inputs: Tensor | None


@dataclass(frozen=True, repr=False)
class Summary(Viewable):
    """What features matter over all rows, see :func:`summarize`.

    Args:
        cohorts: the names of the C cohorts; one, ``"all rows"``, where none are asked for.
        names: of the d features.
        shape: of the maps, such as ``(1, H, W)``, whose places are the features; ``(d,)`` where they are no maps.
        counts: ``(C,)``, the rows of each cohort.
        mean_absolute: ``(C, d)``, the mean size of each feature's attribution, in the units of the score.
        low, high: ``(C, d)``, the ends of its interval; NaN for a single row.
        mean: ``(C, d)``, the mean of the attribution itself: for or against, on the whole.
        sample: rows of each cohort, for swarms and dependence plots.
        confidence: of the intervals.
        labels: of features whose values are numbers of labels, by the feature's number.
    """

    cohorts: list[str]
    names: list[str]
    shape: tuple[int, ...]
    counts: Tensor
    mean_absolute: Tensor
    low: Tensor
    high: Tensor
    mean: Tensor
    sample: dict[str, CohortRows]
    confidence: float
    labels: dict[int, list[str]] = field(default_factory=dict)

    def plot(self, kind: str | None = None, feature: str | int | None = None, **options: AnyOption) -> Figure:
        """Draw the mean sizes, or rows.

        Args:
            kind: ``"importance"``: the mean sizes, of maps as maps; ``"beeswarm"``: a point a row, a panel a cohort;
                ``"dependence"``: a feature's attributions against its values, a colour a cohort. None is the first.
            feature: for ``"dependence"``: a name or a number; None is the one of the largest mean size.
            options: of the function of :mod:`torchwhy.visualize` that draws.

        Raises:
            ValueError: another kind, or a dependence where the features have no values.
            LookupError: a feature that is not there.
        """
        from torchwhy import visualize

        if kind in (None, "importance"):
            return self._picture(visualize, **options)
        if kind == "beeswarm":
            inputs = {c: s.inputs for c, s in self.sample.items() if s.inputs is not None} or None
            values = {c: s.values for c, s in self.sample.items()}
            return visualize.panels_of_swarms(values, inputs, self.names, **{"labels": self.labels, **options})
        if kind != "dependence":
            raise ValueError(f"kind={kind!r}: expected 'importance', 'beeswarm' or 'dependence'")
        j = self._number(feature)
        groups = {c: (s.inputs[:, j], s.values[:, j]) for c, s in self.sample.items() if s.inputs is not None}
        if not groups:
            raise ValueError("kind='dependence': the features have no values of their own, or the inputs were not kept")
        return visualize.scatter_of_cohorts(groups, self.names[j], **{"labels": self.labels.get(j), **options})

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        if len(self.shape) == 3:
            maps = {c: m.view(1, *self.shape) for c, m in zip(self.cohorts, self.mean_absolute)}
            shown = {"shared_scale": "absolute", "label": "mean |attribution|", **options}
            figure: Figure = pictures.grid(maps, **shown)
            return figure
        names = options.pop("names", self.names)
        if len(self.cohorts) > 1:
            figure = pictures.cohorts({c: m[None] for c, m in zip(self.cohorts, self.mean_absolute)}, names, **options)
            return figure
        errors = (self.high[0] - self.mean_absolute[0]).nan_to_num(0)
        shown = {
            "errors": errors,
            "signed": False,
            "xlabel": f"mean |attribution|, {self.confidence:.0%} interval",
            **options,
        }
        figure = pictures.bars(self.mean_absolute[0], names, **shown)
        return figure

    def _number(self, feature: str | int | None) -> int:
        if feature is None:
            return int(self.mean_absolute.mean(0).argmax())
        if feature in self.names:
            return self.names.index(str(feature))
        if isinstance(feature, str) or not 0 <= feature < len(self.names):
            raise LookupError(f"feature={feature!r}: there is no such feature; there are {len(self.names)}")
        return feature

    def _table(self) -> Table:
        lines: list[list[object]] = []
        for c, cohort in enumerate(self.cohorts):
            columns = torch.stack([self.mean_absolute[c], self.low[c], self.high[c], self.mean[c]], 1).tolist()
            count = int(self.counts[c])
            lines += [[cohort, name, *line, count] for name, line in zip(self.names, columns)]
        return ["cohort", "feature", "mean size", "low", "high", "mean", "rows"], lines


class _Sums:
    """Running sums of one cohort's rows."""

    def __init__(self, most: int) -> None:
        self.count, self.sample, self.first = 0, RowSample(most), torch.empty(0)
        self.total = self.size = self.square = torch.zeros((), dtype=torch.double)

    def add(self, found: FeatureRows, chosen: Tensor, rows: Tensor, keys: Tensor) -> None:
        """Add the rows ``chosen`` ``(m,)`` of a batch."""
        values = found.values[chosen].double()
        if not self.count:
            self.first = values[0].abs()  # squares are around it, so that little is lost by rounding
        away = values.abs() - self.first
        self.count += len(values)
        self.total, self.size = self.total + values.sum(0), self.size + away.sum(0)
        self.square = self.square + away.square().sum(0)
        kept = [found.values[chosen]] + ([] if found.inputs is None else [found.inputs[chosen]])
        self.sample.add(rows[chosen], keys[chosen], *kept)

    def interval(self, confidence: float) -> tuple[Tensor, Tensor]:
        """Return the mean size and half of Student's interval, NaN for a single row."""
        from scipy.special import stdtrit

        n, away = self.count, self.size / self.count
        if n == 1:
            return self.first + away, away * torch.nan
        variance = ((self.square - n * away.square()) / (n - 1)).clamp(min=0)
        return self.first + away, (variance / n).sqrt() * float(stdtrit(n - 1, 0.5 + confidence / 2))

    def rows(self) -> CohortRows:
        """Return the rows that were kept."""
        values, *inputs = self.sample.tensors
        return CohortRows(self.sample.rows, values, inputs[0] if inputs else None)


def summarize(
    explained: Explained,
    *,
    cohorts: Cohorts = None,
    names: Sequence[str] | None = None,
    size: MapSize = None,
    max_rows: int = 1000,
    confidence: float = 0.95,
    generator: Seed = 0,
) -> Summary:
    r"""Return what features matter over all rows: the mean size of each one's attribution, by cohorts.

    :math:`\bar I_j = \frac{1}{N} \sum_n |a_{nj}|`, with Student's interval for independent rows. In the units of the score; large
    where a feature moves the score much, for or against, on these rows; not the model's loss without it, which is
    :class:`torchwhy.PermutationImportance` and :class:`torchwhy.SAGE`.

    Read batch by batch: memory grows with the features and cohorts, not with the rows.

    Args:
        explained: an explanation, what :func:`torchwhy.load_dataset` returns or its folder, or explanations one by one.
        cohorts: which rows belong together: a label for each row, in their order; or a callable that returns them for the rows
            of an explanation; or ``"target"``: rows of one target. None is all together.
        names: of the features; None is their own.
        size: of maps, to which they are averaged.
        max_rows: how many rows of a cohort are kept for swarms and dependence plots, drawn at random; fewer where they have very
            many features.
        confidence: of the intervals.
        generator: of that draw.

    Raises:
        TypeError, ValueError: no explanations, rows with features of their own, other numbers of labels or names.

    >>> import torch, torchwhy as tw
    >>> e = tw.InputXGradient(torch.nn.Linear(2, 1)).explain(torch.rand(6, 2), names=["age", "bmi"])
    >>> found = tw.summarize(e, cohorts=["old", "old", "young", "young", "young", "old"])
    >>> found.cohorts, found.mean_absolute.shape, found.counts.tolist()
    (['old', 'young'], torch.Size([2, 2]), [3, 3])
    """
    check_count("max_rows", max_rows)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence={confidence}: expected a share between 0 and 1")
    keys_of_rows, sums, first, known = RowKeys(generator), dict[str, _Sums](), None, dict[int, list[str]]()
    for found in feature_rows(explained, size):
        first = first or found
        if found.inputs is not None:
            own = column_labels(found.explanation)
            add_labels(known, own)
            found = found._replace(inputs=renumbered(found.inputs, own, known))
        rows, keys = keys_of_rows.next(len(found.values))
        labels = _labels(cohorts, found.explanation, int(rows[0]), len(rows))
        for label in dict.fromkeys(labels):
            chosen = torch.tensor([i for i, own in enumerate(labels) if own == label])
            sums.setdefault(label, _Sums(max_rows)).add(found, chosen, rows, keys)
    if isinstance(cohorts, (Sequence, Tensor)) and not isinstance(cohorts, str) and len(cohorts) != keys_of_rows.seen:
        raise ValueError(f"cohorts: {len(cohorts)} labels for {keys_of_rows.seen} rows")
    if first is None:
        raise ValueError("explained: there are no rows")
    return _summary_of(dict(sorted(sums.items())), first, named(names, first), confidence, known)


def _summary_of(
    sums: dict[str, _Sums], first: FeatureRows, names: list[str], confidence: float, known: dict[int, list[str]]
) -> Summary:
    means, halves = zip(*(s.interval(confidence) for s in sums.values()))
    mean, half = torch.stack(means), torch.stack(halves)
    return Summary(
        cohorts=list(sums),
        names=names,
        shape=first.shape,
        counts=torch.tensor([s.count for s in sums.values()]),
        mean_absolute=mean,
        low=mean - half,
        high=mean + half,
        mean=torch.stack([s.total / s.count for s in sums.values()]),
        sample={label: s.rows() for label, s in sums.items()},
        confidence=confidence,
        labels=known,
    )


def _labels(cohorts: Cohorts, e: Explanation, begin: int, n: int) -> list[str]:
    """Return the cohort of each of n rows, that begin with row ``begin`` of all.

    Raises:
        TypeError: no labels.
        ValueError: another number of them.
    """
    if cohorts is None:
        return [EVERYTHING] * n
    if isinstance(cohorts, str):
        if cohorts != "target":
            raise ValueError(f"cohorts={cohorts!r}: expected 'target', a label for each row, or a callable")
        found: object = [facts_of(e, i)["target"] for i in range(n)]
    else:
        found = cohorts(e) if callable(cohorts) else cohorts[begin : begin + n]
    labels = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(labels, (list, tuple)) or len(labels) != n:
        raise ValueError(f"cohorts: expected a label for each row, {n} from row {begin} on, got {labels!r}")
    return [str(label) for label in labels]
