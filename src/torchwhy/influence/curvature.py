"""How the mean loss over the training rows bends, and its products with vectors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.overrides import TorchFunctionMode

from torchwhy.engine.torch_internals import weight_norm
from torchwhy.influence.named_tensors import NamedTensors
from torchwhy.influence.row_gradients import RowGradients, exact_attention
from torchwhy.influence.training_rows import RowBatch, RowsInBatches

SHARE = 0.1  # of the mean eigenvalue, where no damping is given
TOGETHER = 32  # vectors that are multiplied at a time

Product = Callable[[NamedTensors], NamedTensors]


class Curvature(ABC):
    """A matrix C in the place of the Hessian of the mean loss, ``(p, p)``."""

    @abstractmethod
    def solve(self, vectors: Tensor, damping: float | None) -> Tensor:
        """Return :math:`(C + \\lambda)^{-1} v` for vectors ``(N, p)``; of no λ a share of the mean eigenvalue is taken."""


class CurvatureProducts:
    """Products of the curvature of the mean loss with vectors, without the matrix.

    Args:
        gradients: by which parameters, of which loss.
        rows: the training rows.
        gauss_newton: the curvature of the loss by the outputs alone, which is nowhere negative; else the whole Hessian.
    """

    def __init__(self, gradients: RowGradients, rows: RowsInBatches, *, gauss_newton: bool) -> None:
        self.gradients, self.rows, self.gauss_newton = gradients, rows, gauss_newton

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return the products with vectors ``(K, p)``, going once through the training rows."""
        total = torch.zeros_like(vectors)
        of_batch = self._gauss_newton if self.gauss_newton else self._hessian
        with exact_attention(), ExactWeightNorm():
            for batch in self.rows:
                product = vmap(of_batch(self.gradients.loss.complete(batch)))
                parts = [product(self.gradients.split(some)) for some in vectors.split(TOGETHER)]
                total += torch.cat([self.gradients.flatten(part) for part in parts])
        return total / self.rows.count()

    def _hessian(self, piece: RowBatch) -> Product:
        """Return what multiplies by the Hessian of the rows' summed loss."""
        of = self.gradients

        def total(parameters: NamedTensors) -> Tensor:
            return of.losses(parameters, piece).sum()

        back = vjp(grad(total), of.parameters)[1]
        return lambda v: back(v)[0]

    def _gauss_newton(self, piece: RowBatch) -> Product:
        """Return what multiplies by J^T H J, J the outputs by the parameters, H the loss by the outputs."""
        of = self.gradients

        def logits(parameters: NamedTensors) -> Tensor:
            return of.logits(parameters, piece)

        def loss(z: Tensor) -> Tensor:
            return of.losses_of(z, piece).sum()

        outputs, back = vjp(logits, of.parameters)[:2]
        forth = vjp(back, torch.zeros_like(outputs))[1]  # what is linear, turned once more, is J itself
        bend = vjp(grad(loss), outputs)[1]

        def product(v: NamedTensors) -> NamedTensors:
            (found,) = back(*bend(*forth((v,))))
            return found

        return product


class ExactWeightNorm(TorchFunctionMode):
    """Compute weight norm in steps while open, as the second derivative that torch has of it is wrong (torch 2.14)."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not weight_norm:
            return func(*args, **(kwargs or {}))
        v, g, dim = args
        return v * (g / torch.norm_except_dim(v, 2, dim))
