"""Features of images: superpixels and patches, as feature masks."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.axes import axes_by_shape, parse_axes
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.rows import expand_like


@torch_defaults()
def superpixels(x: Tensor, n_segments: int = 50, *, compactness: float = 10.0, sigma: float = 1.0) -> Tensor:
    """Return a feature mask of SLIC superpixels, ``(N, 1, H, W)``, for images ``(N, 1 or 3, H, W)`` in any range of values.

    Args:
        x: the images.
        n_segments: about how many superpixels; the rows may differ.
        compactness: how much nearness counts against likeness of colour.
        sigma: the blur before, in pixels.

    Raises:
        ValueError: not images of one or three channels.

    Paper: Achanta et al. 2012, "SLIC superpixels", as in ``skimage.segmentation.slic``.
    """
    from skimage.segmentation import slic

    if x.dim() != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"x: expected images (N, 1 or 3, H, W), got {tuple(x.shape)}; use patches, or a mask of your own"
        )
    pixels = x.detach().float()
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
    return torch.stack(masks)[:, None].to(x.device)


def patches(x: Tensor, grid: int = 7, axes: str | None = None) -> Tensor:
    """Return a feature mask ``(1, 1, *spatial)`` of ``grid`` patches along each dimension, for inputs ``(N, C, *spatial)``.

    ``axes`` says where the inputs have their channels, where their shape does not, as ``"NTF"`` of series; the mask's 1 is there.

    >>> patches(torch.zeros(1, 3, 4, 4), 2)[0, 0].tolist()
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]

    Raises:
        ValueError: no spatial dimensions, or fewer elements than patches along one.
    """
    lying = axes_by_shape(x.shape) if axes is None and x.dim() > 2 else None
    lying = lying if axes is None else parse_axes(axes, x.shape)
    shape = () if lying is None else lying.size_of(x)
    if lying is None or not 1 <= grid <= min(shape):
        raise ValueError(
            f"grid={grid}: expected 1 to the shortest side of inputs (N, C, ...), which have {tuple(x.shape)}"
        )
    mask = torch.zeros((), dtype=torch.long, device=x.device)
    for n in shape:
        mask = mask[..., None] * grid + torch.arange(n, device=x.device) * grid // n
    return lying.restore(mask[None, None])
