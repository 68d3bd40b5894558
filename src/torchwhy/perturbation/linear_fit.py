"""Linear models of scores over samples in which features are there or not: ridge, lasso, and how much they explain."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

NOTHING = 1e-24  # a share of the squared scores below which they vary by rounding alone


class LinearFit(NamedTuple):
    """Linear models of the scores of N rows.

    Args:
        values, error: the coefficients and their standard errors, ``(N, d)``; the error of a feature that was left out is NaN.
        r_squared: the share of the scores' variance that they explain, adjusted for their number, ``(N,)``.
    """

    values: Tensor
    error: Tensor
    r_squared: Tensor


def fit_ridge(z: Tensor, s: Tensor, w: Tensor, alpha: float) -> LinearFit:
    """Return ridge regressions on all features.

    Args:
        z: the samples, ``(m, d)``: 1 where a feature is there.
        s: their scores, ``(m, N)``.
        w: their weights, ``(m,)``.
        alpha: the penalty, as a share of the features' variance.
    """
    values, error = ridge(z, s, w, alpha)
    return LinearFit(values, error, adjusted_r_squared(z, s, w, values, (~error.isnan()).sum(1)))


def fit_lasso(z: Tensor, s: Tensor, w: Tensor, alpha: float) -> LinearFit:
    """Return lassos; their errors are those of least squares on the features that they keep. Arguments: :func:`fit_ridge`.

    The penalty is ``alpha`` times the smallest that sets all coefficients to zero.
    """
    values = s.new_zeros(s.shape[1], z.shape[1])
    error = torch.full_like(values, torch.nan)
    for n, score in enumerate(s.unbind(1)):
        path = lasso(z, score, w, alpha)
        kept = path.nonzero()[:, 0]
        values[n] = path
        error[n, kept] = ridge(z[:, kept], score[:, None], w, 0.0)[1][0]
    return LinearFit(values, error, adjusted_r_squared(z, s, w, values, (~error.isnan()).sum(1)))


def fit_chosen(z: Tensor, s: Tensor, w: Tensor, alpha: float, n_features: int) -> LinearFit:
    """Return ridge regressions on the features that enter the lasso's path first. Arguments: :func:`fit_ridge`."""
    values = s.new_zeros(s.shape[1], z.shape[1])
    error = torch.full_like(values, torch.nan)
    for n, score in enumerate(s.unbind(1)):
        kept = first_on_lasso_path(z, score, w, n_features)
        found, uncertainty = ridge(z[:, kept], score[:, None], w, alpha)
        values[n, kept], error[n, kept] = found[0], uncertainty[0]
    return LinearFit(values, error, adjusted_r_squared(z, s, w, values, (~error.isnan()).sum(1)))


def ridge(z: Tensor, s: Tensor, w: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return coefficients and standard errors ``(N, d)`` of a weighted ridge regression with an intercept.

    The errors are sandwich estimates on leave-one-out residuals. Arguments: :func:`fit_ridge`.
    """
    x = torch.cat([torch.ones_like(w)[:, None], z], 1)
    shift = w @ z / w.sum()
    spread = (w @ (z - shift).square()).mean() if z.shape[1] else w.sum()
    penalty = alpha * spread * torch.ones_like(x[0])
    penalty[0] = 0
    inverse = torch.linalg.pinv((x * w[:, None]).T @ x + penalty.diag(), hermitian=True)
    solve = inverse @ (x * w[:, None]).T
    beta = solve @ s
    rest = s - x @ beta
    leverage = (solve * x.T).sum(0)
    error = (solve.square() @ (rest / (1 - leverage).clamp(min=1e-3)[:, None]).square()).sqrt()
    return beta[1:].T, error[1:].T


def lasso(z: Tensor, s: Tensor, w: Tensor, alpha: float) -> Tensor:
    """Return the coefficients ``(d,)`` for the scores ``(m,)`` of one row."""
    from sklearn.linear_model import Lasso

    x, y = _centred(z, s, w)
    if _is_constant(y, s):
        return z.new_zeros(z.shape[1])
    samples, target = x.cpu().numpy(), y.cpu().numpy()
    most = float(abs(samples.T @ target).max()) / len(target)
    path = Lasso(alpha=max(alpha * most, 1e-300), fit_intercept=False).fit(samples, target).coef_
    return torch.as_tensor(path, dtype=z.dtype, device=z.device)


def first_on_lasso_path(z: Tensor, s: Tensor, w: Tensor, n: int) -> Tensor:
    """Return which ``n`` features enter the lasso's path first, in rising order, for the scores ``(m,)`` of one row."""
    from sklearn.linear_model import lars_path

    x, y = _centred(z, s, w)
    if _is_constant(y, s):
        return torch.zeros(0, dtype=torch.long, device=z.device)
    active = lars_path(x.cpu().numpy(), y.cpu().numpy(), method="lasso")[1][:n]
    return torch.as_tensor(sorted(active), dtype=torch.long, device=z.device)


def _centred(z: Tensor, s: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples and scores less their means, times the roots of the weights."""
    root = (w / w.sum()).sqrt()
    return (z - w @ z / w.sum()) * root[:, None], (s - w @ s / w.sum()) * root


def _is_constant(centred: Tensor, s: Tensor) -> bool:
    """Say whether scores vary by rounding alone: there is nothing to explain."""
    return float(centred @ centred) <= NOTHING * float(s.square().max())


def adjusted_r_squared(z: Tensor, s: Tensor, w: Tensor, values: Tensor, count: Tensor) -> Tensor:
    """Return the share of the scores' variance that coefficients ``(N, d)`` explain, adjusted for their number, ``(N,)``.

    ``count`` ``(N,)`` is how many of a row's coefficients were fitted. Other arguments: :func:`fit_ridge`.
    """
    share, rest = w / w.sum(), s - z @ values.T
    around, left = (share @ (t - share @ t).square() for t in (s, rest))
    varies = around > NOTHING * (share @ s.square())
    unexplained = torch.where(varies, left / around.clamp(min=1e-300), 1.0)
    effective = float(1 / share.square().sum())
    spare = effective - 1 - count.to(s)
    return torch.where(spare > 0, 1 - unexplained * (effective - 1) / spare, 0.0).clamp(min=0)
