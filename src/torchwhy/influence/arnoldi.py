"""The largest eigenvalues of the Hessian, by Arnoldi's iteration."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Seed, draw_normal, make_generator
from torchwhy.influence.curvature import Curvature, CurvatureProducts
from torchwhy.influence.row_gradients import RowGradients
from torchwhy.influence.training_rows import RowsInBatches


class Arnoldi(Curvature):
    """The Hessian within the span of its largest eigenvectors; elsewhere its inverse is zero.

    Args:
        gradients: by which parameters, of which loss.
        rows: the training rows, gone through once a step.
        n_steps: of the iteration, from a random vector.
        rank: the most eigenvectors that are kept; of those with a negative eigenvalue none is.
        generator: of the first vector.
    """

    def __init__(self, gradients: RowGradients, rows: RowsInBatches, n_steps: int, rank: int, generator: Seed) -> None:
        products = CurvatureProducts(gradients, rows, gauss_newton=False)
        like = next(iter(gradients.parameters.values()))
        drawn = draw_normal(1, gradients.total, generator=make_generator(generator)).to(like)
        basis, columns = drawn / drawn.norm(), []
        for _ in range(min(n_steps, gradients.total)):
            image = products(basis[-1:])
            columns.append(image)
            rest = image
            for _again in range(2):  # once is not enough in this precision
                rest = rest - (rest @ basis.T) @ basis
            if float(rest.norm()) <= 1e-6 * float(image.norm()):
                break  # the span is closed
            basis = torch.cat([basis, rest / rest.norm()])
        basis = basis[: len(columns)]
        small = (basis @ torch.cat(columns).T).double()
        values, vectors = torch.linalg.eigh((small + small.T) / 2)
        kept = [i for i in values.abs().argsort(descending=True).tolist() if values[i] > 1e-6 * values.max()][:rank]
        self.values = values[kept].to(like)
        self.vectors = vectors[:, kept].T.to(like) @ basis

    def solve(self, vectors: Tensor, damping: float | None) -> Tensor:
        """Return the inverse's product within the span."""
        return (vectors @ self.vectors.T / (self.values + (damping or 0.0))) @ self.vectors
