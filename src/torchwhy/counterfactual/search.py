"""The search: downhill until a row has flipped, then back towards the row as far as it stays flipped."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.counterfactual.constraints import RowVectors, vectors
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem

Term = Callable[[Tensor, Tensor], Tensor]  # z (M, D) and which of the candidates they are (M,) -> what to lower, (M,)


@dataclass
class Search:
    """Candidates ``(M, D)``, several to a row or one, that are moved together.

    Args:
        problem: its scores are gaps, below zero where a candidate has flipped.
        rows: what may change.
        x: the rows, ``(M, D)``, repeated for each of their candidates.
        of: the row of each candidate ``(M,)``.
        terms: further things to lower, each with its weight relative to the gap's pull.
        sparse: move few elements at a time.
    """

    problem: Problem
    rows: RowVectors
    x: Tensor
    of: Tensor
    terms: list[tuple[float, Term]]
    sparse: bool

    def gaps(self, z: Tensor, which: Tensor) -> Tensor:
        """Return gaps ``(M,)`` of ``z`` ``(M, D)``, without a graph."""
        z, rows = self.rows.valid(z), self.of[which]

        def work(a: int, b: int) -> Tensor:
            return self.problem.run.scores(self.rows.tensors(z[a:b]), rows[a:b])

        return self.problem.run.concatenated(len(z), work).to(z.dtype)

    def downhill(
        self, start: Tensor, steps: Iterable[int], size: float, momentum: float = 0.8
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move each candidate until it has flipped.

        Returns:
            The candidates ``(M, D)``, whether each has flipped ``(M,)``, after how many steps ``(M,)``, and the gaps before
            each step ``(steps, M)``.
        """
        z, speed = start.clone(), torch.zeros_like(start)
        gap = torch.full_like(z[:, 0], torch.inf)
        taken = torch.zeros_like(self.of)
        history = []
        active = torch.arange(len(z), device=z.device)
        for _ in steps:
            values, gradients = self._gradients(z, active)
            gap[active] = values
            history.append(gap.clone())
            # asks the device, once a step: flipped rows cost nothing from here on
            behind = (values >= 0).nonzero()[:, 0]
            active, gradients = active[behind], gradients[behind]
            if not len(active):
                break
            pull = _unit(gradients * self.rows.of(self.rows.scale, self.of[active]))
            for weight, term in self.terms:
                pull = pull + weight * _unit(self._gradient(term, z, active))
            speed[active] = momentum * speed[active] + (1 - momentum) * pull
            z[active] = self.moved(z[active], speed[active], active, size)
            taken[active] += 1
        else:
            gap[active] = self.gaps(z[active], active)
        return z, gap < 0, taken, torch.stack(history)

    def back(self, z: Tensor, found: Tensor, scan: int = 16, halvings: int = 14) -> Tensor:
        """Return the point nearest to the row, on the line to each flipped candidate, at which it is flipped.

        The line is scanned first, for it may cross the boundary more than once, and its first crossing is bisected, to
        4e-6 of the way.
        """
        which = found.nonzero()[:, 0]
        if not len(which):
            return z
        x, way = self.x[which], z[which] - self.x[which]
        high = torch.ones_like(way[:, 0])
        for k in range(scan - 1, 0, -1):
            at = torch.full_like(high, k / scan)
            high = torch.where(self.gaps(x + at[:, None] * way, which) < 0, at, high)
        low = (high - 1 / scan).clamp(min=0)
        for _ in range(halvings):
            middle = (low + high) / 2
            flipped = self.gaps(x + middle[:, None] * way, which) < 0
            low, high = torch.where(flipped, low, middle), torch.where(flipped, middle, high)
        return z.index_copy(0, which, x + high[:, None] * way)

    def _gradients(self, z: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Return gaps ``(M,)`` and their gradients ``(M, D)``."""
        valid, rows = self.rows.valid(z[which]), self.of[which]

        def work(a: int, b: int) -> tuple[Tensor, Tensors]:
            return self.problem.run.gradients(self.rows.tensors(valid[a:b]), rows[a:b])

        parts = list(self.problem.run.batches(len(which), work))
        return torch.cat([s for s, _ in parts]).to(z.dtype), torch.cat([vectors(g) for _, g in parts]).to(z.dtype)

    def _gradient(self, term: Term, z: Tensor, which: Tensor) -> Tensor:
        """Return the gradient of a term, in units of the bounds' width."""
        with torch.enable_grad():
            leaf = z.detach().clone().requires_grad_()
            total = term(leaf, which).sum()
            (found,) = torch.autograd.grad(total, leaf, allow_unused=True)
        found = torch.zeros_like(leaf) if found is None else found.nan_to_num(0.0)
        return found[which] * self.rows.of(self.rows.scale, self.of[which])

    def moved(self, z: Tensor, direction: Tensor, which: Tensor, size: float) -> Tensor:
        """Return ``z`` one step of length ``size``, in units of the bounds' width, against ``direction``."""
        of = self.of[which]
        low, high, scale, free = (
            self.rows.of(v, of) for v in (self.rows.low, self.rows.high, self.rows.scale, self.rows.free)
        )
        stuck = ~free | ((z <= low) & (direction > 0)) | ((z >= high) & (direction < 0))
        direction = direction.masked_fill(stuck, 0)
        if self.sparse:  # the steepest direction where lengths are sums of absolute values
            largest = direction.abs().amax(1, keepdim=True)
            direction = direction.sign() * (direction.abs() >= 0.9 * largest) * (largest > 0)
            direction = direction / direction.abs().sum(1, keepdim=True).clamp(min=1)
        else:
            direction = _unit(direction)
        return (z - size * scale * direction).clamp(low, high)


def _unit(v: Tensor) -> Tensor:
    """Return rows of length 1; rows of zeros stay."""
    length = v.norm(dim=1, keepdim=True)
    return v / torch.where(length > 0, length, torch.ones_like(length))
