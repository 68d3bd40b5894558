r"""Shapley and Banzhaf values from coalitions that are drawn in complementary pairs: the draw, and the least squares on it.

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
   scores, and their values are added back (:func:`fit_cubic`): a control variate, which does not move the limit. There are
   some d³ / 6 of them, but the kernel trick needs only a matrix of pairs by pairs.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import draw_uniform

# pairs the third-order part is fitted on: its memory grows with their square, its time with their cube
MOST_CUBIC = 1024
# pairs beyond the number of features that it takes: with fewer nothing is left to choose its penalty by
SPARE_FOR_CUBIC = 16


# ---- which coalitions to ask the model about


def some_subsets(d: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Return ``count`` different subsets of a size out of d, drawn uniformly without replacement: masks ``(count, d)``.

    For ``2 * size == d`` a subset and its complement count as one, and the one with feature 0 is given.
    """
    if size == 0 or count == 0:
        return torch.zeros(count, d, dtype=torch.bool)
    half = 2 * size == d
    total = math.comb(d, size) // (2 if half else 1)
    if total <= 4 * count + 64:  # few enough to list: a shuffled list needs no rejection
        if half:
            listed = [(0, *others) for others in itertools.combinations(range(1, d), size - 1)]
        else:
            listed = list(itertools.combinations(range(d), size))
        z = torch.zeros(total, d, dtype=torch.bool).scatter_(1, torch.tensor(listed), True)
        return z[torch.randperm(total, generator=generator)[:count]]
    seen: dict[bytes, Tensor] = {}
    while len(seen) < count:
        members = draw_uniform(count - len(seen), d, generator=generator).argsort(1)[:, :size]
        z = torch.zeros(len(members), d, dtype=torch.bool).scatter_(1, members, True)
        if half:
            z = torch.where(z[:, :1], z, ~z)
        for row in z:
            seen.setdefault(row.numpy().tobytes(), row)
    return torch.stack(list(seen.values()))


class PairedDesign:
    r"""Coalitions S with their complements, stratified by size and drawn without replacement inside a size.

    Pairs are spread over the sizes in proportion to ``share``; a size whose part reaches the number of its subsets is
    enumerated. Inside a size every drawn pair has the same weight.

    Args:
        d: the number of features.
        mass: ``(d // 2 + 1,)``, the weight of all pairs of size 0, 1, ..., d // 2 together, with their complements.
        share: ``(d // 2 + 1,)``, how the pairs are spread over these sizes.
        spans: the numbers of pairs that it will be asked for, in ascending order; a larger one extends a smaller.
        generator: where the draws come from.
    """

    def __init__(self, d: int, mass: Tensor, share: Tensor, spans: list[int], generator: torch.Generator) -> None:
        halved = torch.tensor([0.5 if 2 * s == d else 1.0 for s in range(d // 2 + 1)], dtype=torch.float64)
        whole = [float(min(math.comb(d, s), 10**300)) for s in range(d // 2 + 1)]
        self.cap = torch.tensor(whole, dtype=torch.float64) * halved * (mass > 0)
        self.mass, self.share = mass * halved, share * halved.sqrt()
        # with few pairs a random design may be singular: leaving one out identifies every feature, if it weighs anything
        self.small = spans[0] < 2 * d and bool(mass[1] > 1e-3 * mass.sum())
        self.jitter = draw_uniform(generator=generator, dtype=torch.float64)
        seed = int(torch.randint(2**62, (), generator=generator))
        most = torch.stack([self.counts(m) for m in spans]).amax(0).tolist()
        self.drawn = [some_subsets(d, s, m, torch.Generator().manual_seed(seed + s)) for s, m in enumerate(most)]

    def counts(self, pairs: int) -> Tensor:
        """Return how many of so many pairs go to each size."""
        full = self.cap == 0
        full[1] |= self.small
        pairs = min(pairs, int(self.cap.sum()))
        while True:
            left = pairs - self.cap[full].sum()
            wanted = torch.where(full, self.cap, left * self.share / self.share[~full].sum().clamp(min=1e-300))
            over = ~full & (wanted >= self.cap)
            if not over.any():
                break
            full |= over
        if full.all():
            return self.cap.long()
        # systematic rounding: the sum stays, and the parts hold on average
        edges = torch.cat([self.jitter.new_zeros(1), wanted.cumsum(0)]) + self.jitter
        edges[-1] = pairs + edges[0].floor()
        return torch.minimum(edges.floor().diff().clamp(min=0), self.cap).long()

    def take(self, pairs: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return coalitions z ``(m, d)``, their weights ``(m,)`` and the share of their size that was left out ``(m,)``.

        With so few pairs that a size goes without, what is enumerated is always there, but no value is exact: where nothing
        else was drawn, nothing counts as complete.
        """
        m = self.counts(pairs)
        z = torch.cat([drawn[:k] for drawn, k in zip(self.drawn, m)])
        weight = (self.mass / m.clamp(min=1)).repeat_interleave(m)
        left_out = 1 - m / self.cap.clamp(min=1)
        if ((m == 0) & (self.cap > 0)).any() and not (left_out > 0)[m > 0].any():
            left_out = torch.ones_like(left_out)
        return z, weight, left_out.repeat_interleave(m)


def shapley_design(d: int, spans: list[int], generator: torch.Generator) -> PairedDesign:
    r"""Return pairs for Shapley values: mass of size s :math:`\mu_s = (d-1) / (s(d-s))`, shares :math:`\sqrt{\mu_s}`.

    That lies between the kernel itself and leverage scores, which draw from all sizes alike.
    """
    mass = torch.tensor([0.0] + [(d - 1) / (s * (d - s)) for s in range(1, d // 2 + 1)], dtype=torch.float64)
    return PairedDesign(d, mass, mass.sqrt(), spans, generator)


def banzhaf_design(d: int, spans: list[int], generator: torch.Generator) -> PairedDesign:
    """Return pairs for Banzhaf values: every coalition weighs the same."""
    mass = torch.tensor([math.comb(d, s) / 2 ** (d - 1) for s in range(d // 2 + 1)], dtype=torch.float64)
    return PairedDesign(d, mass, mass, spans, generator)


# ---- and what follows from their scores


def paired_regression(
    z: Tensor,
    odd: Tensor,
    weight: Tensor,
    total: Tensor | None = None,
    left_out: Tensor | None = None,
    cubic: bool = True,
) -> tuple[Tensor, Tensor]:
    r"""Return values from score differences :math:`o_p = v(S_p) - v(\bar S_p)`, and their standard errors, both ``(N, d)``.

    The errors are those of sampling: by the jackknife over the pairs that were drawn (:func:`jackknife_variance`), zero
    where nothing was left out.

    Args:
        z: coalitions S, ``(m, d)``.
        odd: the differences, ``(m, N)``.
        weight: of each pair, ``(m,)``.
        total: what the values of each row sum to, ``(N,)``, solved exactly; None for Banzhaf values, which sum to nothing.
        left_out: the share of each pair's stratum that was not drawn, ``(m,)``; None where nothing is enumerated.
        cubic: take out what third-order interactions explain, where there are pairs to spare for it. The limit is the
            same, the noise smaller.
    """
    x, weight = 2 * z.to(odd) - 1, weight.to(odd)
    m, d = x.shape
    share = torch.ones_like(weight) if left_out is None else left_out.to(odd)
    spare = min(m, MOST_CUBIC) - d
    third = fit_cubic(x, odd, total) if cubic and d > 2 and spare >= SPARE_FOR_CUBIC and share.any() else None
    gram = torch.linalg.pinv((x * weight[:, None]).T @ x, hermitian=True)
    solve = gram @ (x * weight[:, None]).T  # (d, m): how each difference enters each value
    unit = gram.sum(1, keepdim=True) / gram.sum()  # (d, 1): how the total enters them
    if total is None:
        unit = torch.zeros_like(unit)
    else:
        solve = solve - unit * solve.sum(0)
    rest = odd if third is None else odd - third.at(x)
    phi = solve @ rest
    if total is not None:
        phi = phi + unit * (total if third is None else total - third.at(torch.ones_like(x[:1]))[0])
    if m < d + 2 and share.any():  # every residual is fitted away: nothing is known about the error
        variance = torch.full_like(phi, torch.inf)
    else:
        drawn = share[:, None].sqrt()
        variance = jackknife_variance(x, solve, rest - x @ phi, drawn, None if third is None else (third, unit))
        variance = variance * _freedom(m, d, int((share == 0).sum()))
    values = phi if third is None else phi + third.values()
    return values.T, variance.T.sqrt()


def jackknife_variance(
    x: Tensor, solve: Tensor, residuals: Tensor, drawn: Tensor, third: tuple[CubicFit, Tensor] | None
) -> Tensor:
    r"""Return the sum of squares of what the values change by as each pair is left out in turn, ``(d, N)``.

    Without pair p a linear fit is that to the same scores with :math:`o_p` replaced by its own prediction from the others, so
    that nothing is fitted again. Leaving a pair out changes the third-order fit, and through it the linear one.

    Args:
        x: the signs, ``(m, d)``.
        solve: how each difference enters each value, ``(d, m)``.
        residuals: of the linear fit to what the third-order one leaves, ``(m, N)``.
        drawn: the weight of each pair's change, ``(m, 1)``: 0 for those that are always there.
        third: the third-order fit, and how the total enters the values, ``(d, 1)``.
    """
    spare = (1 - (x * solve.T).sum(1)).clamp(min=1e-8)[:, None]
    if third is None:
        return solve.square() @ (drawn * residuals / spare).square()
    fit, unit = third
    use, basis = fit.use, fit.basis[: len(fit.use)]
    left = fit.left_out()  # (m', N): what the third-order fit gets wrong of each pair without it
    kernel = fit.kernel_to(x)
    entering = (solve @ kernel + unit * fit.kernel_to(torch.ones_like(x[:1]))) @ fit.basis
    own = (kernel[use] @ fit.basis - x[use] @ entering) * basis
    residuals = residuals.index_add(0, use, left * (own @ fit.shrunk)) / spare  # each without its pair
    entering = entering - fit.values_of(fit.basis)
    variance = torch.zeros_like(solve @ residuals)
    for penalty in fit.penalty.unique():  # of a grid: rows share them
        rows = (fit.penalty == penalty).nonzero()[:, 0]
        through = (entering * fit.shrunk[:, rows[0]]) @ basis.T  # (d, m')
        linear = solve.square() @ (drawn * residuals[:, rows]).square()
        both = (2 * solve[:, use] * through) @ (drawn.square()[use] * residuals[use][:, rows] * left[:, rows])
        variance[:, rows] = linear - both + through.square() @ (drawn[use] * left[:, rows]).square()
    return variance.clamp(min=0)


def _freedom(m: int, d: int, always: int) -> float:
    """Return what a jackknife's variance is to be multiplied by: it is too large where a fit uses up its draws.

    Of m draws for d values ``1 - d / m`` of the freedom are left, and the jackknife is too large by just that. Where pairs are
    enumerated, these fix the values, and the others are d conditions that m' draws share: the reverse holds with fewer draws
    than values, and less strictly, for the enumerated pairs hold the fit. The root, and a quarter at least, were measured
    (:file:`tests/test_shapley_many.py`).
    """
    draws = m - always
    left = 1 - min(draws, d) / max(draws, d)
    return left if not always else max(left, 0.25) ** 0.5


class CubicFit(NamedTuple):
    r"""A fit of the third-order part of the odd scores, :math:`g(x) = \sum_{i<j<k} c_{ijk} x_i x_j x_k`.

    Args:
        use: the numbers of the pairs that it rests on, ``(m',)``.
        own: their signs, and all ones where the total is a pair like the others, ``(m' or m' + 1, d)``.
        basis: eigenvectors of the kernel between them, but for the linear part, ``(m' or m' + 1, r)``.
        shrunk: of each row, one over eigenvalue and penalty, ``(r, N)``.
        penalty: of each row, ``(N,)``.
        coefficients: ``(m' or m' + 1, N)``.
        is_complete: whether the values of a triple are a third of its coefficient each, as Shapley values are, or nothing.
    """

    use: Tensor
    own: Tensor
    basis: Tensor
    shrunk: Tensor
    penalty: Tensor
    coefficients: Tensor
    is_complete: bool

    def kernel_to(self, x: Tensor) -> Tensor:
        """Return the kernel between signs ``(k, d)`` and those that the fit rests on."""
        return _cubic_kernel(x @ self.own.T, x.shape[1])

    def at(self, x: Tensor) -> Tensor:
        """Return g at signs ``(k, d)``, ``(k, N)``."""
        return self.kernel_to(x) @ self.coefficients

    def values_of(self, coefficients: Tensor) -> Tensor:
        """Return the values that coefficients ``(m', k)`` stand for, ``(d, k)``."""
        if not self.is_complete:
            return coefficients.new_zeros(self.own.shape[1], coefficients.shape[1])
        others = self.own.sum(1, keepdim=True) - self.own
        return ((others.square() - (self.own.shape[1] - 1)) * self.own).T @ coefficients / 6

    def values(self) -> Tensor:
        """Return the values of the third-order part, ``(d, N)``."""
        return self.values_of(self.coefficients)

    def left_out(self) -> Tensor:
        """Return leave-one-out residuals of the fit together with a linear one, ``(m', N)``."""
        return (self.coefficients / (self.basis.square() @ self.shrunk))[: len(self.use)]


def fit_cubic(x: Tensor, odd: Tensor, total: Tensor | None) -> CubicFit:
    r"""Return the third-order part of the odd scores by ridge regression.

    All of the d(d-1)(d-2)/6 coefficients are fitted at once through the kernel
    :math:`e_3(x \circ x') = (t^3 - (3d - 2) t) / 6`, :math:`t = x \cdot x'`, beside a linear part without a penalty; the
    penalty is chosen per row by generalized cross-validation.  A triple shares its coefficient equally,
    :math:`\varphi_i = \tfrac13 \sum_{i \in T} c_T` (o holds twice the odd part of the game); for Banzhaf values, without
    ``total``, it counts nothing.

    Args:
        x: the signs of the coalitions, ``(m, d)``; of more than ``MOST_CUBIC`` so many are used, evenly spread.
        odd: the score differences, ``(m, N)``.
        total: the difference of everything and nothing, ``(N,)``, a pair like the others; None for Banzhaf values.
    """
    m, d = x.shape
    use = torch.arange(min(m, MOST_CUBIC), device=x.device) * m // min(m, MOST_CUBIC)
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
    shrunk = 1 / (s[:, None] + penalty)
    return CubicFit(use, own, basis, shrunk, penalty, basis @ (shrunk * y), total is not None)


def _orthonormal_basis(x: Tensor) -> Tensor:
    """Return an orthonormal basis of the columns of x ``(m, d)``, ``(m, rank)``."""
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    return u[:, s > 1e-9 * s.max()]


def _cubic_kernel(t: Tensor, d: int) -> Tensor:
    """Return the sum over all triples of the products of their signs, from the products t of vectors of d signs; t is used up."""
    return t.square().sub_(3 * d - 2).mul_(t).div_(6)


def penalty_by_cross_validation(s: Tensor, y: Tensor, rest: Tensor, n: int) -> Tensor:
    """Return the ridge penalty with the least generalized cross-validation error, ``(N,)``.

    Args:
        s: eigenvalues (k,) of the Gram matrix of n samples.
        y: the N targets in its eigenvectors, (k, N).
        rest: the squares of the targets outside of these, ``(N,)``.
        n: the number of samples.
    """
    grid = s.max().clamp(min=1e-300) * torch.logspace(-7, 3, 41, dtype=s.dtype, device=s.device)
    shrink = grid[:, None] / (s + grid[:, None])
    left = [((h[:, None] * y).square().sum(0) + rest) / (h.sum() + n - len(s)).square() for h in shrink]
    return grid[torch.stack(left).argmin(0)]
