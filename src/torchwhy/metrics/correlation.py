"""Correlations row by row, of numbers or of their ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(a: Tensor, b: Tensor, *, noise: float = 1e-6, floor: Tensor | float = 0.0) -> Tensor:
    """Return the correlation of (N, S) with (N, S), row by row, (N,).

    NaN where either varies by no more than ``noise`` times its size, or b by no more than ``floor`` (N,): rounding has no
    correlation with anything.
    """
    a, b = a.double(), b.double()
    least = [noise * a.abs().amax(1), torch.maximum(noise * b.abs().amax(1), torch.as_tensor(floor, device=b.device))]
    a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
    steady = [t.abs().amax(1) <= size for t, size in zip((a, b), least)]
    norm = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(steady[0] | steady[1], torch.nan, (a * b).sum(1) / norm)


def average_ranks(values: Tensor) -> Tensor:
    """Return ranks (N, d) from 0, rising with the values; equal values share the mean of theirs."""
    ordered = values.sort(1).values.contiguous()
    low, high = (torch.searchsorted(ordered, values.contiguous(), right=side) for side in (False, True))
    return (low + high - 1).double() / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Return the rank correlation of (N, d) with (N, d), row by row, (N,); NaN where either does not vary."""
    return pearson(average_ranks(a), average_ranks(b))


def rank_similarity(a: Tensor, b: Tensor, *, absolute: bool) -> Tensor:
    """Return the rank correlation of explanations (N, d), of their absolute values with ``absolute``, (N,).

    NaN where the first is constant, 0 where only the second is.
    """
    if absolute:
        a, b = a.abs(), b.abs()
    alone = spearman(a, a)
    return torch.where(alone.isnan(), alone, spearman(a, b).nan_to_num(0.0)).to(a.dtype)
