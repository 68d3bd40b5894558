"""Shapley and Owen values by sampled orders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.features.masks import evaluate_all, evaluate_masks
from torchwhy.engine.features.numbering import Features
from torchwhy.engine.features.statistics import RunningMean
from torchwhy.engine.run.randomness import Draws, draws_per_block
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod
from torchwhy.problem import Problem


class ShapleySampling(SampledFeatureMethod):
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
        ranks = Draws(lambda count, g: self._ranks(count, d, g), problem.generator, draws_per_block(d))
        unit = 2 * (d - 1)  # the coalitions strictly between none and all, of an order and of its reverse

        def ends(index: Tensor, rows: Tensor) -> Tensors:
            return features.element_masks(to_device((index == 1)[:, None].expand(-1, d), rows.device), rows)

        def masks(index: Tensor, rows: Tensor) -> Tensors:
            rank, step = ranks[index // unit], index % unit
            rank = torch.where((step < d - 1)[:, None], rank, d - 1 - rank)
            return features.element_masks(to_device(rank <= (step % (d - 1))[:, None], rows.device), rows)

        none, full = evaluate_all(problem, ends, (0, 2), rows=rows)
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

    def _ranks(self, count: int, d: int, generator: torch.Generator) -> Tensor:
        """The position of each feature in random orders, (count, d)."""
        return torch.rand(count, d, generator=generator).argsort(1)


class OwenValues(ShapleySampling):
    r"""Shapley values of features that come in groups: only the orders that keep each group together count.

    The values of a group sum to its Shapley value in the game of groups, and are shared in it by what its features add when
    some of the other groups are in whole and the others out. One group, or every feature a group, gives Shapley values.
    The rest is as in :class:`ShapleySampling`.

    Args:
        groups: the number of the group of each feature, 0, 1, ...

    Raises:
        ValueError: not one group for each feature, or gaps in their numbers.

    Paper: Owen 1977, "Values of games with a priori unions".
    """

    groups: Sequence[int] | Tensor

    paper: ClassVar[str] = "doi:10.1007/978-3-642-45494-3_7"

    def _ranks(self, count: int, d: int, generator: torch.Generator) -> Tensor:
        group = torch.as_tensor(self.groups).cpu()
        if group.shape != (d,) or group.is_floating_point():
            raise ValueError(f"groups: expected one integer for each of {d} features, got shape {tuple(group.shape)}")
        if not torch.equal(group.unique(), torch.arange(int(group.max()) + 1)):
            raise ValueError(f"groups: number them 0, 1, 2, ... without gaps; got {group.unique().tolist()}")
        turn = torch.rand(count, int(group.max()) + 1, generator=generator).argsort(1)
        return (turn[:, group] + torch.rand(count, d, generator=generator)).argsort(1).argsort(1)


def _gains(none: Tensor, chains: Tensor, full: Tensor, rank: Tensor) -> Tensor:
    """What each feature adds, (pairs, N, d), from the scores along an order and its reverse, (pairs, 2, d - 1, N)."""
    ends = [end.expand(len(chains), 2, 1, -1) for end in (none, full)]
    gains = torch.cat([ends[0], chains, ends[1]], 2).diff(dim=2)  # by position
    at = torch.stack([rank, rank.shape[1] - 1 - rank], 1)[..., None].expand_as(gains)
    return gains.gather(2, at).mean(1).transpose(1, 2)
