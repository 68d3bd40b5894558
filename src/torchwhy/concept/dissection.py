"""Network dissection: which unit of a layer responds to which concept."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchwhy.analysis import Analysis
from torchwhy.engine.layers.grid_layout import resize_maps
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.settings import Fraction
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption

HISTOGRAM_BINS = 2**16
AnnotatedImages = Iterable[tuple[Tensor, Mapping[str, Tensor | np.ndarray]]]
MAX_COMPARED_ELEMENTS = 2**24  # of maps in the size of the masks, compared at once


@dataclass(frozen=True, repr=False)
class Dissection(Viewable):
    """The overlap of the units of a layer with concepts.

    Args:
        concepts: the concepts' names.
        iou: ``(units, concepts)``, intersection over union of where the unit is high and where the concept is, in [0, 1];
            NaN for a concept that never appears.
        thresholds: ``(units,)``, above which a unit is high.
        layer: the layer.
    """

    concepts: tuple[str, ...]
    iou: Tensor
    thresholds: Tensor
    layer: str

    def detectors(self, threshold: float = 0.04) -> list[tuple[int, str, float]]:
        """Return the units whose best concept has more than this IoU: (unit, concept, IoU), the best first."""
        best, which = self.iou.nan_to_num(0.0).max(1)
        order = best.argsort(descending=True).tolist()
        return [(u, self.concepts[int(which[u])], float(best[u])) for u in order if best[u] > threshold]

    def _picture(self, pictures: ModuleType, **options: AnyOption) -> Figure:
        most = options.pop("top", 10)
        found = {f"unit {unit}: {concept}": iou for unit, concept, iou in self.detectors(-1.0)[:most]}
        shown = {"top": len(found), "xlabel": "IoU of the unit's best concept", "signed": False}
        shown["title"] = f"{self.layer}, {len(found)} of {len(self.iou)} units"
        return pictures.bars(found, **{**shown, **options})

    def _table(self) -> Table:
        lines: list[list[object]] = [
            [unit, concept, iou, threshold]
            for unit, (row, threshold) in enumerate(zip(self.iou.tolist(), self.thresholds.tolist()))
            for concept, iou in zip(self.concepts, row)
        ]
        return ["unit", "concept", "IoU", "threshold"], lines


class NetworkDissection(Analysis):
    r"""The overlap of a unit's high activations with a concept's masks over a data set.

    :math:`\mathrm{IoU}_{kc} = \sum |M_k \cap L_c| / \sum |M_k \cup L_c|`, the sums over images.
    :math:`M_k` is where the activation map of unit (channel) k, resized to the masks' size, exceeds :math:`T_k`, the value
    that the share ``quantile`` of all its activations exceeds; :math:`L_c` is the concept's mask.

    Args:
        layer: a layer that passes ``(N, units, h, w)``.
        quantile: the share of activations that count as high.

    Paper: Bau et al. 2017, arXiv:1704.05796, section 3.2. The threshold comes from a histogram with a relative resolution of
    1/128 or better, so that no activations are kept: memory does not grow with the data.
    """

    layer: LayerLike
    quantile: Fraction = 0.005

    @torch_defaults()
    def measure(self, data: AnnotatedImages) -> Dissection:
        """Go through ``data`` twice: for the thresholds, and for the overlaps.

        Args:
            data: a data loader or a list: pairs of images ``(N, C, H, W)`` and a dict of masks ``(N, H', W')``, tensors or
                arrays, by the concept's name. A concept that a batch does not name counts as not annotated in its images.

        Raises:
            TypeError: data that can be gone through only once, or that are no such pairs.
            ValueError: no data, no concepts, activations that are not maps, masks that do not fit the images.
        """
        if iter(data) is data:
            raise TypeError(
                "data: an iterator can be gone through only once, and it takes two; give a list or a DataLoader"
            )
        thresholds = self._thresholds(data)
        both: dict[str, Tensor] = {}
        either: dict[str, Tensor] = {}
        seen: dict[str, Tensor] = {}
        for maps, masks in self._maps(data):
            where = {name: self._mask(name, mask, maps) for name, mask in masks.items()}
            for name, mask in where.items():
                seen[name] = seen.get(name, 0) + mask.sum()
                for counts in (both, either):
                    counts.setdefault(name, torch.zeros(maps.shape[1], dtype=torch.long, device=maps.device))
            for size in {tuple(mask.shape[2:]) for mask in where.values()}:
                of_size = {name: mask for name, mask in where.items() if tuple(mask.shape[2:]) == size}
                for rows, high in _where_high(maps, thresholds, size):
                    each = high.sum((0, 2, 3))
                    for name, mask in of_size.items():
                        overlap = (high & mask[rows]).sum((0, 2, 3))
                        both[name] += overlap
                        either[name] += each + mask[rows].sum() - overlap
        if not both:
            raise ValueError("data: no concept in it, all dicts of masks are empty")
        iou = torch.stack([both[c].double() / either[c] for c in both], 1)
        present = torch.stack([seen[c] > 0 for c in both])
        return Dissection(tuple(both), iou.where(present, torch.nan), thresholds, str(self.layer))

    def _thresholds(self, data: AnnotatedImages) -> Tensor:
        """Return the value of each unit that the share ``quantile`` of its activations exceeds, ``(units,)``.

        Raises:
            ValueError: no data.
        """
        histogram: Tensor | None = None
        for maps, _ in self._maps(data):
            bins = _bin(maps).movedim(1, 0).flatten(1)
            if histogram is None:
                histogram = bins.new_zeros(len(bins), HISTOGRAM_BINS)
            histogram.scatter_add_(1, bins, torch.ones_like(bins))
        if histogram is None:
            raise ValueError("data: no batches in it")
        # of 64 units at a time
        return torch.cat([_threshold(part, self.quantile) for part in histogram.split(64)])

    def _maps(self, data: AnnotatedImages) -> Iterator[tuple[Tensor, Mapping[str, Tensor | np.ndarray]]]:
        """Yield the layer's maps ``(N, units, h, w)`` and the masks, batch by batch.

        Raises:
            TypeError: no pairs of images and masks.
            ValueError: the layer passes no maps.
        """
        for batch in data:
            if not (isinstance(batch, (tuple, list)) and len(batch) == 2 and isinstance(batch[1], Mapping)):
                got = type(batch).__name__ + (
                    f" ({', '.join(type(b).__name__ for b in batch)})" if isinstance(batch, (tuple, list)) else ""
                )
                raise TypeError(
                    f"data: expected pairs (images, dict of masks (N, H, W) by the concept's name), got a {got}"
                )
            images, masks = batch
            with self.problem(images, layer=self.layer) as problem:
                maps = problem.run.activations(problem.read_layers, problem.x, problem.rows)[0].float()
            if maps.dim() != 4:
                raise ValueError(
                    f"layer: {problem.input_name} passes rows of shape {tuple(maps.shape[1:])}; expected maps (units, h, w)"
                )
            yield maps, masks

    @staticmethod
    def _mask(name: str, mask: Tensor | np.ndarray, maps: Tensor) -> Tensor:
        """Return a mask ``(N, 1, H, W)``, True where the concept is.

        Raises:
            ValueError: not one mask for each image.
        """
        mask = torch.as_tensor(mask)
        if mask.dim() != 3 or len(mask) != len(maps):
            raise ValueError(
                f"masks[{name!r}]: shape {tuple(mask.shape)}; expected ({len(maps)}, H, W), one for each image"
            )
        return (mask[:, None] > 0).to(maps.device)


def _where_high(maps: Tensor, thresholds: Tensor, size: tuple[int, ...]) -> Iterator[tuple[slice, Tensor]]:
    """Yield rows and where their maps, resized, exceed the thresholds, ``(n, units, *size)``, as many at a time as fit."""
    images = max(1, MAX_COMPARED_ELEMENTS // (maps.shape[1] * math.prod(size)))
    for start in range(0, len(maps), images):
        rows = slice(start, start + images)
        yield rows, resize_maps(maps[rows], size) > thresholds[:, None, None].to(maps)


def _bin(values: Tensor) -> Tensor:
    """Return the bin of each float32: its upper 16 bits, made to rise with the value."""
    bits = values.contiguous().view(torch.int32) >> 16
    return torch.where(bits < 0, -(bits & 0x7FFF), bits).long() + HISTOGRAM_BINS // 2


def _threshold(histogram: Tensor, quantile: float) -> Tensor:
    """Return for each unit the bin that holds its quantile, by the end nearer to zero, ``(units,)``."""
    above = histogram.flip(1).cumsum(1).flip(1)  # how many lie in a bin or above it
    enough = above >= quantile * histogram.sum(1, keepdim=True)
    at = enough.sum(1) - 1 - HISTOGRAM_BINS // 2  # the last bin for which that holds
    bits = torch.where(at < 0, (-at) | 0x8000, at)
    return (bits << 16).to(torch.int32).view(torch.float32)
