"""Ways to show a map and the photo under it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchwhy.visualize.scaling import to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

STYLES = ("blend", "contour", "mask", "alpha")
CONTOURS = (0.5, 0.75)  # of the full colour, where contours run


class Painted(NamedTuple):
    """What is drawn: ``pixels`` (H, W, 3), None for the map by itself; ``colors`` of its colour bar, two-sided or not."""

    pixels: np.ndarray | None
    colors: Colormap
    signed: bool


def paint(
    values: np.ndarray, limit: float, signed: bool, under: np.ndarray | None, style: str, alpha: float,
    cmap: str | Colormap | None,
) -> Painted:  # fmt: skip
    """Return the pixels of a map ``(H, W)`` over a photo ``(H, W)`` or ``(H, W, 3)``, and the colours of its scale.

    Raises:
        ValueError: a style that there is not, or one that needs a photo without one.
    """
    from torchwhy.visualize import drawing as draw

    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, not {style!r}")
    if under is None and style != "blend":
        raise ValueError(f"style={style!r}: shows the photo; give image=")
    unit = to_unit(values, limit, signed)
    if under is None:
        blank = None if values.any() else np.ones((*values.shape, 3))
        return Painted(blank, draw.colormap(signed, cmap), signed)
    if style == "blend":
        return Painted(
            draw.mix_colors(unit, under, alpha, signed, cmap), draw.mixed_colormap(alpha, signed, cmap), signed
        )
    photo = under if under.ndim == 3 else np.repeat(under[..., None], 3, axis=2)
    if style == "contour":
        return Painted(photo, draw.colormap(signed, cmap), signed)
    seen = np.abs(unit)[..., None]
    background = 0.0 if style == "mask" else 1.0
    ends = [(background,) * 3, (0.6, 0.6, 0.6)]
    colors = draw.LinearSegmentedColormap.from_list(style, ends, N=257)
    return Painted(photo * seen + background * (1 - seen), colors, False)


def draw_contours(ax: Axes, values: np.ndarray, limit: float, signed: bool, colors: Colormap) -> None:
    """Draw lines around what has half and three quarters of the full colour, in its colours, edged in white."""
    from matplotlib.patheffects import withStroke

    at = [level * limit for level in CONTOURS]
    levels = sorted([*(-v for v in at), *at]) if signed else at
    levels = [v for v in levels if values.min() < v < values.max()]
    if levels:
        shades = [colors((v / limit + 1) / 2 if signed else v / limit) for v in levels]
        lines = ax.contour(values, levels=levels, colors=shades, linewidths=1.4)
        lines.set_path_effects([withStroke(linewidth=2.6, foreground="white")])
