"""Conjugate gradients for the Gauss-Newton curvature of the mean loss, from where EK-FAC ends."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.influence.curvature import SHARE, Curvature, CurvatureProducts
from torchwhy.influence.ekfac import EKFAC


class ConjugateGradients(Curvature):
    """The Gauss-Newton curvature, whose inverse is approached step by step, all vectors together.

    Args:
        products: with the curvature, each of which goes through the training rows.
        start: the preconditioner.
        n_steps: the most steps.
        tolerance: of the residual, relative to the vector, at which a vector is done.
    """

    def __init__(self, products: CurvatureProducts, start: EKFAC, n_steps: int, tolerance: float = 1e-5) -> None:
        self.products, self.start, self.n_steps, self.tolerance = products, start, n_steps, tolerance
        self.residual = 0.0

    def solve(self, vectors: Tensor, damping: float | None) -> Tensor:
        """Return the product with the inverse; ``residual`` is the largest that was left, relative to the vector."""
        value = SHARE * self.start.mean_eigenvalue() if damping is None else damping
        found, rest = torch.zeros_like(vectors), vectors
        toward = near = self.start.solve(rest, value)
        size = (rest * near).sum(1, keepdim=True)
        goal = self.tolerance * vectors.norm(dim=1, keepdim=True)
        for _ in range(self.n_steps):
            going = (rest.norm(dim=1, keepdim=True) > goal).to(vectors)
            if not going.any():
                break
            image = self.products(toward) + value * toward
            step = going * size / (toward * image).sum(1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
            found, rest = found + step * toward, rest - step * image
            near = self.start.solve(rest, value)
            size, before = (rest * near).sum(1, keepdim=True), size
            toward = near + toward * size / before.clamp(min=torch.finfo(vectors.dtype).tiny)
        norm = vectors.norm(dim=1).clamp(min=torch.finfo(vectors.dtype).tiny)
        self.residual = float((rest.norm(dim=1) / norm).max())
        return found
