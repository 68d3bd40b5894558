"""Attributions of many rows: how much each feature matters, how its effect goes with its value, and who differs from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.explanation.table import NOT_THERE
from torchwhy.visualize.bars import GREY, largest_features, name_rows, others_named, stacked
from torchwhy.visualize.explanation_data import is_explanation, table_of_features
from torchwhy.visualize.scaling import as_array, find_scale, is_clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.explanation import Explanation
    from torchwhy.visualize.scaling import Array

LabelsOfValues = Sequence[object] | None  # of a feature whose values are numbers of labels


def importance(
    attributions: Array,
    names: Sequence[str] | None = None,
    *,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "mean |attribution|",
) -> Figure:
    r"""Draw the mean absolute value of each feature over the rows, :math:`\frac{1}{N} \sum_n |a_{ni}|`, the largest on top.

    Features beyond the ``top`` are one grey bar, the sum of theirs.

    Args:
        attributions: ``(N, d)``, or an :class:`torchwhy.Explanation`.
        names: d strings.
        top: how many features get a bar of their own.
        ax: the axes to draw on.
        title: the text above the axes.
        xlabel: the text below them.

    Raises:
        ValueError: lengths differ, ``top`` is below 1, or a number is NaN.

    >>> [float(bar.get_width()) for bar in importance([[1.0, -4.0], [-1.0, 2.0]]).get_axes()[0].patches]
    [3.0, 1.0]
    """
    return cohorts({"": attributions}, names, top=top, ax=ax, title=title, xlabel=xlabel)


def cohorts(
    groups: Mapping[str, Array],
    names: Sequence[str] | None = None,
    *,
    top: int = 10,
    ax: Axes | None = None,
    title: str | None = None,
    xlabel: str = "mean |attribution|",
) -> Figure:
    """Draw the mean absolute value of each feature in several groups of rows, a bar for each group.

    The features are those of the largest means over the groups; the others of each group are summed in one bar.

    Args:
        groups: attributions ``(N, d)``, or an :class:`torchwhy.Explanation`, by the group's name.
        names, top, ax, title, xlabel: as of :func:`importance`.

    Raises:
        ValueError: no groups, different numbers of features, and as :func:`importance`.
    """
    from torchwhy.visualize import drawing as draw

    if not groups:
        raise ValueError("groups: none given")
    means = {}
    for group, given in groups.items():
        if is_explanation(given):
            table = table_of_features(given, names)
            given, names = table.values, table.names
        means[group] = np.abs(as_array(given, f"groups[{group!r}]" if group else "attributions", ndim=(2,))).mean(0)
    widths = {len(m) for m in means.values()}
    if len(widths) > 1:
        raise ValueError(
            f"groups: {', '.join(f'{g!r} has {len(m)}' for g, m in means.items())} features; give the same ones"
        )
    sizes = np.stack(list(means.values()))
    labels, order = largest_features(sizes.mean(0), names, top)
    lengths = sizes[:, order]
    some = len(order) < sizes.shape[1]
    if some:
        lengths = np.column_stack([lengths, np.delete(sizes, order, axis=1).sum(1)])
        labels = [*labels, others_named(sizes[0], order)]
    figure, ax = draw.axes_for(ax, 5.6, 0.9 + (0.22 + 0.14 * len(means)) * len(labels))
    thick = 0.7 / len(means)
    for g, (group, row) in enumerate(zip(means, lengths)):
        shade = draw.LINES[g % len(draw.LINES)]
        colors = [shade] * len(order) + [GREY if len(means) == 1 else shade] * some
        y = np.arange(len(labels)) + (g - (len(means) - 1) / 2) * thick
        ax.barh(y, row, color=colors, height=thick * 0.92, label=group or "_")
        for at, v in zip(y, row):
            form = draw.number_format_of(float(v), 0.0, lengths)
            draw.add_note(
                ax, f"{v:{form}}", (float(v), float(at)), (4, 0), va="center", size=8.5 if len(means) == 1 else 7
            )
    name_rows(ax, labels, xlabel, title)
    ax.margins(x=0.14)
    draw.legend(ax)
    return figure


def scatter(
    values: Array,
    feature: Array | str | int | None = None,
    color: Array | str | int | None = None,
    *,
    names: tuple[str, str] | None = None,
    labels: tuple[LabelsOfValues, LabelsOfValues] = (None, None),
    ax: Axes | None = None,
    title: str | None = None,
    ylabel: str = "attribution",
) -> Figure:
    """Draw a feature's attributions against its values, a point a row, coloured by another feature: a dependence plot.

    Where the feature is labels, each has its place, and its points are parted sideways.

    Args:
        values: the feature's attributions ``(N,)``; or an :class:`torchwhy.Explanation` of N rows.
        feature: its values ``(N,)``; of an explanation its name or number, None being the one of the largest mean absolute value.
        color: the other feature's values ``(N,)``; of an explanation its name or number, ``"auto"`` being the one with which the
            attributions go most, see :func:`strongest_interaction`. None draws one colour.
        names: of the feature, and of the other one.
        labels: of the feature, and of the other one, where their values are numbers of labels; an explanation of a data frame
            has them.
        ax: the axes to draw on.
        title: the text above the axes.
        ylabel: the text beside them.

    Raises:
        LookupError: a feature that is not there.
        ValueError: lengths differ, an explanation without inputs, or an attribution is NaN. Values may be: a feature's that are
            missing stand at the left, another one's are grey.
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(values):
        values, feature, color, names, labels = _columns_of(values, feature, color)
    if feature is None:
        raise ValueError("feature: give its values (N,), one for each attribution")
    y, x = as_array(values, "values", ndim=(1,)), as_array(feature, "feature", ndim=(1,), missing=True)
    other = None if color is None else as_array(color, "color", ndim=(1,), missing=True)
    if len(x) != len(y) or (other is not None and len(other) != len(y)):
        raise ValueError(f"feature and color need one value for each of the {len(y)} attributions")
    own_name, other_name = names or ("feature", "the other feature")
    figure, ax = draw.axes_for(ax, 5.4, 3.6)
    shades, low, high = (draw.LINES[0], 0.0, 1.0) if other is None else draw.shades_of(other, labels[1])
    ax.scatter(places_along(x, y, labels[0], x), y, s=12, color=shades, alpha=0.85, linewidths=0)
    draw.plain(ax, own_name, ylabel, title)
    ax.axhline(0, color=draw.QUIET, linewidth=0.8, zorder=0.5)
    name_places(ax, x, labels[0])
    if other is not None:
        end = high or 1.0 if labels[1] else 1.0
        draw.scale_bar([ax], draw.colormap(False, "viridis"), end, False, label=other_name, clipped=False)
        bar = figure.axes[-1]
        if labels[1]:
            draw.name_ticks(bar.yaxis, labels[1], 1.2 * min(len(labels[1]), draw.MOST_TICKS))
        else:
            bar.set_yticks([0, 1], [f"{end:.3g}".replace("-", "−") for end in (low, high)])
    return figure


def places_along(x: np.ndarray, y: np.ndarray, labels: LabelsOfValues, every: np.ndarray) -> np.ndarray:
    """Return where on the x axis the points stand: labels' points parted sideways, and what is missing left of ``every`` one."""
    at = np.where(np.isnan(x), _place_of_missing(every, labels), x)
    if not labels:
        return at
    span = float(np.ptp(y)) or 1.0
    found = at.copy()
    for place in np.unique(at):
        found[at == place] += stacked(y[at == place], span)
    return found


def _place_of_missing(every: np.ndarray, labels: LabelsOfValues) -> float:
    """Return where values that are missing stand, left of all others."""
    there = every[~np.isnan(every)]
    if labels or not len(there):
        return -1.0
    return float(there.min() - 0.08 * (np.ptp(there) or 1.0))


def name_places(ax: Axes, every: np.ndarray, labels: LabelsOfValues) -> None:
    """Write labels below their places, and above the values that are missing that they are."""
    from torchwhy.visualize import drawing as draw

    some = bool(np.isnan(every).any())
    if labels:
        draw.name_ticks(ax.xaxis, [*[NOT_THERE] * some, *labels], draw.axes_width(ax), -int(some))
    elif some:
        note = {"xycoords": ("data", "axes fraction"), "ha": "center", "va": "top", "size": 8, "color": draw.QUIET}
        draw.add_note(ax, NOT_THERE, (_place_of_missing(every, None), 1.0), (0, -2), **note)


def _columns_of(
    e: Explanation, feature: Array | str | int | None, color: Array | str | int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, tuple[str, str], tuple[LabelsOfValues, LabelsOfValues]]:
    """Return a feature's attributions and values, another one's values, both names and labels, of an explanation."""
    table = table_of_features(e)
    if table.inputs is None:
        raise ValueError("values: the explanation has no inputs with one number for each feature; give arrays")
    j = int(np.abs(table.values).mean(0).argmax()) if feature is None else _find_column(feature, table.names, "feature")
    if color is None:
        return table.values[:, j], table.inputs[:, j], None, (table.names[j], ""), (table.labels.get(j), None)
    if isinstance(color, str) and color == "auto" and "auto" not in table.names:
        k = strongest_interaction(table.values[:, j], table.inputs, j)
    else:
        k = _find_column(color, table.names, "color")
    names, labels = (table.names[j], table.names[k]), (table.labels.get(j), table.labels.get(k))
    return table.values[:, j], table.inputs[:, j], table.inputs[:, k], names, labels


def _find_column(wanted: object, names: list[str], argument: str) -> int:
    if isinstance(wanted, str):
        if wanted not in names:
            raise LookupError(f"{argument}={wanted!r}: there is no such feature; they are {', '.join(names[:20])}")
        return names.index(wanted)
    if not isinstance(wanted, (int, np.integer)) or not 0 <= wanted < len(names):
        raise LookupError(f"{argument}={wanted!r}: expected a name, or a number from 0 to {len(names) - 1}")
    return int(wanted)


def strongest_interaction(values: Array, features: Array, feature: int) -> int:
    """Return which other feature the attributions of one go with, among rows of about the same value of that one.

    The rows are put in the order of the feature's values and cut into ten parts; in each the absolute correlation between the
    attributions and every other feature is taken, and these are added up.

    Args:
        values: the attributions of the feature ``(N,)``.
        features: the values of all features ``(N, d)``; those that are missing, NaN, count as their mean.
        feature: the number of the one.

    Raises:
        ValueError: there is no other feature.
    """
    a, x = as_array(values, "values", ndim=(1,)), as_array(features, "features", ndim=(2,), missing=True)
    x = np.where(np.isnan(x), np.ma.masked_invalid(x).mean(0).filled(0.0), x)
    if x.shape[1] < 2:
        raise ValueError("features: there is one only, and no other to colour it by")
    strength = np.zeros(x.shape[1])
    for part in np.array_split(np.argsort(x[:, feature], kind="stable"), max(1, min(10, len(a) // 5))):
        left, right = a[part] - a[part].mean(), x[part] - x[part].mean(0)
        size = np.sqrt((left**2).sum() * (right**2).sum(0))
        strength += np.divide(np.abs(left @ right), size, out=np.zeros(len(size)), where=size > 0)
    strength[feature] = -1.0
    return int(strength.argmax())


def row_matrix(
    attributions: Array,
    names: Sequence[str] | None = None,
    *,
    scores: Array | None = None,
    sort: bool = True,
    top: int = 15,
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    label: str = "attribution",
) -> Figure:
    """Draw all attributions of all rows as colours, a column a row, a line a feature, with the scores above.

    Args:
        attributions: ``(N, d)``, or an :class:`torchwhy.Explanation` with its names and scores.
        names: d strings.
        scores: ``(N,)``, drawn as a line above; None is an explanation's own, else the sums of the attributions.
        sort: put the rows in the order of their scores, the lowest on the left; else as they come.
        top: how many features are drawn by themselves, those of the largest mean absolute value; the others are summed.
        percentile: of the absolute values; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        title: the text above.
        label: the text at the colour bar.

    Raises:
        ValueError: lengths differ, ``top`` is below 1, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    if is_explanation(attributions):
        scores = attributions.scores if scores is None else scores
        given = table_of_features(attributions, names)
        attributions, names = given.values, given.names
    a = as_array(attributions, "attributions", ndim=(2,))
    s = a.sum(1) if scores is None else as_array(scores, "scores", ndim=(1,))
    if len(s) != len(a):
        raise ValueError(f"scores has {len(s)} numbers, but there are {len(a)} rows")
    labels, order = largest_features(np.abs(a).mean(0), names, top)
    shown = a[:, order]
    if len(order) < a.shape[1]:
        shown = np.column_stack([shown, np.delete(a, order, axis=1).sum(1)])
        labels = [*labels, others_named(a[0], order)]
    rows = np.argsort(s, kind="stable") if sort else np.arange(len(s))
    shown, limit = shown[rows].T, find_scale(shown, percentile, True)[0]
    figure = draw.Picture(figsize=(7.0, 1.9 + 0.28 * len(labels)), dpi=draw.DPI, layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.0, 0.4 + 0.3 * len(labels)])
    above.plot(np.arange(len(s)), s[rows], color=draw.LINES[-1], linewidth=1.2)
    draw.plain(above, "", "score", title)
    colors = draw.colormap(True, cmap)
    below.imshow(shown, cmap=colors, aspect="auto", interpolation="nearest", vmin=-(limit or 1), vmax=limit or 1)
    below.set_yticks(range(len(labels)), labels, size=9, parse_math=False)
    below.tick_params(length=0, labelsize=8.5)
    below.set_xlabel("rows, by their scores" if sort else "row", size=9.5)
    draw.scale_bar([below], colors, limit, True, label=label, clipped=is_clipped(shown, limit, True))
    return figure
