"""Signals over time: the line itself in the colour of its attribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.engine.structure import Keywords
from torchwhy.visualize.matrix import matrix
from torchwhy.visualize.scaling import as_array, find_scale, is_clipped, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

MOST_CHANNELS = 32  # that get a line each
LINE_COLORS = ("#0a3596", "#2f7be0", "#b9b9b9", "#e8472b", "#a6001a")  # grey, not white, at zero: it stays a line


def series(
    signal: Array,
    attribution: Array,
    *,
    times: Array | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    colorbar: bool = True,
    title: str | None = None,
    xlabel: str = "time",
    label: str = "",
) -> Figure:
    """Draw a signal, coloured and thickened by its attribution: red for, blue against, thin and grey where it is 0.

    One panel a channel, all on one colour scale. More than 32 channels have no room for a line each: they are drawn as a
    :func:`matrix` of channels and times.

    Args:
        signal: ``(C, T)``, ``(1, C, T)`` or ``(T,)``.
        attribution: the same shape, or ``(T,)`` or ``(1, T)`` for all channels together.
        times: ``(T,)``, ascending; None counts from 0.
        names: C strings.
        ax: the axes to draw on, for a single channel.
        percentile: of the absolute values; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        colorbar: draw the colour bar.
        title: the text above the first panel.
        xlabel: the text below the last panel.
        label: the text at the colour bar.

    Raises:
        ValueError: shapes differ, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw

    s, a, t = _checked_series(signal, attribution, times, names)
    if len(s) > MOST_CHANNELS:
        how: Keywords = {"cmap": cmap, "percentile": percentile, "title": title, "xlabel": xlabel, "ax": ax}
        return _many_channels(a, t, len(s), names, how | {"label": label or "attribution", "colorbar": colorbar})
    limit = find_scale(a, percentile, True)[0]
    unit = np.broadcast_to(to_unit(a, limit, True), s.shape)
    figure, axes = _panels(ax, len(s))
    colors = draw.colormap(True, cmap) if cmap else draw.LinearSegmentedColormap.from_list("line", LINE_COLORS, 257)
    for i, panel in enumerate(axes):
        _line(panel, t, s[i], unit[i], colors)
        draw.plain(panel, xlabel if i == len(s) - 1 else "", names[i] if names else "", title if i == 0 else None)
    if colorbar:
        draw.scale_bar(axes, colors, limit, True, label=label, clipped=is_clipped(a, limit, True))
    return figure


def _checked_series(
    signal: Array, attribution: Array, times: Array | None, names: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the signal ``(C, T)``, its attribution ``(C or 1, T)`` and its times ``(T,)``, which fit each other."""
    s = _channels(signal, "signal")
    a = _channels(attribution, "attribution")
    if a.shape[1] != s.shape[1] or len(a) not in (1, len(s)):
        raise ValueError(f"attribution {a.shape} does not fit signal {s.shape}: give one value for each of its points")
    t = np.arange(s.shape[1], dtype=float) if times is None else as_array(times, "times", ndim=(1,))
    if len(t) != s.shape[1] or (np.diff(t) <= 0).any():
        raise ValueError(f"times must be {s.shape[1]} ascending numbers, one for each point of the signal")
    if names is not None and len(names) != len(s):
        raise ValueError(f"names has {len(names)} strings, but the signal has {len(s)} channels")
    return s, a, t


def _many_channels(
    a: np.ndarray, t: np.ndarray, channels: int, names: Sequence[str] | None, options: Keywords
) -> Figure:
    """Draw channels as rows of colours; times are written where they are no plain count."""
    counted = np.array_equal(t, np.arange(len(t)))
    columns = None if counted else [f"{value:g}" for value in t]
    return matrix(np.broadcast_to(a, (channels, len(t))), names, columns, ylabel="channel", signed=True, **options)


def _channels(values: Array, name: str) -> np.ndarray:
    array = as_array(values, name, ndim=(1, 2, 3))
    if array.ndim == 3 and len(array) != 1:
        raise ValueError(f"{name} must be (C, T) or (T,), but its shape is {array.shape}; give one row, {name}[0]")
    return np.atleast_2d(array[0] if array.ndim == 3 else array)


def _panels(ax: Axes | None, channels: int) -> tuple[Figure, list[Axes]]:
    from torchwhy.visualize import drawing as draw

    if ax is not None and channels > 1:
        raise ValueError(f"ax takes one channel, but the signal has {channels}: leave it out, or draw them one by one")
    if channels == 1:
        figure, ax = draw.axes_for(ax, 7.0, 2.4)
        return figure, [ax]
    figure = draw.Picture(figsize=(7.0, 0.6 + max(0.9, 2.0 - 0.25 * channels) * channels), dpi=draw.DPI)
    figure.set_layout_engine("constrained")
    return figure, list(figure.subplots(channels, 1, sharex=True))


def _line(ax: Axes, t: np.ndarray, y: np.ndarray, unit: np.ndarray, colors: Colormap) -> None:
    """Draw the signal in short pieces, each around its point, from half-way before to half-way after it."""
    from matplotlib.collections import LineCollection

    points = np.stack([t, y], 1)
    middle = (points[1:] + points[:-1]) / 2
    before, after = np.concatenate([points[:1], middle]), np.concatenate([middle, points[-1:]])
    pieces = np.stack([before, points, after], 1)
    widths = 1.0 + 2.4 * np.abs(unit)
    lines = LineCollection(list(pieces), colors=colors((unit + 1) / 2), linewidths=widths)
    lines.set(capstyle="round", joinstyle="round")
    ax.add_collection(lines)
    ax.set_xlim(t[0], t[-1] if len(t) > 1 else t[0] + 1)
    ax.update_datalim(points)
    ax.autoscale_view(scalex=False)
