"""Several methods by several images on one figure, on one scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchwhy.visualize.explanation_data import maps_of
from torchwhy.visualize.panels import Panel, break_lines, draw_panels, share_scale
from torchwhy.visualize.scaling import as_photo, resize_image, to_map, under_map

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption, Array


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
    across: int = 1,
    panel: float = 2.0,
    photo: str = "grey",
) -> Figure:
    r"""Draw methods side by side, an image a row, on one colour scale.

    Methods have different units, so by default each map is divided by its own percentile :math:`p_i`:
    the colours show :math:`a / p_i`, the same in every panel, and say nothing about which method's numbers are larger.
    If one map has two signs, all are drawn in two colours.

    Args:
        attributions: the maps of each method by its name: a batch ``(N, C, H, W)``, a list of N maps, or one map
            ``(C, H, W)`` or ``(H, W)``, or an :class:`torchwhy.Explanation`. Maps smaller than their images are interpolated to
            their size; a map that is 0 everywhere is left blank and says so.
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
        across: how many images stand side by side on a line.
        panel: the width of one panel, in inches.
        photo: what lies under the maps: the ``"grey"`` photo, or the one in ``"colour"``.

    Returns:
        A new figure.

    Raises:
        ValueError: the numbers of rows differ; a map has NaN, another shape, or more pixels than its image; or an option
            is unknown.

    >>> figure = grid({"a": [[0.0, 1.0]], "b": [[-1.0, 1.0]]}, captions={"a": "0.8 s"})
    >>> [ax.get_title() for ax in figure.get_axes()]
    ['a', 'b', '']
    """
    rows = _rows(attributions, images, titles, captions or {}, channels, overlay, photo)
    unit = share_scale([p for row in rows for p in row if not p.is_photo], shared_scale, signed, percentile)
    lines = break_lines(rows, max_columns, across)
    label = label or ("" if shared_scale == "absolute" else f"share of each map's {percentile:g}th percentile")
    return draw_panels(lines, panel, unit, label, alpha, cmap, colorbar=colorbar)


def _rows(
    attributions: Mapping[str, Array | Sequence[Array]],
    images: Array | Sequence[Array] | None,
    titles: str | Sequence[str] | None,
    captions: Mapping[str, str | Sequence[str]],
    channels: str,
    overlay: bool,
    photo: str,
) -> list[list[Panel]]:
    """Return the panels of each image: the photo, then the methods."""
    if not isinstance(attributions, Mapping) or not attributions:
        raise ValueError("attributions must map at least one name to its maps: {'Saliency': maps, ...}")
    if unknown := set(captions) - set(attributions):
        raise ValueError(f"captions has {sorted(unknown)}, which attributions has not: {list(attributions)}")
    if titles and images is None:
        raise ValueError("titles name the images, but images is not given")
    photos = [] if images is None else _each(images)
    maps = {name: _each(maps_of(value, f"attributions[{name!r}]")) for name, value in attributions.items()}
    n = len(photos) or len(next(iter(maps.values())))
    notes = {name: _texts(captions.get(name, ""), n, f"captions[{name!r}]") for name in maps}
    names = _texts(titles or "", n, "titles")
    rows: list[list[Panel]] = []
    for i in range(n):
        row = [] if not photos else [Panel(as_photo(photos[i]), None, names[i])]
        under = None if not photos else under_map(photos[i], photo)
        for name, value in maps.items():
            if len(value) != n:
                raise ValueError(f"attributions[{name!r}] has {len(value)} rows, but there are {n} to draw")
            values = to_map(value[i], channels)
            values = values if under is None else resize_image(values, under.shape[:2])
            row.append(Panel(values, under if overlay else None, name, notes[name][i]))
        rows.append(row)
    return rows


def _each(value: AnyOption) -> list[Array]:
    """Return the rows of a batch (N, C, H, W) or a list of arrays; one array of fewer dimensions is one row."""
    if isinstance(value, (list, tuple)) and isinstance(value[0], (np.ndarray, torch.Tensor)):
        return list(value)
    return list(value) if np.ndim(value) == 4 else [value]


def _texts(value: str | Sequence[str], n: int, name: str) -> list[str]:
    texts = [value] * n if isinstance(value, str) else list(value)
    if len(texts) != n:
        raise ValueError(f"{name} has {len(texts)} texts, but there are {n} images")
    return texts
