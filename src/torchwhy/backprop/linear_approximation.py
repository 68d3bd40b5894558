"""The linear approximation of what a layer contributes."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.engine.structure import Tensors
from torchwhy.gradient.single_gradient import GradientBased, change_from_baselines
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class LinearApproximation(GradientBased[GivenLayer]):
    r"""Activation times gradient at a layer, :math:`A_{nj} = a_{nj} \, \partial f / \partial a_{nj}`: the first-order change of
    the score if the unit were switched off.

    Shape of the layer's output, with the rows first (or of the input without ``layer=``, where it is :class:`InputXGradient`). In
    units of the score; sums to it only where f is linear and without bias above the layer. A list of layers, also behind
    one another, takes one pass.

    With ``baselines=`` b, :math:`A_{nj} = (a_j(x_n) - a_j(b_n)) \, \partial f / \partial a_{nj}`, the first-order drop of the
    score if the unit had the value that it has at b: attribution patching, in two passes forward and one back.
    :class:`torchwhy.AtLayer` gives values of the layer itself.

    Paper: Olah et al. 2018, "The building blocks of interpretability", doi:10.23915/distill.00010; with baselines Nanda 2023,
    "Attribution patching", and Syed et al. 2023, arXiv:2310.10348, equation 2.
    """

    multiplies_by_input: ClassVar[bool] = True
    takes_baselines: ClassVar[bool] = True
    paper: ClassVar[str] = "doi:10.23915/distill.00010"

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the gradients times the activations, less those at the baselines where there are any."""
        return tuple(a * g for a, g in zip(change_from_baselines(problem), gradients))
