"""Features of images: superpixels and patches, as feature masks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, axes_by_shape, cells_along, parse_axes
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.rows import expand_like


@torch_defaults()
def superpixels(
    x: Tensor, n_segments: int = 50, *, compactness: float = 10.0, sigma: float = 1.0, axes: str | None = None
) -> Tensor:
    """Return a feature mask of SLIC superpixels, ``(N, 1, H, W)``, for images ``(N, 1 or 3, H, W)`` in any range of values.

    Args:
        x: the images, or with their channels last, ``(N, H, W, 1 or 3)``; the mask's 1 is where the channels are.
        n_segments: about how many superpixels; the rows may differ.
        compactness: how much nearness counts against likeness of colour.
        sigma: the blur before, in pixels.
        axes: where the images have their channels, where their shape does not say it, as ``"NHW"`` of a spectrogram.

    Raises:
        ValueError: not images of one or three channels.

    Paper: Achanta et al. 2012, "SLIC superpixels", as in ``skimage.segmentation.slic``.
    """
    from skimage.segmentation import slic

    lying = axes_by_shape(x.shape) if axes is None else parse_axes(axes, x.shape)
    if not are_pictures(x, lying):
        raise ValueError(
            f"x: expected images (N, 1 or 3, H, W), got {tuple(x.shape)}; use patches, or a mask of your own"
        )
    pixels = lying.channels_first(x).detach().float()
    low, high = pixels.flatten(1).amin(1), pixels.flatten(1).amax(1)
    scaled = (pixels - expand_like(low, pixels)) / expand_like((high - low).clamp(min=1e-12), pixels)
    masks = []
    for image in scaled.permute(0, 2, 3, 1).cpu().numpy():
        gray = image.shape[2] == 1
        found = slic(
            image[..., 0] if gray else image,
            n_segments=n_segments,
            compactness=compactness / 100 if gray else compactness,  # without colour, distances are of a smaller scale
            sigma=sigma,
            start_label=0,
            channel_axis=None if gray else -1,
        )
        masks.append(torch.as_tensor(found).unique(return_inverse=True)[1])
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
