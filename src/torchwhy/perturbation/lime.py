"""A linear model of the score around the input, over features that are there or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, axes_of
from torchwhy.engine.features.numbering import Features
from torchwhy.engine.run.warn import warn
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.coin_flips import CoinFlips
from torchwhy.perturbation.linear_fit import LinearFit, Samples, fit_chosen, fit_estimator, fit_lasso, fit_ridge
from torchwhy.perturbation.sampling import SampledEstimate, SampledFeatureMethod, check_solvable, score_coalitions
from torchwhy.perturbation.segments import are_pictures, superpixels
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Bounds, Count, Fraction, NotNegative

POOR = 0.1  # the share of variance below which a linear model says little


class LIME(SampledFeatureMethod[GivenLayer]):
    r"""The coefficients of a linear model of the score, fitted where few features are missing:

    :math:`\min_\beta \sum_k w(z_k) [f(z_k) - \beta_0 - \sum_i \beta_i z_{ki}]^2 + \text{penalty}`,
    :math:`w(z) = \exp(-D(z, 1)^2 / \sigma^2)`.

    z says which features come from the input, the others from the baseline (the mean score over K baselines); each is a
    coin flip, but for the first sample, the input itself. Of at most 16 features no sample comes twice, and from
    :math:`2^d` samples on there are all, and the fit is exact (:class:`~torchwhy.perturbation.coin_flips.CoinFlips`). In
    units of the score: how much a feature adds, near the input, in the presence of a random half of the others. The
    coefficients do not sum to f(x) − f(b); for those that do see :class:`KernelSHAP`. The explanation holds in
    ``details["r_squared"]`` the share of the variance that these coefficients
    explain, adjusted for their number; a warning says where it is below 0.1.

    The standard errors are those of the ridge regression; for the lasso, of least squares on the features that it keeps. Where
    features are chosen they hold given the choice, and those left out have none (NaN; ``tolerance`` passes over them).

    Features are the given ``feature_mask``; without one, superpixels for images ``(N, 1 or 3, H, W)`` or with their channels
    last (``axes=`` says it where the shape does not), and otherwise every element (a column, a token).

    Args:
        n_samples: the number of samples; None is 1000. Where there are fewer, all of them are taken once.
        distance: D: ``"cosine"``, :math:`1 - \sqrt{\text{share kept}}`; ``"l2"``, :math:`\sqrt{\text{share dropped}}`; or a
            callable that takes z ``(m, d)`` to the weights w ``(m,)`` themselves.
        kernel_width: :math:`\sigma`; None is 0.25 for ``"cosine"`` and 0.75 for ``"l2"``, the original's values.
        keep_probability: the chance of a feature to be kept.
        regularizer: ``"ridge"`` shrinks coefficients by about 1 / (1 + alpha); ``"lasso"`` sets small ones to zero, all of
            them at alpha = 1. Both are free of the score's scale. Or a linear scikit-learn regressor, such as
            ``HuberRegressor()``, cloned for each row; its errors are not known.
        alpha: the strength of the regularizer; 0 is least squares.
        n_features: keep only so many features, those that enter the lasso's path first, and fit these by ridge.
        n_segments: about how many superpixels.
        coalitions: samples of your own in the place of drawn ones, ``(m, d)``, true where a feature is there; those that the
            kernel is to count more often can be repeated.

    Paper: Ribeiro et al. 2016, arXiv:1602.04938, equation 2 and algorithm 1.
    """

    n_samples: Annotated[int, Bounds(3)] | None = None
    distance: Literal["cosine", "l2"] | Callable[[Tensor], Tensor] = "cosine"
    kernel_width: Annotated[float, Bounds(0, math.inf, open_low=True)] | None = None
    keep_probability: Fraction = 0.5
    regularizer: Literal["ridge", "lasso"] | object = "ridge"
    alpha: NotNegative = 1e-3
    n_features: Count | None = None
    n_segments: Count = 50
    coalitions: Tensor | None = None

    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1602.04938"

    def _attribute(self, problem: Problem) -> Result:
        axes = _axes_of_pictures(problem)
        if problem.feature_mask is None and axes is not None:
            segments = superpixels(problem.x[0][:: problem.n_targets], self.n_segments, axes=axes.letters)
            problem = problem.replace(feature_mask=(segments.repeat_interleave(problem.n_targets, 0),))
        return super()._attribute(problem)

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:
        if self.regularizer == "ridge" and self.n_features is None:
            check_solvable(self, d)
        if self.coalitions is not None:
            return self._estimate_from(problem, features, rows, _own_coalitions(self.coalitions, d))
        flips = CoinFlips(d, self.keep_probability, problem.generator)
        z = torch.zeros(0, d, dtype=torch.bool)
        s = torch.zeros(0, len(rows), dtype=torch.double, device=rows.device)
        for start, stop in self._rounds(1000 if self.n_samples is None else self.n_samples, problem.n_baselines):
            new = flips.take(start, stop)
            z, s = torch.cat([z, new]), torch.cat([s, score_coalitions(problem, features, new, rows)])
            fit = self._fit(z.to(s), s, *flips.weights(z))
            if self._enough(fit.values, fit.error.nan_to_num(0.0)) or len(new) < stop - start:
                break
        _warn_if_poor(fit.r_squared)
        return SampledEstimate(fit.values, fit.error, None, fit.r_squared)

    def _estimate_from(self, problem: Problem, features: Features, rows: Tensor, z: Tensor) -> SampledEstimate:
        """Return what is found from samples of the caller's own ``(m, d)``: each different one is evaluated once."""
        different, where = z.unique(dim=0, return_inverse=True)
        s = score_coalitions(problem, features, different, rows)[where.to(rows.device)]
        ones = torch.ones(len(z), dtype=torch.double)
        fit = self._fit(z.to(s), s, ones, ones)
        _warn_if_poor(fit.r_squared)
        return SampledEstimate(fit.values, fit.error, None, fit.r_squared)

    def _fit(self, z: Tensor, s: Tensor, counts: Tensor, left_out: Tensor) -> LinearFit:
        """Return the linear models of scores ``(m, N)`` over samples z ``(m, d)``, of which each counts so much."""
        w = sample_weights(z, self.distance, self.kernel_width) * counts.to(s)
        samples = Samples(z, w, left_out.to(s))
        if not isinstance(self.regularizer, str):
            return fit_estimator(samples, s, self.regularizer)
        if self.n_features is not None:
            return fit_chosen(samples, s, self.alpha, self.n_features)
        if self.regularizer == "lasso":
            return fit_lasso(samples, s, self.alpha)
        return fit_ridge(samples, s, self.alpha)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.regularizer not in ("ridge", "lasso"):
            if isinstance(self.regularizer, type) or not hasattr(self.regularizer, "get_params"):
                raise ValueError(
                    f"regularizer={self.regularizer!r}: expected 'ridge', 'lasso' or a linear scikit-learn regressor"
                )
            if self.n_features is not None or self.tolerance is not None:
                raise ValueError(
                    "regularizer: n_features and tolerance go with 'ridge' and 'lasso', not with an estimator"
                )
        if self.coalitions is not None:
            if self.n_samples is not None or self.tolerance is not None:
                raise ValueError("coalitions: they are the samples; leave n_samples and tolerance out")
            if not isinstance(self.coalitions, Tensor) or self.coalitions.dim() != 2 or len(self.coalitions) < 3:
                raise ValueError(
                    "coalitions: expected a tensor (m, d) of at least 3 samples, true where a feature is there"
                )
            if not bool(((self.coalitions == 0) | (self.coalitions == 1)).all()):
                raise ValueError("coalitions: expected true and false, or 1 and 0")


def sample_weights(
    z: Tensor, distance: Literal["cosine", "l2"] | Callable[[Tensor], Tensor], width: float | None
) -> Tensor:
    """Return the kernel's weights ``(m,)`` of samples z ``(m, d)``: the more features are missing, the less.

    Raises:
        ValueError: a callable that gives something else.
    """
    kept = z.mean(1)
    if callable(distance):
        w = distance(z)
        if not isinstance(w, Tensor) or w.shape != kept.shape or not bool((w >= 0).all()) or not float(w.sum()) > 0:
            raise ValueError("distance: the callable must give a non-negative weight for each sample, shape (m,)")
        return w.to(z)
    if distance == "cosine":
        return (-(((1 - kept.sqrt()) / (width or 0.25)) ** 2)).exp()
    return (-(((1 - kept).sqrt() / (width or 0.75)) ** 2)).exp()


def _axes_of_pictures(problem: Problem) -> Axes | None:
    """Return the axes of the only input, where it holds pictures whose pixels are explained."""
    x = problem.x[0]
    if len(problem.x) > 1 or problem.input_layers or x.dim() < (3 if problem.axes else 4):
        return None
    axes = axes_of(problem, 0)
    return axes if are_pictures(x, axes) else None


def _own_coalitions(given: Tensor, d: int) -> Tensor:
    """Return the caller's samples, of d features.

    Raises:
        ValueError: of another number of features.
    """
    if given.shape[1] != d:
        raise ValueError(f"coalitions: of {given.shape[1]} features, there are {d}")
    return given.bool().cpu()


def _warn_if_poor(r_squared: Tensor) -> None:
    """Warn of rows whose linear model explains little."""
    poor = int((r_squared < POOR).sum())
    if poor:
        warn(
            f"LIME: the linear model explains less than {POOR:.0%} of the score's variance for {poor} of {len(r_squared)} rows "
            "(details['r_squared']): its coefficients say little; take fewer or other features, another kernel_width, "
            "or KernelSHAP",
        )
