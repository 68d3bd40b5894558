"""Random projections of gradients, which keep their products about as they were."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Seed, draw_seed, make_generator

SIGNS_DRAWN = 2**22  # signs that are drawn together
SIGNS_KEPT = 2**27  # signs that are kept; more are drawn again each time


class RandomProjection:
    r"""Signs :math:`P_{kj} = \pm 1 / \sqrt d`, so that :math:`E[(P^\top g) \cdot (P^\top h)] = g \cdot h`.

    The matrix is drawn in blocks, each from a seed of its own, and is in memory as a whole only where it is small.

    Args:
        total: p, the length of what is projected.
        dim: d, the length afterwards.
        generator: where the seeds come from.
    """

    def __init__(self, total: int, dim: int, generator: Seed) -> None:
        self.total, self.dim = total, dim
        self.rows = max(1, SIGNS_DRAWN // dim)
        source = make_generator(generator)
        self.seeds = [draw_seed(source) for _ in range(0, total, self.rows)]
        self.kept: dict[int, Tensor] = {}

    def _signs(self, block: int) -> Tensor:
        """Return the signs of a block, ``(rows, d)`` of int8."""
        if block in self.kept:
            return self.kept[block]
        rows = min(self.rows, self.total - block * self.rows)
        generator = torch.Generator().manual_seed(self.seeds[block])
        signs = torch.randint(2, (rows, self.dim), generator=generator, dtype=torch.int8).mul_(2).sub_(1)
        if self.total * self.dim <= SIGNS_KEPT:
            self.kept[block] = signs
        return signs

    def __call__(self, gradients: Tensor) -> Tensor:
        """Return gradients ``(m, p)`` projected, ``(m, d)``."""
        found = gradients.new_zeros(len(gradients), self.dim)
        for block in range(len(self.seeds)):
            part = gradients[:, block * self.rows : (block + 1) * self.rows]
            found += part @ self._signs(block).to(gradients)
        return found / self.dim**0.5
