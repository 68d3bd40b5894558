"""KPCA-CAM: the principal component of a layer's activations by a kernel."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.eigen_cam import EigenCAM, first_component, orient
from torchwhy.settings import Positive


class KPCACAM(EigenCAM):
    r"""The activations' first component by kernel PCA: :math:`M_{nu} = \sqrt{\lambda} v_u`, of the centred kernel matrix
    :math:`K_{uv} = k(a_u, a_v)` of the cells.

    The kernel matrix has as many rows as the grid has cells. Kernels as scikit-learn's: ``sigmoid``
    :math:`\tanh(\gamma a \cdot b + c)`, ``rbf`` :math:`\exp(-\gamma |a - b|^2)`, ``poly`` :math:`(\gamma a \cdot b + c)^d`,
    ``linear``, which with ``centre=True`` gives :class:`EigenCAM`.

    Args:
        kernel: the kernel.
        gamma: γ; None is 1 / C.
        coef0: c.
        degree: d.

    Paper: Karmani et al. 2024, arXiv:2410.00267. The points are centred before the kernel.
    """

    kernel: Literal["sigmoid", "rbf", "poly", "linear"] = "sigmoid"
    gamma: Positive | None = None
    coef0: float = 1.0
    degree: Positive = 3.0

    paper: ClassVar[str] = "arXiv:2410.00267"

    def project(self, values: Tensor) -> Tensor:
        """Return the first component's scores ``(N, *grid)`` of values ``(N, C, *grid)``."""
        rows = values.flatten(2).mT
        k = self._kernel_matrix(rows - rows.mean(1, keepdim=True) if self.centre else rows)
        noise = (4 * k.shape[1] * torch.finfo(k.dtype).eps * k.abs().amax((1, 2))).sqrt()[:, None]
        k = k - k.mean(1, keepdim=True) - k.mean(2, keepdim=True) + k.mean((1, 2), keepdim=True)
        return orient(first_component(k), rows, noise).unflatten(1, values.shape[2:])

    def _kernel_matrix(self, points: Tensor) -> Tensor:
        """Return the kernel of every two cells, ``(N, P, P)``, of points ``(N, P, C)``."""
        products = points @ points.mT
        gamma = 1 / points.shape[2] if self.gamma is None else self.gamma
        if self.kernel == "sigmoid":
            return torch.tanh(gamma * products + self.coef0)
        if self.kernel == "poly":
            return (gamma * products + self.coef0) ** self.degree
        if self.kernel == "rbf":
            squares = products.diagonal(dim1=1, dim2=2)
            return torch.exp(-gamma * (squares[:, :, None] + squares[:, None] - 2 * products).clamp(min=0))
        return products
