"""Integrated gradients along a path that avoids large gradients."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.structure import Tensors
from torchwhy.gradient.guided_path import GuidedPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.settings import Bounds, Count


class GuidedIG(Attribution[GivenLayer]):
    r"""The gradient integrated along a path on which the features with the smallest gradients move first:
    :math:`A_n = \sum_k \nabla f(z_k) (z_{k+1} - z_k)`, :math:`z_0 = b, z_m = x_n`.

    In units of the score; sums to f(x) − f(b) up to a gap that falls with ``max_dist`` more than with the steps, because a
    feature may cross that distance in one of them: see the explanation's ``completeness_gap``. Less noisy than
    :class:`IntegratedGradients` where the straight path crosses steep regions that say nothing about the input. The steps
    follow one another, so only rows share a call, and several targets take a run each.

    Args:
        n_steps: steps, a multiple of ``anchors + 1``.
        fraction: the share of the features that may move at a time, those of smallest gradient.
        max_dist: how far from the straight line a feature may be, in [0, 1]; 0 gives integrated gradients (left sums).
        anchors: points of the straight line that the path must pass.

    Paper: Kapishnikov et al. 2021, arXiv:2106.09788, algorithm 1; ``max_dist`` is its authors' later addition.
    """

    n_steps: Count = 50
    fraction: Annotated[float, Bounds(0, 1, open_low=True)] = 0.25
    max_dist: Annotated[float, Bounds(0, 1)] = 0.02
    anchors: Annotated[int, Bounds(0)] = 0

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    searches: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2106.09788"

    def path(self, problem: Problem) -> GuidedPath:
        """Return the path from each of the baselines to the input."""
        return GuidedPath(problem, int(self.n_steps), self.fraction, self.max_dist, self.anchors)

    def _attribute(self, problem: Problem) -> Tensors:
        path, sums, k = self.path(problem), RunningMoments(problem.rows), problem.n_baselines
        for baseline in range(k):
            for point, step in path.evaluate(baseline):
                sums.add(point.rows, [g * s for g, s in zip(point.gradients, step)])
        return sums.mean(k)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.n_steps % (self.anchors + 1):
            raise ValueError(f"n_steps={self.n_steps}: expected a multiple of anchors + 1 = {self.anchors + 1}")
