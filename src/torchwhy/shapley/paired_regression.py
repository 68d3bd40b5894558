"""Shapley and Banzhaf values as weighted least squares over complementary pairs of coalitions."""

from __future__ import annotations

import math

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
    r"""Values from score differences :math:`o_p = v(S_p) - v(\bar S_p)` and their standard errors, both (N, d).

    With x = 2z - 1 the odd part of an additive game is :math:`o_p = \sum_i x_{pi} \varphi_i`, and an interaction of two
    features adds to it exactly what its Shapley value says; so φ is the weighted least-squares fit of o by x, with
    :math:`\sum_i \varphi_i` = ``total`` solved exactly where it is given.  ``cubic`` first takes out what third-order
    interactions explain (:func:`cubic_part`, whose own values are known in closed form) and adds it back after: the
    limit is the same, the noise smaller.

    Shape: z (m, d), odd (m, N), weight (m,), total (N,), ``left_out`` (m,) the share of each pair's stratum not drawn.
    The errors are those of sampling (a sandwich estimate on leave-one-out residuals), zero where nothing was left out.
    """
    x, weight = 2 * z.to(odd) - 1, weight.to(odd)
    share = torch.ones_like(weight) if left_out is None else left_out.to(odd)
    values, explained, known = torch.zeros_like(odd[0, :, None]), torch.zeros_like(odd), torch.zeros_like(odd[0])
    cubic = cubic and 2 < x.shape[1] < len(x) - 1 and bool(share.any())
    if cubic:
        values, explained, known, error = cubic_part(x, odd, total)
    rest = odd - explained
    gram = torch.linalg.pinv((x * weight[:, None]).T @ x, hermitian=True)
    solve = gram @ (x * weight[:, None]).T  # (d, m): how each difference enters each value
    phi = solve @ rest
    if total is not None:
        u = gram.sum(1, keepdim=True) / gram.sum()
        phi = phi + u * (total - known - phi.sum(0))
        solve = solve - u * solve.sum(0)
    if not cubic:
        error = (rest - x @ phi) / (1 - leverage(x)).clamp(min=1e-3)[:, None]
    variance = (solve.square() * share) @ error.square()
    if len(x) < x.shape[1] + 2 and share.any():  # every residual is fitted away: nothing is known about the error
        variance = torch.full_like(variance, torch.inf)
    return values + phi.T, variance.T.sqrt()


def leverage(x: Tensor) -> Tensor:
    """How far each row of x (m, d) determines its own fitted value in least squares, (m,), between 0 and 1."""
    return _span(x).square().sum(1)


def cubic_part(x: Tensor, odd: Tensor, total: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""The third-order part of the odd scores: :math:`g(x) = \sum_{i<j<k} c_{ijk} x_i x_j x_k`, fitted by ridge regression.

    All of the d(d-1)(d-2)/6 coefficients are fitted at once through the kernel
    :math:`e_3(x \circ x') = (t^3 - (3d - 2) t) / 6`, :math:`t = x \cdot x'`, beside an unpenalised linear part; the
    penalty is chosen per row by generalised cross-validation.  A triple shares its coefficient equally,
    :math:`\varphi_i = \tfrac13 \sum_{i \in T} c_T` (o holds twice the odd part of the game); for Banzhaf values, without
    ``total``, it counts nothing.

    Returns the values (N, d), the explained scores (m, N), the explained total (N,), and the leave-one-out residuals
    (m, N) of the whole fit.
    """
    m, d = x.shape
    use = torch.arange(m, device=x.device)
    if m > MOST_CUBIC:
        use = use[:: -(-m // MOST_CUBIC)]
    own, o = x[use], odd[use]
    if total is not None:  # the grand coalition is known: a pair like the others
        own, o = torch.cat([own, torch.ones_like(own[:1])]), torch.cat([o, total[None]])
    linear = _span(own)
    o = o - linear @ (linear.T @ o)
    kernel = _e3(own @ own.T, d)  # m² numbers: changed in place
    kernel.addmm_(linear, linear.T @ kernel, alpha=-1)
    kernel.addmm_(kernel @ linear, linear.T, alpha=-1)
    # the linear part gets the largest eigenvalues, so that it comes last and can be left out
    s, basis = torch.linalg.eigh(kernel.addmm_(linear, linear.T, alpha=2 * float(kernel.trace())))
    del kernel
    s, basis = s[: -linear.shape[1]].clamp(min=0), basis[:, : -linear.shape[1]]
    y = basis.T @ o
    lam = penalty_by_cross_validation(s, y, torch.zeros_like(y[0]), len(s))
    coefficients = basis @ (y / (s[:, None] + lam))
    others = own.sum(1, keepdim=True) - own
    values = (coefficients.T @ ((others.square() - (d - 1)) * own)) / (6 if total is not None else math.inf)
    explained = _e3(x @ own.T, d) @ coefficients
    error = odd - explained
    linear = _span(x)
    error = error - linear @ (linear.T @ error)
    error[use] = (coefficients / (basis.square() @ (1 / (s[:, None] + lam))))[: len(use)]
    return values, explained, _e3(own.sum(1), d) @ coefficients, error


def _span(x: Tensor) -> Tensor:
    """An orthonormal basis of the columns of x (m, d), (m, rank)."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u[:, s > 1e-9 * s.max()]


def _e3(t: Tensor, d: int) -> Tensor:
    return t.square().sub_(3 * d - 2).mul_(t).div_(6)
