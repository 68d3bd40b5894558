"""Slices of volumes and frames of videos, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.explanation_data import maps_of
from torchwhy.visualize.panels import Panel, break_lines, draw_panels, share_scale
from torchwhy.visualize.scaling import as_array, under_map

if TYPE_CHECKING:
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array


def slices(
    attribution: Array,
    volume: Array | None = None,
    *,
    at: Sequence[int] | None = None,
    axis: int = 0,
    most: int = 12,
    unit: str = "slice",
    signed: bool | None = None,
    percentile: float = 99.0,
    cmap: str | Colormap | None = None,
    alpha: float = 0.9,
    photo: str = "grey",
    label: str = "attribution",
    max_columns: int = 6,
    panel: float = 1.7,
) -> Figure:
    """Draw slices of a volume, or frames of a video, side by side, all on one scale in the attributions' own unit.

    Args:
        attribution: ``(D, H, W)``, or ``(C, D, H, W)``, whose channels are summed; or an :class:`torchwhy.Explanation` of one
            volume.
        volume: what was explained, in the same form: drawn under the maps, brightness on one scale too.
        at: which slices; None takes ``most`` of them, evenly.
        axis: 0, 1 or 2: along D, H or W.
        most: how many are drawn where ``at`` does not say.
        unit: what one is called: "slice", "frame".
        signed: draw two colours (True), or positive values alone (False); None looks at the data.
        percentile: of the absolute values of the whole volume; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        alpha: the opacity of the full colour over the volume, in [0, 1].
        photo: the volume in ``"grey"`` or, of three channels, in ``"colour"``.
        label: the text at the colour bar.
        max_columns: the most slices of a line.
        panel: the width of one, in inches.

    Raises:
        IndexError: a slice that is not there.
        ValueError: another shape, or a number is NaN.

    >>> import numpy
    >>> [ax.get_title() for ax in slices(numpy.ones((9, 4, 4)), at=[0, 8]).get_axes()]
    ['slice 0', 'slice 8', '']
    """
    a = as_array(maps_of(attribution, "attribution"), "attribution", ndim=(3, 4, 5))
    if a.ndim == 5 and len(a) != 1:
        raise ValueError(
            f"attribution must be (D, H, W) or (C, D, H, W), but its shape is {a.shape}; give one row of it"
        )
    a = a[0] if a.ndim == 5 else a
    a = a.sum(0) if a.ndim == 4 else a
    if axis not in (0, 1, 2):
        raise ValueError(f"axis must be 0, 1 or 2, not {axis}")
    n = a.shape[axis]
    chosen = sorted({round(i) for i in np.linspace(0, n - 1, min(most, n))}) if at is None else [int(i) for i in at]
    for i in chosen:
        if not -n <= i < n:
            raise IndexError(f"at: {unit} {i} is not there; there are {n}, 0 to {n - 1}")
    under = None if volume is None else _photos(volume, a.shape, axis, photo)
    maps = [Panel(a.take(i, axis), None if under is None else under[i % n], f"{unit} {i % n}") for i in chosen]
    whole = Panel(a.reshape(len(a), -1), None, "")
    end = share_scale([whole, *maps], "absolute", signed, percentile)
    for p in maps:
        p.limit, p.signed = whole.limit, whole.signed
    return draw_panels(break_lines([maps], max_columns), panel, end, label, alpha, cmap, colorbar=True)


def _photos(volume: Array, shape: tuple[int, ...], axis: int, photo: str) -> list[np.ndarray]:
    """Return what lies under each slice, on one scale of brightness."""
    v = as_array(volume, "volume", ndim=(3, 4, 5))
    v = v[0] if v.ndim == 5 and len(v) == 1 else v
    v = v[None] if v.ndim == 3 else v
    if v.shape[1:] != shape:
        raise ValueError(f"volume must have the attribution's size, {shape}, but its shape is {v.shape}")
    v = v if len(v) in (1, 3) else v.mean(0, keepdims=True)
    low, high = v.min(), v.max()
    v = (v - low) / (high - low) if high > low else np.full_like(v, 0.5)
    return [under_map(v.take(i, axis + 1), photo) for i in range(shape[axis])]
