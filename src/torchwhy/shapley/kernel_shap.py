"""Shapley values by regression over sampled coalitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.features.numbering import Features
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod, check_solvable, score_coalitions
from torchwhy.problem import Problem
from torchwhy.shapley.exact_shapley import (
    MAX_FEATURES,
    all_coalition_scores,
    shapley_interactions,
    shapley_values,
)
from torchwhy.shapley.interactions import PairWeights, pair_interactions, shapley_pair_weights
from torchwhy.shapley.paired_sampling import PairedDesign, paired_regression, shapley_design


class KernelSHAP(SampledFeatureMethod[GivenLayer]):
    r"""Shapley values by weighted least squares over coalitions S:

    :math:`\min_\varphi \sum_S \frac{d - 1}{\binom{d}{|S|} |S| (d - |S|)} [v(S) - v(\emptyset) - \sum_{i \in S} \varphi_i]^2`,
    with :math:`\sum_i \varphi_i = v(D) - v(\emptyset)` exactly.

    v(S) is the score with the features of S from the input and the others from the baseline; with K baselines the mean over
    them (interventional SHAP). In units of the score; every element carries its feature's value. Coalitions are drawn with
    their complements, without replacement, the smallest and largest enumerated
    (:func:`~torchwhy.shapley.paired_sampling.shapley_design`), and a third-order fit takes out noise
    (:func:`~torchwhy.shapley.paired_sampling.fit_cubic`). The standard error is reported; it is infinite where ``n_samples``
    is too small to tell.

    Args:
        n_samples: evaluations of a row and baseline; None is 2 d + 512. From :math:`2^d` on the values are exact.
        cubic: take third-order interactions out of the noise. It does not change the limit.
        interactions: also put the pairwise interactions ``(N, d, d)`` of the same coalitions, and their standard errors, into the
            explanation's ``details``, as ``interactions`` and ``interactions_error``
            (:func:`~torchwhy.shapley.interactions.pair_interactions`): no further evaluations.

    Raises:
        ValueError: ``n_samples`` below 2 d + 2 (for d < 3 below :math:`2^d`); more than 5000 features, whose values are the
            solution of d × d equations.

    Paper: Lundberg & Lee 2017, arXiv:1705.07874, theorem 2; pairs: Covert & Lee 2021, arXiv:2012.01536; sampling without
    replacement: Musco & Witter 2025, arXiv:2410.01917.
    """

    cubic: bool = True
    interactions: bool = False

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1705.07874"

    # what Banzhaf values do otherwise: the pairs to draw, the summaries of all coalitions, and whether the values sum up
    _design: ClassVar[Callable[[int, list[int], torch.Generator], PairedDesign]] = staticmethod(shapley_design)
    _exact: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(shapley_values)
    _exact_pairs: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(shapley_interactions)
    _pair_weights: ClassVar[PairWeights] = staticmethod(shapley_pair_weights)

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:
        check_solvable(self, d)
        budget, least = 2 * d + 512 if self.n_samples is None else self.n_samples, min(2 * d + 2, 2**d)
        if budget < least:
            raise ValueError(f"n_samples={budget}: {d} features take at least {least}; or group them with feature_mask")
        if d <= MAX_FEATURES and budget >= 2**d:
            self._rounds(2**d, problem.n_baselines)  # refuses more than max_evaluations
            return self._summary_of_all(all_coalition_scores(problem, features, rows, d, type(self).__name__))
        return self._sampled(problem, features, rows, d, budget)

    def _sampled(self, problem: Problem, features: Features, rows: Tensor, d: int, budget: int) -> SampledEstimate:
        """Return the values estimated from pairs of coalitions, ``budget`` evaluations of a row to begin with."""
        ends = score_coalitions(problem, features, torch.tensor([[False], [True]]).expand(2, d), rows)
        total = ends[1] - ends[0] if self.is_complete else None
        k = problem.n_baselines
        spans = [stop for _, stop in self._rounds((budget - 2) // 2, 2 * k, 2 * k)]
        design = type(self)._design(d, spans, problem.generator)
        known = [ends.new_zeros(0, 2, len(rows)) for _ in design.drawn]  # by size: v(S) and v(complement of S)
        for pairs in spans:
            counts = design.counts(pairs).tolist()
            new = [drawn[len(o) : max(m, len(o))] for drawn, o, m in zip(design.drawn, known, counts)]
            with_complements = torch.stack([torch.cat(new), ~torch.cat(new)], 1).flatten(0, 1)
            if len(with_complements):
                found = score_coalitions(problem, features, with_complements, rows).unflatten(0, (-1, 2))
                known = [torch.cat([o, more]) for o, more in zip(known, found.split([len(n) for n in new]))]
            z, weight, left_out = (t.to(ends.device) for t in design.take(pairs))
            used = torch.cat([o[:m] for o, m in zip(known, counts)])
            values, error = paired_regression(z, used[:, 0] - used[:, 1], weight, total, left_out, self.cubic)
            if self._enough(values, error):
                break
        if not self.interactions:
            return SampledEstimate(values, error, total)
        both, unsure = pair_interactions(z, used.sum(1), ends.sum(0), left_out, type(self)._pair_weights)
        return SampledEstimate(values, error, total, pairs=both, pairs_error=unsure)

    def _summary_of_all(self, v: Tensor) -> SampledEstimate:
        """Return the exact values, from the scores v ``(2^d, N)`` of all coalitions."""
        values, total = type(self)._exact(v), v[-1] - v[0] if self.is_complete else None
        error = torch.zeros_like(values)
        if not self.interactions:
            return SampledEstimate(values, error, total)
        both = type(self)._exact_pairs(v)
        return SampledEstimate(values, error, total, pairs=both, pairs_error=torch.zeros_like(both))
