"""Intervals of a feature that have about as many rows each."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuantileIntervals:
    """The intervals of a feature, and in which of them each row lies.

    Args:
        ends: ``(K + 1,)``, ascending, in the type of the feature.
        place: ``(N,)``, the number of each row's interval :math:`(z_{k-1}, z_k]`; the first has its lower end too.
    """

    ends: Tensor
    place: Tensor

    @classmethod
    def of(cls, values: Tensor, n: int, feature: object) -> QuantileIntervals:
        """Return at most n intervals of the values ``(N,)`` of a feature.

        Raises:
            ValueError: fewer than two different values, or NaN.
        """
        values = values.contiguous()
        ends = _interval_ends(values, n, feature)
        return cls(ends, torch.bucketize(values, ends[1:-1]))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def end_of(self, rows: Tensor, upper: Tensor) -> Tensor:
        """Return the upper or lower end ``(M,)`` of the intervals of rows ``(M,)``; ``upper`` is 0 or 1 for each."""
        device = self.place.device
        return self.ends[self.place[rows.to(device)] + upper.to(device)].to(rows.device)


def _interval_ends(values: Tensor, n: int, feature: object) -> Tensor:
    """Return the ends ``(K + 1,)`` of at most n intervals with about as many of the values each, in the values' type."""
    if values.is_floating_point() and bool(values.isnan().any()):
        raise ValueError(f"feature={feature!r}: row {int(values.isnan().nonzero()[0])} is NaN; leave such rows out")
    different = values.unique()
    if len(different) < 2:
        raise ValueError(
            f"feature={feature!r}: it is {different[0].item():g} in every row, so that it has no effect here"
        )
    if len(different) <= n + 1:
        return different
    ranks = (torch.arange(n + 1, dtype=torch.double) / n * (len(values) - 1)).ceil().long()  # values that occur
    return values.sort().values[ranks.to(values.device)].unique()
