"""Input times gradient."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.engine.structure import Tensors
from torchwhy.gradient.single_gradient import GradientBased, change_from_baselines
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class InputXGradient(GradientBased[GivenLayer]):
    r"""The input times the gradient of the score: :math:`A_{nk} = x_{nk} \, \partial f(x_n) / \partial x_{nk}`.

    In units of the score; exact for a linear model, where it sums to f(x) − f(0), and not complete for others: see
    :class:`IntegratedGradients`. Zero where the input is zero. With ``baselines=``, x − b in the place of x.

    Paper: Shrikumar et al. 2016, arXiv:1605.01713.
    """

    multiplies_by_input: ClassVar[bool] = True
    is_slope_times_input: ClassVar[bool] = True
    takes_baselines: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1605.01713"

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the gradients times the inputs, less the baselines where there are any."""
        return tuple(x * g for x, g in zip(change_from_baselines(problem), gradients))
