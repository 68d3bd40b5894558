"""Attributions with two named axes: many channels over time, frequencies over time, token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.scaling import as_array, find_scale, is_clipped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

MOST_LABELS = 40  # along an axis
NUMBER_WIDTH = 0.46  # inches, of a cell with its number
LETTER_WIDTH = 0.07  # inches, of a letter in a cell
LARGEST_WIDTH = 13.0  # inches, of a picture with numbers


def matrix(
    values: Array,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    *,
    ax: Axes | None = None,
    signed: bool | None = None,
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    colorbar: bool = True,
    numbers: bool | None = None,
    texts: Sequence[Sequence[str]] | None = None,
    title: str | None = None,
    xlabel: str = "",
    ylabel: str = "",
    label: str = "attribution",
) -> Figure:
    """Draw a matrix as colours, its rows and columns named: token × token, features × features, rows × features.

    Args:
        values: ``(R, S)``, in their own unit, which the colour bar has.
        rows, columns: R and S strings; of more than 40 every so many are written.
        ax: the axes to draw on.
        signed: two colours (True), or positive values alone (False); None looks at the data.
        percentile: of the absolute values; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        colorbar: draw the colour bar.
        numbers: write each number into its cell; None does where there are no more than 100, and room for them.
        texts: R sequences of S strings, written into the cells in the place of numbers.
        title: the text above the axes.
        xlabel, ylabel: the texts beside them.
        label: the text at the colour bar.

    Raises:
        ValueError: another number of names than of rows or columns, or of texts than of cells, another shape, or a number is
            NaN.

    >>> ax = matrix([[0.0, 1.0]], ["a"], ["b", "c"]).get_axes()[0]
    >>> [text.get_text() for text in ax.get_xticklabels()]
    ['b', 'c']
    """
    from torchwhy.visualize import drawing as draw

    a = as_array(values, "values", ndim=(2,))
    for name, given, n in (("rows", rows, a.shape[0]), ("columns", columns, a.shape[1])):
        if given is not None and len(given) != n:
            raise ValueError(f"{name} has {len(given)} strings, but the matrix has {n} {name}")
    words = None if texts is None else _words_of(texts, a.shape)
    limit, signed = find_scale(a, percentile, signed)
    side, widest = 0.3 if a.size <= 400 else 0.2, 9.0
    across = side
    if words is not None:
        across, widest = max(NUMBER_WIDTH, LETTER_WIDTH * (max(map(len, words.flat)) + 1)), LARGEST_WIDTH
    elif numbers or (numbers is None and a.size <= 100 and 2.0 + NUMBER_WIDTH * a.shape[1] <= LARGEST_WIDTH):
        numbers, across, widest = True, NUMBER_WIDTH, LARGEST_WIDTH
    width, height = np.clip(2.0 + across * a.shape[1], 3.5, widest), np.clip(1.0 + side * a.shape[0], 2.0, 9.0)
    figure, ax = draw.axes_for(ax, float(width), float(height))
    colors = draw.colormap(signed, cmap)
    low, high = (-(limit or 1) if signed else 0), limit or 1
    ax.imshow(a, cmap=colors, aspect="auto", interpolation="nearest", vmin=low, vmax=high)
    _name_axis(ax.set_xticks, columns, a.shape[1], rotation=90 if columns and max(map(len, columns)) > 3 else 0)
    _name_axis(ax.set_yticks, rows, a.shape[0], rotation=0)
    ax.tick_params(length=0)
    ax.set_xlabel(xlabel, size=9.5, parse_math=False)
    ax.set_ylabel(ylabel, size=9.5, parse_math=False)
    draw.heading(ax, title)
    if words is not None or numbers:
        written = np.vectorize(draw.signed_number, otypes=[object])(a, ".2g") if words is None else words
        _write(ax, written, colors(((a / (limit or 1)).clip(-1, 1) + signed) / (1 + signed)))
    if colorbar:
        draw.scale_bar([ax], colors, limit, signed, label=label, clipped=is_clipped(a, limit, signed))
    return figure


def _name_axis(set_ticks: Callable[..., object], names: Sequence[str] | None, n: int, rotation: int) -> None:
    """Write the names along an axis, as many of them as there is room for; numbers where there are none."""
    step = -(-n // MOST_LABELS)
    at = range(0, n, step)
    labels = [str(i) if names is None else str(names[i]) for i in at]
    set_ticks(list(at), labels, size=8, rotation=rotation, parse_math=False)


def _words_of(texts: Sequence[Sequence[str]], shape: tuple[int, ...]) -> np.ndarray:
    """Return what is written into the cells, ``(R, S)``: what cannot be seen, such as the end of a line, as Python writes it."""
    if [len(line) for line in texts] != [shape[1]] * shape[0]:
        raise ValueError(f"texts: expected {shape[0]} sequences of {shape[1]} strings, one for each cell")
    shown = [[word if word.isprintable() else repr(word)[1:-1] for word in line] for line in texts]
    return np.array(shown, dtype=object).reshape(shape)


def _write(ax: Axes, texts: np.ndarray, back: np.ndarray) -> None:
    """Write each text into its cell, black or white, whichever reads better."""
    from torchwhy.visualize import drawing as draw

    for (i, j), text in np.ndenumerate(texts):
        style = {"ha": "center", "va": "center", "color": draw.ink_on(back[i, j, :3]), "size": 7}
        draw.add_note(ax, text, (j, i), (0, 0), **style)


def spectrogram(
    attribution: Array,
    spectrum: Array | None = None,
    *,
    times: Array | None = None,
    frequencies: Array | None = None,
    ax: Axes | None = None,
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    title: str | None = None,
    xlabel: str = "time",
    ylabel: str = "frequency",
    label: str = "attribution",
) -> Figure:
    """Draw the attribution of a spectrogram over its axes, low frequencies below; with the spectrum itself beside it.

    Args:
        attribution: ``(F, T)``, ``(1, F, T)`` or ``(C, F, T)``, whose channels are summed.
        spectrum: what was explained, ``(F, T)`` or ``(1, F, T)``: drawn above the attribution, in grey.
        times: ``(T,)``, ascending; None counts frames.
        frequencies: ``(F,)``, ascending; None counts bins.
        ax: the axes to draw on, without ``spectrum``.
        percentile: of the absolute values; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        title: the text above.
        xlabel, ylabel: the texts beside the axes; say the units there.
        label: the text at the colour bar.

    Raises:
        ValueError: lengths that do not fit, or a number is NaN.
    """
    from torchwhy.visualize import drawing as draw
    from torchwhy.visualize.explanation_data import maps_of
    from torchwhy.visualize.scaling import to_map

    a = to_map(maps_of(attribution, "attribution"))
    s = None if spectrum is None else to_map(spectrum)
    t = _axis_values(times, a.shape[1], "times", "frames")
    f = _axis_values(frequencies, a.shape[0], "frequencies", "bins")
    if s is not None and (s.shape != a.shape or ax is not None):
        raise ValueError(
            f"spectrum must have the shape of the attribution, {a.shape}, and ax be left out, not {s.shape}"
        )
    limit, signed = find_scale(a, percentile)
    if s is None:
        figure, ax = draw.axes_for(ax, 6.0, 2.8)
        axes = [ax]
    else:
        figure = draw.Picture(figsize=(6.0, 4.8), dpi=draw.DPI, layout="constrained")
        axes = list(figure.subplots(2, 1, sharex=True))
        shades = axes[0].pcolormesh(t, f, s, cmap="Greys", shading="nearest", rasterized=True)
        bar = figure.colorbar(shades, ax=axes[0], fraction=0.045, pad=0.03)
        bar.ax.tick_params(labelsize=8, length=2)
        bar.set_label("spectrum", size=8)
    colors = draw.colormap(signed, cmap)
    low, high = (-(limit or 1) if signed else 0), limit or 1
    axes[-1].pcolormesh(t, f, a, cmap=colors, shading="nearest", rasterized=True, vmin=low, vmax=high)
    for i, panel in enumerate(axes):
        draw.plain(panel, xlabel if i == len(axes) - 1 else "", ylabel, title if i == 0 else None)
        panel.grid(False)
    draw.scale_bar([axes[-1]], colors, limit, signed, label=label, clipped=is_clipped(a, limit, signed))
    return figure


def _axis_values(values: Array | None, n: int, name: str, counted: str) -> np.ndarray:
    found = np.arange(n, dtype=float) if values is None else as_array(values, name, ndim=(1,))
    if len(found) != n or (np.diff(found) <= 0).any():
        raise ValueError(f"{name} must be {n} ascending numbers, one for each of the {counted}")
    return found
