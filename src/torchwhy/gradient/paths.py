"""Paths between a baseline and the input, rules to integrate along them, and points around the input."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.randomness import Draws, normal_draws
from torchwhy.engine.run.rows import baseline_at, expand_like, index_rows, to_device
from torchwhy.engine.run.runner import EvaluatedChunk
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem

IntegrationRule = Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]


def nodes_and_weights(method: str, n: int) -> tuple[Tensor, Tensor]:
    """Points in [0, 1] and weights that sum to 1, float64 ``(n,)`` each, to integrate over [0, 1].

    Raises:
        ValueError: an unknown rule, or too few points for it.
    """
    least = 2 if method == "riemann_trapezoid" else 1
    n = check_count("n_steps", n, least)
    if method == "gausslegendre":
        points, shares = _gauss_legendre(n)
        return torch.tensor(points), torch.tensor(shares)
    if method == "riemann_trapezoid":
        weights = torch.full((n,), 1 / (n - 1), dtype=torch.double)
        weights[0] = weights[-1] = 0.5 / (n - 1)
        return torch.linspace(0, 1, n, dtype=torch.double), weights
    shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}.get(method)
    if shift is None:
        raise ValueError(
            f"method={method!r}: expected gausslegendre, riemann_left, riemann_right, riemann_middle or "
            "riemann_trapezoid"
        )
    return (torch.arange(n, dtype=torch.double) + shift) / n, torch.full((n,), 1 / n, dtype=torch.double)


@lru_cache(maxsize=64)
def _gauss_legendre(n: int) -> tuple[Any, Any]:
    """Nodes and weights on [0, 1], kept: a thousand of them take as long as some hundred rows on a GPU."""
    from scipy.special import roots_legendre

    nodes, shares = roots_legendre(n)  # of a band matrix: numpy's dense one takes seconds for thousands
    return (1 + nodes) / 2, shares / 2


@dataclass
class StraightPath:
    r"""Points :math:`b + \alpha_k (x - b)` on the line from a baseline to the input.

    Args:
        problem: whose ``x`` and ``baselines`` are joined.
        alphas: ``(n,)``, where on the line each point lies.
        baseline: ``(n,)``, which baseline each point belongs to; None goes through ``alphas`` once for each baseline.
        noise: added to the input, one :class:`Draws` for each tensor.

    Whole numbers beside others stay what they are.

    Raises:
        TypeError: nothing but whole numbers.
    """

    problem: Problem
    alphas: Tensor
    baseline: Tensor | None = None
    noise: tuple[Draws, ...] = ()

    def __post_init__(self) -> None:
        if not any(x.is_floating_point() for x in self.problem.x):
            raise TypeError(
                "inputs: there is no line from the baselines to whole numbers, such as token ids; explain by their embeddings "
                "with tw.IntegratedGradients(model, layer=...), or pass embeddings as the inputs"
            )

    @property
    def n(self) -> int:
        """How many points a row has."""
        return len(self.alphas) if self.baseline is not None else len(self.alphas) * self.problem.n_baselines

    def ends(self, rows: Tensor, k: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Baselines and inputs of points ``k`` ``(M,)`` of rows ``(M,)``."""
        which = k // len(self.alphas) if self.baseline is None else self.baseline[k]
        ends = [
            (baseline_at(b, which, rows), index_rows(x, rows)) for b, x in zip(self.problem.baselines, self.problem.x)
        ]
        return [(b, x + d[k].to(x)) for (b, x), d in zip(ends, self.noise)] if self.noise else ends

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """The points, ``(M, ...)``."""
        alphas = self.alphas[k % len(self.alphas)]
        return tuple(
            torch.lerp(b, x, expand_like(alphas, x).expand_as(x)) if x.is_floating_point() else x
            for b, x in self.ends(rows, k)
        )

    def velocity(self, rows: Tensor, k: Tensor) -> Tensors:
        """The derivative of the point by alpha, ``(M, ...)``: input minus baseline."""
        return tuple(x - b for b, x in self.ends(rows, k))


class NoisyPoints:
    """Points around the inputs: x + σ_n ε_k, with standard normal draws ε_k that the rows share.

    Args:
        problem: whose ``x`` is in the middle; whole numbers among its tensors stay as they are.
        noise_level: σ_n as a share of the row's range, max − min.
        stdevs: σ_n itself, one or one for each tensor; replaces ``noise_level``.

    Raises:
        TypeError: there are only whole numbers.
        ValueError: a negative standard deviation, or a wrong number of them.
    """

    def __init__(self, problem: Problem, noise_level: float, stdevs: float | Sequence[float] | None = None) -> None:
        self.problem, tensors = problem, problem.x
        if not any(x.is_floating_point() for x in tensors):
            raise TypeError(
                "inputs: noise has no meaning for whole numbers, such as token ids; pass their embeddings as the inputs"
            )
        if stdevs is not None:
            self.sigmas = [
                torch.as_tensor(s).to(x).reshape(1) for s, x in zip(stdev_per_tensor(stdevs, tensors), tensors)
            ]
        else:
            rows = [x.reshape(len(x), -1) for x in tensors]
            self.sigmas = [noise_level * (r.amax(1) - r.amin(1)) for r in rows]
        if noise_level < 0:
            raise ValueError(f"noise_level={noise_level!r}: a standard deviation cannot be negative")
        self.noise = [normal_draws(x, problem.generator) for x in tensors]

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """The points, ``(M, ...)``."""
        return tuple(
            index_rows(x, rows) + expand_like(s.expand(self.problem.n)[rows], x) * e[k].to(x)
            if x.is_floating_point()
            else index_rows(x, rows)
            for x, s, e in zip(self.problem.x, self.sigmas, self.noise)
        )


def stdev_per_tensor(stdevs: float | Sequence[float], tensors: Tensors) -> tuple[float, ...]:
    """A standard deviation for each tensor; a single one stands for all.

    Raises:
        ValueError: a negative one, or a wrong number of them.
    """
    given: tuple[float, ...] = (*stdevs,) if isinstance(stdevs, Sequence) else (stdevs,) * len(tensors)
    if len(given) != len(tensors):
        raise ValueError(f"stdevs: {len(given)} given for {len(tensors)} input tensors")
    if any(s < 0 for s in given):
        raise ValueError(f"stdevs={stdevs!r}: a standard deviation cannot be negative")
    return given


@dataclass
class BlurPath:
    """Points from the most blurred image to the image itself.

    Args:
        problem: whose ``x`` ``(N, C, L)`` or ``(N, C, H, W)`` is blurred.
        sigmas: ``(n,)``, the widths of the Gaussian in pixels, falling.
    """

    problem: Problem
    sigmas: Tensor

    def beginning(self) -> Tensors:
        """Return the most blurred images as baselines ``(1, N, ...)``."""
        rows = self.problem.rows
        return tuple(t[None] for t in self.point(rows, torch.zeros(len(rows), dtype=torch.long)))

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """The points, ``(M, ...)``."""
        sigmas = to_device(self.sigmas[k], rows.device)
        return tuple(gaussian_blur(index_rows(x, rows), sigmas) for x in self.problem.x)

    def velocity(self, rows: Tensor, k: Tensor) -> Tensors:
        """The step that the trapezoid rule gives to each point: half the way between its neighbours."""
        after, before = (self.point(rows, (k + i).clamp(0, len(self.sigmas) - 1)) for i in (1, -1))
        return tuple((a - b) / 2 for a, b in zip(after, before))


def neighbouring_points(
    walk: Iterable[EvaluatedChunk], n: int, points: int
) -> Iterator[tuple[EvaluatedChunk, EvaluatedChunk]]:
    """Neighbours on a path: for each sample k that is not a path's first, what was found for some rows at k − 1 and at k.

    Args:
        walk: the evaluations, samples in rising order.
        n: the number of rows.
        points: how many points a path has; a new one begins after them.
    """
    last: list[Tensor] = []
    for chunk in walk:
        for k in chunk.k.unique().tolist():
            part = chunk.of_sample(k)
            tensors = [part.scores, *part.gradients, *part.activations]
            if not last:
                last = [t.new_zeros(n, *t.shape[1:]) for t in tensors]
            if k % points:
                s, *rest = (t[part.rows] for t in last)
                cut = len(part.gradients)
                yield part._replace(scores=s, gradients=tuple(rest[:cut]), activations=tuple(rest[cut:])), part
            for stored, t in zip(last, tensors):
                stored[part.rows] = t
