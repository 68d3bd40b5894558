"""Methods side by side: every method, every metric, with what is chance and what it cost."""

from __future__ import annotations

import csv
import html
import io
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import metrics as known_metrics
from .attribution import Attribution, Inputs
from .target import TargetLike


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
    """The table of :func:`compare`: prints, and goes to HTML, CSV, rows for a data frame, or a figure.

    Args:
        values: metric → method → one value per row (N,), NaN where there is none.
        better: metric → whether higher values are better; None where neither is.
        seconds: method → seconds for each row explained.
        evaluations: method → rows through the model for each row explained; NaN for attributions that were given.
        attributions: method → what it said.
        level: of the confidence intervals.
    """

    values: dict[str, dict[str, Tensor]]
    better: dict[str, bool | None]
    seconds: dict[str, float]
    evaluations: dict[str, float]
    attributions: dict[str, Any]
    level: float = 0.95

    @property
    def methods(self) -> list[str]:
        """The names of the methods."""
        return list(self.seconds)

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics."""
        return list(self.values)

    def cell(self, method: str, metric: str) -> Cell:
        """The mean over the rows with a value, with the interval of Student's t; infinite for a single row."""
        from scipy.special import stdtrit

        v = self._of(method, metric)
        v = v[v.isfinite()]
        n = len(v)
        if not n:
            return Cell(math.nan, math.nan, math.nan, 0)
        half = float(stdtrit(n - 1, 0.5 + self.level / 2) * v.std() / n**0.5) if n > 1 else math.inf
        return Cell(float(v.mean()), float(v.mean()) - half, float(v.mean()) + half, n)

    def differences(self, metric: str, against: str | None = None) -> list[Difference]:
        """Every pair of methods, or every other method with one, tested over the rows where both have a value."""
        from scipy.stats import wilcoxon

        found = []
        pairs = itertools.combinations(self.methods, 2)
        for a, b in pairs if against is None else ((against, m) for m in self.methods if m != against):
            gap = self._of(a, metric) - self._of(b, metric)
            gap = gap[gap.isfinite()]
            if len(gap):
                p = float(wilcoxon(gap.numpy()).pvalue) if bool((gap != 0).any()) else 1.0
                found.append(Difference(a, b, float(gap.mean()), p, p))
        largest, done = 0.0, {}
        for rank, d in enumerate(sorted(found, key=lambda d: d.p_value)):
            largest = max(largest, min(1.0, (len(found) - rank) * d.p_value))
            done[d.first, d.second] = largest
        return [d._replace(adjusted=done[d.first, d.second]) for d in found]

    def best(self, metric: str) -> set[str]:
        """The method with the best mean, and those that cannot be told from it; none where nothing is better."""
        higher = self.better[metric]
        means = {m: self.cell(m, metric).mean for m in self.methods}
        means = {m: v for m, v in means.items() if math.isfinite(v)}
        if higher is None or not means:
            return set()
        first = max(means, key=lambda m: means[m] if higher else -means[m])
        return {first} | {d.second for d in self.differences(metric, first) if d.adjusted > 1 - self.level}

    def rows(self) -> list[dict[str, Any]]:
        """One dict a method, as ``pandas.DataFrame`` takes them."""
        found = []
        for method in self.methods:
            row: dict[str, Any] = {"method": method}
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

    def to_csv(self, path: str | Path | None = None) -> str:
        """The rows as CSV, also written to ``path``."""
        text = io.StringIO()
        table = self.rows()
        writer = csv.DictWriter(text, list(table[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
        if path is not None:
            Path(path).write_text(text.getvalue())
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
        """The table as HTML, also written to ``path``."""
        head, *body = self._lines()
        cells = ["".join(f"<th>{html.escape(t)}</th>" for t, _ in head)]
        for line in body:
            marked = [f"<b>{html.escape(t)}</b>" if best else html.escape(t) for t, best in line]
            cells.append(
                "".join(f"<td style='text-align:{'right' if i else 'left'}'>{t}</td>" for i, t in enumerate(marked))
            )
        text = "<table>" + "".join(f"<tr>{c}</tr>" for c in cells) + f"</table><p>{html.escape(self._note())}</p>"
        if path is not None:
            Path(path).write_text(text)
        return text

    def to_markdown(self) -> str:
        """The table as Markdown."""
        head, *body = self._lines()
        rule = ["---"] + ["---:"] * (len(head) - 1)
        lines = [[t for t, _ in head], rule, *([f"**{t}**" if best else t for t, best in line] for line in body)]
        lines = [[t.replace("|", r"\|") for t in line] for line in lines]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    _repr_html_ = to_html

    def plot(self) -> Any:
        """A ``matplotlib`` figure: a panel for each metric, a line for each method, means with their intervals."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(1.4 + 2.1 * len(self.metrics), 0.9 + 0.26 * len(self.methods)), layout="constrained")
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
            ax.set_title(metric + arrow, fontsize=8)
            ax.tick_params(labelsize=7)
            ax.grid(axis="y", linewidth=0.4)
            ax.spines[["top", "right"]].set_visible(False)
        axes[0].set_yticks(range(len(self.methods)), self.methods)
        axes[0].invert_yaxis()
        return figure

    def _of(self, method: str, metric: str) -> Tensor:
        for name, names in ((metric, self.metrics), (method, self.methods)):
            if name not in names:
                raise LookupError(f"{name!r} was not compared; known are {', '.join(names)}")
        return self.values[metric][method]

    def _lines(self) -> Iterator[list[tuple[str, bool]]]:
        """The cells with whether they are among the best, the head first."""
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
                line.append((f"{cell.mean:.3f}{half}" if cell.rows else "—", method in best[metric]))
            evaluations = self.evaluations[method]
            yield [
                *line,
                ("—" if math.isnan(evaluations) else f"{self.seconds[method]:.3g}", False),
                ("—" if math.isnan(evaluations) else f"{evaluations:.0f}", False),
            ]

    def _note(self) -> str:
        counts = {self.cell(m, k).rows for m in self.methods for k in self.metrics}
        rows = f"{max(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
        return f"mean over {rows} rows ± half of the {self.level:.0%} interval; ↑ higher is better, ↓ lower"


def compare(
    model: Any,
    inputs: Inputs,
    target: TargetLike,
    methods: Mapping[str, Any] | Sequence[Attribution],
    metrics: Mapping[str, Callable[..., Any]] | Sequence[str | Callable[..., Any]],
    *,
    mask: Tensor | None = None,
    baselines: Any = None,
    feature_mask: Any = None,
    additional_forward_args: Any = None,
    level: float = 0.95,
) -> Comparison:
    """Explain with every method and measure with every metric.

    Metrics of pixels get the sums over the channels of an image's attributions, so that methods with and without
    channels answer one question.

    Args:
        model: what the metrics run.
        inputs, target, additional_forward_args: as for a method.
        methods: with their settings, by name or in a list; a tensor in place of a method is taken as its attributions.
        metrics: names or functions of :mod:`torchwhy.metrics`, or functions by name, with settings through
            ``functools.partial``; a :class:`torchwhy.metrics.Curve` counts as its area.
        mask: the pixels that are known to matter, for the metrics of localisation.
        baselines, feature_mask: for the metrics, and for the methods that have a use for them.
        level: of the confidence intervals.

    Raises:
        LookupError: an unknown metric.
        TypeError: something that is no method.
        ValueError: no mask for a metric that needs one.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    chosen = _metrics_of([metrics] if isinstance(metrics, str) or callable(metrics) else metrics)
    methods = [methods] if isinstance(methods, Attribution) else methods
    named = dict(methods) if isinstance(methods, Mapping) else _named(methods)
    if not named:
        raise ValueError("methods: none given")
    options = {"baselines": baselines, "feature_mask": feature_mask, "additional_forward_args": additional_forward_args}
    result = Comparison({m: {} for m in chosen}, {}, {}, {}, {}, level)
    for name, method in named.items():
        _explain(result, name, method, inputs, target, options)
    for name, function in chosen.items():
        facts = _facts(function)
        result.better[name] = facts.higher_is_better
        if facts.needs == "mask" and mask is None:
            raise ValueError(f"mask: {name} asks whether the map lies on the pixels that matter; give them")
        for key, method in named.items():
            result.values[name][key] = _measure(
                function, facts, model, inputs, target, method, result.attributions[key], mask, options
            )
    return result


def _explain(
    result: Comparison, name: str, method: Any, inputs: Inputs, target: TargetLike, options: dict[str, Any]
) -> None:
    """Put a method's attributions and costs into the result."""
    n = len(
        next(iter(inputs.values()))
        if isinstance(inputs, Mapping)
        else inputs
        if isinstance(inputs, Tensor)
        else inputs[0]
    )
    if isinstance(method, Attribution):
        begun = time.perf_counter()
        e = method.explain(inputs, target, **_for(method, options))
        result.seconds[name], result.evaluations[name] = (time.perf_counter() - begun) / n, e.evaluations / n
        result.attributions[name] = e.attributions
    elif isinstance(method, (Tensor, tuple, Mapping)):
        result.seconds[name] = result.evaluations[name] = math.nan
        result.attributions[name] = method
    else:
        raise TypeError(f"methods: {name!r} is a {type(method).__name__}; expected a method such as tw.Saliency(model)")
    if len(_first(result.attributions[name])) != n:
        raise ValueError(f"methods: {name!r} has attributions of {len(_first(method))} rows, the inputs have {n}")


def _measure(
    function: Callable[..., Any],
    facts: Any,
    model: Any,
    inputs: Inputs,
    target: TargetLike,
    method: Any,
    attributions: Any,
    mask: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """One metric of one method, (N,) on the CPU."""
    given = {k: v for k, v in options.items() if v is not None}
    maps = attributions if facts.elements else _pixels(attributions, inputs)
    if facts.needs == "mask":
        value = function(maps, mask)
    elif facts.needs == "maps":
        value = function(maps)
    elif facts.needs == "model":
        value = function(model, inputs, maps, target, **given)
    elif isinstance(method, Attribution):
        value = function(method, inputs, target, **_for(method, options))
    else:
        return torch.full((len(_first(attributions)),), math.nan, dtype=torch.double)
    value = value.auc if isinstance(value, known_metrics.Curve) else value
    return value.detach().double().cpu()


def _first(attributions: Any) -> Tensor:
    values = attributions.values() if isinstance(attributions, Mapping) else attributions
    return attributions if isinstance(attributions, Tensor) else next(iter(values))


def _pixels(attributions: Any, inputs: Inputs) -> Any:
    """The attributions of an image's pixels."""
    both = isinstance(attributions, Tensor) and isinstance(inputs, Tensor) and inputs.dim() == 4
    return attributions.sum(1, keepdim=True) if both and attributions.dim() == 4 else attributions


def _for(method: Attribution, options: dict[str, Any]) -> dict[str, Any]:
    """What this method has a use for."""
    unused = {"baselines": not method.uses_baselines, "feature_mask": not method.uses_feature_mask}
    return {k: v for k, v in options.items() if v is not None and not unused.get(k)}


def _named(methods: Sequence[Attribution]) -> dict[str, Any]:
    """Methods by their class names; several of one class also by their settings."""
    names = [type(m).__name__ for m in methods]
    long = [n if names.count(n) == 1 else repr(m) for n, m in zip(names, methods)]
    if len(set(long)) < len(long):
        raise ValueError("methods: two are equal; give a dict with names")
    return dict(zip(long, methods))


def _metrics_of(
    metrics: Mapping[str, Callable[..., Any]] | Sequence[str | Callable[..., Any]],
) -> dict[str, Callable[..., Any]]:
    if isinstance(metrics, Mapping):
        found = dict(metrics)
    else:
        found = {m if isinstance(m, str) else getattr(m, "func", m).__name__: m for m in metrics}  # type: ignore[misc]
    for name, m in found.items():
        if isinstance(m, str):
            if m not in known_metrics.__all__ or not hasattr(getattr(known_metrics, m), "needs"):
                raise LookupError(f"metrics: {m!r} is not in torchwhy.metrics")
            found[name] = getattr(known_metrics, m)
        elif not hasattr(getattr(m, "func", m), "needs"):
            raise TypeError(f"metrics: {name!r} is no metric of torchwhy.metrics, nor a functools.partial of one")
    if not found:
        raise ValueError("metrics: none given")
    return found


def _facts(function: Callable[..., Any]) -> Any:
    return getattr(function, "func", function)
