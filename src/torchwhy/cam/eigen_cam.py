"""Class activation maps that project the activations onto their principal component."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap
from torchwhy.engine.run.rows import all_finite
from torchwhy.problem import Problem


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

    def maps(self, problem: Problem) -> Sequence[Tensor]:
        """Return the maps of the activations alone."""
        activations = self.activations(problem)

        def work(start: int, stop: int) -> list[Tensor]:
            return [self.project(a[start:stop]) for a in activations]

        return problem.run.concatenated(problem.n, work)

    def project(self, values: Tensor) -> Tensor:
        """Return the projections ``(N, *grid)`` of values ``(N, C, *grid)``."""
        if not all_finite(values):
            raise FloatingPointError(
                f"{type(self).__name__}: the layer passes NaN or infinite values, or gradients of it are"
            )
        rows = values.flatten(2).mT  # (N, cells, C)
        points = rows - rows.mean(1, keepdim=True) if self.centre else rows
        if points.shape[1] <= points.shape[2]:
            found = first_component(points @ points.mT)
        else:  # fewer channels than cells: the smaller matrix has the same component
            found = torch.bmm(points, torch.linalg.eigh(points.mT @ points)[1][..., -1:])[..., 0]
        noise = 16 * torch.finfo(rows.dtype).eps * rows.norm(dim=2).amax(1, keepdim=True)
        return orient(found, rows, noise).unflatten(1, values.shape[2:])


class EigenGradCAM(EigenCAM):
    r"""Gradient times activation projected onto its first principal direction: :math:`g_{ncu} A_{ncu}` in the
    place that :math:`A_{ncu}` has in :class:`EigenCAM`, and so a map of a target.

    It has no paper of its own; the one named is that of :class:`EigenCAM`.
    """

    needs_gradient: ClassVar[bool] = True

    def maps(self, problem: Problem) -> Sequence[Tensor]:
        """Return the maps of gradients times activations."""
        return ClassActivationMap.maps(self, problem)

    def combine(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the maps ``(M, *grid)``."""
        return self.project(g * a)


def first_component(matrix: Tensor) -> Tensor:
    """Return the first component's scores √λ v, ``(N, P)``, of matrices of products ``(N, P, P)``."""
    values, vectors = torch.linalg.eigh(matrix)
    return values[:, -1:].clamp(min=0).sqrt() * vectors[..., -1]


def orient(projection: Tensor, rows: Tensor, noise: Tensor) -> Tensor:
    """Return the projection ``(N, P)`` with the sign of the sums of ``rows`` ``(N, P, C)``, in a tie with that of its peak.

    It is 0 where its largest value is below ``noise`` ``(N, 1)``: all cells are the same, and the rest is rounding.
    """
    agreement = (projection * rows.sum(2)).sum(1, keepdim=True)
    peak = projection.gather(1, projection.abs().argmax(1, keepdim=True))
    sign = torch.where(agreement == 0, peak, agreement).sign()
    return torch.where(peak.abs() > noise, projection * sign, 0)
