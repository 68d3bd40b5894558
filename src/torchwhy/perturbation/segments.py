"""Features of images, series and videos: superpixels and patches, as feature masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, axes_by_shape, cells_along, one_for_each, parse_axes
from torchwhy.engine.run.defaults import torch_defaults


@torch_defaults()
def superpixels(
    x: Tensor,
    n_segments: int = 50,
    *,
    compactness: float = 10.0,
    sigma: float | Sequence[float] = 1.0,
    axes: str | None = None,
) -> Tensor:
    """Return a feature mask of SLIC superpixels, ``(N, 1, H, W)``, for images ``(N, C, H, W)`` in any range of values.

    Of series ``(N, C, L)`` they are segments, ``(N, 1, L)``, and of videos ``(N, C, T, H, W)`` parts of some frames,
    ``(N, 1, T, H, W)``, in which a frame is as far from the next one as a pixel. Three channels of an image or a video are
    colours; others are brought to [0, 1] each, and compared by the root of their mean square.

    Args:
        x: the images, or with their channels last, ``(N, H, W, 1 or 3)``; the mask's 1 is where the channels are.
        n_segments: about how many superpixels; the rows may differ.
        compactness: how much nearness counts against likeness of colour.
        sigma: the blur before, in pixels, or one for each axis of places, as ``(0, 1, 1)`` of a video.
        axes: where the images have their channels, where their shape does not say it, as ``"NHW"`` of a spectrogram, or
            ``"NTF"`` of series.

    Raises:
        ValueError: no images, series or videos; another number of blurs than of axes of places.

    Paper: Achanta et al. 2012, "SLIC superpixels", as in ``skimage.segmentation.slic``.
    """
    from skimage.segmentation import slic

    if axes is None and not 3 <= x.dim() <= 5:
        raise ValueError(
            "x: expected images (N, C, H, W), series (N, C, L) or videos (N, C, T, H, W), or axes= as letters, got "
            f"{tuple(x.shape)}; use patches, or a mask of your own"
        )
    lying = axes_by_shape(x.shape) if axes is None else parse_axes(axes, x.shape)
    size, pixels = lying.size_of(x), lying.channels_first(x).detach().float()
    widths, n_channels = list(one_for_each("sigma", sigma, size)), pixels.shape[1]
    colours = n_channels == 3 and len(size) > 1
    together = tuple(range(1 if colours else 2, pixels.dim()))
    low, high = pixels.amin(together, keepdim=True), pixels.amax(together, keepdim=True)
    scaled = (pixels - low) / (high - low).clamp(min=1e-12)
    if len(size) == 1:  # a picture of one line
        scaled, widths = scaled[:, :, None], [0.0, *widths]
    # without colour, distances are of a smaller scale
    nearness = compactness if colours else compactness / 100 * math.sqrt(n_channels)
    masks = []
    for image in scaled.movedim(1, -1).cpu().numpy():
        found = slic(
            image, n_segments=n_segments, compactness=nearness, sigma=widths, start_label=0, channel_axis=-1,
            convert2lab=colours,
        )  # fmt: skip
        masks.append(torch.as_tensor(found).unique(return_inverse=True)[1].view(size))
    return lying.restore(torch.stack(masks)[:, None].to(x.device))


def are_pictures(x: Tensor, axes: Axes) -> bool:
    """Say whether a tensor holds images of one or three channels."""
    return len(axes.spatial) == 2 and (axes.channels is None or x.shape[axes.channels] in (1, 3))


def patches(x: Tensor, grid: int | Sequence[int] = 7, axes: str | None = None) -> Tensor:
    """Return a feature mask ``(1, 1, *spatial)`` of ``grid`` patches along each dimension, for inputs ``(N, C, *spatial)``.

    ``grid`` may be one number for each axis of places, as ``(2, 7, 7)`` of the frames, rows and columns of a video.
    ``axes`` says where the inputs have their channels, where their shape does not, as ``"NTF"`` of series; the mask's 1 is there.

    >>> patches(torch.zeros(1, 3, 4, 4), 2)[0, 0].tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]

    Raises:
        ValueError: no spatial dimensions, or fewer elements than patches along one.
    """
    if axes is None and x.dim() < 3:
        raise ValueError(f"x: expected inputs (N, C, ...) with axes of places, got {tuple(x.shape)}; give axes=")
    lying = axes_by_shape(x.shape) if axes is None else parse_axes(axes, x.shape)
    size = lying.size_of(x)
    mask = torch.zeros((), dtype=torch.long, device=x.device)
    for n, cells in zip(size, cells_along(grid, size)):
        mask = mask[..., None] * cells + torch.arange(n, device=x.device) * cells // n
    return lying.restore(mask[None, None])
