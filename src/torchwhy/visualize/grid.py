"""Several methods by several images on one figure, on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from torchwhy.visualize.scaling import as_photo, find_scale, grey, is_clipped, resize_image, to_map, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

TITLE, CAPTION, BAR = 9.5, 7.5, 8.0  # sizes of text in points
MARGIN, GAP = 0.08, 0.08  # inches


@dataclass
class _Panel:
    """One picture of the grid: a map (H, W), over the grey photo ``under`` if there is one, or a photo (H, W, 3)."""

    values: np.ndarray
    under: np.ndarray | None
    title: str
    caption: str = ""
    limit: float = 0.0
    signed: bool = False

    @property
    def is_photo(self) -> bool:
        return self.values.ndim == 3

    @property
    def aspect(self) -> float:
        return self.values.shape[0] / self.values.shape[1]


def grid(
    attributions: Mapping[str, Array | Sequence[Array]],
    *,
    images: Array | Sequence[Array] | None = None,
    titles: str | Sequence[str] | None = None,
    captions: Mapping[str, str | Sequence[str]] | None = None,
    shared_scale: bool | str = True,
    overlay: bool = True,
    signed: bool | None = None,
    channels: str = "sum",
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    alpha: float = 0.9,
    colorbar: bool = True,
    label: str = "",
    max_columns: int = 6,
    panel: float = 2.0,
) -> Figure:
    r"""Draw methods side by side, an image a row, on one colour scale.

    Methods have different units, so by default each map is divided by its own percentile :math:`p_i`:
    the colours show :math:`a / p_i`, the same in every panel, and say nothing about which method's numbers are larger.
    If one map has two signs, all are drawn in two colours.

    Args:
        attributions: the maps of each method by its name: a batch ``(N, C, H, W)``, a list of N maps, or one map
            ``(C, H, W)`` or ``(H, W)``. Maps smaller than their images are interpolated to their size.
        images: the same rows ``(N, 3, H, W)``, a list, or one ``(3, H, W)``; drawn first in each row.
        titles: the images' names.
        captions: small text under the panels, by method: a string, or one for each image.
        shared_scale: ``"absolute"`` divides all maps by the largest :math:`p_i`, for maps in the same unit; False lets each
            map choose one colour or two, and draws a colour bar of either kind.
        overlay: draw the maps over the greyed images.
        signed: draw two colours (True), or positive values alone (False), whatever the maps hold.
        channels: how channels are joined: ``"sum"``, ``"max"`` or ``"norm"``, see :func:`to_map`.
        percentile: of the absolute values; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        alpha: the opacity of the full colour over an image, in [0, 1].
        colorbar: draw the colour bar.
        label: the text at the colour bar.
        max_columns: a row of more panels goes on in the next line.
        panel: the width of one panel, in inches.

    Returns:
        A new figure.

    Raises:
        ValueError: the numbers of rows differ; a map has NaN, another shape, or more pixels than its image; or an option
            is unknown.

    >>> figure = grid({"a": [[0.0, 1.0]], "b": [[-1.0, 1.0]]}, captions={"a": "0.8 s"})
    >>> [ax.get_title() for ax in figure.get_axes()]
    ['a', 'b', '']
    """
    from torchwhy.visualize import drawing as draw

    rows = _rows(attributions, images, titles, captions or {}, channels, overlay)
    maps = [p for row in rows for p in row if not p.is_photo]
    unit = _share(maps, shared_scale, signed, percentile)
    kinds = sorted({p.signed for p in maps}) if colorbar else []
    lines = _broken(rows, max_columns)
    columns = max(len(line) for line in lines)
    width = 2 * MARGIN + columns * panel + (columns - 1) * GAP
    label = label or ("" if shared_scale == "absolute" else f"share of each map's {percentile:g}th percentile")
    label = draw.wrap(label, width / max(1, len(kinds)) - 0.1, BAR)
    foot = 0.48 + _height(label, BAR) if kinds else 0.0
    figure, axes = _layout(lines, panel, width, foot)
    for ax, p in axes:
        _draw(ax, p, panel, alpha, cmap)
    for i, kind in enumerate(kinds):
        _lay_bar(_below(figure, foot, i, len(kinds)), maps, kind, unit, label, alpha, cmap)
    return figure


def _share(maps: list[_Panel], shared: bool | str, signed: bool | None, percentile: float) -> float:
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


def _rows(
    attributions: Mapping[str, Array | Sequence[Array]],
    images: Array | Sequence[Array] | None,
    titles: str | Sequence[str] | None,
    captions: Mapping[str, str | Sequence[str]],
    channels: str,
    overlay: bool,
) -> list[list[_Panel]]:
    """Return the panels of each image: the photo, then the methods."""
    if not isinstance(attributions, Mapping) or not attributions:
        raise ValueError("attributions must map at least one name to its maps: {'Saliency': maps, ...}")
    if unknown := set(captions) - set(attributions):
        raise ValueError(f"captions has {sorted(unknown)}, which attributions has not: {list(attributions)}")
    if titles and images is None:
        raise ValueError("titles name the images, but images is not given")
    photos = [] if images is None else _each(images)
    maps = {name: _each(value) for name, value in attributions.items()}
    n = len(photos) or len(next(iter(maps.values())))
    notes = {name: _texts(captions.get(name, ""), n, f"captions[{name!r}]") for name in maps}
    names = _texts(titles or "", n, "titles")
    rows: list[list[_Panel]] = []
    for i in range(n):
        row = [] if not photos else [_Panel(as_photo(photos[i]), None, names[i])]
        under = None if not photos else grey(photos[i])
        for name, value in maps.items():
            if len(value) != n:
                raise ValueError(f"attributions[{name!r}] has {len(value)} rows, but there are {n} to draw")
            values = to_map(value[i], channels)
            values = values if under is None else resize_image(values, under.shape)
            row.append(_Panel(values, under if overlay else None, name, notes[name][i]))
        rows.append(row)
    return rows


def _each(value: Any) -> list[Array]:
    """Return the rows of a batch (N, C, H, W) or a list of arrays; one array of fewer dimensions is one row."""
    if isinstance(value, (list, tuple)) and isinstance(value[0], (np.ndarray, torch.Tensor)):
        return list(value)
    return list(value) if np.ndim(value) == 4 else [value]


def _texts(value: str | Sequence[str], n: int, name: str) -> list[str]:
    texts = [value] * n if isinstance(value, str) else list(value)
    if len(texts) != n:
        raise ValueError(f"{name} has {len(texts)} texts, but there are {n} images")
    return texts


def _broken(rows: list[list[_Panel]], max_columns: int) -> list[list[_Panel]]:
    """Break rows that are too long into lines of about the same length; methods are named once if nothing breaks."""
    if max_columns < 1:
        raise ValueError(f"max_columns must be at least 1, not {max_columns}")
    parts = ceil(len(rows[0]) / max_columns)
    columns = ceil(len(rows[0]) / parts)
    if parts == 1:
        for row in rows[1:]:
            for p in row:
                p.title = p.title if p.is_photo else ""
    return [row[i : i + columns] for row in rows for i in range(0, len(row), columns)]


def _layout(
    lines: list[list[_Panel]], panel: float, width: float, foot: float
) -> tuple[Figure, list[tuple[Axes, _Panel]]]:
    """Place the panels by hand, in inches: equal widths, each line as tall as its images and its wrapped text."""
    from torchwhy.visualize import drawing as draw

    heights = []
    for line in lines:
        for p in line:
            p.title, p.caption = draw.wrap(p.title, panel, TITLE), draw.wrap(p.caption, panel, CAPTION)
        above = max(_height(p.title, TITLE) for p in line)
        heights.append((above, max(p.aspect for p in line) * panel, max(_height(p.caption, CAPTION) for p in line)))
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


def _below(figure: Figure, foot: float, i: int, bars: int) -> Axes:
    """Return axes for a colour bar lying in the foot of the figure, one of so many."""
    width, height = figure.get_size_inches()
    length, center = min(2.4, width * 0.6 / bars), width * (i + 0.5) / bars
    return figure.add_axes(((center - length / 2) / width, (foot - 0.2) / height, length / width, 0.09 / height))


def _lay_bar(
    cax: Axes, maps: list[_Panel], signed: bool, unit: float, label: str, alpha: float, cmap: str | Colormap | None
) -> None:
    """Draw the colour bar of all maps of one kind."""
    from torchwhy.visualize import drawing as draw

    over = any(p.under is not None for p in maps)
    colors = draw.mixed_colormap(alpha, signed, cmap) if over else draw.colormap(signed, cmap)
    clipped = any(is_clipped(p.values, p.limit, signed) for p in maps if p.signed == signed)
    place = {"cax": cax, "orientation": "horizontal"}
    draw.scale_bar([cax], colors, unit, signed, label=label, clipped=clipped, **place)


def _height(text: str, size: float) -> float:
    """Return the inches that a wrapped text needs, with the distance to its panel."""
    return (text.count("\n") + 1) * size * 1.25 / 72 + 0.07 if text else 0.0


def _draw(ax: Axes, p: _Panel, panel: float, alpha: float, cmap: str | Colormap | None) -> None:
    from torchwhy.visualize import drawing as draw

    pixels = p.values
    if not p.is_photo:
        unit = to_unit(p.values, p.limit, p.signed)
        if p.under is None:
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
