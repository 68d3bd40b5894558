"""Robustness: does the explanation stay when the input hardly changes? The method explains again at changed inputs.

All take the method, and by keyword what it is called with (:class:`torchwhy.metrics.Data`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Unpack

from torchwhy.attribution import Attribution
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.run.rows import index_rows, to_device
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import Inputs
from torchwhy.metrics.adversary import Adversary, ascend, points_around
from torchwhy.metrics.definition import metric
from torchwhy.metrics.reexplain import (
    Data,
    attribute_points,
    make_deterministic,
    make_problem,
    perturb,
    relative,
    steps_in_ball,
)
from torchwhy.settings import Count, NotNegative, Positive
from torchwhy.targets import TargetLike


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1901.09392")
@torch_defaults()
def sensitivity_max(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: Positive = 0.02,
    n_samples: Count = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""Compute the largest relative change of the explanation within a small cube, (N,).

    :math:`\max_k \|A(x_n + \delta_k) - A(x_n)\| / \|A(x_n)\|`, :math:`\delta_k` uniform in [−r, r], the same for all rows; a
    lower bound of the maximum, which more samples raise. NaN where A(x) is all zero. Of a data frame the columns of numbers are
    moved, labels stay.

    Args:
        method: the method with its settings.
        inputs, target: as for the method.
        radius: r, in the units of the inputs.
        n_samples: how many δ.
        generator: where they come from.
        data: baselines, feature_mask and additional_forward_args of the method.

    Paper: Yeh et al. 2019, arXiv:1901.09392, definition 4.1, relative to the explanation as in Captum.
    """
    change, _, size = _changes(method, inputs, target, radius, n_samples, generator, data)
    return relative(change, size).amax(0)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1901.09392")
@torch_defaults()
def sensitivity_avg(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: Positive = 0.02,
    n_samples: Count = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    """Compute the mean over the samples of which :func:`sensitivity_max` takes the maximum, (N,). Arguments as there."""
    change, _, size = _changes(method, inputs, target, radius, n_samples, generator, data)
    return relative(change, size).mean(0)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1806.08049")
@torch_defaults()
def local_lipschitz(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: Positive = 0.02,
    n_samples: Count = 10,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""Compute the largest change of the explanation for the change of the input, (N,).

    :math:`\max_k \|A(x_n + \delta_k) - A(x_n)\|_2 / \|\delta_k\|_2`, in units of attribution per unit of input, so only to
    be compared between methods of one scale. Arguments as for :func:`sensitivity_max`.

    Paper: Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049, equation 2, with samples for the maximum.
    """
    change, step, _ = _changes(method, inputs, target, radius, n_samples, generator, data)
    return torch.where(step > 0, change / step, 0).amax(0)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1706.07979")
@torch_defaults()
def continuity(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    shifts: Sequence[int] = (1, 2, 4),
    **data: Unpack[Data],
) -> Tensor:
    r"""Compute the largest change of the explanation for the change of the image, as the image is shifted sideways, (N,).

    :math:`\max_s \|A(x_n) - A(x_n^s)\|_1 / \|x_n - x_n^s\|_2`, edges replicated.

    Args:
        method, inputs, target, data: as for :func:`sensitivity_max`; inputs (N, C, W) or (N, C, H, W).
        shifts: pixels to the right (negative: to the left).

    Paper: Montavon et al. 2018, arXiv:1706.07979, section 7.1.
    """
    if not len(shifts) or 0 in shifts:
        raise ValueError(f"shifts={shifts!r}: expected one or more, none of them 0")
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, 0, data)
    if any(x.dim() not in (3, 4) for x in problem.x):
        raise ValueError("inputs: expected images (N, C, H, W) or series (N, C, W), which are shifted")

    def shifted(x: Tensor, k: Tensor) -> Tensor:
        width = x.shape[-1]
        column = torch.arange(width) - torch.tensor([0, *shifts])[k, None]
        index = column.clamp(0, width - 1).to(x.device)
        return x.gather(-1, index.view(-1, *[1] * (x.dim() - 2), width).expand_as(x))

    def point(rows: Tensor, k: Tensor) -> Tensors:
        return tuple(shifted(index_rows(x, rows), k) for x in problem.x)

    with problem.open():
        found = attribute_points(method, problem, len(shifts) + 1, point)
    every = [torch.full((problem.n,), k + 1) for k in range(len(shifts))]
    moves = [torch.stack([(x - shifted(x, k)).flatten(1).norm(dim=1) for k in every]) for x in problem.x]
    step = torch.stack(moves).norm(dim=0).to(found)
    return ((found[1:] - found[0]).abs().sum(2) / step).amax(0)


@metric(higher_is_better=False, range=(0, 2), paper="arXiv:1710.10547")
@torch_defaults()
def explanation_attack(
    method: Attribution,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    radius: Positive = 0.02,
    steps: Count = 10,
    n_samples: Count = 8,
    tolerance: NotNegative = 0.1,
    generator: Seed = 0,
    **data: Unpack[Data],
) -> Tensor:
    r"""Measure how far an adversary can move the explanation without moving the prediction, (N,): one minus the cosine.

    Projected ascent on :math:`1 - \cos(A(x'), A(x_n))` in the cube :math:`|x' - x_n| \le r`, each step r/4 times the sign
    of a gradient that is estimated from pairs of explanations at :math:`x' \pm (r/4) u`, so that it takes every method,
    differentiable or not; where the prediction is lost, the ascent is back to it. Reported is the best of all points seen
    that keep it: a lower bound, 0 (nowhere) to 2 (opposite). It begins at the furthest of n_samples random points, and
    takes (2 steps + 1) · n_samples + steps + 2 explanations of a row.

    Args:
        method, inputs, target, generator, data: as for :func:`sensitivity_max`.
        radius: r, in the units of the inputs.
        steps: of the ascent.
        n_samples: pairs for each estimate.
        tolerance: the prediction is kept where the score changes by at most this share of itself and, for an output
            (N, classes), the largest class stays.

    Paper: after Ghorbani et al. 2019, arXiv:1710.10547, algorithm 1, which needs a second derivative.
    """
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, generator, data)
    first = tuple(d[torch.arange(n_samples)] for d in steps_in_ball(problem, radius))
    with problem.open():
        start = attribute_points(method, problem, 1, lambda rows, k: tuple(index_rows(x, rows) for x in problem.x))[0]
        adversary = Adversary(method, problem, start, tolerance)
        away, margin = adversary.look(n_samples, lambda rows, k: perturb(problem, first, rows, k))
        here = perturb(problem, first, problem.rows, torch.where(margin >= 0, away, margin).argmax(0).cpu())
        for _ in range(steps):
            probes = tuple(d[torch.arange(n_samples)] / 4 for d in steps_in_ball(problem, radius))
            away, margin = adversary.look(2 * n_samples + 1, points_around(here, problem.x, probes, radius))
            up = torch.where(margin[0] >= 0, away, margin)  # where the prediction is lost, back to it first
            slope = (up[1::2] - up[2::2]).T  # (N, n_samples)
            here = tuple(ascend(h, x, slope, p.to(x), radius) for h, x, p in zip(here, problem.x, probes))
        adversary.look(1, lambda rows, k: tuple(index_rows(h, rows) for h in here))
    return torch.where(start.norm(dim=1) > 0, adversary.best, torch.nan)


def _changes(
    method: Attribution, inputs: Inputs, target: TargetLike, radius: float, n_samples: int, generator: Seed, data: Data
) -> tuple[Tensor, Tensor, Tensor]:
    """Return how far the explanation moves (S, N), how far the input was moved (S, N), and the explanation's norm (N,).

    Raises:
        ValueError: a radius so small that rounding leaves a row where it was.
    """
    method, data = make_deterministic(method, inputs, data)
    problem = make_problem(method, inputs, target, generator, data)
    draws, n = steps_in_ball(problem, radius), n_samples
    step = torch.zeros(n, problem.n, dtype=torch.double, device=problem.x[0].device)

    def point(rows: Tensor, k: Tensor) -> Tensors:
        z = perturb(problem, draws, rows, k)
        # as far as rounding lets
        taken = [(a.double() - index_rows(x, rows).double()).flatten(1) for a, x in zip(z, problem.x)]
        step[to_device(k, rows.device), rows] = torch.cat(taken, 1).norm(dim=1)
        return z

    with problem.open():
        start = attribute_points(method, problem, 1, lambda rows, k: tuple(index_rows(x, rows) for x in problem.x))[0]
        change = attribute_points(method, problem, n, point, lambda found, rows: (found - start[rows]).norm(dim=1))
    still = (step == 0).all(0).nonzero()[:, 0].tolist()
    if still:
        raise ValueError(f"radius={radius}: too small to change row {still[0]} of inputs of type {problem.x[0].dtype}")
    return change, step.to(change), start.norm(dim=1)
