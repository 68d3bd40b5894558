"""The search without a gradient: draw around the row, ever wider, until something flips; then come back as far as it stays so."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.counterfactual.search import Search
from torchwhy.engine.run.randomness import draw_normal, draw_uniform

PROPOSALS = 32  # for each candidate in each step
WIDER_BY = 1.25  # of the radius, from step to step, up to WIDEST times the width of the bounds
WIDEST = 3.0
CLOSER = 120  # steps of coming back
AT_ONCE = 65536  # proposals that are weighed together


@dataclass
class FreeSearch(Search):
    """Candidates ``(M, D)`` that are moved by draws alone; of a row they are those of the row alone, whatever its company.

    Args:
        distance: from vectors x to vectors z ``(M, D)`` → ``(M,)``, what is made small.
        n_diverse: how many candidates a row has; each has draws of its own.
        generator, seed: where the draws come from, of the way out and of the way back.
        known: real rows ``(K, D)`` to try first, or None.
    """

    distance: Callable[[Tensor, Tensor], Tensor]
    n_diverse: int
    generator: torch.Generator
    seed: int
    known: Tensor | None = None

    def spread(self, steps: Iterable[int], size: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw around each row, and around the point with the smallest gap so far, until something flips.

        Returns:
            The candidates ``(M, D)``, whether each has flipped ``(M,)``, after how many steps ``(M,)``, and the gaps before
            each step ``(steps, M)``.
        """
        z, taken = self.x.clone(), torch.zeros_like(self.of)
        every = torch.arange(len(z), device=z.device)
        gap, history = self.gaps(z, every), []
        active, radius = every, size
        if self.known is not None:
            self._take_known(z, gap)
        for _ in steps:
            history.append(gap.clone())
            active = every[gap >= 0]
            if not len(active):
                break
            draws = self._draws()
            for part in active.split(max(1, AT_ONCE // PROPOSALS)):
                scale = self.rows.of(self.rows.scale, self.of[part])[:, None]
                centre = torch.stack([self.x[part], z[part]], 1).repeat(1, PROPOSALS // 2, 1)
                self._take_nearest(z, gap, part, centre + radius * scale * draws[part % self.n_diverse])
            taken[active] += 1
            radius = min(radius * WIDER_BY, WIDEST)
        return z, gap < 0, taken, torch.stack(history or [gap])

    def closer(self, z: Tensor, found: Tensor) -> Tensor:
        """Return flipped candidates nearer to their rows: elements taken back, wholly or in part, while they stay flipped."""
        which = found.nonzero()[:, 0]
        gap = torch.where(found, torch.full_like(z[:, 0], -1.0), torch.inf)
        generator = torch.Generator().manual_seed(self.seed)  # a row's draws do not depend on how long others took
        for _ in range(CLOSER if len(which) else 0):
            share = draw_uniform(self.n_diverse, PROPOSALS, 1, generator=generator)
            elements = (draw_uniform(*self._shape, generator=generator) < share).to(z)
            part = draw_uniform(self.n_diverse, PROPOSALS, 1, generator=generator).to(z) ** 2
            aside = draw_normal(*self._shape, generator=generator).to(z) * elements
            # a third of the proposals take elements back altogether, a third a part of the way, a third go aside as well
            part[:, ::3] = 1.0
            aside[:, ::3], aside[:, 1::3] = 0.0, 0.0
            for some in which.split(max(1, AT_ONCE // PROPOSALS)):
                k, here = some % self.n_diverse, z[some][:, None]
                way = self.x[some][:, None] - here
                size = way.square().mean(2, keepdim=True).sqrt()
                self._take_nearest(z, gap, some, here + (way * elements[k] + size * aside[k]) * part[k])
        return z

    @property
    def _shape(self) -> tuple[int, int, int]:
        """The shape of the draws of a step, ``(n_diverse, PROPOSALS, D)``."""
        return self.n_diverse, PROPOSALS, self.x.shape[1]

    def _draws(self) -> Tensor:
        """Return directions ``(n_diverse, PROPOSALS, D)``, some of them along few elements."""
        share = draw_uniform(self.n_diverse, PROPOSALS, 1, generator=self.generator)
        along = draw_uniform(*self._shape, generator=self.generator)
        chosen = (along < share) | (along == along.amin(2, keepdim=True))  # one element at least
        return (draw_normal(*self._shape, generator=self.generator) * chosen).to(self.x)

    def _take_known(self, z: Tensor, gap: Tensor) -> None:
        """Try real rows, those nearest to each row."""
        if self.known is None:
            return
        for part in torch.arange(len(z), device=z.device).split(max(1, AT_ONCE // PROPOSALS)):
            for some in torch.cdist(self.x[part], self.known).argsort(1).split(PROPOSALS, 1):  # nearest first
                still = gap[part] >= 0
                if still.any():
                    self._take_nearest(z, gap, part[still], self.known[some[still]])

    def _take_nearest(self, z: Tensor, gap: Tensor, which: Tensor, proposals: Tensor) -> None:
        """Put the best of the proposals ``(A, P, D)`` of candidates ``which`` in the place of what they are.

        That is the nearest flipped one, if it is nearer than a candidate that has flipped; else the one with the smallest gap.
        """
        a, p, d = proposals.shape
        of = which.repeat_interleave(p)
        flat = self._within(proposals.reshape(a * p, d), of)
        gaps = self.gaps(flat, of).view(a, p)
        far = self.distance(self.x[of], flat).view(a, p).masked_fill(gaps >= 0, torch.inf)
        now = self.distance(self.x[which], z[which])
        flipped = far.amin(1) < torch.where(gap[which] < 0, now, torch.inf)
        nearer = (gap[which] >= 0) & ~(gaps < 0).any(1) & (gaps.amin(1) < gap[which])
        best = torch.where(flipped, far.argmin(1), gaps.argmin(1))
        rows = torch.arange(a, device=z.device)
        take = flipped | nearer
        chosen = flat.view(a, p, d)[rows, best]
        z[which[take]] = chosen[take]
        gap[which[take]] = gaps[rows, best][take]

    def _within(self, z: Tensor, which: Tensor) -> Tensor:
        """Return ``z`` within the bounds, valid, and as its row where nothing may change."""
        of = self.of[which]
        low, high, free = (self.rows.of(v, of) for v in (self.rows.low, self.rows.high, self.rows.free))
        return self.rows.valid(torch.where(free, z.clamp(low, high), self.x[which]))
