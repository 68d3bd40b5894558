"""A linear model of the score around the input, over features that are there or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.features.numbering import Features
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Tensors
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod, check_solvable
from torchwhy.perturbation.segments import superpixels
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count

POOR = 0.1  # the share of variance below which a linear model says little


class LIME(SampledFeatureMethod):
    r"""The coefficients of a linear model of the score, fitted where few features are missing:

    :math:`\min_\beta \sum_k w(z_k) [f(z_k) - \beta_0 - \sum_i \beta_i z_{ki}]^2 + \text{penalty}`,
    :math:`w(z) = \exp(-D(z, 1)^2 / \sigma^2)`.

    z says which features come from the input, the others from the baseline (the mean score over K baselines); each is a
    coin flip, but for the first sample, the input itself. In units of the score: how much a feature adds, near the
    input, in the presence of a random half of the others. The coefficients do not sum to f(x) − f(b); for those that do
    see :class:`KernelSHAP`. The explanation holds in ``details["r_squared"]`` the share of the variance that these coefficients
    explain, adjusted for their number; a warning says where it is below 0.1.

    The standard errors are those of the ridge regression; for the lasso, of least squares on the features that it keeps. Where
    features are chosen they hold given the choice, and those left out have none (NaN; ``tolerance`` passes over them).

    Features are the given ``feature_mask``; without one, superpixels for images (N, 1 or 3, H, W), and otherwise every
    element (a column, a token).

    Args:
        n_samples: the number of samples; None is 1000.
        distance: D: ``"cosine"``, :math:`1 - \sqrt{\text{share kept}}`; ``"l2"``, :math:`\sqrt{\text{share dropped}}`; or a
            callable that takes z (m, d) to the weights w (m,) themselves.
        kernel_width: :math:`\sigma`; None is 0.25 for ``"cosine"`` and 0.75 for ``"l2"``, the original's values.
        keep_probability: the chance of a feature to be kept.
        regularizer: ``"ridge"`` shrinks coefficients by about 1 / (1 + alpha); ``"lasso"`` sets small ones to zero, all of
            them at alpha = 1. Both are free of the score's scale.
        alpha: the strength of the regularizer; 0 is least squares.
        n_features: keep only so many features, those that enter the lasso's path first, and fit these by ridge.
        n_segments: about how many superpixels.

    Paper: Ribeiro et al. 2016, arXiv:1602.04938, equation 2 and algorithm 1.
    """

    distance: Literal["cosine", "l2"] | Callable[[Tensor], Tensor] = "cosine"
    kernel_width: float | None = None
    keep_probability: float = 0.5
    regularizer: Literal["ridge", "lasso"] = "ridge"
    alpha: float = 1e-3
    n_features: Count | None = None
    n_segments: Count = 50

    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1602.04938"

    def _attribute(self, problem: Problem) -> Result:
        x = problem.x[0]
        image = len(problem.x) == 1 and x.dim() == 4 and x.shape[1] in (1, 3)
        if problem.feature_mask is None and image and not problem.input_layers:
            problem = problem.replace(feature_mask=(superpixels(x, self.n_segments),))
        return super()._attribute(problem)

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:
        z = torch.ones(1, d, dtype=torch.bool)
        s = torch.empty(0, len(rows), dtype=torch.double, device=rows.device)

        def masks(index: Tensor, rows: Tensor) -> Tensors:
            return features.element_masks(to_device(z[index], rows.device), rows)

        if self.regularizer == "ridge" and self.n_features is None:
            check_solvable(self, d)
        for start, stop in self._rounds(1000 if self.n_samples is None else self.n_samples, problem.n_baselines):
            flips = torch.rand(stop - max(start, 1), d, generator=problem.generator) < self.keep_probability
            z = torch.cat([z, flips])
            s = torch.cat([s, evaluate_all(problem, masks, (start, stop), rows=rows)])
            found = self._fit(z.to(s), s)
            if self._enough(found.values, found.error.nan_to_num(0.0)):
                break
        poor = int((found.r_squared < POOR).sum()) if found.r_squared is not None else 0
        if poor:
            warn(
                f"LIME: the linear model explains less than {POOR:.0%} of the score's variance for {poor} of {len(rows)} rows "
                "(details['r_squared']): its coefficients say little; take fewer or other features, another kernel_width, "
                "or KernelSHAP",
            )
        return found

    def _fit(self, z: Tensor, s: Tensor) -> SampledEstimate:
        """The linear models of scores (m, N) over samples z (m, d)."""
        w = self._weights(z)
        if self.regularizer == "ridge" and self.n_features is None:
            values, error = ridge(z, s, w, self.alpha)
        else:
            values = s.new_zeros(s.shape[1], z.shape[1])
            error = torch.full_like(values, torch.nan)
            for n, score in enumerate(s.unbind(1)):
                chosen, path = self._select(z, score, w)
                own, error[n, chosen] = ridge(z[:, chosen], score[:, None], w, self.alpha if self.n_features else 0.0)
                values[n, chosen] = own[0] if path is None else path[chosen]
        return SampledEstimate(values, error, None, explained(z, s, w, values, (~error.isnan()).sum(1)))

    def _select(self, z: Tensor, s: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """The features that stay in the model of one row, and their lasso coefficients where these are wanted."""
        from sklearn.linear_model import Lasso, lars_path

        root = (w / w.sum()).sqrt()
        flat = (z - w @ z / w.sum()) * root[:, None], (s - w @ s / w.sum()) * root
        x, y = (t.cpu().numpy() for t in flat)
        if float(y @ y) <= 1e-24 * float(s.square().max()):  # rounding alone: nothing to explain
            return torch.zeros(0, dtype=torch.long, device=z.device), None
        if self.n_features is not None:
            active = lars_path(x, y, method="lasso")[1][: self.n_features]
            return torch.as_tensor(sorted(active), dtype=torch.long, device=z.device), None
        most = float(abs(x.T @ y).max()) / len(y)
        path = Lasso(alpha=max(self.alpha * most, 1e-300), fit_intercept=False).fit(x, y).coef_
        path = torch.as_tensor(path, dtype=z.dtype, device=z.device)
        return path.nonzero()[:, 0], path

    def _weights(self, z: Tensor) -> Tensor:
        """The kernel's weights (m,) of samples z (m, d)."""
        kept = z.mean(1)
        if callable(self.distance):
            w = self.distance(z)
            if not isinstance(w, Tensor) or w.shape != kept.shape or not bool((w >= 0).all()) or not float(w.sum()) > 0:
                raise ValueError("distance: the callable must give a non-negative weight for each sample, shape (m,)")
            return w.to(z)
        far = 1 - kept.sqrt() if self.distance == "cosine" else (1 - kept).sqrt()
        width = self.kernel_width or (0.25 if self.distance == "cosine" else 0.75)
        return (-((far / width) ** 2)).exp()

    def _check_settings(self) -> None:
        super()._check_settings()
        if not callable(self.distance) and self.distance not in ("cosine", "l2"):
            raise ValueError(f"distance={self.distance!r}: expected 'cosine', 'l2' or a callable")
        if (self.kernel_width is not None and not self.kernel_width > 0) or not 0 < self.keep_probability < 1:
            raise ValueError(
                f"kernel_width={self.kernel_width!r}, keep_probability={self.keep_probability!r}: expected a positive number "
                "and one between 0 and 1"
            )
        if self.regularizer not in ("ridge", "lasso") or self.alpha < 0:
            raise ValueError(
                f"regularizer={self.regularizer!r}, alpha={self.alpha!r}: expected 'ridge' or 'lasso', and >= 0"
            )
        if self.n_samples is not None and self.n_samples < 3:
            raise ValueError(f"n_samples={self.n_samples!r}: a linear model takes at least 3 samples")


def ridge(z: Tensor, s: Tensor, w: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression with an intercept of scores (m, N) on z (m, d), weights (m,).

    Returns the coefficients and their standard errors (N, d), sandwich estimates on leave-one-out residuals.
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


def explained(z: Tensor, s: Tensor, w: Tensor, values: Tensor, count: Tensor) -> Tensor:
    """The adjusted share of the variance of scores (m, N) on z (m, d), weights (m,), that coefficients (N, d) explain, (N,).

    ``check_count`` (N,) says how many of a row's coefficients were fitted.
    """
    share, rest = w / w.sum(), s - z @ values.T
    around, left = (share @ (t - share @ t).square() for t in (s, rest))
    varies = around > 1e-24 * (share @ s.square())  # beyond rounding
    unexplained = torch.where(varies, left / around.clamp(min=1e-300), 1.0)
    effective = float(1 / share.square().sum())
    spare = effective - 1 - count.to(s)
    return torch.where(spare > 0, 1 - unexplained * (effective - 1) / spare, 0.0).clamp(min=0)
