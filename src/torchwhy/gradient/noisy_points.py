"""Points around the inputs, with normal noise."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from torchwhy.engine.run.checks import finite_numbers
from torchwhy.engine.run.randomness import normal_draws
from torchwhy.engine.run.rows import exact_tensor, expand_like, index_rows
from torchwhy.engine.structure import Tensors
from torchwhy.engine.tables import movable_columns
from torchwhy.problem import Problem
from torchwhy.samples.token_sample import TokenSample


class NoisyPoints:
    """Points around the inputs: x + σ_n ε_k, with standard normal draws ε_k that the rows share.

    Of texts of different lengths what is padded has no noise, and each row what it has alone. Labels of a data frame have none.

    Args:
        problem: whose ``x`` is in the middle; whole numbers among its tensors stay as they are.
        noise_level: σ_n as a share of the row's range, max − min.
        stdevs: σ_n itself, one or one for each tensor; replaces ``noise_level``.

    Raises:
        TypeError: there are only whole numbers.
        ValueError: a wrong number of standard deviations.
    """

    def __init__(self, problem: Problem, noise_level: float, stdevs: Stdevs | None = None) -> None:
        self.problem = problem
        if not any(x.is_floating_point() for x in problem.x):
            raise TypeError(
                "inputs: noise has no meaning for whole numbers, such as token ids; give SmoothGrad layer='embeddings', or pass "
                "their embeddings as the inputs"
            )
        places = [_places_of_texts(problem, x) for x in problem.x]
        if stdevs is None:
            self.sigmas = [noise_level * _range_of_rows(x, there) for x, there in zip(problem.x, places)]
        else:
            given = stdev_per_tensor(stdevs, problem.x)
            self.sigmas = [exact_tensor(s).to(x).reshape(1) for s, x in zip(given, problem.x)]
        self.noise = [_Noise(x, there, problem.generator) for x, there in zip(problem.x, places)]
        self.movable = movable_columns(problem)

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return points ``k`` ``(M,)`` of rows ``(M,)``, tensors ``(M, ...)``."""
        points = []
        for x, sigmas, noise in zip(self.problem.x, self.sigmas, self.noise):
            z = index_rows(x, rows)
            if x.is_floating_point():
                moves = expand_like(sigmas.expand(self.problem.n)[rows], x) * noise.of(rows, k).to(x)
                z = z + (moves if self.movable is None else moves * self.movable.to(x))
            points.append(z)
        return tuple(points)


class _Noise:
    """Draws for each row of ``x`` ``(N, ...)``: the same for all rows that have as many places, 0 where there are none.

    Args:
        x: what noise is added to.
        there: which places of a row there are, ``(N, L)``; None: all.
        generator: of the draws.
    """

    def __init__(self, x: Tensor, there: Tensor | None, generator: torch.Generator) -> None:
        self.there = there
        if there is None:
            self.draws = {0: normal_draws(x, generator)}
            return
        self.lengths, self.draws, state = there.sum(1), {}, generator.get_state()
        for length in self.lengths.unique().tolist():  # each as if it were the only one
            generator.set_state(state)
            self.draws[length] = normal_draws(x[:, :length], generator)

    def of(self, rows: Tensor, k: Tensor) -> Tensor:
        """Return draws ``k`` ``(M,)`` of rows ``(M,)``, ``(M, ...)``."""
        if self.there is None:
            return self.draws[0][k]
        found: Tensor | None = None
        there = self.there[rows]
        for length, draws in self.draws.items():
            chosen = (self.lengths[rows] == length).nonzero()[:, 0]
            if not len(chosen):
                continue
            drawn = draws[k[chosen.to(k.device)]]
            if found is None:
                found = drawn.new_zeros(len(rows), there.shape[1], *drawn.shape[2:])
            part = found.new_zeros(len(chosen), *found.shape[1:])
            part[there[chosen]] = drawn.flatten(0, 1)
            found[chosen] = part
        if found is None:
            raise ValueError("rows: there are none")
        return found


def _places_of_texts(problem: Problem, x: Tensor) -> Tensor | None:
    """Return which places of texts of different lengths are no padding, ``(N, L)``; None where all are there."""
    sample = None if problem.sample is None else problem.sample.sample
    if not isinstance(sample, TokenSample) or x.dim() < 2:
        return None
    there = sample.attended.to(x.device)[problem.given_rows(problem.rows)]
    return None if there.shape != x.shape[:2] or bool(there.all()) else there


def _range_of_rows(x: Tensor, there: Tensor | None = None) -> Tensor:
    """Return the largest less the smallest value of each row, at the places that are there, ``(N,)``."""
    high, low = x, x
    if there is not None:
        gone = ~there.view(*there.shape, *[1] * (x.dim() - 2))
        high, low = x.masked_fill(gone, -torch.inf), x.masked_fill(gone, torch.inf)
    return high.reshape(len(x), -1).amax(1) - low.reshape(len(x), -1).amin(1)


Stdevs = float | Tensor | Sequence[float | Tensor]


def check_stdevs(stdevs: Stdevs) -> None:
    """Refuse standard deviations that are negative, or no numbers.

    Raises:
        ValueError: one of them is.
    """
    numbers = [finite_numbers("stdevs", s) for s in _each_stdev(stdevs)]
    if not numbers or any(s.numel() != 1 for s in numbers):
        raise ValueError(f"stdevs={stdevs!r}: expected a number, or one for each input tensor")
    if any(bool((s < 0).any()) for s in numbers):
        raise ValueError(f"stdevs={stdevs!r}: a standard deviation cannot be negative")


def stdev_per_tensor(stdevs: Stdevs, tensors: Tensors) -> tuple[float | Tensor, ...]:
    """Return a standard deviation for each tensor; a single one stands for all.

    Raises:
        ValueError: a wrong number of them.
    """
    given = _each_stdev(stdevs)
    is_list = isinstance(stdevs, Sequence)  # which says which input each is for, also where it has one
    if len(given) != len(tensors) and (is_list or len(given) != 1):
        raise ValueError(f"stdevs: {len(given)} given for {len(tensors)} input tensors")
    return given if len(given) == len(tensors) else given * len(tensors)


def _each_stdev(stdevs: Stdevs) -> tuple[float | Tensor, ...]:
    """Return the standard deviations of a list, a tensor or an array ``(K,)``, one by one; else the single one."""
    is_list = isinstance(stdevs, Sequence) and not isinstance(stdevs, (str, bytes))
    return (*stdevs,) if is_list or getattr(stdevs, "ndim", 0) == 1 else (stdevs,)  # type: ignore[misc, return-value]
