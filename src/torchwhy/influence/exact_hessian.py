"""The Hessian of the mean loss, as a matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.run.batching import budget_of
from torchwhy.influence.curvature import SHARE, Curvature, CurvatureProducts
from torchwhy.influence.row_gradients import RowGradients
from torchwhy.influence.training_rows import RowsInBatches


class ExactHessian(Curvature):
    """The Hessian, column by column, in double precision.

    Args:
        gradients: by which parameters, of which loss.
        rows: the training rows.

    Raises:
        ValueError: more parameters than the matrix has room for.
    """

    def __init__(self, gradients: RowGradients, rows: RowsInBatches) -> None:
        p, device = gradients.total, next(iter(gradients.parameters.values())).device
        most = int((budget_of(device) / 16) ** 0.5)
        if p > most:
            raise ValueError(
                f"layer: {p} parameters, and the exact Hessian has room for {most} (tw.memory_budget); name fewer layers, or "
                "take hessian='ekfac'"
            )
        like = next(iter(gradients.parameters.values()))
        found = CurvatureProducts(gradients, rows, gauss_newton=False)(torch.eye(p, dtype=like.dtype, device=device))
        self.matrix = ((found + found.T) / 2).double()
        self.factor: tuple[float, Tensor] | None = None

    def solve(self, vectors: Tensor, damping: float | None) -> Tensor:
        """Return :math:`(H + \\lambda)^{-1} v`.

        Raises:
            ValueError: the sum has a direction in which the loss does not rise.
        """
        value = SHARE * float(self.matrix.diagonal().mean()) if damping is None else damping
        if self.factor is None or self.factor[0] != value:
            damped = self.matrix + value * torch.eye(len(self.matrix), dtype=torch.double, device=self.matrix.device)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if failed:
                least = float(torch.linalg.eigvalsh(self.matrix)[0])
                raise ValueError(
                    f"damping={value:.3g}: the Hessian's least eigenvalue is {least:.3g}; the sum must be above zero, as it is "
                    "for the last layer of a model trained to a minimum: raise damping=, or take hessian='ekfac'"
                )
            self.factor = value, factor
        return torch.cholesky_solve(vectors.double().T, self.factor[1]).T.to(vectors)
