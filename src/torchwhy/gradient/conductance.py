"""What flows through a hidden layer on the way from a baseline to the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.layers.row_axes import RowAxes
from torchwhy.engine.run.runner import EvaluatedChunk
from torchwhy.gradient.integration_rules import IntegrationRule, nodes_and_weights
from torchwhy.gradient.paths import StraightPath, neighbouring_points
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count


def points_along_path(problem: Problem, path: StraightPath) -> Iterator[EvaluatedChunk]:
    """Yield what the layers give along a path, with the rows first.

    Raises:
        ValueError: a layer passes something without rows.
    """
    axes = RowAxes(problem, problem.read_layers)
    for found in problem.run.evaluate_points(path.n, path.point):
        m = len(found.rows)
        yield found._replace(gradients=axes(found.gradients, m), activations=axes(found.activations, m))


class Conductance(Attribution[GivenLayer]):
    r"""The part of integrated gradients that flows through each hidden unit:
    :math:`A_{nj} = \sum_k \frac{\partial f}{\partial y_j}(z_k) \, (y_j(z_{k+1}) - y_j(z_k))`,
    :math:`z_k = b_n + \alpha_k (x_n - b_n)`.

    Of the shape of the layer's output, in units of the score; over a whole layer it sums to f(x) − f(b) as the steps grow
    (the error falls with 1 / n_steps). Where one layer depends on another,
    each sums to it, and there is no ``completeness_gap``.

    Args:
        n_steps: steps; the model is evaluated at their n_steps + 1 ends.
        method: where the ends lie, as for :class:`IntegratedGradients`; only ``riemann_trapezoid`` begins at the baseline and
            ends at the input.

    ``layer=`` is needed. Paper: Dhamdhere, Sundararajan, Yan 2018, arXiv:1805.12233, equation 2, in the form of Shrikumar et
    al. 2018, arXiv:1807.09946.
    """

    n_steps: Count = 50
    method: IntegrationRule = "gausslegendre"

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "read"
    paper: ClassVar[str] = "arXiv:1805.12233"

    def _attribute(self, problem: Problem) -> Result:
        path = StraightPath(problem, nodes_and_weights(self.method, self.n_steps + 1)[0])
        sums = RunningMoments(problem.rows)
        for before, after in neighbouring_points(points_along_path(problem, path), problem.n, self.n_steps + 1):
            sums.add(
                after.rows, [g * (a - b) for g, a, b in zip(before.gradients, after.activations, before.activations)]
            )
        layers = problem.read_layers  # what flows through two of them is counted twice
        twice = len(layers) > 1 and problem.run.find_dependent_pair(layers) is not None
        return Result(sums.mean(problem.n_baselines), has_gap=not twice)
