"""The picture that fits an attribution's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torchwhy.visualize.bars import bars
from torchwhy.visualize.explained import MAX_IMAGES, plot_explanation
from torchwhy.visualize.explanation_data import is_explanation
from torchwhy.visualize.grid import grid
from torchwhy.visualize.series import series
from torchwhy.visualize.slices import slices

if TYPE_CHECKING:
    import numpy as np
    import torch
    from matplotlib.figure import Figure

    from torchwhy.explanation import Explanation
    from torchwhy.visualize.scaling import AnyOption


def plot(
    attributions: torch.Tensor | np.ndarray | Explanation,
    inputs: torch.Tensor | np.ndarray | None = None,
    *,
    title: str | None = None,
    error: torch.Tensor | np.ndarray | None = None,
    **options: AnyOption,
) -> Figure:
    """Draw the attributions of a batch: maps for images, a coloured line for series, bars for features.

    Args:
        attributions: ``(N, C, H, W)`` are drawn as a :func:`grid`, ``(N, C, D, H, W)`` as the :func:`slices` of the first row,
            ``(N, C, T)`` as the :func:`series` of the first row, ``(N, d)`` as the :func:`bars` of the first row; of more than
            16 images the first 16 are drawn. Of an :class:`torchwhy.Explanation` also texts in their order, several tensors
            side by side, and ``row=`` is the one that is drawn; its features are those of its feature mask, its names and
            errors are drawn, and what is no larger than its rounding is drawn as nothing, which is said.
        inputs: what was explained. Images ``(N, 1 or 3, H, W)`` are drawn under the maps, series as the line; with tokens
            ``(N, T)``, attributions ``(N, T, D)`` are summed over D.
        title: the name of the method; None is an explanation's own.
        error: the standard errors of ``(N, d)``, in the same shape.
        options: handed to the function that draws. Of an explanation ``names`` (or ``tokens``) is what its features are called,
            a string each, and ``kind`` chooses another picture of its features: of one row ``"bars"``, ``"waterfall"`` or
            ``"force"``; of all rows ``"beeswarm"``, ``"decision"``, ``"importance"``, ``"heatmap"`` or ``"scatter"``.

    Returns:
        A new figure.

    Raises:
        ValueError: attributions of another shape.

    >>> import torch
    >>> [ax.get_title() for ax in plot(torch.rand(1, 3), title="three features").get_axes()]
    ['three features']
    """
    if is_explanation(attributions):
        return plot_explanation(attributions, title=title, **options)
    title, dims = title or "", len(attributions.shape)
    if dims == 3 and inputs is not None and tuple(inputs.shape) == tuple(attributions.shape[:2]):
        attributions, error, dims = attributions.sum(2), None, 2
    if dims == 4:
        if len(attributions) > MAX_IMAGES:
            title = f"{title}, {MAX_IMAGES} of {len(attributions)}".lstrip(", ")
            attributions, inputs = attributions[:MAX_IMAGES], None if inputs is None else inputs[:MAX_IMAGES]
        images = inputs if inputs is not None and len(inputs.shape) == 4 and inputs.shape[1] in (1, 3) else None
        return grid({title: attributions}, **{"images": images, "shared_scale": False, **options})
    if dims == 5:
        under = inputs[0] if inputs is not None and inputs.shape[2:] == attributions.shape[2:] else None
        return slices(attributions[0], under, **options)
    if dims == 3:
        signal = inputs if inputs is not None and inputs.shape == attributions.shape else attributions
        return series(signal[0], attributions[0], **{"title": title, **options})
    if dims == 2:
        return bars(attributions[0], **{"title": title, "errors": None if error is None else error[0], **options})
    raise ValueError(
        f"attributions: no picture for the shape {tuple(attributions.shape)}; expected (N, C, D, H, W), (N, C, H, W), "
        "(N, C, T) or (N, d)"
    )
