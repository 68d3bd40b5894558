"""The curve behind the metrics that remove features: the score with a share of the features replaced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from torchwhy.engine.features.masks import FillFunction, evaluate_all
from torchwhy.engine.run.rows import expand_like, index_rows, to_device
from torchwhy.metrics.curve import Curve
from torchwhy.metrics.features_of_attributions import AttributionsLike, to_features
from torchwhy.metrics.scoring import as_scores
from torchwhy.problem import Problem

Impute = Callable[[Tensor, Tensor, Tensor], Tensor]


def removal_curve(
    problem: Problem,
    attributions: AttributionsLike,
    shares: Tensor | int | None,
    *,
    remove: Literal["top", "bottom", "rest"],
    reduce: Literal["sum", "mean"],
    impute: Impute | None = None,
    bounds: tuple[float, float] | None = None,
) -> Curve:
    """Compute the scores with a share of the features replaced.

    Args:
        problem: where the model is run.
        attributions: what orders the features.
        shares: of the features, (S,), or in how many equal steps, at most their number; None removes them one by one.
        remove: those with the largest attributions, those with the smallest, or all but those with the largest.
        reduce: how the elements of a feature are put together into what orders it.
        impute: ``(index, rows, keep)`` → what replaces them in the only input, in place of the baselines.
        bounds: what a score can be, if that is known.

    Returns:
        Scores against the shares removed, to the nearest whole feature; for "rest", against those kept.
    """
    by_feature = to_features(problem, attributions, reduce=reduce)
    ranks = by_feature.ranks_at_elements(problem.generator)
    if not isinstance(shares, Tensor):
        steps = by_feature.d if shares is None else min(int(shares), by_feature.d)
        shares = torch.linspace(0, 1, steps + 1, dtype=torch.double)
    d = by_feature.features.count[:, None]
    count = (shares.to(d.device) * d.double()).round().long()  # (N, S)
    different, back = count.unique(dim=1, return_inverse=True)  # in the same order: counts rise
    if impute is not None:  # which goes by the share; and something must be left to impute from
        different, back = torch.minimum(count, d - 1), torch.arange(count.shape[1])
    cuts = d - different if remove == "bottom" else different  # keep those of small rank

    def masks(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        cut = cuts[rows, to_device(index, rows.device)]
        shown = [index_rows(r, rows) for r in ranks]
        return tuple(r >= expand_like(cut, r) if remove == "top" else r < expand_like(cut, r) for r in shown)

    with problem.open():
        scores = evaluate_all(problem, masks, (0, different.shape[1]), fill=_as_fill(impute, masks)).T[:, back]
    fractions = different[:, back] / d.double()
    alike = bool((fractions == fractions[0]).all())
    xlabel = f"fraction of the input {'shown' if remove == 'rest' else 'replaced'}"
    return Curve(fractions[0] if alike else fractions, as_scores(scores, problem), xlabel, bounds)


def _as_fill(impute: Impute | None, masks: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> FillFunction | None:
    """Return the function that fills in what is removed from the only input."""
    if impute is None:
        return None

    def fill(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return (impute(index, rows, masks(index, rows)[0]),)

    return fill
