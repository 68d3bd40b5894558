"""XGrad-CAM: channels weighted by gradients that the activations weigh."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap


class XGradCAM(ClassActivationMap):
    r"""Channels weighted by their gradients, these weighted by the activations:
    :math:`w_{nc} = \sum_u A_{ncu} g_{ncu} / \sum_u A_{ncu}`; 0 where the denominator is.

    Paper: Fu et al. 2020, arXiv:2008.02312, equation 8.
    """

    paper: ClassVar[str] = "arXiv:2008.02312"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the weights ``(M, C)``."""
        a, g = a.flatten(2), g.flatten(2)
        total = a.sum(2)
        return torch.where(total != 0, (a * g).sum(2) / total, 0)
