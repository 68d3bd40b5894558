"""Lines: deletion and insertion curves, convergence of path methods, the path itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np

from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    import torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption, Array


class CurveLike(Protocol):
    """What a metric measures: scores along fractions, and what the axes are called; ``bounds`` are what a score can be."""

    fractions: torch.Tensor
    scores: torch.Tensor
    xlabel: str
    bounds: tuple[float, float] | None


def curve(
    fractions: Array | CurveLike | Mapping[str, CurveLike],
    scores: Array | Mapping[str, Array] | None = None,
    *,
    auc: bool | Mapping[str, float] = True,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str | None = None,
    ylabel: str = "score",
    bounds: tuple[float, float] | None = None,
) -> Figure:
    r"""Draw scores against fractions, a line a name: deletion, insertion and their kin.

    Several rows of scores are drawn as their mean :math:`\bar s` with its 95 % confidence band
    :math:`\bar s \pm t_{N-1}\,\hat\sigma / \sqrt N`, point by point (Student's t; it is the band of the mean, not of
    the rows).

    Args:
        fractions: ``(S,)``, ascending, or ``(N, S)`` where each row of scores has its own; these are brought to one axis. Or a
            :class:`torchwhy.metrics.Curve`, or a mapping from names to such, without ``scores``.
        scores: ``(S,)`` or ``(N, S)``, or a mapping from names to such.
        auc: write the area under the (mean) curve into the legend, by the trapezoidal rule over the length of the axis; or
            the numbers to write, by name.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them; None is the curves' own, or "fraction of the input replaced".
        ylabel: the text beside them.
        bounds: what a score can be, such as (0, 1) for a probability: the band is cut off there. None takes the curves' own,
            which they have with ``softmax=True``.

    Raises:
        ValueError: lengths differ, fractions fall, or a number is NaN.

    >>> curve([0.0, 0.5, 1.0], {"a": [1.0, 0.5, 0.0]}).get_axes()[0].get_legend().get_texts()[0].get_text()
    'a   AUC 0.500'
    """
    from torchwhy.visualize import drawing as draw

    curves, lines = _curve_objects(fractions, scores), _curves(fractions, scores)
    if xlabel is None:
        xlabel = next((c.xlabel for c in curves.values()), "fraction of the input replaced")
    if bounds is None and curves and len({c.bounds for c in curves.values()}) == 1:
        bounds = next(iter(curves.values())).bounds
    low, high = bounds or (-np.inf, np.inf)
    figure, ax = draw.axes_for(ax, 5.0, 3.4)
    for i, (name, (x, rows)) in enumerate(lines.items()):
        mean = rows.mean(0)
        label = name
        if auc is not False:
            area = (
                float(((mean[1:] + mean[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))
                if auc is True
                else _of(auc, name)
            )
            label = f"{name}   AUC {area:.3f}".strip()
        style = draw.line_style(i)
        ax.plot(x, mean, label=label or "_", linewidth=1.8, **style)
        if len(rows) > 1:
            from scipy.special import stdtrit

            half = stdtrit(len(rows) - 1, 0.975) * rows.std(0, ddof=1) / len(rows) ** 0.5
            band = {"color": style["color"], "alpha": 0.16 if len(lines) <= 3 else 0.07, "linewidth": 0}
            ax.fill_between(x, np.clip(mean - half, low, high), np.clip(mean + half, low, high), **band)
    draw.plain(ax, xlabel, ylabel, title)
    ax.set_xlim(min(x[0] for x, _ in lines.values()), max(x[-1] for x, _ in lines.values()))
    draw.legend(ax)
    return figure


def convergence(
    steps: Array,
    gaps: Array | Mapping[str, Array],
    *,
    tolerance: float | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "steps",
    ylabel: str = "completeness gap",
) -> Figure:
    """Draw how the completeness gap falls with the number of steps, both axes logarithmic.

    The absolute value is drawn, in the unit it has. Several rows of gaps are drawn as thin lines and their median
    as a thick one. A gap of exactly 0, which has no place on a logarithmic axis, is an open triangle at the foot.

    Args:
        steps: ``(S,)``, positive and ascending.
        gaps: ``(S,)`` or ``(N, S)``, or a mapping from names to such.
        tolerance: drawn as a dashed line, in the unit of the gaps.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.
        ylabel: the text beside them.

    Raises:
        ValueError: lengths differ, steps do not ascend from above 0, or a number is NaN.

    >>> convergence([8, 16, 32], [0.1, 0.02, 0.005], tolerance=0.01).get_axes()[0].get_yscale()
    'log'
    """
    from torchwhy.visualize import drawing as draw

    x = _abscissa(steps, "steps")
    if x[0] <= 0:
        raise ValueError(f"steps must be positive, but the first is {x[0]:g}")
    named = {n: np.abs(_lines(g, x, "gaps", n)) for n, g in (gaps if isinstance(gaps, Mapping) else {"": gaps}).items()}
    seen = np.concatenate([rows.ravel() for rows in named.values()] + [np.array([tolerance or 0.0])])
    foot = seen[seen > 0].min(initial=1.0) / 4
    figure, ax = draw.axes_for(ax, 5.0, 3.4)
    for i, (name, rows) in enumerate(named.items()):
        style = draw.line_style(i)
        if len(rows) > 1:
            ax.plot(x, np.maximum(rows, foot).T, color=style["color"], linewidth=0.7, alpha=0.3)
        middle = np.median(rows, axis=0)
        ax.plot(x, np.maximum(middle, foot), label=name or "_", linewidth=1.8, marker="o", markersize=4.5, **style)
        zero = middle == 0
        ax.plot(x[zero], np.full(zero.sum(), foot), "v", markersize=8, color="white", mec=style["color"], mew=1.5)
    ax.set(xscale="log", yscale="log")
    if tolerance is not None:
        ax.axhline(tolerance, color=draw.QUIET, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
        place = {"xycoords": ax.get_yaxis_transform(), "ha": "right", "color": draw.QUIET}
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}  # a line may cross it
        draw.add_note(ax, f"tolerance {tolerance:g}", (1, tolerance), (-4, 3), **place)
    draw.plain(ax, xlabel, ylabel, title)
    if len(x) <= 10:
        ax.set_xticks(x, [f"{s:g}" for s in x])
        ax.set_xticks([], minor=True)
    draw.legend(ax)
    return figure


def path_profile(
    fractions: Array,
    outputs: Array | Mapping[str, Array],
    *,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "position on the path, baseline to input",
    ylabel: str = "output",
) -> Figure:
    """Draw the explained output along the path from baseline to input: where it rises is where the steps are needed.

    Beside the end of a single path stands its change, end less beginning.

    Args:
        fractions: ``(S,)``, ascending.
        outputs: ``(S,)``, or ``(N, S)`` for several paths, or a mapping from names to such.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.
        ylabel: the text beside them.

    Raises:
        ValueError: lengths differ, fractions do not ascend, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    x = _abscissa(fractions, "fractions")
    figure, ax = draw.axes_for(ax, 5.0, 3.0)
    named = outputs if isinstance(outputs, Mapping) else {"": outputs}
    for i, (name, value) in enumerate(named.items()):
        rows, style = _lines(value, x, "outputs", name), draw.line_style(i)
        ax.plot(x, rows.T, linewidth=1.8 if len(rows) == 1 else 1.0, **style)
        ax.plot([], [], label=name or "_", linewidth=1.8, **style)
        if len(rows) == 1:
            ax.plot(x[[0, -1]], rows[0, [0, -1]], "o", markersize=5, color=style["color"], clip_on=False)
            rise = draw.signed_number(rows[0, -1] - rows[0, 0])
            draw.add_note(ax, rise, (x[-1], rows[0, -1]), (8, 0), va="center", color=style["color"])
    draw.plain(ax, xlabel, ylabel, title)
    ax.set_xlim(x[0], x[-1])
    draw.legend(ax)
    return figure


def _abscissa(values: Array, name: str, *, repeats: bool = False) -> np.ndarray:
    x = as_array(values, name, ndim=(1,))
    steps = np.diff(x)
    if len(x) < 2 or (steps < 0).any() or not (steps.any() if repeats else steps.all()):
        raise ValueError(f"{name} must be two or more ascending numbers, not {np.array2string(x, threshold=6)}")
    return x


def _lines(values: Array, x: np.ndarray, argument: str, name: str) -> np.ndarray:
    """Return the rows (N, S) of one named line."""
    argument = f"{argument}[{name!r}]" if name else argument
    rows = np.atleast_2d(as_array(values, argument, ndim=(1, 2)))
    if rows.shape[1] != len(x):
        raise ValueError(f"{argument} has {rows.shape[1]} points, but the horizontal axis has {len(x)}")
    return rows


def _curve_objects(fractions: object, scores: object) -> dict[str, CurveLike]:
    """Return the curves that were given in the place of fractions, by name; none where there are scores."""
    if scores is not None:
        return {}
    named = fractions if isinstance(fractions, Mapping) else {"": fractions}
    for name, value in named.items():
        if not hasattr(value, "fractions") or not hasattr(value, "scores"):
            what = f"the one called {name!r} is a {type(value).__name__}" if name else f"got a {type(value).__name__}"
            raise ValueError(f"scores: expected numbers, or curves in the place of fractions; {what}")
    return dict(named)


def _curves(fractions: AnyOption, scores: AnyOption) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the axis (S,) and the rows (N, S) of each line by its name."""
    if scores is None:
        curves = _curve_objects(fractions, None)
        return {name: _on_one_axis(c.fractions, c.scores, name) for name, c in curves.items()}
    lines = scores if isinstance(scores, Mapping) else {"": scores}
    return {name: _on_one_axis(fractions, value, name) for name, value in lines.items()}


def _on_one_axis(fractions: Array, scores: Array, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return one axis (S,) for all rows, and the rows (N, S) at its points."""
    own = [
        _abscissa(row, "fractions", repeats=True)
        for row in np.atleast_2d(as_array(fractions, "fractions", ndim=(1, 2)))
    ]
    rows = _lines(scores, own[0], "scores", name)
    if len(own) == 1:
        return own[0], rows
    x = np.unique(own)
    return x, np.stack([np.interp(x, f, row) for f, row in zip(own, rows, strict=True)])


def _of(numbers: Mapping[str, float], name: str) -> float:
    if name not in numbers:
        raise ValueError(f"auc has no number for {name!r}; it has {list(numbers)}")
    return float(numbers[name])
