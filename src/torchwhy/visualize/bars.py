"""Attributions of tabular rows: bars with errors for one row, swarms of points for many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.explanation_data import features_of, is_explanation, table_of_features
from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

GREY = "#a8a8a8"  # of what stands for several


def bars(
    values: Array | Mapping[str, float],
    names: Sequence[str] | None = None,
    *,
    errors: Array | None = None,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "attribution",
    signed: bool = True,
) -> Figure:
    """Draw one row's attributions as bars, the largest on top, red for and blue against, with their errors.

    Beyond the ``top`` features, the sum of the others is drawn as one grey bar, so that the bars still add up
    (its error is not drawn: the others' errors need not be independent).

    Every bar's number has as many decimals as the largest one needs for three digits, and more where it or its error would
    have less than two (one) of its own.

    Args:
        values: ``(d,)`` or ``(1, d)``, drawn in their own unit; or a mapping from names to numbers; or an
            :class:`torchwhy.Explanation`, whose first row is drawn with its features, names and errors.
        names: d strings.
        errors: ``(d,)``, not negative, drawn as given on both sides: say in the title whether they are standard errors or
            intervals.
        top: how many features get a bar of their own.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.
        signed: tell for from against, by colours and signs; False is for sizes, which are neither.

    Raises:
        ValueError: lengths differ, ``top`` is below 1, an error is negative, or a number is NaN.

    >>> figure = bars([0.5, -2.0, 0.1], ["age", "bmi", "bp"], top=2)
    >>> [text.get_text() for text in figure.get_axes()[0].get_yticklabels()]
    ['bmi', 'age', 'the other one']
    """
    from torchwhy.visualize import drawing as draw

    if isinstance(values, Mapping):
        names, values = list(values) if names is None else names, np.array(list(values.values()))
    if is_explanation(values):
        given = features_of(values, 0, names)
        values, names, errors = given.values, given.names, given.errors if errors is None else errors
    a = one_row(values, "values")
    e = None if errors is None else one_row(errors, "errors")
    if e is not None and (e.shape != a.shape or e.min() < 0):
        raise ValueError(f"errors must be {len(a)} numbers that are not negative, one for each value")
    labels, order = largest_features(np.abs(a), names, top)
    length, others = a[order], len(a) - len(order)
    if others:
        length = np.append(length, np.delete(a, order).sum())
        labels.append(others_named(a, order))
    shades = [draw.LINES[0]] * len(order)
    if signed:
        shades = [draw.POSITIVE if v > 0 else draw.NEGATIVE for v in a[order]]
    colors = shades + [GREY] * bool(others)
    half = np.zeros(len(length))
    if e is not None:
        half[: len(order)] = e[order]
    figure, ax = draw.axes_for(ax, 5.4, 0.8 + 0.3 * len(length))
    y = np.arange(len(length))
    ax.barh(y, length, color=colors, height=0.66)
    if e is not None:
        color, shown = ax.xaxis.label.get_color(), slice(len(order))
        ax.errorbar(length[shown], y[shown], xerr=e[order], fmt="none", ecolor=color, elinewidth=1.1, capsize=2.5)
    room = _write_bar_numbers(ax, length, half, signed=signed)
    name_rows(ax, labels, xlabel, title)
    make_room(ax, min(0.0, (length - half).min()), max(0.0, (length + half).max()), *room)
    return figure


def _write_bar_numbers(ax: Axes, length: np.ndarray, half: np.ndarray, *, signed: bool) -> list[float]:
    """Write each bar's number and error beside it; return the width of the longest on the left and on the right, in inches."""
    from torchwhy.visualize import drawing as draw

    room = [0.0, 0.0]
    for y, (v, h) in enumerate(zip(length, half)):
        form = draw.number_format_of(v, h, length)
        error = " ± " + draw.signed_number(h, form)[1:] if h else ""
        written = draw.signed_number(v, form).lstrip("" if signed else "+") + error
        shift, side = (4, "left") if v >= 0 else (-4, "right")
        draw.add_note(ax, written, (v + np.copysign(h, v), float(y)), (shift, 0), va="center", ha=side)
        room[int(v >= 0)] = max(room[int(v >= 0)], draw.text_width(written, 8.5) + 0.15)
    return room


def beeswarm(
    attributions: Array,
    features: Array | None = None,
    names: Sequence[str] | None = None,
    *,
    labels: Mapping[int, Sequence[object]] | None = None,
    top: int = 10,
    order: Sequence[int] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "attribution",
) -> Figure:
    """Draw many rows' attributions, a point a row, a line a feature; the largest mean absolute value on top.

    The features beyond the ``top`` are one grey line more, each row's sum of theirs: nothing is left out.

    Points that would hide each other are stacked, so the height of a swarm shows how many there are. Where the feature is labels,
    these stand beside its name in the order of their colours.

    Args:
        attributions: ``(N, d)``, in their own unit, or an :class:`torchwhy.Explanation` with its names, inputs and labels.
        features: the features' own values ``(N, d)``, told by colours from their 5th to their 95th percentile; grey where it is
            missing, NaN.
        names: d strings.
        labels: of features whose values are numbers of labels, the labels, by the feature's number; their colours go from the
            first to the last one.
        top: how many features are drawn by themselves.
        order: the numbers of those that are, from top to bottom, in the place of the ``top`` largest.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.

    Raises:
        ValueError: shapes differ, ``top`` is below 1, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(attributions):
        given = table_of_features(attributions, names)
        attributions, names, features = given.values, given.names, given.inputs if features is None else features
        labels = given.labels if labels is None else labels
    known = labels or {}
    a = as_array(attributions, "attributions", ndim=(2,))
    x = None if features is None else as_array(features, "features", ndim=(2,), missing=True)
    if x is not None and x.shape != a.shape:
        raise ValueError(f"features must have the shape of attributions, {a.shape}, not {x.shape}")
    lines, chosen = largest_features(np.abs(a).mean(0), names, top)
    if order is not None:
        chosen = np.array(order)
        lines = [f"feature {j}" if names is None else str(names[j]) for j in chosen]
    if x is not None:
        lines = [
            f"{line}: {_first_and_last(known[j])}" if j in known else line for line, j in zip(lines, chosen.tolist())
        ]
    others = None if len(chosen) == a.shape[1] else np.delete(a, chosen, axis=1).sum(1)
    lines += [] if others is None else [others_named(a[0], chosen)]
    figure, ax = draw.axes_for(ax, 6.0, 0.8 + 0.42 * len(lines))
    span = float(np.ptp(a[:, chosen] if others is None else np.column_stack([a[:, chosen], others]))) or 1.0
    colors = draw.colormap(False, "viridis")
    for y, j in enumerate(chosen.tolist()):
        shade = draw.LINES[0] if x is None else draw.shades_of(x[:, j], known.get(j))[0]
        ax.scatter(a[:, j], y + stacked(a[:, j], span), s=9, linewidths=0, alpha=0.9, color=shade)
    if others is not None:
        ax.scatter(others, len(chosen) + stacked(others, span), s=9, linewidths=0, alpha=0.9, color=GREY)
    name_rows(ax, lines, xlabel, title)
    if x is not None:
        draw.scale_bar([ax], colors, 1.0, False, label="value of the feature", clipped=False)
        figure.axes[-1].set_yticks([0, 1], ["low", "high"])
    return figure


def make_room(ax: Axes, low: float, high: float, left: float, right: float) -> None:
    """Set the limits of the bars so that texts of ``left`` and ``right`` inches fit beside the longest ones."""
    from torchwhy.visualize import drawing as draw

    names = max(draw.text_width(line, 9) for t in ax.get_yticklabels() for line in t.get_text().split("\n"))
    inches = draw.axes_width(ax) * 1.25 - names - 0.3  # the layout will give the axes what the names leave
    scale = ((high - low) or 1.0) / max(inches - left - right, 0.2 * inches)
    ax.set_xlim(low - left * scale, high + right * scale)


def one_row(values: Array, name: str) -> np.ndarray:
    """Return one row ``(d,)``; refuse several."""
    a = as_array(values, name, ndim=(1, 2))
    if a.ndim == 2 and len(a) != 1:
        raise ValueError(f"{name} must be one row, (d,), not {a.shape}: beeswarm draws several")
    return a.reshape(-1)


def largest_features(size: np.ndarray, names: Sequence[str] | None, top: int) -> tuple[list[str], np.ndarray]:
    """Return the names and the positions of the ``top`` largest, in that order; ties as they come."""
    if top < 1:
        raise ValueError(f"top must be at least 1, not {top}")
    if names is not None and len(names) != len(size):
        raise ValueError(f"names has {len(names)} strings, but there are {len(size)} features")
    order = np.argsort(-size, kind="stable")[:top]
    return [f"feature {j}" if names is None else str(names[j]) for j in order], order


def others_named(values: np.ndarray, order: np.ndarray) -> str:
    """Return what the features beyond the largest are called together."""
    others = len(values) - len(order)
    return "the other one" if others == 1 else f"the other {others}"


def _first_and_last(labels: Sequence[object]) -> str:
    """Return the labels; of more than four the first and the last, and how many there are."""
    some = len(labels) > 4
    return f"{labels[0]} … {labels[-1]} ({len(labels)})" if some else ", ".join(map(str, labels))


def stacked(values: np.ndarray, span: float) -> np.ndarray:
    """Return heights in [-0.4, 0.4] that part the points of one place: 0, up, down, up further, ..."""
    place = np.round(values / span * 120).astype(int)
    heights = np.zeros(len(values))
    for p in np.unique(place):
        here = np.flatnonzero(place == p)
        rank = np.arange(len(here))
        heights[here] = (rank + 1) // 2 * np.where(rank % 2, 1, -1)
    return heights * min(0.07, 0.4 / max(1.0, np.abs(heights).max()))


def name_rows(ax: Axes, labels: list[str], xlabel: str, title: str | None) -> None:
    """Write the features down the left side, the first on top."""
    from torchwhy.visualize import drawing as draw

    draw.plain(ax, xlabel, "", title)
    ax.grid(False, axis="y")
    ax.set_yticks(range(len(labels)), [draw.wrap(name, 2.2, 9) for name in labels], size=9, parse_math=False)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.axvline(0, color=draw.QUIET, linewidth=0.8, zorder=0.5)
