"""The table of methods and metrics: what is chance, what is best, and what it cost."""

from __future__ import annotations

import csv
import html
import io
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from torchwhy.input_types import Inputs
from torchwhy.p_values import holm

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Cell(NamedTuple):
    """A mean over rows, its confidence interval, and how many rows had a value."""

    mean: float
    low: float
    high: float
    rows: int


class Difference(NamedTuple):
    """How much larger the first method's mean is than the second's, over the rows where both have a value.

    ``p_value`` is that of Wilcoxon's signed-rank test, ``adjusted`` the same after Holm's correction for all
    pairs that were asked for.
    """

    first: str
    second: str
    mean: float
    p_value: float
    adjusted: float


@dataclass(eq=False)
class Comparison:
    """The table of :func:`torchwhy.compare`: prints, and goes to HTML, Markdown, CSV, a data frame, or a figure.

    Args:
        values: metric → method → one value per row (N,), NaN where there is none.
        better: metric → whether higher values are better; None where neither is.
        seconds: method → seconds for each row explained.
        evaluations: method → rows through the model for each row explained; NaN for attributions that were given.
        attributions: method → what it said.
        level: of the confidence intervals.
        shares: metrics that are 1 or 0, so that their means are shares of the rows.
    """

    values: dict[str, dict[str, Tensor]]
    better: dict[str, bool | None]
    seconds: dict[str, float]
    evaluations: dict[str, float]
    attributions: dict[str, Inputs]
    level: float = 0.95
    shares: set[str] = field(default_factory=set)

    @property
    def methods(self) -> list[str]:
        """The names of the methods."""
        return list(self.seconds)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.values)

    def cell(self, method: str, metric: str) -> Cell:
        """Return the mean over the rows with a value, with the interval of Student's t; infinite for a single row.

        For a metric that is 1 or 0, the interval is that of Wilson for a share: equal answers of a few rows are not certain
        for all.

        Raises:
            LookupError: a method or a metric that was not compared.
        """
        from scipy.special import stdtrit
        from scipy.stats import binomtest

        v = self._of(method, metric)
        v = v[v.isfinite()]
        n = len(v)
        if not n:
            return Cell(math.nan, math.nan, math.nan, 0)
        if n > 1 and metric in self.shares and bool(((v == 0) | (v == 1)).all()):
            share = binomtest(int(v.sum()), n).proportion_ci(self.level, "wilson")
            return Cell(float(v.mean()), float(share.low), float(share.high), n)
        half = float(stdtrit(n - 1, 0.5 + self.level / 2) * v.std() / n**0.5) if n > 1 else math.inf
        return Cell(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half, n)

    def differences(self, metric: str, against: str | None = None) -> list[Difference]:
        """Test every pair of methods, or ``against`` and every other method, over the rows where both have a value.

        Raises:
            LookupError: a method or a metric that was not compared.
        """
        from scipy.stats import wilcoxon

        found = []
        pairs: Iterable[tuple[str, str]] = itertools.combinations(self.methods, 2)
        if against is not None:
            _check_known("against", against, self.methods)
            pairs = ((against, m) for m in self.methods if m != against)
        for a, b in pairs:
            gap = self._of(a, metric) - self._of(b, metric)
            size = torch.maximum(self._of(a, metric).abs(), self._of(b, metric).abs())
            gap = torch.where(gap.abs() <= 1e-6 * size, 0, gap)  # rounding
            gap = gap[gap.isfinite()]
            if len(gap):
                moved = gap[gap != 0]  # the test drops the others too, but counts them when it chooses how to compute p
                p = float(wilcoxon(moved.numpy()).pvalue) if len(moved) else 1.0
                found.append(Difference(a, b, float(gap.mean()), p, p))
        adjusted = holm(torch.tensor([d.p_value for d in found], dtype=torch.double)).tolist()
        return [d._replace(adjusted=p) for d, p in zip(found, adjusted)]

    def best(self, metric: str) -> set[str]:
        """Return the method with the best mean, and those that cannot be told from it; none where nothing is better.

        Raises:
            LookupError: a metric that was not compared.
        """
        _check_known("metric", metric, self.metrics)
        higher = self.better[metric]
        means = {m: self.cell(m, metric).mean for m in self.methods}
        means = {m: v for m, v in means.items() if math.isfinite(v)}
        if higher is None or not means:
            return set()
        first = max(means, key=lambda m: means[m] if higher else -means[m])
        return {first} | {d.second for d in self.differences(metric, first) if d.adjusted > 1 - self.level}

    def rows(self) -> list[dict[str, str | float]]:
        """Return one dict for each method, as ``pandas.DataFrame`` takes them."""
        found = []
        for method in self.methods:
            row: dict[str, str | float] = {"method": method}
            for metric in self.metrics:
                cell = self.cell(method, metric)
                row |= {
                    metric: cell.mean,
                    f"{metric} low": cell.low,
                    f"{metric} high": cell.high,
                    f"{metric} rows": cell.rows,
                }
            found.append(
                {**row, "seconds per row": self.seconds[method], "evaluations per row": self.evaluations[method]}
            )
        return found

    def to_dataframe(self) -> DataFrame:
        """Return the rows as a ``pandas.DataFrame``, a line for each method.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

        return pandas.DataFrame(self.rows()).set_index("method")

    def to_csv(self, path: str | Path | None = None) -> str:
        """Return the rows as CSV, and write them to ``path``."""
        text = io.StringIO()
        table = self.rows()
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        if path is not None:
            Path(path).write_text(text.getvalue(), encoding="utf-8")
        return text.getvalue()

    def __str__(self) -> str:
        table = [[text for text, _ in line] for line in self._lines()]
        widths = [max(map(len, column)) for column in zip(*table)]
        lines = [
            "  ".join(t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(r, widths))) for r in table
        ]
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", self._note()])

    __repr__ = __str__

    def to_html(self, path: str | Path | None = None) -> str:
        """Return the table as HTML, and write it to ``path``."""
        head, *body = self._lines()
        cells = ["".join(f"<th>{html.escape(t)}</th>" for t, _ in head)]
        for line in body:
            marked = [f"<b>{html.escape(t)}</b>" if best else html.escape(t) for t, best in line]
            cells.append(
                "".join(f"<td style='text-align:{'right' if i else 'left'}'>{t}</td>" for i, t in enumerate(marked))
            )
        text = (
            "<meta charset='utf-8'><table>"
            + "".join(f"<tr>{c}</tr>" for c in cells)
            + f"</table><p>{html.escape(self._note())}</p>"
        )
        if path is not None:
            Path(path).write_text(text, encoding="utf-8")
        return text

    def to_markdown(self) -> str:
        """Return the table as Markdown."""
        head, *body = self._lines()
        rule = ["---"] + ["---:"] * (len(head) - 1)
        lines = [[t for t, _ in head], rule, *([f"**{t}**" if best else t for t, best in line] for line in body)]
        lines = [[t.replace("|", r"\|") for t in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    _repr_html_ = to_html

    def plot(self) -> Figure:
        """Draw a ``matplotlib`` figure: a panel for each metric, a line for each method, means with their intervals."""
        from torchwhy.visualize.drawing import Picture

        figure = Picture(figsize=(1.4 + 2.1 * len(self.metrics), 0.9 + 0.26 * len(self.methods)), layout="constrained")
        axes = figure.subplots(1, len(self.metrics), sharey=True, squeeze=False)[0]
        for ax, metric in zip(axes, self.metrics):
            best = self.best(metric)
            for i, method in enumerate(self.methods):
                cell = self.cell(method, metric)
                color = "#b2182b" if method in best else "#4d4d4d"
                if cell.rows > 1:
                    ax.plot([cell.low, cell.high], [i, i], color=color, linewidth=1.2)
                ax.plot([cell.mean], [i], "o", color=color, markersize=4.5)
            arrow = {True: " →", False: " ←", None: ""}[self.better[metric]]
            ax.set_title(metric.replace("$", r"\$") + arrow, fontsize=8)
            ax.tick_params(labelsize=7)
            ax.grid(axis="y", linewidth=0.4)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_yticks(range(len(self.methods)), [m.replace("$", r"\$") for m in self.methods])
        axes[0].set_ylim(len(self.methods) - 0.5, -0.5)  # the first on top, and no margins
        return figure

    def _of(self, method: str, metric: str) -> Tensor:
        """Return the values (N,) of one method."""
        _check_known("metric", metric, self.metrics)
        _check_known("method", method, self.methods)
        return self.values[metric][method]

    def _lines(self) -> Iterator[list[tuple[str, bool]]]:
        """Yield lines of cells, each with whether it is among the best; the head first."""
        arrows = {True: " ↑", False: " ↓", None: ""}
        yield [
            (t, False)
            for t in ("method", *(m + arrows[self.better[m]] for m in self.metrics), "s / row", "evaluations / row")
        ]
        best = {m: self.best(m) for m in self.metrics}
        for method in self.methods:
            line = [(method, False)]
            for metric in self.metrics:
                cell = self.cell(method, metric)
                half = "" if cell.rows < 2 else f" ± {cell.high - cell.mean:.2g}"
                if metric in self.shares and cell.rows > 1:
                    half = f" [{cell.low:.2f}, {cell.high:.2f}]"  # not in the middle of it
                mean = f"{cell.mean:.3f}" if abs(cell.mean) >= 0.001 else f"{cell.mean:.3g}"
                line.append((f"{mean}{half}" if cell.rows else "—", method in best[metric]))
            evaluations = self.evaluations[method]
            yield [
                *line,
                ("—" if math.isnan(evaluations) else f"{self.seconds[method]:.3g}", False),
                ("—" if math.isnan(evaluations) else f"{evaluations:.0f}", False),
            ]

    def _note(self) -> str:
        """Return what stands below the table."""
        counts = {self.cell(m, k).rows for m in self.methods for k in self.metrics}
        rows = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        return f"mean over {rows} rows ± half of the {100 * self.level:g}% interval; ↑ higher is better, ↓ lower"


def _check_known(argument: str, name: str, names: list[str]) -> None:
    """Refuse a name that is not in the table."""
    if name not in names:
        raise LookupError(f"{argument}: {name!r} was not compared; known are {', '.join(names)}")
