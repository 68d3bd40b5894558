"""The activations of a layer."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class LayerActivation(Attribution[GivenLayer]):
    r"""The activations of a layer: :math:`A_n = y(x_n)`.

    Not an attribution: it does not know the target. With it the same places can be read that the other methods explain by:
    ``layer=``, which is needed, its input, one of its calls, several layers at once.
    """

    needs_gradient: ClassVar[bool] = False
    layers_may_depend: ClassVar[bool] = True  # they are only read

    def _attribute(self, problem: Problem) -> Tensors:
        return problem.x

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is None:
            raise ValueError("layer: LayerActivation reads a layer; give layer=")
