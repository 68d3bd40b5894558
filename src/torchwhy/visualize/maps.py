"""Maps of images: heat, sign, and heat over the photo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.explanation_data import maps_of
from torchwhy.visualize.over_photo import draw_contours, paint
from torchwhy.visualize.scaling import find_scale, is_clipped, of_sign, resize_image, to_map, to_unit, under_map

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption, Array


def heatmap(
    attribution: Array,
    image: Array | None = None,
    *,
    ax: Axes | None = None,
    signed: bool | None = None,
    channels: str = "sum",
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    alpha: float = 0.9,
    colorbar: bool = True,
    title: str | None = None,
    label: str = "",
    photo: str = "grey",
    style: str = "blend",
    sign: str = "all",
) -> Figure:
    """Draw one attribution as colours, alone or over its image, with its own numbers on the colour bar.

    A map with negative values gets two colours, blue below and red above, and zero is exactly white; others run from
    black to yellow. A map that is 0 everywhere is left blank and says so.

    Args:
        attribution: ``(C, H, W)``, ``(1, H, W)`` or ``(H, W)``, or an :class:`torchwhy.Explanation` of one image.
        image: ``(3, H, W)`` or ``(1, H, W)``, of any range; it is greyed under the map, a smaller map is interpolated to
            its size, and colours become more opaque with the map: zero leaves the photo.
        ax: the axes to draw on.
        signed: draw two colours (True), or positive values alone (False), whatever the map holds.
        channels: how channels are joined: ``"sum"``, ``"max"`` or ``"norm"``, see :func:`to_map`.
        percentile: of the absolute values; gets the full colour. A pointed colour bar says that larger ones are clipped.
        cmap: a colour map of matplotlib, or its name.
        alpha: the opacity of the full colour over an image, in [0, 1].
        colorbar: draw the colour bar.
        title: the text above the map.
        label: the text at the colour bar.
        photo: ``"grey"``, or ``"colour"``: the photo keeps its colours.
        style: with an image: ``"blend"`` lays the map over it; ``"contour"`` draws lines around half and three quarters of
            the full colour; ``"mask"`` multiplies the photo with the map, black where that is 0; ``"alpha"`` fades it to
            white there. The latter two go by the absolute value and keep the photo's colours.
        sign: draw ``"all"`` values, the ``"positive"`` or ``"negative"`` ones alone, or the ``"absolute"`` values.

    Raises:
        ValueError: NaN, another shape, a map larger than its image, or an unknown option.

    >>> heatmap([[0.0, 1.0], [2.0, 3.0]]).get_axes()[0].images[0].get_clim()[0]
    0.0
    """
    from torchwhy.visualize import drawing as draw

    values, under = _map_and_photo(attribution, image, channels, photo if style in ("blend", "contour") else "colour")
    values = of_sign(values, sign)
    limit, signed = find_scale(values, percentile, signed)
    aspect = values.shape[0] / values.shape[1]
    low = aspect < 0.4  # the colour bar goes below, where there is room for it
    width, height = 4.0 + (colorbar and not low) * (0.85 + 0.2 * bool(label)), 4.0 * np.clip(aspect, 0.15, 2.0)
    figure, ax = draw.axes_for(ax, width, height + 0.3 * bool(title) + 0.6 * (colorbar and low))
    painted = paint(values, limit, signed, under, style, alpha, cmap)
    if painted.pixels is None:
        ax.imshow(values, cmap=painted.colors, vmin=-limit if signed else 0, vmax=limit or 1)
    else:
        ax.imshow(painted.pixels)
    if not values.any():
        draw.say_blank(ax, draw.BLANK)
    elif style == "contour" and under is not None:
        draw_contours(ax, values, limit, signed, painted.colors)
    draw.frame(ax)
    draw.heading(ax, title)
    if colorbar:
        place = {"location": "bottom", "fraction": 0.4, "shrink": 0.6, "aspect": 30} if low else {}
        clipped = is_clipped(values, limit, signed)
        draw.scale_bar([ax], painted.colors, limit, painted.signed, label=label, clipped=clipped, **place)
    return figure


def signed_map(attribution: Array, **options: AnyOption) -> Figure:
    """Draw one attribution in two colours on a symmetric scale, zero white: :func:`heatmap` with ``signed=True``."""
    return heatmap(attribution, signed=True, **options)


def overlay(image: Array, attribution: Array, alpha: float = 0.9, **options: AnyOption) -> Figure:
    """Draw one attribution over its greyed image: :func:`heatmap` with ``image``."""
    return heatmap(attribution, image=image, alpha=alpha, **options)


def blend(
    image: Array,
    attribution: Array,
    alpha: float = 0.9,
    *,
    signed: bool | None = None,
    channels: str = "sum",
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    photo: str = "grey",
) -> np.ndarray:
    r"""Return the pixels of :func:`overlay` as an array, for other tools: no figure, frame or colour bar.

    :math:`(1 - \alpha |u|)\,g + \alpha |u|\,c(u)` with the photo :math:`g`, the map :math:`u` after
    :func:`normalize`, and its colours :math:`c`, less those next to white or black.

    Args:
        image, attribution, alpha, signed, channels, percentile, cmap, photo: as of :func:`heatmap`.

    Returns:
        An array ``(H, W, 3)``, float64 in [0, 1].

    Raises:
        ValueError: as :func:`heatmap`.
    """
    from torchwhy.visualize import drawing as draw

    values, under = _map_and_photo(attribution, image, channels, photo)
    if under is None:
        raise ValueError("image: there is none to lay the map over")
    limit, signed = find_scale(values, percentile, signed)
    return draw.mix_colors(to_unit(values, limit, signed), under, alpha, signed, cmap)


def _map_and_photo(
    attribution: Array, image: Array | None, channels: str, photo: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the map, and the photo under it: then the map has its size."""
    values = to_map(maps_of(attribution, "attribution"), channels)
    under = None if image is None else under_map(image, photo)
    return (values, None) if under is None else (resize_image(values, under.shape[:2]), under)
