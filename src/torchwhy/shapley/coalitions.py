"""Which coalitions to ask the model about: all of them, or a sample drawn in complementary pairs."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor


def all_coalitions(index: Tensor, d: int) -> Tensor:
    """Return coalitions by number ``index`` (M,) as masks (M, d): bit i says whether feature i is in.

    >>> all_coalitions(torch.tensor([0, 1, 6]), 3).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 1]]
    """
    return (index[:, None] >> torch.arange(d, device=index.device)) & 1 == 1


def some_subsets(d: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` different subsets of a size out of d, drawn uniformly without replacement: masks (count, d).

    For ``2 * size == d`` a subset and its complement count as one, and the one with feature 0 is given.
    """
    if size == 0 or count == 0:
        return torch.zeros(count, d, dtype=torch.bool)
    half = 2 * size == d
    total = math.comb(d, size) // (2 if half else 1)
    if total <= 4 * count + 64:  # few enough to list: a shuffled list needs no rejection
        if half:
            listed = [(0, *others) for others in itertools.combinations(range(1, d), size - 1)]
        else:
            listed = list(itertools.combinations(range(d), size))
        z = torch.zeros(total, d, dtype=torch.bool).scatter_(1, torch.tensor(listed), True)
        return z[torch.randperm(total, generator=generator)[:count]]
    seen: dict[bytes, Tensor] = {}
    while len(seen) < count:
        members = torch.rand(count - len(seen), d, generator=generator).argsort(1)[:, :size]
        z = torch.zeros(len(members), d, dtype=torch.bool).scatter_(1, members, True)
        if half:
            z = torch.where(z[:, :1], z, ~z)
        for row in z:
            seen.setdefault(row.numpy().tobytes(), row)
    return torch.stack(list(seen.values()))


class PairedDesign:
    r"""Coalitions S with their complements, stratified by size and drawn without replacement inside a size.

    Pairs are spread over the sizes in proportion to ``share``; a size whose part reaches the number of its subsets is
    enumerated. Inside a size every drawn pair has the same weight.

    Args:
        d: the number of features.
        mass: (d // 2 + 1,), the weight of all pairs of size 0, 1, ..., d // 2 together, with their complements.
        share: (d // 2 + 1,), how the pairs are spread over these sizes.
        spans: the numbers of pairs that it will be asked for, in ascending order; a larger one extends a smaller.
        generator: where the draws come from.
    """

    def __init__(self, d: int, mass: Tensor, share: Tensor, spans: list[int], generator: torch.Generator) -> None:
        halved = torch.tensor([0.5 if 2 * s == d else 1.0 for s in range(d // 2 + 1)], dtype=torch.float64)
        whole = [float(min(math.comb(d, s), 10**300)) for s in range(d // 2 + 1)]
        self.cap = torch.tensor(whole, dtype=torch.float64) * halved * (mass > 0)
        self.mass, self.share = mass * halved, share * halved.sqrt()
        # with few pairs a random design may be singular: leaving one out identifies every feature
        self.small = spans[0] < 2 * d
        self.jitter = torch.rand((), generator=generator, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))
        most = torch.stack([self.counts(m) for m in spans]).amax(0).tolist()
        self.drawn = [some_subsets(d, s, m, torch.Generator().manual_seed(seed + s)) for s, m in enumerate(most)]

    def counts(self, pairs: int) -> Tensor:
        """Return how many of so many pairs go to each size."""
        full = self.cap == 0
        full[1] |= self.small
        pairs = min(pairs, int(self.cap.sum()))
        while True:
            left = pairs - self.cap[full].sum()
            wanted = torch.where(full, self.cap, left * self.share / self.share[~full].sum().clamp(min=1e-300))
            over = ~full & (wanted >= self.cap)
            if not over.any():
                break
            full |= over
        if full.all():
            return self.cap.long()
        # systematic rounding: the sum stays, and the parts hold on average
        edges = torch.cat([self.jitter.new_zeros(1), wanted.cumsum(0)]) + self.jitter
        edges[-1] = pairs + edges[0].floor()
        return torch.minimum(edges.floor().diff().clamp(min=0), self.cap).long()

    def take(self, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return coalitions z (m, d), their weights (m,) and the share of their size that was left out (m,).

        With so few pairs that a size goes without, nothing counts as complete.
        """
        m = self.counts(pairs)
        z = torch.cat([drawn[:k] for drawn, k in zip(self.drawn, m)])
        weight = (self.mass / m.clamp(min=1)).repeat_interleave(m)
        left_out = 1 - m / self.cap.clamp(min=1)
        if ((m == 0) & (self.cap > 0)).any():
            left_out = torch.ones_like(left_out)
        return z, weight, left_out.repeat_interleave(m)


def shapley_design(d: int, spans: list[int], generator: torch.Generator) -> PairedDesign:
    r"""Return pairs for Shapley values: mass of size s :math:`\mu_s = (d-1) / (s(d-s))`, shares :math:`\sqrt{\mu_s}`.

    That lies between the kernel itself and leverage scores, which draw from all sizes alike.
    """
    mass = torch.tensor([0.0] + [(d - 1) / (s * (d - s)) for s in range(1, d // 2 + 1)], dtype=torch.float64)
    return PairedDesign(d, mass, mass.sqrt(), spans, generator)


def banzhaf_design(d: int, spans: list[int], generator: torch.Generator) -> PairedDesign:
    """Return pairs for Banzhaf values: every coalition weighs the same."""
    mass = torch.tensor([math.comb(d, s) / 2 ** (d - 1) for s in range(d // 2 + 1)], dtype=torch.float64)
    return PairedDesign(d, mass, mass, spans, generator)
