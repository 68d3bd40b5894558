"""Integrated gradients, with fixed or adaptive steps."""

from __future__ import annotations

from typing import Annotated, ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.structure import Tensors
from torchwhy.gradient.adaptive_steps import integrate_adaptively
from torchwhy.gradient.integration_rules import IntegrationRule, check_points, nodes_and_weights
from torchwhy.gradient.paths import StraightPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Bounds, Count, Positive


class IntegratedGradients(Attribution[GivenLayer]):
    r"""The gradient integrated from a baseline to the input:
    :math:`A_{nk} = (x_{nk} - b_{nk}) \int_0^1 \partial_k f(b_n + \alpha (x_n - b_n)) \, d\alpha`.

    In units of the score; the attributions of a row sum to f(x) − f(b) as far as the steps resolve the integral, and
    ``Explanation.completeness_gap`` says how far. Of several baselines (``baselines=tw.Distribution(rows)``) the mean.

    Args:
        n_steps: points of the fixed rule.
        method: the rule: ``gausslegendre``, ``riemann_left``, ``riemann_right``, ``riemann_middle``, ``riemann_trapezoid``.
        multiply_by_inputs: with the factor x − b; without it, the mean gradient on the path.
        tolerance: instead of the fixed rule, steps are added where the integral is off until, for each row, the
            completeness gap is at most this fraction of \|f(x) − f(b)\|; a warning says where it was not reached. Several
            targets then take a run each.
        max_steps: the most steps per row and baseline then.

    Paper: Sundararajan, Taly, Yan 2017, arXiv:1703.01365, equation 1. The trapezoid rule here has weights that sum to 1, so
    that it is exact for a linear model; Captum's sum to (n − 1)/n.

    >>> import torch
    >>> net = torch.nn.Linear(2, 1)
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> IntegratedGradients(net).attribute(x).allclose(net.weight * x)
    True
    """

    n_steps: Count = 50
    method: IntegrationRule = "gausslegendre"
    multiply_by_inputs: bool = True
    tolerance: Positive | None = None
    max_steps: Annotated[int, Bounds(2)] = 1000

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    is_slope_times_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1703.01365"

    @property
    def searches(self) -> bool:  # type: ignore[override]
        """Whether steps are added where they are needed."""
        return self.tolerance is not None

    def path(self, problem: Problem) -> StraightPath:
        """Return the points, in the order in which they lie from the baseline to the input."""
        return StraightPath(problem, nodes_and_weights(self.method, self.n_steps)[0])

    def _attribute(self, problem: Problem) -> Tensors | Result:
        if self.tolerance is not None:
            return integrate_adaptively(problem, self.tolerance, self.max_steps, multiply=self.multiply_by_inputs)
        path, sums = self.path(problem), RunningMoments(problem.rows)
        weights = nodes_and_weights(self.method, self.n_steps)[1]
        for c in problem.run.evaluate_points(path.n, path.point):
            gradients = c.gradients
            if self.multiply_by_inputs:
                gradients = tuple(g * v for g, v in zip(gradients, path.velocity(c.rows, c.k)))
            sums.add(c.rows, gradients, weights[c.k % self.n_steps])
        return sums.mean(problem.n_baselines)

    def _check_settings(self) -> None:
        super()._check_settings()
        check_points(self.method, self.n_steps)
