"""LayerUnits of a layer that are patched together: a position of a sequence, a head, the whole layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

UnitKind = Literal["position", "head", "position and head", "layer"]


@dataclass(frozen=True)
class LayerUnits:
    """The units of a layer's tensor ``(N, positions, width)``, the heads side by side; a whole layer may have any shape.

    Args:
        kind: what a unit is.
        heads: how many there are, where a unit is one.
    """

    kind: UnitKind
    heads: int = 1

    def shape(self, t: Tensor) -> tuple[int, ...]:
        """Return how many units there are: ``(positions,)``, ``(heads,)``, ``(positions, heads)``, or ``(1,)``.

        Raises:
            ValueError: the tensor has no positions, or another width than that of the heads.
        """
        if self.kind == "layer":
            return (1,)
        if t.dim() != 3:
            raise ValueError(
                f"units={self.kind!r}: the layer passes rows of shape {tuple(t.shape[1:])}, expected (positions, width); "
                "units='layer' takes any"
            )
        if t.shape[-1] % self.heads:
            raise ValueError(f"heads={self.heads}: {t.shape[-1]} numbers are not so many heads")
        return {"position": (t.shape[1],), "head": (self.heads,)}.get(self.kind, (t.shape[1], self.heads))

    def numbers(self, t: Tensor) -> Tensor:
        """Return the number of each element's unit, broadcastable to a row of ``t``."""
        if self.kind == "layer":
            return torch.zeros([1] * (t.dim() - 1), dtype=torch.long)
        position, head = torch.arange(t.shape[1])[:, None], torch.arange(t.shape[2]) // (t.shape[2] // self.heads)
        if self.kind == "head":
            return head[None]
        return position if self.kind == "position" else position * self.heads + head

    def sums(self, values: Tensor) -> Tensor:
        """Return the sum over each unit, ``(N, *shape)``."""
        if self.kind == "layer":
            return values.flatten(1).sum(1, keepdim=True)
        each = values.unflatten(-1, (self.heads, -1)).sum(-1)  # (N, positions, heads)
        if self.kind == "position":
            return each.sum(-1)
        return each.sum(1) if self.kind == "head" else each


def stack_layers(each: Sequence[Tensor]) -> Tensor:
    """Return what was found at each layer, ``(N, ...)``, as ``(N, layers, ...)``; 0 where one has fewer units than others."""
    sizes = [max(t.shape[axis] for t in each) for axis in range(1, each[0].dim())]
    filled = [F.pad(t, [p for n, size in reversed(list(zip(t.shape[1:], sizes))) for p in (0, size - n)]) for t in each]
    return torch.stack(filled, 1)
