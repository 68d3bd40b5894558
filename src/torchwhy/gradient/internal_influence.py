"""The mean gradient at a hidden layer on the way from a baseline to the input."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.structure import Tensors
from torchwhy.gradient.conductance import points_along_path
from torchwhy.gradient.integration_rules import IntegrationRule, check_points, nodes_and_weights
from torchwhy.gradient.paths import StraightPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.settings import Count


class InternalInfluence(Attribution[GivenLayer]):
    r"""The mean gradient at a hidden layer while the input goes from a baseline to its value:
    :math:`A_{nj} = \int_0^1 \frac{\partial f}{\partial y_j}(b_n + \alpha (x_n - b_n)) \, d\alpha`.

    Of the shape of the layer's output; a slope, in units of score per activation, not a share of the score.

    Args:
        n_steps: points of the rule.
        method: the rule, as for :class:`IntegratedGradients`.

    ``layer=`` is needed. Paper: Leino et al. 2018, arXiv:1802.03788, definition 1, uniform on the line from b to x.
    """

    n_steps: Count = 50
    method: IntegrationRule = "gausslegendre"

    uses_baselines: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "read"
    paper: ClassVar[str] = "arXiv:1802.03788"

    def _attribute(self, problem: Problem) -> Tensors:
        alphas, weights = nodes_and_weights(self.method, self.n_steps)
        path, sums = StraightPath(problem, alphas), RunningMoments(problem.rows)
        for c in points_along_path(problem, path):
            sums.add(c.rows, c.gradients, weights[c.k % self.n_steps])
        return sums.mean(problem.n_baselines)

    def _check_settings(self) -> None:
        super()._check_settings()
        check_points(self.method, self.n_steps)
