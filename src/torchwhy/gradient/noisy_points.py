"""Points around the inputs, with normal noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import normal_draws
from torchwhy.engine.run.rows import exact_tensor, expand_like, index_rows
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


class NoisyPoints:
    """Points around the inputs: x + σ_n ε_k, with standard normal draws ε_k that the rows share.

    Args:
        problem: whose ``x`` is in the middle; whole numbers among its tensors stay as they are.
        noise_level: σ_n as a share of the row's range, max − min.
        stdevs: σ_n itself, one or one for each tensor; replaces ``noise_level``.

    Raises:
        TypeError: there are only whole numbers.
        ValueError: a wrong number of standard deviations.
    """

    def __init__(self, problem: Problem, noise_level: float, stdevs: float | Sequence[float] | None = None) -> None:
        self.problem = problem
        if not any(x.is_floating_point() for x in problem.x):
            raise TypeError(
                "inputs: noise has no meaning for whole numbers, such as token ids; pass their embeddings as the inputs"
            )
        if stdevs is None:
            self.sigmas = [noise_level * _range_of_rows(x) for x in problem.x]
        else:
            given = stdev_per_tensor(stdevs, problem.x)
            self.sigmas = [exact_tensor(s).to(x).reshape(1) for s, x in zip(given, problem.x)]
        self.noise = [normal_draws(x, problem.generator) for x in problem.x]

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return points ``k`` ``(M,)`` of rows ``(M,)``, tensors ``(M, ...)``."""
        points = []
        for x, sigmas, draws in zip(self.problem.x, self.sigmas, self.noise):
            z = index_rows(x, rows)
            if x.is_floating_point():
                z = z + expand_like(sigmas.expand(self.problem.n)[rows], x) * draws[k].to(x)
            points.append(z)
        return tuple(points)


def _range_of_rows(x: Tensor) -> Tensor:
    """Return the largest less the smallest value of each row, ``(N,)``."""
    flat = x.reshape(len(x), -1)
    return flat.amax(1) - flat.amin(1)


def check_stdevs(stdevs: float | Sequence[float] | None) -> None:
    """Refuse standard deviations that are negative.

    Raises:
        ValueError: one of them is.
    """
    given = stdevs if isinstance(stdevs, Sequence) else (stdevs,)
    if any(s is not None and bool((torch.as_tensor(s) < 0).any()) for s in given):
        raise ValueError(f"stdevs={stdevs!r}: a standard deviation cannot be negative")


def stdev_per_tensor(stdevs: float | Sequence[float], tensors: Tensors) -> tuple[float, ...]:
    """Return a standard deviation for each tensor; a single one stands for all.

    Raises:
        ValueError: a wrong number of them.
    """
    given: tuple[float, ...] = (*stdevs,) if isinstance(stdevs, Sequence) else (stdevs,) * len(tensors)
    if len(given) != len(tensors):
        raise ValueError(f"stdevs: {len(given)} given for {len(tensors)} input tensors")
    return given
