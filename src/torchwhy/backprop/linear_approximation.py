"""The linear approximation of what a layer contributes."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


class LinearApproximation(Attribution):
    r"""Activation times gradient at a layer, :math:`A_{nj} = a_{nj} \, \partial f / \partial a_{nj}`: the first-order change of
    the score if the unit were switched off.

    Shape of the layer's output (or of the input without ``layer=``, where it is :class:`InputXGradient`). In units of the
    score; sums to it only where f is linear and without bias above the layer.

    Paper: Olah et al. 2018, "The building blocks of interpretability", doi:10.23915/distill.00010.
    """

    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "doi:10.23915/distill.00010"

    def _attribute(self, problem: Problem) -> Tensors:
        return tuple(x * g for x, g in zip(problem.x, problem.run.all_gradients(problem.x)))
