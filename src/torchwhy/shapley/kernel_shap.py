"""Shapley and Banzhaf values by regression over sampled coalitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.features.numbering import Features
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod, check_solvable
from torchwhy.problem import Problem
from torchwhy.shapley.coalitions import PairedDesign, banzhaf_design, shapley_design
from torchwhy.shapley.exact_shapley import (
    MAX_FEATURES,
    all_coalition_scores,
    banzhaf_interactions,
    banzhaf_values,
    shapley_interactions,
    shapley_values,
)
from torchwhy.shapley.interactions import PairWeights, banzhaf_pair_weights, pair_interactions, shapley_pair_weights
from torchwhy.shapley.paired_regression import paired_regression


class KernelSHAP(SampledFeatureMethod):
    r"""Shapley values by weighted least squares over coalitions S:

    :math:`\min_\varphi \sum_S \frac{d - 1}{\binom{d}{|S|} |S| (d - |S|)} [v(S) - v(\emptyset) - \sum_{i \in S} \varphi_i]^2`,
    with :math:`\sum_i \varphi_i = v(D) - v(\emptyset)` exactly.

    v(S) is the score with the features of S from the input and the others from the baseline; with K baselines the mean over
    them (interventional SHAP). In units of the score; every element carries its feature's value. Coalitions are drawn with
    their complements, without replacement, the smallest and largest enumerated
    (:func:`~torchwhy.shapley.coalitions.shapley_design`), and a third-order fit takes out noise
    (:func:`~torchwhy.shapley.paired_regression.cubic_part`). The standard error is reported; it is infinite where ``n_samples``
    is too small to tell.

    Args:
        n_samples: evaluations of a row and baseline; None is 2 d + 512. From :math:`2^d` on the values are exact.
        cubic: take third-order interactions out of the noise. It does not change the limit.
        interactions: also put the pairwise interactions (N, d, d) of the same coalitions, and their standard errors, into the
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
            v = all_coalition_scores(problem, features, rows, d, type(self).__name__)
            values, total = type(self)._exact(v), v[-1] - v[0] if self.is_complete else None
            found = SampledEstimate(values, torch.zeros_like(values), total)
            if self.interactions:
                both = type(self)._exact_pairs(v)
                found = found._replace(pairs=both, pairs_error=torch.zeros_like(both))
            return found
        ends = _scores(problem, features, torch.tensor([[False], [True]]).expand(2, d), rows)
        total = ends[1] - ends[0] if self.is_complete else None
        k = problem.n_baselines
        spans = [stop for _, stop in self._rounds((budget - 2) // 2, 2 * k, 2 * k)]
        design = type(self)._design(d, spans, problem.generator)
        seen = [ends.new_zeros(0, 2, len(rows)) for _ in design.drawn]  # by size: v(S) and v(complement of S)
        for pairs in spans:
            counts = design.counts(pairs).tolist()
            new = [drawn[len(o) : max(m, len(o))] for drawn, o, m in zip(design.drawn, seen, counts)]
            more = _both(problem, features, torch.cat(new), rows).split([len(n) for n in new])
            seen = [torch.cat([o, m]) for o, m in zip(seen, more)]
            z, weight, left_out = (t.to(ends.device) for t in design.take(pairs))
            used = torch.cat([o[:m] for o, m in zip(seen, counts)])
            odd = used[:, 0] - used[:, 1]
            values, error = paired_regression(z, odd, weight, total, left_out, self.cubic)
            if self._enough(values, error):
                break
        found = SampledEstimate(values, error, total)
        if not self.interactions:
            return found
        both, unsure = pair_interactions(z, used.sum(1), ends.sum(0), left_out, type(self)._pair_weights)
        return found._replace(pairs=both, pairs_error=unsure)


class Banzhaf(KernelSHAP):
    r"""Banzhaf values, the mean gain over all coalitions: :math:`\beta_i = 2^{1-d} \sum_{S \not\ni i} v(S \cup i) - v(S)`.

    In units of the score; unlike Shapley values they do not sum to v(D) − v(∅), and vary less with noise in the scores.
    They are the least-squares fit of the score over all coalitions alike, which is solved as in :class:`KernelSHAP`, whose
    settings they share.

    Paper: Banzhaf 1965; Hammer & Holzman 1992 for the least squares; Wang & Jia 2023, arXiv:2205.15466.
    """

    is_complete: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2205.15466"

    _design: ClassVar[Callable[[int, list[int], torch.Generator], PairedDesign]] = staticmethod(banzhaf_design)
    _exact: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(banzhaf_values)
    _exact_pairs: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(banzhaf_interactions)
    _pair_weights: ClassVar[PairWeights] = staticmethod(banzhaf_pair_weights)


def _scores(problem: Problem, features: Features, z: Tensor, rows: Tensor) -> Tensor:
    """Scores (m, N) of the coalitions z (m, d) for some rows."""

    def masks(index: Tensor, rows: Tensor) -> Tensors:
        return features.element_masks(to_device(z[index], rows.device), rows)

    return evaluate_all(problem, masks, (0, len(z)), rows=rows)


def _both(problem: Problem, features: Features, z: Tensor, rows: Tensor) -> Tensor:
    """Scores of the coalitions z (m, d) and of their complements, (m, 2, N)."""
    if not len(z):
        return torch.zeros(0, 2, len(rows), dtype=torch.double, device=rows.device)
    return _scores(problem, features, torch.stack([z, ~z], 1).flatten(0, 1), rows).unflatten(0, (-1, 2))
