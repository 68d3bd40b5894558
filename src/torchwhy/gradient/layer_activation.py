"""What a layer passes on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.layers.hooks import ResolvedLayer
from torchwhy.problem import Problem, Tensors


@dataclass(kw_only=True, repr=False)
class LayerActivation(Attribution):
    r"""The activations of a layer: :math:`A_n = y(x_n)`.

    Not an attribution: it does not know the target. With it the same places can be read that the other methods explain by:
    ``layer=``, which is needed, its input, one of its calls, several layers at once.
    """

    needs_gradient: ClassVar[bool] = False

    def _check_apart(self, problem: Problem, places: tuple[ResolvedLayer, ...]) -> None:
        """Layers that are only read may lie behind one another."""

    def _attribute(self, problem: Problem) -> Tensors:
        if not problem.cut:
            raise ValueError("LayerActivation reads a layer: give layer=")
        return problem.x
