"""Coalitions by coin flips, none of them twice where there are few."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import draw_uniform

MOST_LISTED = 16  # features: all 65,536 coalitions of so many are listed


class CoinFlips:
    r"""Coalitions z in which each of d features is there with probability q; the first is the whole one.

    Of at most ``MOST_LISTED`` features no coalition comes twice: they are drawn one after the other without replacement, by
    their probabilities :math:`p(z) = q^{|z|} (1 - q)^{d - |z|}`. Drawn so, likely ones are rarer among m coalitions than
    among m coin flips, which the weights :math:`p(z) / \pi(z)` make good, :math:`\pi(z) = 1 - (1 - p(z))^T` being the chance
    to be among them, with T such that :math:`\sum_z \pi(z) = m`. Of all coalitions the weights are p.

    Args:
        d: the number of features.
        keep: q.
        generator: where the draws come from.
    """

    def __init__(self, d: int, keep: float, generator: torch.Generator) -> None:
        self.d, self.keep, self.generator = d, keep, generator
        self.ordered: Tensor | None = None
        if d <= MOST_LISTED:
            z = (torch.arange(2**d)[:, None] >> torch.arange(d)) % 2 == 1
            waits = -torch.log1p(-draw_uniform(2**d, generator=generator, dtype=torch.double)) / self._probability(
                z.sum(1)
            )
            waits[-1] = -1.0  # the input itself comes first
            self.ordered = z[waits.argsort()]

    def take(self, start: int, stop: int) -> Tensor:
        """Return coalitions ``start`` to ``stop - 1``, as far as there are any, ``(m, d)``; ask for them in turn."""
        if self.ordered is not None:
            return self.ordered[start:stop]
        flips = draw_uniform(stop - max(start, 1), self.d, generator=self.generator) < self.keep
        return flips if start else torch.cat([torch.ones(1, self.d, dtype=torch.bool), flips])

    def weights(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much each of the first m coalitions ``(m, d)`` counts, and the share of its kind that was not drawn."""
        m = len(z)
        if self.ordered is None:
            return torch.ones(m, dtype=torch.double), torch.ones(m, dtype=torch.double)
        sizes = torch.arange(self.d + 1)
        p = self._probability(sizes)
        if m >= 2**self.d:
            return p[z.sum(1).cpu()], torch.zeros(m, dtype=torch.double)
        number = torch.tensor([math.comb(self.d, s) for s in sizes.tolist()], dtype=torch.double)
        low, high = 0.0, 700.0  # of log T
        for _ in range(60):
            middle = (low + high) / 2
            few = float(number @ -torch.expm1(math.exp(middle) * torch.log1p(-p))) < m
            low, high = (middle, high) if few else (low, middle)
        missed = (math.exp(high) * torch.log1p(-p)).exp()
        at = z.sum(1).cpu()
        return (p / (1 - missed).clamp(min=1e-300))[at] * m, missed[at]

    def _probability(self, size: Tensor) -> Tensor:
        """Return the probability of a coalition of a size."""
        return self.keep ** size.double() * (1 - self.keep) ** (self.d - size.double())
