"""Pictures of attributions that add up: from the base score to the score, feature by feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.bars import GREY, largest_features, name_rows, one_row, others_named
from torchwhy.visualize.explanation_data import (
    base_of,
    features_of,
    is_explanation,
    named_with_values,
    score_of,
    table_of_features,
)
from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

LOST = "not attributed"  # what is missing between the sum of the attributions and the score


def waterfall(
    values: Array,
    base: float | None = None,
    names: Sequence[str] | None = None,
    *,
    score: float | None = None,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "score",
) -> Figure:
    r"""Draw the way from the base score to the score of one row: each feature's bar begins where the one below it ends.

    The bottom bar begins at ``base``, the end of the top one is :math:`\mathrm{base} + \sum_i a_i`. Features beyond the ``top``
    largest are one grey bar, and what the attributions leave out of ``score`` is another: nothing is bent to fit.

    Args:
        values: ``(d,)`` in units of the score, or an :class:`torchwhy.Explanation`, of which the first row is drawn with its
            score, its base score, and its names with the values that they have, where a feature is one number.
        base: the score without any feature, f(baseline); None is an explanation's own, else 0.
        names: d strings.
        score: the score f(x), which the bars should reach; None is an explanation's own, else their sum.
        top: how many features get a bar of their own.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.

    Raises:
        ValueError: lengths differ, ``top`` is below 1, or a number is NaN.

    >>> bars = waterfall([1.0, -3.0], 5.0, ["a", "b"]).get_axes()[0].patches
    >>> [(float(bar.get_x()), float(bar.get_width())) for bar in bars]  # b on top, a at the bottom
    [(6.0, -3.0), (5.0, 1.0)]
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(values):
        base, score = base_of(values) if base is None else base, score_of(values) if score is None else score
        given = features_of(values, 0, names)
        names = named_with_values(values, given) if names is None else given.names
        values = given.values
    a, start = one_row(values, "values"), 0.0 if base is None else float(base)
    labels, order = largest_features(np.abs(a), names, top)
    steps, shades = list(a[order]), [draw.POSITIVE if v > 0 else draw.NEGATIVE for v in a[order]]
    if len(order) < len(a):
        steps, labels, shades = [*steps, np.delete(a, order).sum()], [*labels, others_named(a, order)], [*shades, GREY]
    lost = 0.0 if score is None else float(score) - start - float(a.sum())
    if abs(lost) > 1e-5 * max(1e-12, abs(start), np.abs(a).sum(), abs(score or 0.0)):
        steps, labels, shades = [*steps, lost], [*labels, LOST], [*shades, GREY]
    ends = start + np.cumsum(steps[::-1])[::-1]  # of each bar, the top one first
    figure, ax = draw.axes_for(ax, 5.8, 1.1 + 0.3 * len(steps))
    y = np.arange(len(steps))
    ax.barh(y, steps, left=ends - steps, color=shades, height=0.66)
    for i, (v, end) in enumerate(zip(steps, ends)):
        form = draw.number_format_of(v, 0.0, np.array(steps))
        side = {"ha": "left" if v >= 0 else "right", "va": "center"}
        draw.add_note(ax, draw.signed_number(v, form), (end, i), (4 if v >= 0 else -4, 0), **side)
        if i:
            ax.plot([ends[i], ends[i]], [i - 1, i], color=draw.QUIET, linewidth=0.7, zorder=0.5)
    name_rows(ax, labels, xlabel, title)
    ax.set_title(ax.get_title(), size=10.5, pad=18, parse_math=False)  # f(x) stands between
    ax.lines[-1].remove()  # zero is no special place here
    _mark_ends(ax, start, float(ends[0]))
    reach = np.concatenate([ends, ends - steps])
    room = 0.18 * (np.ptp(reach) or 1.0)
    ax.set_xlim(reach.min() - room, reach.max() + room)
    return figure


def _mark_ends(ax: Axes, start: float, end: float) -> None:
    """Mark the base score below and the score above the bars."""
    from torchwhy.visualize import drawing as draw

    for at, name in ((start, "base"), (end, "f(x)")):
        ax.axvline(at, color=draw.QUIET, linewidth=0.8, linestyle=(0, (3, 3)), zorder=0.4)
        place = {"xycoords": ax.get_xaxis_transform(), "ha": "center", "color": draw.QUIET}
        above = name == "f(x)"
        where = {"va": "bottom" if above else "top", "annotation_clip": False}
        draw.add_note(
            ax,
            f"{name} = {at:.4g}".replace("-", "−"),
            (at, 1.0 if above else 0.0),
            (0, 1 if above else -16),
            **place,
            **where,
        )
    ax.xaxis.labelpad = 12


def force(
    values: Array,
    base: float | None = None,
    names: Sequence[str] | None = None,
    *,
    top: int = 8,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "score",
) -> Figure:
    """Draw one row as forces on the score: red ones push up to it from the left, blue ones down to it from the right.

    The two meet at ``base`` + the sum of the attributions; each arrow is as long as its attribution.

    Args:
        values, base, names: as of :func:`waterfall`.
        top: how many features are drawn by themselves; the others of each sign are one grey arrow.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.

    Raises:
        ValueError: as :func:`waterfall`.
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(values):
        base = base_of(values) if base is None else base
        given = features_of(values, 0, names)
        names = named_with_values(values, given) if names is None else given.names
        values = given.values
    a, start = one_row(values, "values"), 0.0 if base is None else float(base)
    labels, order = largest_features(np.abs(a), names, top)
    end = start + float(a.sum())
    figure, ax = draw.axes_for(ax, 7.5, 2.3)
    for sign, shade in ((1, draw.POSITIVE), (-1, draw.NEGATIVE)):
        parts = [(float(a[j]), label, shade) for j, label in zip(order, labels) if sign * a[j] > 0]
        rest = [v for v in np.delete(a, order) if sign * v > 0]
        parts += [(float(sum(rest)), f"{len(rest)} others", GREY)] if rest else []
        at = end
        for v, label, color in parts:
            ax.barh(0, -v, left=at, color=color, edgecolor="white", linewidth=1.2, height=0.5)
            _name_below(ax, at - v / 2, abs(v), label, float(np.abs(a).sum()))
            at -= v
    draw.plain(ax, xlabel, "", title)
    ax.grid(False)
    ax.set_yticks([])
    ax.set_ylim(-1.75, 0.85)
    ax.spines["left"].set_visible(False)
    for at, name, y in ((start, "base", 0.55), (end, "f(x)", 0.55)):
        ax.plot(
            [at, at], [-0.3, 0.45], color=draw.QUIET, linewidth=1.0, linestyle="-" if name == "f(x)" else (0, (3, 3))
        )
        side = 1 if (at >= end) == (name == "base") else -1
        text = f"{name} = {at:.4g}".replace("-", "−")
        draw.add_note(
            ax, text, (at, y), (0, 0), ha="left" if side > 0 else "right", weight="bold" if name == "f(x)" else "normal"
        )
    ax.margins(x=0.12)
    return figure


def _name_below(ax: Axes, at: float, length: float, label: str, whole: float) -> None:
    """Write a feature's name under its arrow, where that is long enough; slanted, so that neighbours do not meet."""
    from torchwhy.visualize import drawing as draw

    if length > 0.02 * whole:
        draw.add_note(
            ax, label, (at, -0.3), (0, -2), ha="right", va="top", rotation=25, size=7.5, rotation_mode="anchor"
        )


def decision(
    attributions: Array,
    base: Array | None = None,
    names: Sequence[str] | None = None,
    *,
    top: int = 15,
    highlight: Sequence[int] = (),
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "score",
) -> Figure:
    """Draw the way of many rows from their base scores, at the bottom, to their scores, at the top: a line a row.

    At each height one more feature has been added, the one with the largest mean absolute value last. The colours are those of
    the scores.

    Args:
        attributions: ``(N, d)`` in units of the score, or an :class:`torchwhy.Explanation`.
        base: the base score of all rows, or of each ``(N,)``; None is an explanation's own, else 0.
        names: d strings.
        top: how many features are drawn by themselves; the others come first, as one step.
        highlight: rows whose lines are thick and dashed.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.

    Raises:
        IndexError: a row that is not there.
        ValueError: shapes differ, ``top`` is below 1, or a number is NaN.

    >>> line = decision([[1.0, 4.0]], 10.0).get_axes()[0].lines[0]
    >>> [float(x) for x in line.get_xdata()]  # the larger one last
    [10.0, 11.0, 15.0]
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(attributions):
        base = attributions.base_scores if base is None else base
        given = table_of_features(attributions, names)
        attributions, names = given.values, given.names
    a = as_array(attributions, "attributions", ndim=(2,))
    start = np.broadcast_to(np.zeros(1) if base is None else as_array(base, "base"), len(a))
    if any(not -len(a) <= i < len(a) for i in highlight):
        raise IndexError(f"highlight: {list(highlight)}; there are {len(a)} rows")
    labels, order = largest_features(np.abs(a).mean(0), names, top)
    steps = a[:, order[::-1]]
    labels = labels[::-1]
    if len(order) < a.shape[1]:
        steps = np.column_stack([np.delete(a, order, axis=1).sum(1), steps])
        labels = [others_named(a[0], order), *labels]
    ways = np.column_stack([start, start[:, None] + steps.cumsum(1)])
    figure, ax = draw.axes_for(ax, 6.0, 1.0 + 0.32 * len(labels))
    low, high = ways[:, -1].min(), ways[:, -1].max()
    colors = draw.colormap(False, "viridis")
    strong = {i % len(a) for i in highlight}
    heights = np.arange(ways.shape[1]) - 0.5
    for i, way in enumerate(ways):
        shade = colors(float((way[-1] - low) / (high - low)) if high > low else 0.5)
        style = {"linewidth": 2.4, "linestyle": "--", "zorder": 3} if i in strong else {"linewidth": 1.1, "alpha": 0.8}
        ax.plot(way, heights, color=shade, **style)
    draw.plain(ax, xlabel, "", title)
    ax.set_yticks(range(len(labels)), [draw.wrap(label, 2.2, 9) for label in labels], size=9, parse_math=False)
    ax.set_ylim(-0.5, len(labels) - 0.5)
    if np.ptp(start) == 0:
        ax.axvline(start[0], color=draw.QUIET, linewidth=0.8, zorder=0.5)
    return figure
