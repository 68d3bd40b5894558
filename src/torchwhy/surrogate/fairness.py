"""Rates of decisions by group, and how far apart they are: demographic parity, equal opportunity, equalized odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.surrogate.intervals import IntervalEstimate


@dataclass(frozen=True)
class FairnessRates:
    """The rates of favourable decisions in each group, with confidence intervals.

    Rates have Wilson's intervals, differences of two rates Newcombe's, ratios those of the logarithm (Katz); rows are taken to be
    independent. The two groups that a difference is between are those with the largest and the smallest rate, so that its
    interval is narrower than that of a difference between groups named before.

    Args:
        selection: the share of favourable decisions, of each group.
        true_positive: of the rows whose label is favourable; None without labels.
        false_positive: of the other rows; None without labels.
        demographic_parity: the largest difference of two groups' ``selection``.
        disparate_impact: the smallest ``selection`` divided by the largest; below 0.8 it breaks the "four fifths rule".
        equal_opportunity: the largest difference of ``true_positive``; None without labels.
        equalized_odds: the larger one of the differences of ``true_positive`` and ``false_positive``; None without labels.
    """

    selection: list[IntervalEstimate]
    true_positive: list[IntervalEstimate] | None
    false_positive: list[IntervalEstimate] | None
    demographic_parity: IntervalEstimate
    disparate_impact: IntervalEstimate
    equal_opportunity: IntervalEstimate | None
    equalized_odds: IntervalEstimate | None

    def __str__(self) -> str:
        lines = [f"favourable decisions: {', '.join(map(_show, self.selection))}"]
        named = {"demographic parity": self.demographic_parity, "disparate impact": self.disparate_impact}
        named |= {"equal opportunity": self.equal_opportunity, "equalized odds": self.equalized_odds}  # type: ignore[dict-item]
        return "\n".join(lines + [f"{name}: {_show(v)}" for name, v in named.items() if v is not None])


def fairness_rates(
    favourable: Tensor, labels: Tensor | None, member: Tensor, groups: int, confidence: float
) -> FairnessRates:
    """Return the rates of decisions by group.

    Args:
        favourable: the decisions, ``(N,)`` of bools.
        labels: whether the favourable decision is the right one, ``(N,)`` of bools, or None.
        member: the group of each row, ``(N,)``.
        groups: how many.
        confidence: of the intervals.

    Papers: Hardt, Price, Srebro 2016, arXiv:1610.02413; Wilson 1927, doi:10.1080/01621459.1927.10502953; Newcombe 1998, method
    10, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))

    def counts(among: Tensor) -> list[tuple[int, int]]:
        each = [(member == g) & among for g in range(groups)]
        return [(int((favourable & e).sum()), int(e.sum())) for e in each]

    selected = counts(torch.ones_like(favourable))
    rates = [wilson(k, n, z) for k, n in selected]
    odds = None if labels is None else [counts(labels), counts(~labels)]
    differences = [] if odds is None else [_apart(c, z, newcombe) for c in odds]
    return FairnessRates(
        selection=rates,
        true_positive=None if odds is None else [wilson(k, n, z) for k, n in odds[0]],
        false_positive=None if odds is None else [wilson(k, n, z) for k, n in odds[1]],
        demographic_parity=_apart(selected, z, newcombe),
        disparate_impact=_apart(selected, z, ratio),
        equal_opportunity=differences[0] if differences else None,
        equalized_odds=max(differences, key=_rank, default=None),
    )


def wilson(k: int, n: int, z: float) -> IntervalEstimate:
    """Return the share k of n with Wilson's score interval; NaN of nothing."""
    if n == 0:
        return _estimate(math.nan, math.nan, math.nan)
    p, shrink = k / n, 1 + z * z / n
    middle, half = (p + z * z / (2 * n)) / shrink, z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / shrink
    return _estimate(p, max(0.0, middle - half), min(1.0, middle + half))


def newcombe(high: tuple[int, int], low: tuple[int, int], z: float) -> IntervalEstimate:
    """Return the difference of two shares with Newcombe's interval, made of Wilson's for each."""
    a, b = wilson(*high, z), wilson(*low, z)
    p, q = float(a.mean), float(b.mean)
    down = math.hypot(p - float(a.low), float(b.high) - q)
    up = math.hypot(float(a.high) - p, q - float(b.low))
    return _estimate(p - q, p - q - down, p - q + up)


def ratio(high: tuple[int, int], low: tuple[int, int], z: float) -> IntervalEstimate:
    """Return the smaller share divided by the larger, with the interval of its logarithm; NaN where nothing is favourable."""
    (k, n), (m, o) = high, low
    if k == 0:
        return _estimate(math.nan, math.nan, math.nan)
    found = (m / o) / (k / n)
    if m == 0:
        return _estimate(0.0, 0.0, math.nan)
    half = z * math.sqrt(1 / m - 1 / o + 1 / k - 1 / n)
    return _estimate(found, found * math.exp(-half), found * math.exp(half))


def _apart(
    counts: list[tuple[int, int]],
    z: float,
    compare: Callable[[tuple[int, int], tuple[int, int], float], IntervalEstimate],
) -> IntervalEstimate:
    """Return how far the groups with the largest and the smallest share are apart; groups without rows are passed over."""
    there = sorted((c for c in counts if c[1]), key=lambda c: c[0] / c[1])
    if len(there) < 2:
        return _estimate(math.nan, math.nan, math.nan)
    return compare(there[-1], there[0], z)


def _rank(estimate: IntervalEstimate) -> float:
    """Return the mean, and of nothing a number below all differences."""
    return -1.0 if estimate.mean.isnan() else float(estimate.mean)


def _estimate(mean: float, low: float, high: float) -> IntervalEstimate:
    return IntervalEstimate(*(torch.tensor(v, dtype=torch.double) for v in (mean, low, high)))


def _show(estimate: IntervalEstimate) -> str:
    mean, low, high = map(float, estimate)
    return f"{mean:.3g} ({low:.3g} to {high:.3g})"
