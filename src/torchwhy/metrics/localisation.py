"""Localisation: does the map lie on the pixels that are known to matter?

All take maps ``(N, H, W)`` or ``(N, C, H, W)``, whose channels are summed, and a mask of the known pixels, ``(N, H, W)`` or
``(N, 1, H, W)``, of which each row has at least one; no model is run. Likewise a series or a video with a mask of its steps
or of its frames' pixels: the mask's shape, ``(N, *places)``, says which axis of the maps holds the channels, where it fits
several the first. An explanation knows its axes. ``sign`` says how negative attributions count: ``"positive"`` takes the
positive part of the sum over the channels, ``"absolute"`` the sum of the absolute values.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.axes import Axes
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.explanation import Explanation
from torchwhy.explanation.features import axes_of_explanation
from torchwhy.metrics.correlation import average_ranks
from torchwhy.metrics.definition import metric
from torchwhy.metrics.features_of_attributions import tensors_of
from torchwhy.settings import Count, NotNegative, ShareBelowOne

Sign = Literal["positive", "absolute"]


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:1608.00507", is_binary=True)
@torch_defaults()
def pointing_game(
    attributions: Tensor, mask: Tensor, *, tolerance: NotNegative = 0.0, sign: Sign = "positive"
) -> Tensor:
    """Return 1 where the largest attribution lies on the mask, else 0, (N,).

    Where several pixels share the largest attribution, the share of them that lie on it: for a constant map the area.

    Args:
        attributions, mask, sign: see :mod:`torchwhy.metrics.localisation`.
        tolerance: pixels within this Euclidean distance of the mask count as on it.

    Paper: Zhang et al. 2016, arXiv:1608.00507, section 4.1, with a tolerance of 15 pixels.

    >>> pointing_game(torch.tensor([[[3.0, 1], [0, 0]]]), torch.tensor([[[True, False], [False, False]]]))
    tensor([1.])
    """
    maps, mask = _maps(attributions, mask, sign)
    mask = _widened(mask, tolerance)
    largest = maps == maps.flatten(1).amax(1).view(-1, *[1] * (maps.dim() - 1))
    return (largest & mask).flatten(1).sum(1).to(maps) / largest.flatten(1).sum(1)


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:2003.07258")
@torch_defaults()
def relevance_mass(attributions: Tensor, mask: Tensor, *, sign: Sign = "positive") -> Tensor:
    r"""Compute the share of the map that lies on the mask: :math:`\sum_{u \in M} a_{nu} / \sum_u a_{nu}`, (N,).

    NaN where all is 0.

    Paper: Arras et al. 2022, arXiv:2003.07258, equation 1.
    """
    maps, mask = _maps(attributions, mask, sign)
    return (maps * mask).flatten(1).sum(1) / maps.flatten(1).sum(1)


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:1910.01279")
@torch_defaults()
def energy_pointing_game(attributions: Tensor, mask: Tensor) -> Tensor:
    """Compute the share of the positive part of the map on the mask, (N,): :func:`relevance_mass` with ``sign="positive"``.

    Paper: Wang et al. 2020 (Score-CAM), arXiv:1910.01279, section 4.3, with a box for the mask.
    """
    return relevance_mass(attributions, mask, sign="positive")


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:2003.07258")
@torch_defaults()
def relevance_rank(attributions: Tensor, mask: Tensor, *, sign: Sign = "positive") -> Tensor:
    r"""Compute the share of the \|M\| largest attributions that lie on the mask, \|M\| being its size, (N,).

    Pixels that tie for the last places count by their share: a constant map scores as much as the area of the mask.

    Paper: Arras et al. 2022, arXiv:2003.07258, equation 2.
    """
    maps, mask = _maps(attributions, mask, sign)
    return _on_mask(maps, mask, mask.flatten(1).sum(1))


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:2104.14995")
@torch_defaults()
def top_k_intersection(attributions: Tensor, mask: Tensor, *, k: Count = 100, sign: Sign = "positive") -> Tensor:
    """Compute the share of the k largest attributions that lie on the mask, (N,); ties as for :func:`relevance_rank`.

    At most 1 only where the mask has k pixels.

    Paper: Theiner et al. 2021, arXiv:2104.14995.
    """
    maps, mask = _maps(attributions, mask, sign)
    if k > mask[0].numel():
        raise ValueError(f"k={k}: a map has {mask[0].numel()} pixels")
    return _on_mask(maps, mask, torch.full((len(maps),), k, device=maps.device))


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="doi:10.1016/j.patrec.2005.10.010")
@torch_defaults()
def auc(attributions: Tensor, mask: Tensor, *, sign: Sign = "positive") -> Tensor:
    """Compute the chance that a pixel on the mask has a larger attribution than one off it, ties counting half, (N,).

    The area under the receiver operating characteristic; 0.5 for a constant map. The mask may not cover a whole row.

    Paper: Fawcett 2006, doi:10.1016/j.patrec.2005.10.010.
    """
    maps, mask = _maps(attributions, mask, sign)
    if bool(mask.flatten(1).all(1).any()):
        raise ValueError("mask: covers a whole row: there is nothing to tell it from")
    on = mask.flatten(1)
    ranks, number = average_ranks(maps.flatten(1)), on.sum(1).double()
    wins = (ranks * on).sum(1) - number * (number - 1) / 2
    return (wins / (number * (~on).sum(1))).to(maps)


@metric(higher_is_better=True, range=(0, 1), sum_channels=False, paper="arXiv:1512.04150")
@torch_defaults()
def iou(attributions: Tensor, mask: Tensor, *, threshold: ShareBelowOne = 0.5, sign: Sign = "positive") -> Tensor:
    """Compute the intersection over union of the mask and the pixels above ``threshold`` times the row's largest, (N,).

    NaN where all is 0.

    Paper: as Zhou et al. 2016, arXiv:1512.04150, section 3.2, where the threshold is 0.2 and boxes are compared.
    """
    maps, mask = _maps(attributions, mask, sign)
    maps, mask = maps.flatten(1), mask.flatten(1)
    largest = maps.amax(1)
    marked = maps > threshold * largest[:, None]
    shares = (marked & mask).sum(1).to(maps) / (marked | mask).sum(1)
    return torch.where(largest > 0, shares, torch.nan)


def _maps(attributions: Tensor, mask: Tensor, sign: Sign) -> tuple[Tensor, Tensor]:
    """Return maps (N, *places), none negative, and masks (N, *places).

    Raises:
        ValueError: no maps, or a mask of another shape, of other numbers than 0 and 1, or with an empty row.
    """
    told = axes_of_explanation(attributions) if isinstance(attributions, Explanation) else None
    found = tensors_of(attributions)
    if len(found) != 1 or found[0].dim() not in (2, 3, 4, 5):
        raise ValueError(
            f"attributions: expected maps (N, H, W) or (N, C, H, W), got {', '.join(str(tuple(t.shape)) for t in found)}"
        )
    maps, mask = _with_mask(found[0], torch.as_tensor(mask, device=found[0].device), told)
    maps = maps.sum(1).clamp(min=0) if sign == "positive" else maps.abs().sum(1)
    if mask.is_floating_point() and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("mask: expected True or 1 where a pixel is known to matter, False or 0 elsewhere")
    mask = mask.bool()
    empty = (~mask.flatten(1).any(1)).nonzero()[:, 0].tolist()
    if empty:
        raise ValueError(f"mask: row {empty[0]} has no pixel")
    return maps, mask


def _with_mask(maps: Tensor, mask: Tensor, axes: Axes | None) -> tuple[Tensor, Tensor]:
    """Return maps with their channels in front, (N, C, *places), and the mask (N, *places).

    Args:
        maps, mask: as they are given, the mask perhaps with an axis of one channel.
        axes: of the maps, None where the mask's shape says which axis holds the channels.

    Raises:
        ValueError: a mask that fits no axis.
    """
    given = maps.shape
    if axes is not None:
        mask = axes.channels_first(mask) if mask.dim() == maps.dim() else mask
        maps = axes.channels_first(maps)
    maps = maps[:, None] if mask.dim() > maps.dim() else maps
    channels = next((i for i in range(1, maps.dim()) if mask.shape in _without(maps.shape, i)), None)
    if channels is not None:
        return maps.movedim(channels, 1), mask.squeeze(channels) if mask.dim() == maps.dim() else mask
    if mask.shape != maps.shape:
        raise ValueError(f"mask: shape {tuple(mask.shape)} does not fit the maps' {tuple(given)}")
    return maps[:, None], mask  # neither has channels


def _without(shape: torch.Size, channels: int) -> tuple[torch.Size, torch.Size]:
    """Return what a mask's shape may be beside maps of this one: without channels, or with one."""
    before, after = shape[:channels], shape[channels + 1 :]
    return torch.Size((*before, *after)), torch.Size((*before, 1, *after))


def _widened(mask: Tensor, tolerance: float) -> Tensor:
    """Return a mask (N, *places) with all places within a Euclidean distance of it."""
    r, dims = int(tolerance), mask.dim() - 1
    if not r:
        return mask
    steps = torch.meshgrid([torch.arange(-r, r + 1, device=mask.device)] * dims, indexing="ij")
    ball = (torch.stack(steps).square().sum(0) <= tolerance**2).float()
    convolve = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    return convolve(mask[:, None].float(), ball[None, None], padding=r)[:, 0] > 0.5


def _on_mask(maps: Tensor, mask: Tensor, k: Tensor) -> Tensor:
    """Return the share of the k (N,) largest pixels of each map on the mask, ties shared."""
    flat, on = maps.flatten(1), mask.flatten(1)
    last = flat.sort(1, descending=True).values.gather(1, k[:, None] - 1)
    above, level = flat > last, flat == last
    sure, places = (above & on).sum(1).double(), (k - above.sum(1)).double()
    return ((sure + places * (level & on).sum(1) / level.sum(1)) / k).to(maps)
