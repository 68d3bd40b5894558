"""What flows from the inputs through one hidden unit on the way from a baseline to the input."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.prepare import with_target
from torchwhy.engine.run.rows import expand_like
from torchwhy.gradient.integration_rules import IntegrationRule, check_points, nodes_and_weights
from torchwhy.gradient.paths import StraightPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count
from torchwhy.targets import Neuron


class NeuronConductance(Attribution[GivenLayer]):
    r"""The part of integrated gradients that flows through one hidden unit y, shared among the inputs:
    :math:`A_{nk} = (x_{nk} - b_{nk}) \int_0^1 \frac{\partial f}{\partial y} \frac{\partial y}{\partial x_k}
    (b_n + \alpha (x_n - b_n)) \, d\alpha`.

    Of the inputs' shape, in units of the score; a row sums to the unit's :class:`Conductance`, and over all units of a layer
    that everything passes to integrated gradients, as far as the steps resolve the integral. Takes two evaluations of a row
    for each step and baseline, and one in all.

    Args:
        neuron: the unit, ``tw.Neuron(layer, index)``; the index is an int or a tuple of them, one unit.
        n_steps: points of the rule.
        method: the rule, as for :class:`IntegratedGradients`.
        multiply_by_inputs: with the factor x − b; without it, the mean slope through the unit.

    Raises:
        ValueError: no neuron, or one whose index is a callable, which the score has no derivative by.

    Paper: Dhamdhere, Sundararajan, Yan 2018, arXiv:1805.12233, equation 3. The trapezoid rule here has weights that sum to 1;
    Captum's sum to (n − 1)/n.

    >>> import torch, torchwhy as tw
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    >>> x, unit = torch.tensor([[1.0, 2.0]]), tw.Neuron("0", 2)
    >>> through = tw.NeuronConductance(net, neuron=unit).attribute(x)
    >>> torch.allclose(through, net[1].weight[0, 2] * net[0].weight[2] * x)
    True
    """

    neuron: Neuron | None = None
    n_steps: Count = 50
    method: IntegrationRule = "gausslegendre"
    multiply_by_inputs: bool = True

    multiplies_by_input: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    is_slope_times_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1805.12233"

    def _attribute(self, problem: Problem) -> Result:
        alphas, weights = nodes_and_weights(self.method, self.n_steps)
        path, sums = StraightPath(problem, alphas), RunningMoments(problem.rows)
        unit = with_target(problem, self.neuron)
        above = problem.replace(read_layers=(unit.neuron,))
        for c in above.run.evaluate_points(path.n, path.point):
            slope = unit.target.select(c.gradients[0], c.rows)  # of the score by the unit
            _, below = unit.run.gradients(path.point(c.rows, c.k), c.rows)
            flow = [g * expand_like(slope, g) for g in below]
            if self.multiply_by_inputs:
                flow = [g * v for g, v in zip(flow, path.velocity(c.rows, c.k))]
            sums.add(c.rows, flow, weights[c.k % self.n_steps])
        return Result(sums.mean(problem.n_baselines))

    def _check_settings(self) -> None:
        super()._check_settings()
        check_points(self.method, self.n_steps)
        if not isinstance(self.neuron, Neuron) or callable(self.neuron.index):
            raise ValueError(f"neuron={self.neuron!r}: expected tw.Neuron(layer, index) with the index of one unit")
        if self.layer is not None:
            raise ValueError("layer: NeuronConductance explains by the inputs; the unit's layer is in neuron=")
