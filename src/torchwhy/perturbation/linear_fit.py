"""Linear models of scores over samples in which features are there or not: ridge, lasso, any of scikit-learn's, and how much they
explain."""

from __future__ import annotations

from dataclasses import dataclass
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


@dataclass(frozen=True)
class Samples:
    """Samples in which features are there or not.

    Args:
        z: ``(m, d)``: 1 where a feature is there.
        w: their weights, ``(m,)``.
        left_out: the share of the samples like each that was not drawn, ``(m,)``: 0 where all there are were taken.
    """

    z: Tensor
    w: Tensor
    left_out: Tensor

    def features(self, kept: Tensor) -> Samples:
        """Return the samples of some of the features."""
        return Samples(self.z[:, kept], self.w, self.left_out)


def fit_ridge(samples: Samples, s: Tensor, alpha: float) -> LinearFit:
    """Return ridge regressions on all features.

    Args:
        samples: the samples.
        s: their scores, ``(m, N)``.
        alpha: the penalty, as a share of the features' variance.
    """
    values, error = ridge(samples, s, alpha)
    return LinearFit(values, error, adjusted_r_squared(samples, s, values, (~error.isnan()).sum(1)))


def fit_estimator(samples: Samples, s: Tensor, estimator: object) -> LinearFit:
    """Return what a linear scikit-learn regressor finds, a clone of it for each row; its errors are not known (NaN).

    Raises:
        TypeError: it has no ``coef_`` when fitted, or takes no weights.
    """
    from sklearn.base import clone

    z, w, found = samples.z.cpu().numpy(), samples.w.cpu().numpy(), []
    for score in s.unbind(1):
        fitted = clone(estimator).fit(z, score.cpu().numpy(), sample_weight=w)
        if not hasattr(fitted, "coef_"):
            raise TypeError(f"regularizer: {type(estimator).__name__} has no coef_; expected a linear regressor")
        found.append(torch.as_tensor(fitted.coef_, dtype=s.dtype, device=s.device).reshape(-1))
    values = torch.stack(found)
    return LinearFit(
        values, torch.full_like(values, torch.nan), adjusted_r_squared(samples, s, values, (values != 0).sum(1))
    )


def fit_lasso(samples: Samples, s: Tensor, alpha: float) -> LinearFit:
    """Return lassos; their errors are those of least squares on the features that they keep. Arguments: :func:`fit_ridge`.

    The penalty is ``alpha`` times the smallest that sets all coefficients to zero.
    """
    values = s.new_zeros(s.shape[1], samples.z.shape[1])
    error = torch.full_like(values, torch.nan)
    for n, score in enumerate(s.unbind(1)):
        path = lasso(samples.z, score, samples.w, alpha)
        kept = path.nonzero()[:, 0]
        values[n] = path
        error[n, kept] = ridge(samples.features(kept), score[:, None], 0.0)[1][0]
    return LinearFit(values, error, adjusted_r_squared(samples, s, values, (~error.isnan()).sum(1)))


def fit_chosen(samples: Samples, s: Tensor, alpha: float, n_features: int) -> LinearFit:
    """Return ridge regressions on the features that enter the lasso's path first. Arguments: :func:`fit_ridge`."""
    values = s.new_zeros(s.shape[1], samples.z.shape[1])
    error = torch.full_like(values, torch.nan)
    for n, score in enumerate(s.unbind(1)):
        kept = first_on_lasso_path(samples.z, score, samples.w, n_features)
        found, uncertainty = ridge(samples.features(kept), score[:, None], alpha)
        values[n, kept], error[n, kept] = found[0], uncertainty[0]
    return LinearFit(values, error, adjusted_r_squared(samples, s, values, (~error.isnan()).sum(1)))


def ridge(samples: Samples, s: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Return coefficients and standard errors ``(N, d)`` of a weighted ridge regression with an intercept.

    The errors are sandwich estimates on leave-one-out residuals. Arguments: :func:`fit_ridge`.
    """
    z, w = samples.z, samples.w
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
    left_out = samples.left_out[:, None] * (rest / (1 - leverage).clamp(min=1e-3)[:, None]).square()
    error = (solve.square() @ left_out).sqrt()
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


def adjusted_r_squared(samples: Samples, s: Tensor, values: Tensor, count: Tensor) -> Tensor:
    """Return the share of the scores' variance that coefficients ``(N, d)`` explain, adjusted for their number, ``(N,)``.

    ``count`` ``(N,)`` is how many of a row's coefficients were fitted. Other arguments: :func:`fit_ridge`.
    """
    share, rest = samples.w / samples.w.sum(), s - samples.z @ values.T
    around, left = (share @ (t - share @ t).square() for t in (s, rest))
    varies = around > NOTHING * (share @ s.square())
    unexplained = torch.where(varies, left / around.clamp(min=1e-300), 1.0)
    effective = float(1 / share.square().sum())
    spare = effective - 1 - count.to(s)
    if not samples.left_out.any():  # all there are: what the fit explains of them is what it explains
        return (1 - unexplained).clamp(min=0)
    return torch.where(spare > 0, 1 - unexplained * (effective - 1) / spare, 0.0).clamp(min=0)
