"""Sets of features of one size, whose members' attributions are compared with what the score loses without them.

Three ways to choose them: all sets, where there are few; random ones; or, of many random ones, those with the most extreme
attributions. The attributions of a set cost nothing, the score without it costs a model call: choosing extremes buys more
correlation for as many calls, and the correlation is corrected for their wider range afterwards.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Draws, draws_per_block
from torchwhy.engine.run.rows import to_device


@dataclass(frozen=True)
class FeatureSets:
    """Sets of features of one size.

    Args:
        sums: (S, N), the attributions of each set; of random sets, known once they were asked for.
        keep: ``(index, rows)`` → which features (M, d) are not in set number ``index`` of row ``rows``.
        spread: (N,), the standard deviation of the sums over all sets, where the chosen ones have another.
    """

    sums: Tensor
    keep: Callable[[Tensor, Tensor], Tensor]
    spread: Tensor | None = None


def choose_sets(
    values: Tensor, size: int, samples: int, oversample: int, generator: torch.Generator
) -> FeatureSets:  # fmt: skip
    """Choose sets of ``size`` features.

    Args:
        values: the attributions of the features, (N, d).
        size: of a set.
        samples: how many sets.
        oversample: from how many times as many random ones they are chosen.
        generator: of the random ones.
    """
    d = values.shape[1]
    if math.comb(d, size) <= samples:
        return _all_sets(values, size)

    def shuffled(count: int, g: torch.Generator) -> Tensor:
        return torch.stack([torch.randperm(d, generator=g) for _ in range(count)])

    orders = Draws(shuffled, generator, min(samples, draws_per_block(d)))
    if oversample == 1:
        return _random_sets(values, size, samples, orders)
    return _extreme_sets(values, size, samples, oversample, orders)


def _all_sets(values: Tensor, size: int) -> FeatureSets:
    """Return every set of ``size`` features once."""
    d, device = values.shape[1], values.device
    members = torch.tensor(list(itertools.combinations(range(d), size)))
    every = torch.zeros(len(members), d, dtype=torch.bool).scatter_(1, members, True).to(device)

    def keep(index: Tensor, rows: Tensor) -> Tensor:
        return ~every[to_device(index, device)]

    return FeatureSets(every.to(values) @ values.T, keep)


def _random_sets(values: Tensor, size: int, samples: int, orders: Draws) -> FeatureSets:
    """Return the features that come first in random orders, the same for all rows."""
    device, sums = values.device, values.new_zeros(samples, len(values))

    def keep(index: Tensor, rows: Tensor) -> Tensor:
        first = int(index[0])  # the rows share a set: it is made once
        made = torch.arange(first, int(index[-1]) + 1)
        members = (orders[made] < size).to(device)  # not sorted: a seventh of the time
        sums[made.to(device)] = members.to(values) @ values.T
        return ~members[to_device(index - first, device)]

    return FeatureSets(sums, keep)


def _extreme_sets(values: Tensor, size: int, samples: int, oversample: int, orders: Draws) -> FeatureSets:
    """Return, for each row, the half with the smallest sums and the half with the largest, of many random sets."""
    d, device = values.shape[1], values.device
    groups = d // size  # an order of the features cut into pieces is so many sets
    kind = torch.int16 if groups < 2**15 else torch.int32
    parts = [orders[k[None]][0].to(device) // size for k in torch.arange(-(-samples * oversample // groups))]
    per_part = [values.new_zeros(len(values), groups + 1).index_add_(1, p, values)[:, :-1] for p in parts]
    sums = torch.stack(per_part).transpose(1, 2).flatten(0, 1)  # (candidates, N)
    ranked, low = sums.argsort(0), samples // 2
    chosen, part = torch.cat([ranked[:low], ranked[low - samples :]]), torch.stack([p.to(kind) for p in parts])

    def keep(index: Tensor, rows: Tensor) -> Tensor:
        which = chosen[to_device(index, device), rows]
        return part[which // groups] != (which % groups)[:, None]

    return FeatureSets(sums.gather(0, chosen), keep, (size * (d - size) / d * values.var(1)).sqrt())
