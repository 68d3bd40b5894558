"""P-values of many tests at once."""

from __future__ import annotations

import torch
from torch import Tensor


def holm(p_values: Tensor) -> Tensor:
    """Return p-values ``(k,)`` adjusted so that the chance of one false finding or more is bounded (Holm 1979)."""
    order = p_values.argsort(stable=True)
    k = len(p_values)
    factors = torch.arange(k, 0, -1, dtype=p_values.dtype)
    adjusted = (p_values[order] * factors).clamp(max=1)
    return torch.empty_like(p_values).index_copy_(0, order, adjusted.cummax(0).values if k else adjusted)


def benjamini_hochberg(p_values: Tensor) -> Tensor:
    """Return p-values ``(k,)`` adjusted so that the share of false ones among the findings is bounded, on the mean.

    Paper: Benjamini and Hochberg 1995, doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    order = p_values.argsort(descending=True, stable=True)
    k = len(p_values)
    adjusted = (p_values[order] * k / torch.arange(k, 0, -1, dtype=p_values.dtype)).clamp(max=1)
    return torch.empty_like(p_values).index_copy_(0, order, adjusted.cummin(0).values if k else adjusted)
