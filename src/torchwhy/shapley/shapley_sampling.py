"""Shapley values by sampled orders."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.features.masks import evaluate_masks
from torchwhy.engine.features.numbering import Features
from torchwhy.engine.features.statistics import RunningMean
from torchwhy.engine.run.randomness import Draws, draw_uniform, draws_per_block
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod, score_coalitions
from torchwhy.problem import Problem


class ShapleySampling(SampledFeatureMethod[GivenLayer]):
    r"""Shapley values as the mean gain of each feature over random orders π in which the features enter:

    :math:`\varphi_i = \mathbb{E}_\pi [v(\{j : \pi_j \le \pi_i\}) - v(\{j : \pi_j < \pi_i\})]`.

    In units of the score; every element carries its feature's value. Unbiased, and the features sum to v(D) − v(∅)
    exactly. Every order is used with its reverse, which cancels the noise of pairwise interactions; the standard error is
    that over such pairs. Takes K (n_samples (d − 1) + 2) evaluations of a row with d features and K baselines.

    Args:
        n_samples: the number of orders, made even; None is 26.

    Paper: Castro et al. 2009; reversed orders: Mitchell et al. 2022, arXiv:2104.12199, section 4.1.
    """

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2104.12199"

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:

        def draw(count: int, generator: torch.Generator) -> Tensor:
            return self.random_ranks(count, d, generator)

        ranks = Draws(draw, problem.generator, draws_per_block(d))
        unit = 2 * (d - 1)  # the coalitions strictly between none and all, of an order and of its reverse

        def masks(index: Tensor, rows: Tensor) -> Tensors:
            rank, step = ranks[index // unit], index % unit
            rank = torch.where((step < d - 1)[:, None], rank, d - 1 - rank)
            return features.element_masks(to_device(rank <= (step % (d - 1))[:, None], rows.device), rows)

        none, full = score_coalitions(problem, features, torch.tensor([[False], [True]]).expand(2, d), rows)
        if d == 1:
            return SampledEstimate((full - none)[:, None], torch.zeros_like(none)[:, None], full - none)
        mean = RunningMean()
        orders = 26 if self.n_samples is None else self.n_samples
        k = problem.n_baselines
        for start, stop in self._rounds(-(-orders // 2), unit * k, 2 * k):
            for first, s in evaluate_masks(problem, masks, (start * unit, stop * unit), rows=rows, unit=unit):
                pairs = torch.arange(first // unit, (first + len(s)) // unit)
                mean.add(_gains(none, s.view(len(pairs), 2, d - 1, -1), full, ranks[pairs].to(s.device)))
            if self._enough(mean.mean, mean.standard_error):
                break
        return SampledEstimate(mean.mean, mean.standard_error, full - none)

    def random_ranks(self, count: int, d: int, generator: torch.Generator) -> Tensor:
        """Return the position of each feature in random orders, ``(count, d)``."""
        return draw_uniform(count, d, generator=generator).argsort(1)


def _gains(none: Tensor, chains: Tensor, full: Tensor, rank: Tensor) -> Tensor:
    """Return what each feature adds, ``(pairs, N, d)``.

    Args:
        none, full: the scores of nothing and of everything, ``(N,)``.
        chains: the scores along an order and along its reverse, ``(pairs, 2, d - 1, N)``.
        rank: the position of each feature in the order, ``(pairs, d)``.
    """
    ends = [end.expand(len(chains), 2, 1, -1) for end in (none, full)]
    gains = torch.cat([ends[0], chains, ends[1]], 2).diff(dim=2)  # by position
    at = torch.stack([rank, rank.shape[1] - 1 - rank], 1)[..., None].expand_as(gains)
    return gains.gather(2, at).mean(1).transpose(1, 2)
