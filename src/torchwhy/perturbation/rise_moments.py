r"""What RISE sums up over its masks, and the map that the sums give: as in the paper, or with less noise.

The idea of :class:`ReducedMoments`: RISE's map is, but for constants, the covariance of the score with the mask at each element,
and an estimate from m masks is noisy mostly for a dull reason: two elements far apart are masked independently, but in m draws
they happen to be correlated, so that each takes a share of the other's effect. How the masks are correlated is known exactly,
though (:meth:`RandomGridMasks.covariance`). So a control variate removes it:

1. look at each mask at a few points, the *knots*: numbers h, with the mean taken off;
2. fit the scores by a linear function :math:`\beta^T h`. Opposite masks have opposite h, so that half the difference of their
   scores is the odd part of the score, free of all that is even in the mask: the fit is made on these;
3. the sample covariance of :math:`\beta^T h` with h is :math:`\hat C_{hh} \beta`, where :math:`C_{hh} \beta` would be right: the
   difference is noise. It is carried from the knots to all elements (the best linear prediction of the mask from its knots) and
   subtracted from the estimate.

The estimate has the same limit whatever β is, because :math:`\hat C_{hh}` tends to :math:`C_{hh}`; a good β only makes it
less noisy. The standard error is that of the scores' part that the linear function does not explain.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.features.statistics import GrowingTensor
from torchwhy.engine.layers.grid_layout import resize_maps
from torchwhy.perturbation.rise_masks import RandomGridMasks, kronecker_product
from torchwhy.shapley.paired_sampling import penalty_by_cross_validation


class PlainMoments:
    """The sums over masks of the paper's estimator and its standard error.

    Args:
        p: the chance of an element to be visible.
    """

    def __init__(self, p: float) -> None:
        self.p, self.m = p, 0
        self.total = self.product = self.squares = torch.zeros(())

    def add(self, s: Tensor, masks: Tensor) -> None:
        """Take in scores ``(m, N)`` and their masks ``(m, *spatial)``."""
        z = masks.flatten(1).double()
        self.product = self.product + s.T @ z
        self.squares = self.squares + s.square().T @ z.square()
        self.total = self.total + s.sum(0)
        self.m += len(s)

    def mean_score(self) -> Tensor:
        """Return the mean score of all masks, ``(N,)``."""
        return self.total / self.m

    def summary(self) -> tuple[Tensor, Tensor]:
        """Return the map and its standard error, ``(N, elements)``."""
        mean = self.product / self.m
        if self.m < 2:
            return mean / self.p, torch.full_like(mean, torch.inf)
        variance = (self.squares / self.m - mean.square()).clamp(min=0) / (self.m - 1)
        return mean / self.p, variance.sqrt() / self.p


class ReducedMoments:
    r"""What the estimator with reduced variance needs: sums over masks, and each mask at its knots.

    :math:`A_u = c + \frac1p \left[ \frac1m \sum_k (f_k - c)(M_{ku} - p) - (K (\hat C_{hh} - C_{hh}) \beta)_u \right]`, c the mean
    of :math:`f - \beta^T h`, K what carries the knots to all elements.

    Args:
        masks: that the scores belong to, in pairs of opposite ones.
    """

    def __init__(self, masks: RandomGridMasks) -> None:
        self.masks, self.p, self.m = masks, masks.p, 0
        self.product = self.mean = torch.zeros(())
        self.scores, self.knots = GrowingTensor(), GrowingTensor()

    def add(self, s: Tensor, masks: Tensor) -> None:
        """Take in scores ``(m, N)`` and their masks ``(m, *spatial)``."""
        u = masks.flatten(1).double().sub_(self.p)
        self.product, self.mean = self.product + s.T @ u, self.mean + u.sum(0)
        at = masks
        for dim, points in enumerate(self.masks.knots):
            at = at.index_select(1 + dim, points.to(at.device))
        self.scores.add(s)
        self.knots.add(at.flatten(1))
        self.m += len(s)

    def mean_score(self) -> Tensor:
        """Return the mean score of all masks, ``(N,)``."""
        return self.scores.rows.mean(0)

    def summary(self) -> tuple[Tensor, Tensor]:
        """Return the map and its standard error, ``(N, elements)``."""
        s, h = self.scores.rows, self.knots.rows.double() - self.p
        beta, inflate = _fit_linear_part((h[0::2] - h[1::2]) / 2, (s[0::2] - s[1::2]) / 2)
        linear = h @ beta
        centre = (s - linear).mean(0)
        known, carry, missed = self.masks.covariance(s)
        noise = (h.T @ h / self.m - kronecker_product(known)) @ beta  # (knots, N)
        product = (self.product - centre[:, None] * self.mean) / self.m
        values = centre[:, None] + (product - interpolation_along(carry, noise.T)) / self.p
        if self.m < 4:
            return values, torch.full_like(values, torch.inf)
        variance = self._variance_of_rest(s - centre - linear, h, inflate)
        # between the knots, what they do not tell of the mask meets what is linear in it
        variance = variance + linear.square().mean(0)[:, None] * missed / self.p**2
        return values, (variance / (self.m // 2)).sqrt()

    def _variance_of_rest(self, rest: Tensor, h: Tensor, inflate: Tensor) -> Tensor:
        """Return the variance ``(N, elements)`` of a pair's part in the map, from the scores less the fit, ``(m, N)``."""
        rest = rest.view(-1, 2, rest.shape[1])
        odd = (rest[:, 0] - rest[:, 1]) / 2 * inflate  # what was fitted
        rest = (rest.mean(1)[:, None] + torch.stack([odd, -odd], 1)).flatten(0, 1)
        each = [(e[:, None] * (1 + h / self.p)).view(-1, 2, h.shape[1]).mean(1).var(0) for e in rest.unbind(1)]
        at_knots = torch.stack(each).view(-1, 1, *(len(k) for k in self.masks.knots))
        return resize_maps(at_knots, tuple(self.masks.shape)).flatten(1)


def _fit_linear_part(v: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return a ridge regression without an intercept, whose penalty cross-validation chooses.

    Args:
        v: what it regresses on, ``(J, knots)``.
        t: the targets, ``(J, N)``.

    Returns:
        The coefficients ``(knots, N)``, and factors ``(J, N)`` that make residuals leave-one-out ones.
    """
    s, axes = torch.linalg.eigh(v.T @ v)  # squares are precise enough: the least penalty is 1e-7 of the largest
    there = s >= 1e-13 * s[-1:]
    s, axes = s[there].clamp(min=1e-300), axes[:, there]
    along_axes = v @ axes
    part = along_axes.T @ t
    y = part / s.sqrt()[:, None]
    rest = (t.square().sum(0) - y.square().sum(0)).clamp(min=0)
    penalty = penalty_by_cross_validation(s, y, rest, len(v))
    weight = 1 / (s[:, None] + penalty)
    return axes @ (part * weight), 1 / (1 - along_axes.square() @ weight).clamp(min=0.05)


def interpolation_along(factors: Sequence[Tensor], values: Tensor) -> Tensor:
    """Return values ``(N, k * k * ...)`` with a matrix ``(n, k)`` applied along each dimension: ``(N, n * n * ...)``."""
    out = values.view(-1, *(f.shape[1] for f in factors))
    for f in factors:
        out = torch.tensordot(out, f, ([1], [1]))
    return out.flatten(1)
