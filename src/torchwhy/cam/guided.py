"""Grad-CAM's place with guided backpropagation's detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ..attribution import Attribution, Inputs, ask
from ..backprop.guided import GuidedBackprop
from ..engine.grids import Reshape, extent, space
from ..engine.problem import Problem, Tensors
from ..engine.where import LayerLike
from .gradient_cams import GradCAM


@dataclass(kw_only=True, repr=False)
class GuidedGradCAM(Attribution):
    r"""Guided backpropagation times the Grad-CAM map of the input's size: :math:`A_{ncu} = m_{ncu} M_{nu}`.

    Of the shape of the inputs; in no unit, and sums to nothing. Its sharp edges come from :class:`GuidedBackprop`, which hardly
    knows the class; where they are shown follows from the coarse map of :class:`GradCAM`.

    Args:
        layer: whose activations make the map, as for :class:`GradCAM`.
        reshape: as for :class:`GradCAM`.

    Paper: Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. Linear interpolation, as there; Captum's default is the
    nearest cell.
    """

    layer: LayerLike | Sequence[LayerLike] | None = "auto"
    reshape: Reshape | None = None

    layer_role: ClassVar = "inner"
    paper: ClassVar[str] = "arXiv:1610.02391"

    def _attribute(self, problem: Problem) -> Tensors:
        size = extent(problem.x[space(problem.x)])
        if any(extent(x) != size for x in problem.x):
            raise ValueError(
                "inputs: GuidedGradCAM lays one map over all input tensors; they must be of one height and width"
            )
        guided = GuidedBackprop(self.model, batch_size=self.batch_size, precision=self.precision)
        place = GradCAM(
            self.model,
            layer=self.layer,
            attribute_to_layer_input=self.attribute_to_layer_input,
            reshape=self.reshape,
            batch_size=self.batch_size,
            precision=self.precision,
        )
        (found,) = ask(place, problem, problem.x, problem.rows)
        signals = ask(guided, problem, problem.x, problem.rows)
        return tuple(m * (found if m.dim() > 2 else found[:, 0]) for m in signals)

    def _form(self, values: Tensors, inputs: Inputs) -> Any:
        return Attribution._form(replace(self, layer=None), values, inputs)
