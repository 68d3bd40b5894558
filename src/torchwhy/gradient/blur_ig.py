"""Integrated gradients along a path of less and less blurred images."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from torchwhy.attribution import Attribution
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.gradient.blur_path import BlurPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Positive


class BlurIG(Attribution[GivenLayer]):
    r"""The gradient integrated along Gaussian blurs of the image:
    :math:`A_n = \int_{\sigma_{max}}^0 \nabla f(G_\sigma x_n) \, \frac{\partial G_\sigma x_n}{\partial \sigma} \, d\sigma`.

    For images ``(N, C, H, W)`` or series ``(N, C, L)``. In units of the score; sums to f(x) minus the score of the most
    blurred image, as far as the steps resolve the integral. Needs no baseline.

    Args:
        n_steps: the number of steps from blurred to sharp, evaluated at their n_steps + 1 ends.
        max_sigma: the widest blur, in pixels.
        spacing: steps equal in sigma ("linear") or in its square, which is the scale of the paper ("square").

    Paper: Xu, Venugopalan, Sundararajan 2020, arXiv:2004.03383, equation 5. The trapezoid rule over finite steps, where the
    authors' code takes a derivative by finite differences at left ends; pixels beyond the edge repeat it.
    """

    n_steps: Count = 50
    max_sigma: Positive = 50.0
    spacing: Literal["linear", "square"] = "linear"

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2004.03383"

    def path(self, problem: Problem) -> BlurPath:
        """Return the points, from blurred to sharp."""
        part = torch.linspace(1, 0, self.n_steps + 1, dtype=torch.double)
        return BlurPath(problem, self.max_sigma * (part if self.spacing == "linear" else part.sqrt()))

    def _attribute(self, problem: Problem) -> Result:
        path, sums = self.path(problem), RunningMoments(problem.rows)
        for c in problem.run.evaluate_points(self.n_steps + 1, path.point):
            sums.add(c.rows, [g * v for g, v in zip(c.gradients, path.velocity(c.rows, c.k))])
        return Result(sums.mean(1), baselines=path.beginning())
