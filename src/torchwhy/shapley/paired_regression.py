r"""Shapley and Banzhaf values as weighted least squares over complementary pairs of coalitions.

The idea: write a coalition S as a vector of signs, :math:`x_i = 1` where feature i is in it and −1 where not. Its complement is
−x, and any game splits into an even part, equal for S and its complement, and an odd part. Shapley and Banzhaf values depend
on the odd part alone, so that one number for each pair is all they need: :math:`o_p = v(S_p) - v(\bar S_p)`.

1. *Additive games.* For these :math:`o_p = \sum_i x_{pi} \varphi_i`: a linear function of the signs, whose coefficients are
   the values.
2. *Pairwise interactions* are even but for a linear part, which is exactly what their values say. They do no harm.
3. *All else* is noise for a linear fit. Weighted as Shapley's kernel says (by the size of S), the best linear fit to *all*
   pairs still is the Shapley values, and :math:`\sum_i \varphi_i = v(D) - v(\emptyset)` is one equation more, which is solved
   exactly. Of a sample of pairs it is an estimate.
4. *Third order.* The first terms of that noise are products of three signs, :math:`x_i x_j x_k`. Their own values are known, a
   third of the coefficient for each of the three. So they are fitted beside the linear part, their share is taken out of the
   scores, and their values are added back (:func:`cubic_part`): a control variate, which does not move the limit. There are
   some d³ / 6 of them, but the kernel trick needs only a matrix of pairs by pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.features.statistics import penalty_by_cross_validation

# pairs the third-order part is fitted on: its memory grows with their square, its time with their cube
MOST_CUBIC = 1024


def paired_regression(
    z: Tensor,
    odd: Tensor,
    weight: Tensor,
    total: Tensor | None = None,
    left_out: Tensor | None = None,
    cubic: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Return values from score differences :math:`o_p = v(S_p) - v(\bar S_p)`, and their standard errors, both (N, d).

    The errors are those of sampling (a sandwich estimate on leave-one-out residuals), zero where nothing was left out.

    Args:
        z: coalitions S, (m, d).
        odd: the differences, (m, N).
        weight: of each pair, (m,).
        total: what the values of each row sum to, (N,), solved exactly; None for Banzhaf values, which sum to nothing.
        left_out: the share of each pair's stratum that was not drawn, (m,); None where nothing is enumerated.
        cubic: take out what third-order interactions explain. The limit is the same, the noise smaller.
    """
    x, weight = 2 * z.to(odd) - 1, weight.to(odd)
    share = torch.ones_like(weight) if left_out is None else left_out.to(odd)
    cubic = cubic and 2 < x.shape[1] < len(x) - 1 and bool(share.any())
    third = cubic_part(x, odd, total) if cubic else None
    rest = odd if third is None else odd - third.explained
    gram = torch.linalg.pinv((x * weight[:, None]).T @ x, hermitian=True)
    solve = gram @ (x * weight[:, None]).T  # (d, m): how each difference enters each value
    phi = solve @ rest
    if total is not None:
        left = total if third is None else total - third.total
        u = gram.sum(1, keepdim=True) / gram.sum()
        phi = phi + u * (left - phi.sum(0))
        solve = solve - u * solve.sum(0)
    if third is None:
        error = (rest - x @ phi) / (1 - leverage(x)).clamp(min=1e-3)[:, None]
    else:
        error = third.residuals
    variance = (solve.square() * share) @ error.square()
    if len(x) < x.shape[1] + 2 and share.any():  # every residual is fitted away: nothing is known about the error
        variance = torch.full_like(variance, torch.inf)
    values = phi.T if third is None else third.values + phi.T
    return values, variance.T.sqrt()


def leverage(x: Tensor) -> Tensor:
    """Return how far each row of x (m, d) determines its own fitted value in least squares, (m,), between 0 and 1."""
    return _orthonormal_basis(x).square().sum(1)


class CubicPart(NamedTuple):
    """What third-order interactions say.

    Args:
        values: their Shapley values, (N, d); for Banzhaf values 0.
        explained: their part of the score differences, (m, N).
        total: what their values sum to, (N,).
        residuals: leave-one-out residuals of the whole fit, (m, N).
    """

    values: Tensor
    explained: Tensor
    total: Tensor
    residuals: Tensor


def cubic_part(x: Tensor, odd: Tensor, total: Tensor | None) -> CubicPart:
    r"""Return the third-order part of the odd scores, :math:`g(x) = \sum_{i<j<k} c_{ijk} x_i x_j x_k`, by ridge regression.

    All of the d(d-1)(d-2)/6 coefficients are fitted at once through the kernel
    :math:`e_3(x \circ x') = (t^3 - (3d - 2) t) / 6`, :math:`t = x \cdot x'`, beside a linear part without a penalty; the
    penalty is chosen per row by generalised cross-validation.  A triple shares its coefficient equally,
    :math:`\varphi_i = \tfrac13 \sum_{i \in T} c_T` (o holds twice the odd part of the game); for Banzhaf values, without
    ``total``, it counts nothing.

    Args:
        x: the signs of the coalitions, (m, d).
        odd: the score differences, (m, N).
        total: the difference of everything and nothing, (N,), a pair like the others; None for Banzhaf values.
    """
    m, d = x.shape
    use = torch.arange(m, device=x.device)
    if m > MOST_CUBIC:
        use = use[:: -(-m // MOST_CUBIC)]
    own, o = x[use], odd[use]
    if total is not None:
        own, o = torch.cat([own, torch.ones_like(own[:1])]), torch.cat([o, total[None]])
    linear = _orthonormal_basis(own)
    o = o - linear @ (linear.T @ o)
    kernel = _cubic_kernel(own @ own.T, d)  # m² numbers: changed in place
    kernel.addmm_(linear, linear.T @ kernel, alpha=-1)
    kernel.addmm_(kernel @ linear, linear.T, alpha=-1)
    # the linear part gets the largest eigenvalues, so that it comes last and can be left out
    s, basis = torch.linalg.eigh(kernel.addmm_(linear, linear.T, alpha=2 * float(kernel.trace())))
    del kernel
    s, basis = s[: -linear.shape[1]].clamp(min=0), basis[:, : -linear.shape[1]]
    y = basis.T @ o
    penalty = penalty_by_cross_validation(s, y, torch.zeros_like(y[0]), len(s))
    coefficients = basis @ (y / (s[:, None] + penalty))
    values = y.new_zeros(odd.shape[1], d)
    if total is not None:
        others = own.sum(1, keepdim=True) - own
        values = (coefficients.T @ ((others.square() - (d - 1)) * own)) / 6
    explained = _cubic_kernel(x @ own.T, d) @ coefficients
    residuals = odd - explained
    linear = _orthonormal_basis(x)
    residuals = residuals - linear @ (linear.T @ residuals)
    residuals[use] = (coefficients / (basis.square() @ (1 / (s[:, None] + penalty))))[: len(use)]
    return CubicPart(values, explained, _cubic_kernel(own.sum(1), d) @ coefficients, residuals)


def _orthonormal_basis(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns of x (m, d), (m, rank)."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u[:, s > 1e-9 * s.max()]


def _cubic_kernel(t: Tensor, d: int) -> Tensor:
    """Return the sum over all triples of the products of their signs, from the products t of vectors of d signs; t is used up."""
    return t.square().sub_(3 * d - 2).mul_(t).div_(6)
