"""Drift: which features' attributions differ between two models, or between two data sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.randomness import Seed
from torchwhy.global_view.rows import Explained, FeatureRows, MapSize, RowKeys, RowSample, feature_rows, named
from torchwhy.p_values import benjamini_hochberg, holm
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption

Correction = Literal["holm", "benjamini_hochberg"]
CORRECTIONS = {"holm": holm, "benjamini_hochberg": benjamini_hochberg}
NO_CHANGE = 1e-6  # of the larger of two numbers: a difference up to this is none


@dataclass(frozen=True, repr=False)
class Drift(Viewable):
    """How the attributions of each feature differ, see :func:`drift`.

    Args:
        names: of the d features.
        shape: of the maps whose places they are; ``(d,)`` where they are no maps.
        before, after: ``(d,)``, the mean sizes of the attributions, or the mean attributions.
        low, high: ``(d,)``, the ends of the 95 % interval of ``after - before``, one feature at a time.
        statistic: ``(d,)``: of rows that belong together the rank-biserial correlation in [-1, 1], 1 where every row's
            attribution rose; of others the largest distance of the two distribution functions, in [0, 1].
        p_values: ``(d,)``, of Wilcoxon's signed-rank test, or of that of Kolmogorov and Smirnov.
        adjusted: ``(d,)``, after the correction for d tests.
        rows: how many rows of each were compared.
        paired: whether the rows belong together.
        of: whether ``"sizes"`` of attributions were compared, or ``"values"``.
        correction: its name.
    """

    names: list[str]
    shape: tuple[int, ...]
    before: Tensor
    after: Tensor
    low: Tensor
    high: Tensor
    statistic: Tensor
    p_values: Tensor
    adjusted: Tensor
    rows: tuple[int, int]
    paired: bool
    of: str
    correction: str

    def changed(self, level: float = 0.05) -> list[str]:
        """Return the names of the features with an adjusted p-value below a level, the largest statistic first."""
        order = self.statistic.abs().argsort(descending=True, stable=True).tolist()
        return [self.names[j] for j in order if float(self.adjusted[j]) < level]

    @property
    def _what(self) -> str:
        return "mean |attribution|" if self.of == "sizes" else "mean attribution"

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        if len(self.shape) == 3:
            maps = {"before": self.before, "after": self.after, "after − before": self.after - self.before}
            shown = {"shared_scale": "absolute", "label": self._what, **options}
            figure: Figure = pictures.grid({name: m.view(1, *self.shape) for name, m in maps.items()}, **shown)
            return figure
        order = self.statistic.abs().argsort(descending=True, stable=True)[: options.pop("top", 10)]
        change = (self.after - self.before)[order]
        low, high = (torch.where(e.isnan(), change, e) for e in (self.low[order], self.high[order]))
        names, notes = [self.names[j] for j in order.tolist()], [f"p = {p:.2g}" for p in self.adjusted[order].tolist()]
        shown = {"notes": notes, "reference": 0.0, "xlabel": f"{self._what}, after − before", **options}
        figure = pictures.intervals(change, low, high, names, **shown)
        left, right = figure.axes[0].get_xlim()
        figure.axes[0].set_xlim(min(left, -0.02 * right), max(right, -0.02 * left))  # no drift is in the picture
        return figure

    def _table(self) -> Table:
        parts = (self.before, self.after, self.low, self.high, self.statistic, self.p_values, self.adjusted)
        lines: list[list[object]] = [[name, *line] for name, line in zip(self.names, torch.stack(parts, 1).tolist())]
        return ["feature", "before", "after", "low", "high", "statistic", "p", "adjusted p"], lines


def drift(
    before: Explained,
    after: Explained,
    *,
    paired: bool = False,
    of: Literal["sizes", "values"] = "sizes",
    correction: Correction = "holm",
    names: Sequence[str] | None = None,
    size: MapSize = None,
    max_rows: int = 10_000,
    generator: Seed = 0,
) -> Drift:
    r"""Return which features' attributions differ: between two models on the same rows, or between two data sets.

    A model that is trained anew may score as well as before for other reasons; data that change may have the model decide by
    other features before its accuracy says so. Of each feature the values of all rows are compared, with a test and a correction
    for the number of features. A small p-value is no large difference: with many rows every difference has one; look at the
    statistic and the interval. The rows are taken to be independent.

    Read batch by batch, both at once; kept are ``max_rows`` rows of each.

    Args:
        before, after: an explanation, what :func:`torchwhy.load_dataset` returns or its folder, or explanations one by one.
        paired: the rows are the same in both, in the same order, as of two models on one data set: their differences are
            tested (Wilcoxon's signed-rank test; differences up to 1e-6 of the larger number are rounding, and 0). Otherwise
            their distributions (Kolmogorov and Smirnov's test).
        of: compare the ``"sizes"`` of attributions, :math:`|a|`: whether a feature matters more or less; or the ``"values"``:
            whether it moves the score another way.
        correction: ``"holm"`` bounds the chance of one false finding, ``"benjamini_hochberg"`` their share.
        names: of the features; None is their own.
        size: of maps, to which they are averaged; a pixel of its own is seldom a question.
        max_rows: how many rows of each are compared, drawn at random where there are more; fewer where they have very many
            features. Of pairs the same rows.
        generator: of that draw.

    Raises:
        TypeError, ValueError: no explanations, rows with features of their own, or other features in the two, another number of
            rows where they are paired, fewer than two rows.

    Papers: Wilcoxon 1945, doi:10.2307/3001968; Massey 1951 (Kolmogorov, Smirnov), doi:10.1080/01621459.1951.10500769; Holm 1979.
    """
    check_count("max_rows", max_rows, 2)
    if correction not in CORRECTIONS:
        raise ValueError(f"correction={correction!r}: expected one of {', '.join(map(repr, CORRECTIONS))}")
    if of not in ("sizes", "values"):
        raise ValueError(f"of={of!r}: expected 'sizes' or 'values'")
    first, a, seen_before = _kept_rows(before, size, max_rows, generator, "before")
    other, b, seen_after = _kept_rows(after, size, max_rows, generator, "after")
    if (first.shape, a.shape[1]) != (other.shape, b.shape[1]):
        raise ValueError(f"after: features of shape {other.shape}, before they are {first.shape}")
    if paired and seen_before != seen_after:
        raise ValueError(f"paired=True: {seen_before} rows before and {seen_after} after; the same rows are expected")
    if min(len(a), len(b)) < 2:
        raise ValueError("before and after: at least two rows of each are needed")
    a, b = (a.abs(), b.abs()) if of == "sizes" else (a, b)
    statistic, p = _paired_test(a, b) if paired else _two_sample_test(a, b)
    low, high = _interval_of_change(a, b, paired)
    return Drift(
        names=named(names, first),
        shape=first.shape,
        before=a.mean(0),
        after=b.mean(0),
        low=low,
        high=high,
        statistic=statistic,
        p_values=p,
        adjusted=CORRECTIONS[correction](p),
        rows=(len(a), len(b)),
        paired=paired,
        of=of,
        correction=correction,
    )


def _kept_rows(
    explained: Explained, size: MapSize, most: int, generator: Seed, argument: str
) -> tuple[FeatureRows, Tensor, int]:
    """Return the first batch, the rows ``(m, d)`` that are compared, as doubles, and how many there were."""
    keys, sample, first = RowKeys(generator), RowSample(most), None
    for found in feature_rows(explained, size, argument):
        first = first or found
        sample.add(*keys.next(len(found.values)), found.values)
    if first is None:
        raise ValueError(f"{argument}: there are no rows")
    return first, sample.tensors[0].double(), keys.seen


def _paired_test(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rank-biserial correlation and the p-value of each column's differences."""
    from scipy.stats import rankdata, wilcoxon

    statistic, p = [], []
    change = torch.where((b - a).abs() <= NO_CHANGE * torch.maximum(a.abs(), b.abs()), 0, b - a)
    for column in change.T:
        moved = column[column != 0]
        ranks = torch.as_tensor(rankdata(moved.abs().numpy())).double()
        statistic.append(float((ranks * moved.sign()).sum() / ranks.sum()) if len(moved) else 0.0)
        p.append(float(wilcoxon(moved.numpy()).pvalue) if len(moved) else 1.0)
    return torch.tensor(statistic, dtype=torch.double), torch.tensor(p, dtype=torch.double)


def _two_sample_test(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the largest distance of the distribution functions and the p-value of each column."""
    from scipy.stats import ks_2samp

    found = [ks_2samp(x.numpy(), y.numpy()) for x, y in zip(a.T, b.T)]
    return (
        torch.tensor([float(f.statistic) for f in found], dtype=torch.double),
        torch.tensor([float(f.pvalue) for f in found], dtype=torch.double),
    )


def _interval_of_change(a: Tensor, b: Tensor, paired: bool) -> tuple[Tensor, Tensor]:
    """Return the ends of the 95 % interval of the change of each column's mean: Student's, of others than pairs Welch's."""
    from scipy.stats import t

    change = b.mean(0) - a.mean(0)
    if paired:
        variance = (b - a).var(0) / len(a)
        freedom = torch.full_like(variance, len(a) - 1)
    else:
        parts = [x.var(0) / len(x) for x in (a, b)]
        variance = parts[0] + parts[1]
        spread = sum(part.square() / (len(x) - 1) for part, x in zip(parts, (a, b)))
        freedom = torch.where(variance > 0, variance.square() / spread, 1.0)
    half = torch.as_tensor(t.ppf(0.975, freedom.numpy())) * variance.sqrt()
    return change - half, change + half
