"""Grad-CAM: channels weighted by their mean gradient."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap


class GradCAM(ClassActivationMap):
    r"""Channels weighted by their mean gradient: :math:`w_{nc} = \frac{1}{|G|} \sum_{u \in G} g_{ncu}`,
    :math:`g = \partial f / \partial A`.

    ``G`` are the cells of the grid. Up to a positive factor it is :class:`CAM` where global average pooling and one linear
    layer follow. With ``upsample=False`` a layer of vectors ``(N, C)`` is a grid of one cell, and the map ``(N, 1, 1)`` the sum
    of its activations times their gradients.

    Paper: Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    >>> GradCAM(net).attribute(torch.ones(2, 3, 8, 8), target=1).shape
    torch.Size([2, 1, 8, 8])
    """

    vectors_are_a_cell: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1610.02391"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the mean gradients ``(M, C)``."""
        return g.mean(tuple(range(2, g.dim())))
