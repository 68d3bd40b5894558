"""Class activation maps that project the activations onto their principal component."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap
from torchwhy.problem import Problem

Kernel = Literal["sigmoid", "rbf", "poly", "linear"]


class EigenCAM(ClassActivationMap):
    r"""The activations of each cell projected onto their first principal direction: :math:`M_{nu} = \sum_c A_{ncu} v_{nc}`.

    It knows of no target and takes none: it shows what the layer is most active about. Its sign, which a principal component
    leaves open, is such that the map agrees with the sum of the channels.

    Args:
        centre: subtract each channel's mean over the cells; the paper does not (``centre=False``).

    Paper: Muhammad and Yeasin 2020, arXiv:2008.00299.
    """

    centre: bool = True

    needs_gradient: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2008.00299"

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all, from the activations alone."""

        def work(a: Tensor, start: int, stop: int) -> Tensor:
            return self.project(a[start:stop])

        return [problem.run.concatenated(problem.n, partial(work, a)) for a in self.activations(problem)]

    def project(self, values: Tensor) -> Tensor:
        """Values ``(N, C, *grid)`` → ``(N, *grid)``."""
        rows = values.flatten(2).mT  # (N, cells, C)
        points = rows - rows.mean(1, keepdim=True) if self.centre else rows
        if points.shape[1] <= points.shape[2]:
            found = _first_component(points @ points.mT)
        else:  # fewer channels than cells: the smaller matrix has the same component
            found = torch.bmm(points, torch.linalg.eigh(points.mT @ points)[1][..., -1:])[..., 0]
        noise = 16 * torch.finfo(rows.dtype).eps * rows.norm(dim=2).amax(1, keepdim=True)
        return oriented(found, rows, noise).unflatten(1, values.shape[2:])


class EigenGradCAM(EigenCAM):
    r"""Gradient times activation projected onto its first principal direction: :math:`g_{ncu} A_{ncu}` in the
    place that :math:`A_{ncu}` has in :class:`EigenCAM`, and so a map of a target.

    It has no paper of its own; the one named is that of :class:`EigenCAM`.
    """

    needs_gradient: ClassVar[bool] = True

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all."""
        return ClassActivationMap.maps(self, problem)

    def combine(self, a: Tensor, g: Tensor) -> Tensor:
        """The map, ``(M, *grid)``."""
        return self.project(g * a)


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

    kernel: Kernel = "sigmoid"
    gamma: float | None = None
    coef0: float = 1.0
    degree: float = 3.0

    paper: ClassVar[str] = "arXiv:2410.00267"

    def project(self, values: Tensor) -> Tensor:
        """Values ``(N, C, *grid)`` → ``(N, *grid)``."""
        rows = values.flatten(2).mT
        points = rows - rows.mean(1, keepdim=True) if self.centre else rows
        dots, gamma = points @ points.mT, 1 / points.shape[2] if self.gamma is None else self.gamma
        if self.kernel == "sigmoid":
            k = torch.tanh(gamma * dots + self.coef0)
        elif self.kernel == "poly":
            k = (gamma * dots + self.coef0) ** self.degree
        elif self.kernel == "rbf":
            squares = dots.diagonal(dim1=1, dim2=2)
            k = torch.exp(-gamma * (squares[:, :, None] + squares[:, None] - 2 * dots).clamp(min=0))
        elif self.kernel == "linear":
            k = dots
        else:
            raise ValueError(f"kernel={self.kernel!r}: expected 'sigmoid', 'rbf', 'poly' or 'linear'")
        noise = (4 * k.shape[1] * torch.finfo(k.dtype).eps * k.abs().amax((1, 2))).sqrt()[:, None]
        k = k - k.mean(1, keepdim=True) - k.mean(2, keepdim=True) + k.mean((1, 2), keepdim=True)
        return oriented(_first_component(k), rows, noise).unflatten(1, values.shape[2:])


def _first_component(matrix: Tensor) -> Tensor:
    """The first component's scores √λ v, ``(N, P)``, of matrices of products ``(N, P, P)``."""
    values, vectors = torch.linalg.eigh(matrix)
    return values[:, -1:].clamp(min=0).sqrt() * vectors[..., -1]


def oriented(projection: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
    """The projection ``(N, P)`` with the sign that agrees with the sums of ``rows`` ``(N, P, C)``, its peak's in a tie.

    It is 0 where its largest value is below ``noise`` ``(N, 1)``: all cells are the same, and the rest is rounding.
    """
    agreement = (projection * rows.sum(2)).sum(1, keepdim=True)
    peak = projection.gather(1, projection.abs().argmax(1, keepdim=True))
    sign = torch.where(agreement == 0, peak, agreement).sign()
    return torch.where(peak.abs() > noise, projection * sign, 0)
