"""The path from the most blurred image to the image itself."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.axes import axes_of
from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.rows import index_rows, to_device
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


@dataclass
class BlurPath:
    """Points from the most blurred image to the image itself.

    Args:
        problem: whose ``x`` is blurred along its places, ``(N, C, L)``, ``(N, C, H, W)``, ``(N, C, D, H, W)`` or as its axes say.
        sigmas: ``(n,)``, the widths of the Gaussian in pixels, falling.
    """

    problem: Problem
    sigmas: Tensor

    def beginning(self) -> Tensors:
        """Return the most blurred images as baselines ``(1, N, ...)``."""
        rows = self.problem.rows
        return tuple(t[None] for t in self.point(rows, torch.zeros(len(rows), dtype=torch.long)))

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return points ``k`` ``(M,)`` of rows ``(M,)``, tensors ``(M, ...)``."""
        sigmas = to_device(self.sigmas[k], rows.device)
        found = []
        for i, x in enumerate(self.problem.x):
            x, axes = index_rows(x, rows), axes_of(self.problem, i)
            usual = axes.are_usual and not self.problem.axes
            found.append(
                gaussian_blur(x, sigmas) if usual else axes.restore(gaussian_blur(axes.channels_first(x), sigmas))
            )
        return tuple(found)

    def velocity(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return the step that the trapezoid rule gives to each point: half the way between its neighbours."""
        last = len(self.sigmas) - 1
        after, before = self.point(rows, (k + 1).clamp(max=last)), self.point(rows, (k - 1).clamp(min=0))
        return tuple((a - b) / 2 for a, b in zip(after, before))
