"""ShapleyCAM: Grad-CAM with the curvature of the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from torchwhy.cam.grad_cam import GradCAM
from torchwhy.engine.run.autograd import second_order_gradient
from torchwhy.engine.run.runner import GradientFunction
from torchwhy.problem import Problem


class ShapleyCAM(GradCAM):
    r"""Grad-CAM with the second-order Shapley value of the activations in place of the gradient:
    :math:`w_{nc} = \frac{1}{|G|} \sum_u (g - \tfrac12 H A)_{ncu}`, H the score's Hessian by A.

    Equal to :class:`GradCAM` where the model is piecewise linear above the layer. It takes a second backward pass through
    the part above the layer. The paper explains :math:`y_c + \log \mathrm{softmax}_c(y)`: a callable target.

    Args:
        elementwise: weight each cell by its own value, as :class:`HiResCAM` does.

    Paper: Cai 2025, arXiv:2501.06261.
    """

    elementwise: bool = False

    paper: ClassVar[str] = "arXiv:2501.06261"
    layer_gradient: ClassVar[GradientFunction] = staticmethod(second_order_gradient)

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the values ``(M, C, *grid)``, or their means ``(M, C)``."""
        return g if self.elementwise else super().weights(a, g)

    def maps(self, problem: Problem) -> Sequence[Tensor]:
        """Return the maps with attention taken apart: when it is fused it has no second derivative."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            return super().maps(problem)
