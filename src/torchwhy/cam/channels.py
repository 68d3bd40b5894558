"""Channels of activations: the ones with the most activity, and the masks that they make for the picture."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.layers.grid_layout import resize_maps
from torchwhy.engine.run.rows import expand_like


def top_channels(a: Tensor, most: int | None) -> Tensor:
    """Say which channels of ``a`` ``(N, C, *grid)`` are among the ``most`` with the largest sums of squares, ``(N, C)``."""
    energy = a.flatten(2).square().sum(2)
    if most is None or most >= energy.shape[1]:
        return torch.ones_like(energy, dtype=torch.bool)
    return torch.zeros_like(energy, dtype=torch.bool).scatter_(1, energy.topk(most, dim=1).indices, True)


def unit_range_masks(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Return maps ``(M, *grid)`` brought to ``size`` and to [0, 1]; those that are the same everywhere become 0."""
    flat, large = maps.flatten(1), resize_maps(maps[:, None], size)[:, 0]
    low, high = large.flatten(1).amin(1), large.flatten(1).amax(1)
    varies = (flat.amax(1) > flat.amin(1)) & (high > low)
    span = torch.where(varies, high - low, 1)
    return torch.where(expand_like(varies, large) > 0, (large - expand_like(low, large)) / expand_like(span, large), 0)


def broadcast_to_picture(masks: Tensor, picture: Tensor, channels: int | None) -> Tensor:
    """Return masks ``(M, *size)`` so that they multiply pictures ``(M, ...)`` with these ``channels``, in their type."""
    masks = masks.to(picture)
    return masks if channels is None else masks.unsqueeze(channels)
