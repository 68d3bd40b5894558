"""What a model does over a data set: partial dependence, numbers with intervals, rows before and after a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.bars import make_room, name_rows
from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

MOST_LINES = 200  # of single rows


def partial_dependence(
    grid: Array | Sequence[Array],
    values: Array,
    ice: Array | None = None,
    *,
    names: Sequence[str] | None = None,
    labels: Sequence[Sequence[object] | None] | None = None,
    centered: bool = False,
    ax: Axes | None = None,
    title: str | None = None,
    ylabel: str = "score",
) -> Figure:
    """Draw the mean score against a feature's values, over the lines of the single rows; of two features as colours.

    Args:
        grid: the values ``(G,)``, ascending; of two features one for each.
        values: the mean score ``(G,)`` or ``(G, G')``.
        ice: the score of each row ``(N, G)``: thin lines, of more than 200 rows every so many.
        names: of the feature or features.
        labels: of the feature or features, those whose values are numbers of labels; None of the others.
        centered: draw how much each line rises above its beginning.
        ax: the axes to draw on.
        title: the text above the axes.
        ylabel: what the scores are: the text beside the axes, or at the colour bar.

    Raises:
        ValueError: lengths differ, values that do not ascend, or a number is NaN.

    >>> figure = partial_dependence([0.0, 1.0], [2.0, 3.0], [[1.0, 2.0], [3.0, 4.0]])
    >>> [line.get_ydata().tolist() for line in figure.get_axes()[0].lines]
    [[1.0, 2.0], [3.0, 4.0], [2.0, 3.0]]
    """
    from torchwhy.visualize import drawing as draw

    mean = as_array(values, "values", ndim=(1, 2))
    axes = [as_array(g, "grid", ndim=(1,)) for g in (grid if mean.ndim == 2 else (grid,))]  # type: ignore[union-attr, arg-type]
    if mean.shape != tuple(map(len, axes)) or any((np.diff(g) <= 0).any() for g in axes):
        raise ValueError(f"grid must be ascending values that fit values, {mean.shape}, not {[len(g) for g in axes]}")
    named = [f"feature {i}" for i in range(len(axes))] if names is None else list(names)
    if len(named) != len(axes):
        raise ValueError(f"names has {len(named)} strings, but there are {len(axes)} features")
    figure, ax = draw.axes_for(ax, 5.0, 3.6)
    if mean.ndim == 2:
        shades = ax.pcolormesh(axes[0], axes[1], mean.T, cmap="viridis", shading="nearest", rasterized=True)
        draw.plain(ax, named[0], named[1], title)
        ax.grid(False)
        figure.colorbar(shades, ax=ax).set_label(ylabel, size=8)
        _name_values(ax, labels)
        return figure
    rows = np.empty((0, len(mean))) if ice is None else as_array(ice, "ice", ndim=(2,))
    if rows.shape[1] != len(mean):
        raise ValueError(f"ice must be (N, {len(mean)}), but its shape is {rows.shape}")
    lines = rows[:: -(-len(rows) // MOST_LINES) or 1]
    lines, mean = (lines - lines[:, :1], mean - mean[:1]) if centered else (lines, mean)
    marker = "o" if len(mean) <= 10 else ""
    for line in lines:
        ax.plot(axes[0], line, color=draw.LINES[0], linewidth=0.6, alpha=max(0.12, min(0.6, 12 / len(lines))))
    ax.plot(axes[0], mean, color=draw.LINES[1], linewidth=2.4, marker=marker, label="mean")
    some = "" if len(lines) == len(rows) else f" ({len(lines)} of {len(rows)} rows)"
    draw.plain(ax, named[0], f"{ylabel}, change{some}" if centered else f"{ylabel}{some}", title)
    draw.legend(ax)
    _name_values(ax, labels)
    return figure


def _name_values(ax: Axes, labels: Sequence[Sequence[object] | None] | None) -> None:
    """Write labels in the place of their numbers along the axes of one or two features."""
    from torchwhy.visualize import drawing as draw

    for axis, known in zip((ax.xaxis, ax.yaxis), labels or ()):
        if known:
            draw.name_ticks(axis, known, draw.axes_width(ax))


def intervals(
    mean: Array,
    low: Array,
    high: Array,
    names: Sequence[str],
    *,
    reference: float | None = None,
    notes: Sequence[str] | None = None,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "",
) -> Figure:
    """Draw numbers with their intervals, one below the other.

    Args:
        mean, low, high: ``(k,)``, the numbers and the ends of their intervals; where the ends are equal there is only a point.
        names: k strings.
        reference: a line that the intervals are compared with: no effect, or chance.
        notes: k strings, written beside the intervals: p-values, sizes.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: what the numbers are.

    Raises:
        ValueError: lengths differ, an interval that its number is not in, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    m, a, b = (as_array(v, n, ndim=(1,)) for v, n in ((mean, "mean"), (low, "low"), (high, "high")))
    if not len(m) == len(a) == len(b) == len(names) or (notes is not None and len(notes) != len(m)):
        raise ValueError(f"low, high, names and notes must have an entry for each of the {len(m)} numbers")
    if (a > m).any() or (b < m).any():
        raise ValueError("low and high must lie around the numbers")
    figure, ax = draw.axes_for(ax, 5.6, 0.9 + 0.34 * len(m))
    y = np.arange(len(m))
    ax.errorbar(m, y, xerr=[m - a, b - m], fmt="o", color=draw.LINES[0], markersize=5, capsize=3, elinewidth=1.4)
    name_rows(ax, list(map(str, names)), xlabel, title)
    ax.lines[-1].remove()  # zero is no special place here
    if reference is not None:
        ax.axvline(reference, color=draw.QUIET, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0.5)
    for i, note in enumerate(notes or ()):
        draw.add_note(ax, note, (b[i], i), (7, 0), va="center", size=8, color=draw.QUIET)
    room = max((draw.text_width(note, 8) for note in notes or ()), default=0.0) + 0.2
    make_room(ax, float(a.min()), float(b.max()), 0.15, room)
    return figure


def panels_of_intervals(
    panels: Mapping[str, tuple[Array, Array, Array]], names: Sequence[str], *, notes: Sequence[str] | None = None
) -> Figure:
    """Draw several :func:`intervals` of the same names side by side, on one scale.

    Args:
        panels: ``(mean, low, high)``, ``(k,)`` each, by what they are.
        names: k strings.
        notes: k strings, written in the last panel.

    Raises:
        ValueError: as :func:`intervals`.
    """
    from torchwhy.visualize import drawing as draw

    figure = draw.Picture(figsize=(4.2 * len(panels), 1.0 + 0.34 * len(names)), dpi=draw.DPI, layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for i, (ax, (name, ends)) in enumerate(zip(axes, panels.items())):
        intervals(*ends, names, ax=ax, xlabel=name, notes=notes if i == len(panels) - 1 else None)
    low, high = zip(*(ax.get_xlim() for ax in axes))
    for ax in axes:
        ax.set_xlim(min(low), max(high))
    return figure


def before_after(
    before: Array,
    after: Array,
    names: Sequence[str] | None = None,
    *,
    labels: Mapping[int, Sequence[object]] | None = None,
    top: int = 12,
    ax: Axes | None = None,
    title: str | None = None,
) -> Figure:
    """Draw what changed in a row as a table: each feature that changed, its value before and after, and the difference.

    Args:
        before, after: ``(d,)``, the values of the row.
        names: d strings.
        labels: of columns whose values are numbers of labels, the labels, by the column's number.
        top: the most features that are written; of more those of the largest changes, and how many are left out is said.
        ax: the axes to draw on.
        title: the text above.

    Raises:
        ValueError: lengths differ, or a number is NaN.

    >>> [t.get_text() for t in before_after([1.0, 5.0], [1.0, 7.5], ["sex", "age"]).get_axes()[0].texts][-4:]
    ['5', '7.5', '+2.5', '1 of 2 features did not change']
    """
    from torchwhy.visualize import drawing as draw

    b, a = as_array(before, "before", ndim=(1,)), as_array(after, "after", ndim=(1,))
    if b.shape != a.shape or (names is not None and len(names) != len(b)):
        raise ValueError(f"after and names must have an entry for each of the {len(b)} values before")
    change = a - b
    order = [j for j in np.argsort(-np.abs(change), kind="stable") if change[j]]
    lines = [["feature", "before", "after", "change"]]
    for j in order[:top]:
        name = f"feature {j}" if names is None else str(names[j])
        if labels and j in labels:
            lines.append([name, str(labels[j][round(b[j])]), str(labels[j][round(a[j])]), ""])
        else:
            lines.append([name, f"{b[j]:.4g}", f"{a[j]:.4g}", draw.signed_number(change[j])])
    figure, ax = draw.axes_for(ax, 5.6, 0.7 + 0.26 * (len(lines) + 1))
    ax.set_axis_off()
    ax.set(xlim=(0, 1), ylim=(len(lines) + 0.6, -0.6))
    for y, line in enumerate(lines):
        shade = draw.POSITIVE if y and line[3].startswith("+") else draw.NEGATIVE
        for x, word in zip((0.02, 0.58, 0.77, 0.97), line):
            style = {"ha": "left" if x < 0.1 else "right", "va": "center", "size": 9.5, "annotation_clip": False}
            color = shade if x > 0.9 else "#000000"
            color = draw.QUIET if y == 0 else color
            is_number = x > 0.1 and (y == 0 or bool(line[3]))
            draw.add_note(ax, word.replace("-", "−") if is_number else word, (x, y), (0, 0), color=color, **style)
    ax.axhline(0.5, color=draw.FRAME, linewidth=0.8)
    left = len(b) - len(lines) + 1
    more = len(order) - min(top, len(order))
    said = f"{left - more} of {len(b)} features did not change" + (
        f"; {more} smaller changes are left out" if more else ""
    )
    draw.add_note(ax, said, (0.02, len(lines)), (0, 0), va="center", size=8.5, color=draw.QUIET, annotation_clip=False)
    draw.heading(ax, title)
    return figure
