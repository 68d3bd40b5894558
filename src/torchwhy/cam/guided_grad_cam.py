"""Grad-CAM's place with guided backpropagation's detail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torchwhy.backprop.guided_backprop import GuidedBackprop
from torchwhy.cam.class_activation_map import ClassActivationMap
from torchwhy.cam.grad_cam import GradCAM
from torchwhy.engine.axes import axes_of
from torchwhy.engine.layers.grid_layout import ToGrid
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.structure import Structure, structure_of_some
from torchwhy.input_types import SomeInputs
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.wrapper import InnerFacts, Wrapper, attribute_at


class GuidedGradCAM(Wrapper[SomeInputs]):
    r"""Guided backpropagation times the Grad-CAM map of the input's size: :math:`A_{ncu} = m_{ncu} M_{nu}`.

    Of the shape of the inputs; in no unit, and sums to nothing. Its sharp edges come from :class:`GuidedBackprop`, which hardly
    knows the class; where they are shown follows from the coarse map of :class:`GradCAM`. Of several inputs it is of those that
    the layer sees, if these are of one size; else of the one that the map lies on.

    Args:
        of: another class activation map, whose own layer holds; None is :class:`GradCAM`.
        layer: whose activations make the map, as for :class:`GradCAM`.
        reshape: as for :class:`GradCAM`.

    Raises:
        TypeError: ``of`` is no class activation map.
        ValueError: ``of`` has another model; ``layer`` or ``reshape`` beside ``of``.

    Paper: Selvaraju et al. 2017, arXiv:1610.02391, section 3.2. Linear interpolation, as there; Captum's default is the
    nearest cell.
    """

    of: ClassActivationMap | None = None  # type: ignore[assignment]
    layer: LayerLike | Sequence[LayerLike] | None = "auto"  # type: ignore[assignment]
    reshape: ToGrid | None = None

    paper: ClassVar[str] = "arXiv:1610.02391"

    def _attribute(self, problem: Problem) -> Result:
        maps = attribute_at(self.of or self._grad_cam(), problem, problem.x, problem.rows)
        keys = problem.input_keys
        numbers = [keys.index(key) for key in maps.details.get("inputs", keys)]
        guided = GuidedBackprop(self.model, batch_size=self.batch_size, precision=self.precision)
        signals = attribute_at(guided, problem, problem.x, problem.rows).attributions
        (found,) = maps.attributions
        fitting = found[:, 0] if axes_of(problem, numbers[0]).channels is None else found
        products = tuple(signals[i] * fitting for i in numbers)
        inner = InnerFacts(problem.n)
        inner.add(problem.rows, maps)
        details = {**maps.details, **inner.as_details()}
        return Result(products, details=details, form=structure_of_some(problem.inputs.names, len(problem.x), numbers))

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.of is None:
            return
        if not isinstance(self.of, ClassActivationMap):
            raise TypeError(f"of={self.of!r}: expected a class activation map, as tw.GradCAM(model)")
        for name in ("layer", "attribute_to_layer_input", "reshape"):
            if name in self.settings():
                raise ValueError(f"{name}: give it to the method in of=")

    def _grad_cam(self) -> GradCAM:
        """Return the method whose map is taken without another one."""
        return GradCAM(
            self.model,
            layer=self.layer,
            attribute_to_layer_input=self.attribute_to_layer_input,
            reshape=self.reshape,
            batch_size=self.batch_size,
            precision=self.precision,
        )

    def result_structure(self, inputs: Structure) -> Structure:
        """Return how the attributions are put together: as the inputs."""
        return inputs
