"""Panels of one figure: each a map or a photo, on one scale, laid out in lines."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.scaling import find_scale, is_clipped, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

TITLE, CAPTION, BAR = 9.5, 7.5, 8.0  # sizes of text in points
MARGIN, GAP = 0.08, 0.08  # inches


@dataclass
class Panel:
    """One picture: a map (H, W), over the photo ``under``, (H, W) if grey, if there is one, or a photo (H, W, 3) alone."""

    values: np.ndarray
    under: np.ndarray | None
    title: str
    caption: str = ""
    limit: float = 0.0
    signed: bool = False

    @property
    def is_photo(self) -> bool:
        """Whether this is a photo, not a map."""
        return self.values.ndim == 3

    @property
    def aspect(self) -> float:
        """Its height over its width."""
        return self.values.shape[0] / self.values.shape[1]


def share_scale(maps: list[Panel], shared: bool | str, signed: bool | None, percentile: float) -> float:
    """Give each map its scale and its kind of colours; return the number at the end of the colour bar."""
    if shared not in (True, False, "relative", "absolute"):
        raise ValueError(f"shared_scale must be True ('relative'), 'absolute' or False, not {shared!r}")
    for p in maps:
        p.limit, p.signed = find_scale(p.values, percentile, signed)
    if shared:
        two_signs = any(p.signed for p in maps)
        for p in maps:
            p.signed = two_signs
    if shared != "absolute":
        return 1.0
    largest = max(p.limit for p in maps)
    for p in maps:
        p.limit = largest
    return largest


def break_lines(rows: list[list[Panel]], max_columns: int, across: int = 1) -> list[list[Panel]]:
    """Break rows that are too long into lines of about the same length; methods are named once if nothing breaks.

    Rows that need no breaking stand side by side, ``across`` of them on a line.
    """
    if max_columns < 1 or across < 1:
        name, value = ("max_columns", max_columns) if max_columns < 1 else ("across", across)
        raise ValueError(f"{name} must be at least 1, not {value}")
    parts = ceil(len(rows[0]) / max_columns)
    columns = ceil(len(rows[0]) / parts)
    if parts == 1:
        for row in rows[across:]:
            for p in row:
                p.title = p.title if p.is_photo else ""
        return [[p for row in rows[i : i + across] for p in row] for i in range(0, len(rows), across)]
    return [row[i : i + columns] for row in rows for i in range(0, len(row), columns)]


def draw_panels(
    lines: list[list[Panel]], panel: float, unit: float, label: str, alpha: float, cmap: str | Colormap | None, *,
    colorbar: bool,
) -> Figure:  # fmt: skip
    """Draw lines of panels ``panel`` inches wide, whose scales are set, and a colour bar to ``unit`` for each kind of colours."""
    from torchwhy.visualize import drawing as draw

    maps = [p for line in lines for p in line if not p.is_photo]
    kinds = sorted({p.signed for p in maps}) if colorbar else []
    columns = max(len(line) for line in lines)
    width = 2 * MARGIN + columns * panel + (columns - 1) * GAP
    label = draw.wrap(label, width / max(1, len(kinds)) - 0.1, BAR)
    foot = 0.48 + text_height(label, BAR) if kinds else 0.0
    figure, axes = lay_out(lines, panel, width, foot)
    for ax, p in axes:
        draw_panel(ax, p, panel, alpha, cmap)
    for i, kind in enumerate(kinds):
        lay_bar(axes_below(figure, foot, i, len(kinds)), maps, kind, unit, label, alpha, cmap)
    return figure


def lay_out(
    lines: list[list[Panel]], panel: float, width: float, foot: float
) -> tuple[Figure, list[tuple[Axes, Panel]]]:
    """Place the panels by hand, in inches: equal widths, each line as tall as its images and its wrapped text."""
    from torchwhy.visualize import drawing as draw

    heights = []
    for line in lines:
        for p in line:
            p.title, p.caption = draw.wrap(p.title, panel, TITLE), draw.wrap(p.caption, panel, CAPTION)
        above = max(text_height(p.title, TITLE) for p in line)
        heights.append((above, max(p.aspect for p in line) * panel, max(text_height(p.caption, CAPTION) for p in line)))
    height = 2 * MARGIN + sum(map(sum, heights)) + (len(lines) - 1) * GAP + foot
    figure = draw.Picture(figsize=(width, height), dpi=draw.DPI)
    axes, top = [], height - MARGIN
    for line, (above, middle, under) in zip(lines, heights):
        for c, p in enumerate(line):
            left, bottom = MARGIN + c * (panel + GAP), top - above - p.aspect * panel
            box = (left / width, bottom / height, panel / width, p.aspect * panel / height)
            axes.append((figure.add_axes(box), p))
        top -= above + middle + under + GAP
    return figure, axes


def axes_below(figure: Figure, foot: float, i: int, bars: int) -> Axes:
    """Return axes for a colour bar lying in the foot of the figure, one of so many."""
    width, height = figure.get_size_inches()
    length, center = min(2.4, width * 0.6 / bars), width * (i + 0.5) / bars
    return figure.add_axes(((center - length / 2) / width, (foot - 0.2) / height, length / width, 0.09 / height))


def lay_bar(
    cax: Axes, maps: list[Panel], signed: bool, unit: float, label: str, alpha: float, cmap: str | Colormap | None
) -> None:
    """Draw the colour bar of all maps of one kind."""
    from torchwhy.visualize import drawing as draw

    over = any(p.under is not None for p in maps)
    colors = draw.mixed_colormap(alpha, signed, cmap) if over else draw.colormap(signed, cmap)
    clipped = any(is_clipped(p.values, p.limit, signed) for p in maps if p.signed == signed)
    place = {"cax": cax, "orientation": "horizontal"}
    draw.scale_bar([cax], colors, unit, signed, label=label, clipped=clipped, **place)


def text_height(text: str, size: float) -> float:
    """Return the inches that a wrapped text needs, with the distance to its panel."""
    return (text.count("\n") + 1) * size * 1.25 / 72 + 0.07 if text else 0.0


def draw_panel(ax: Axes, p: Panel, panel: float, alpha: float, cmap: str | Colormap | None) -> None:
    """Draw one panel ``panel`` inches wide, its title above it and its caption below."""
    from torchwhy.visualize import drawing as draw

    pixels = p.values
    if not p.is_photo:
        unit = to_unit(p.values, p.limit, p.signed)
        if not p.values.any():
            draw.say_blank(ax, draw.BLANK)
        if p.under is None and not p.values.any():
            pixels = np.ones((*p.values.shape, 3))
        elif p.under is None:
            pixels = draw.to_rgb(unit, p.signed, cmap)
        else:
            pixels = draw.mix_colors(unit, p.under, alpha, p.signed, cmap)
    ax.imshow(pixels, aspect="auto")  # the axes have the image's shape
    draw.frame(ax)
    if p.title:
        ax.set_title(p.title, size=draw.shrunk(p.title, panel, TITLE), pad=4, parse_math=False)
    if p.caption:
        size = draw.shrunk(p.caption, panel, CAPTION)
        ax.set_xlabel(p.caption, size=size, color=draw.QUIET, labelpad=3, parse_math=False)
