"""Means with their confidence intervals, and how well one answer agrees with another."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor


class IntervalEstimate(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: Tensor
    low: Tensor
    high: Tensor


def mean_interval(values: Tensor, confidence: float) -> IntervalEstimate:
    """Return the mean over the first dimension, with Student's interval for independent rows; NaN ends for a single row."""
    from scipy.stats import t

    n = len(values)
    mean = values.mean(0)
    width = values.std(0) / n**0.5 * float(t.ppf((1 + confidence) / 2, n - 1)) if n > 1 else mean * math.nan
    return IntervalEstimate(mean, mean - width, mean + width)


def agreement(outputs: Tensor, others: Tensor) -> float:
    """Measure how well ``others`` stand in for ``outputs``, both ``(N, ...)``.

    Returns:
        Of whole numbers (classes) the share that is equal, else the coefficient of determination
        :math:`R^2 = 1 - \\sum (o - s)^2 / \\sum (o - \\bar o)^2`, of several columns the mean, whatever their units; columns
        that do not vary are left out.
    """
    if not outputs.is_floating_point():
        return float((outputs == others).double().mean())
    outputs, others = (o.double().reshape(len(o), -1) for o in (outputs, others))
    spread = (outputs - outputs.mean(0)).square().sum(0)
    missed = (outputs - others).square().sum(0)[spread > 0] / spread[spread > 0]
    return float(1 - missed.mean()) if len(missed) else math.nan
