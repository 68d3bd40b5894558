"""Pairwise interactions from sampled pairs of complementary coalitions."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from torchwhy.shapley.paired_sampling import MOST_CUBIC, penalty_by_cross_validation

PairWeights = Callable[[int, int], tuple[float, float, float]]


def shapley_pair_weights(d: int, size: int) -> tuple[float, float, float]:
    r"""Return how a coalition's score enters the interaction of two features of which both, one or none are in it.

    The weights of the Shapley interaction index times the number :math:`\binom{d}{s}` of coalitions of that size.
    """
    s, r = size, d - size
    both = d / (s * (s - 1)) if s > 1 else 0.0
    one = -d / (s * r) if s and r else 0.0
    none = d / (r * (r - 1)) if r > 1 else 0.0
    return both, one, none


def banzhaf_pair_weights(d: int, size: int) -> tuple[float, float, float]:
    """Return the same for the Banzhaf interaction index, in which all coalitions count alike."""
    w = math.comb(d, size) / 2 ** (d - 2)
    return w, -w, w


def pair_interactions(
    z: Tensor, even: Tensor, ends: Tensor, left_out: Tensor, weights: PairWeights
) -> tuple[Tensor, Tensor]:
    r"""Return interactions :math:`I_{ij}` ``(N, d, d)`` and their standard errors, zero on the diagonal.

    Both indices are linear in :math:`e_p = v(S_p) + v(\bar S_p)`, with weights that depend on the size of S and on whether
    both, one or none of i and j are in it. A ridge regression first takes out what products of two features explain, whose
    interactions are known; what it leaves is averaged size by size, so the limit does not depend on the fit.
    The error is infinite where a size has no pair.

    Args:
        z: coalitions S, ``(m, d)``.
        even: the sums :math:`e_p`, ``(m, N)``.
        ends: the score of everything plus that of nothing, ``(N,)``.
        left_out: the share of the pairs of a size that was not drawn, ``(m,)``.
        weights: d and the size of S → the weights with which both, one or none of two features in S count.
    """
    d, x = z.shape[1], 2 * z.to(even) - 1
    b, constant, residual = _fit_products(x, even / 2)
    product = torch.einsum("pi,nij,pj->pn", x, b, x) / 2
    rest = even - 2 * (constant + product)
    values = 4 * b + weights(d, 0)[2] * (ends - 2 * constant - b.sum((1, 2)))[:, None, None]
    variance, size = torch.zeros_like(values), z.sum(1)
    for s in range(1, d // 2 + 1):
        at = size == s
        m, share = int(at.sum()), 0.5 if 2 * s == d else 1.0
        if not m:
            variance += torch.inf
            continue
        w = [share / m * v for v in weights(d, s)]
        values += _by_membership(z[at].to(even), rest[at], w)
        errors = (2 * residual[at]).square() * left_out[at, None]
        variance += _by_membership(z[at].to(even), errors, [v * v for v in w])
    apart = 1 - torch.eye(d, dtype=values.dtype, device=values.device)
    return values * apart, (variance.clamp(min=0).sqrt() * apart).nan_to_num(0.0, posinf=torch.inf)


def _by_membership(z: Tensor, values: Tensor, w: list[float]) -> Tensor:
    """Return sums of values, weighed for each two features by whether both, one or none are in a coalition, ``(N, d, d)``.

    Args:
        z: the coalitions, ``(m, d)``.
        values: ``(m, N)``.
        w: the weights of both, one and none.
    """
    both, none = (torch.einsum("pi,pn,pj->nij", t, values, t) for t in (z, 1 - z))
    return w[0] * both + w[1] * (values.sum(0)[:, None, None] - both - none) + w[2] * none


def _fit_products(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""Return the ridge fit :math:`y = a + \sum_{i<j} b_{ij} x_i x_j`, through the kernel :math:`((x \cdot x')^2 - d) / 2`.

    Returns:
        b ``(N, d, d)``, a ``(N,)`` and leave-one-out residuals ``(m, N)``.
    """
    m, d = x.shape
    use = torch.arange(m, device=x.device)[:: max(1, -(-m // MOST_CUBIC))]
    own, k = x[use], len(use)
    mean = y[use].mean(0)
    if k < 4:
        return y.new_zeros(y.shape[1], d, d), mean, y - mean
    kernel = ((own @ own.T).square() - d) / 2
    centred = kernel - kernel.mean(0) - kernel.mean(1, keepdim=True) + kernel.mean()
    # the constant gets the largest eigenvalue, so that it comes last and can be left out
    s, basis = torch.linalg.eigh(centred + (2 * centred.trace() + 1) / k)
    s, basis = s[:-1].clamp(min=0), basis[:, :-1]
    target = basis.T @ (y[use] - mean)
    penalty = penalty_by_cross_validation(s, target, torch.zeros_like(mean), len(s))
    coefficients = basis @ (target / (s[:, None] + penalty))
    b = torch.einsum("pi,pn,pj->nij", own, coefficients, own)
    b = b * (1 - torch.eye(d, dtype=b.dtype, device=b.device))
    constant = mean - (kernel @ coefficients).mean(0)
    residual = y - constant - torch.einsum("pi,nij,pj->pn", x, b, x) / 2
    residual[use] = coefficients / (basis.square() @ (1 / (s[:, None] + penalty)))
    return b, constant, residual
