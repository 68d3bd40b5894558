"""Grad-CAM's place with guided backpropagation's detail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torchwhy.attribution import Attribution, Inputs, attribute_at
from torchwhy.backprop.guided_backprop import GuidedBackprop
from torchwhy.cam.gradient_cams import GradCAM
from torchwhy.engine.layers.grid_layout import ToGrid, image_input_index, spatial_shape
from torchwhy.engine.layers.hooks import LayerLike
from torchwhy.problem import Problem, Tensors


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
    reshape: ToGrid | None = None

    layer_role: ClassVar = "inner"
    paper: ClassVar[str] = "arXiv:1610.02391"

    def _attribute(self, problem: Problem) -> Tensors:
        size = spatial_shape(problem.x[image_input_index(problem.x)])
        if any(spatial_shape(x) != size for x in problem.x):
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
        (found,) = attribute_at(place, problem, problem.x, problem.rows)
        signals = attribute_at(guided, problem, problem.x, problem.rows)
        return tuple(m * (found if m.dim() > 2 else found[:, 0]) for m in signals)

    def _form(self, values: Tensors, inputs: Inputs) -> Any:
        return Attribution._form(replace(self, layer=None), values, inputs)
