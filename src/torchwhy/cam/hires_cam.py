"""HiResCAM: gradient times activation, cell by cell, and its positive parts."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap


class HiResCAM(ClassActivationMap):
    r"""Gradient times activation, cell by cell: :math:`M_{nu} = \mathrm{ReLU}(\sum_c g_{ncu} A_{ncu})`.

    With ``relu=False``, ``upsample=False`` and one linear layer above, the cells add up to the score minus the bias.

    Paper: Draelos and Carin 2020, arXiv:2011.08891, equation 5, which has no ReLU.
    """

    paper: ClassVar[str] = "arXiv:2011.08891"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the gradients themselves, ``(M, C, *grid)``."""
        return g


class ElementWiseCAM(ClassActivationMap):
    r"""The positive parts of gradient times activation: :math:`M_{nu} = \sum_c \mathrm{ReLU}(g_{ncu} A_{ncu})`.

    Never negative. It has no paper: :class:`HiResCAM` (the paper named here) with the ReLU on each channel.
    """

    paper: ClassVar[str] = "arXiv:2011.08891"

    def combine(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the maps ``(M, *grid)``."""
        return (g * a).clamp(min=0).sum(1)
