"""A prompt with pictures: its text on the colours of its units, and its pictures under theirs, on one scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.over_photo import paint
from torchwhy.visualize.scaling import as_array, find_scale, is_clipped
from torchwhy.visualize.text import LINE, text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

WIDTH, TALL, ALPHA = 6.5, 2.6, 0.75  # inches of the figure, of a picture; opacity of the full colour


def text_and_pictures(
    tokens: Sequence[str],
    scores: Array,
    pictures: Array,
    units: Array,
    *,
    percentile: float = 100.0,
    title: str | None = None,
    label: str = "",
) -> Figure:
    """Draw the units of a text and those of the pictures beside it.

    Args:
        tokens: T names of units of text.
        scores: ``(d,)``, first those of the text, then those of the pictures.
        pictures: ``(P, 3, H, W)``, whole numbers to 255.
        units: ``(P, H, W)``, the number of the unit of each pixel: its place in ``scores``; −1 for none, −2 around a picture.
        percentile: of the absolute scores; gets the full colour, of words and pixels.
        title: the text above.
        label: the text at the colour bar.
    """
    from torchwhy.visualize import drawing as draw

    values = as_array(scores, "scores", ndim=(1,))
    photos, numbers = as_array(pictures, "pictures", ndim=(4,)), np.asarray(units)
    limit = find_scale(values, percentile, True)[0]
    written = 0.0
    if tokens:
        long = sum(draw.text_width(f"{token} ", 11.0) for token in tokens)
        written = LINE * (1.3 + int(1.15 * long / (WIDTH - 0.2)))
    figure = draw.Picture(figsize=(WIDTH, TALL + written + 0.4 * bool(title)), dpi=draw.DPI, layout="constrained")
    grid = figure.add_gridspec(2 if tokens else 1, len(photos), height_ratios=(written, TALL) if tokens else None)
    if tokens:
        ax = figure.add_subplot(grid[0, :])
        text(tokens, values[: len(tokens)], ax=ax, colorbar=False, limit=limit, percentile=percentile)
    axes = [figure.add_subplot(grid[-1, i]) for i in range(len(photos))]
    for ax, photo, number in zip(axes, photos, numbers):
        inside = number > -2
        high, wide = int(inside.any(1).sum()), int(inside.any(0).sum())
        number = number[:high, :wide]
        shown = np.where(number >= 0, values[np.maximum(number, 0)], 0.0)
        grey = photo[:, :high, :wide].mean(0) / 255
        pixels = paint(shown, limit, True, grey, "blend", ALPHA, None).pixels
        ax.imshow(grey if pixels is None else pixels)
        draw.frame(ax)
    clipped = is_clipped(values, limit, True)
    draw.scale_bar(axes, draw.mixed_colormap(ALPHA, True, None), limit, True, label=label, clipped=clipped)
    if title:
        figure.suptitle(title, size=10.5)
    return figure
