"""The straight path from a baseline to the input, and neighbouring points of any path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Draws
from torchwhy.engine.run.rows import baseline_at, expand_like, index_rows
from torchwhy.engine.run.runner import EvaluatedChunk
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


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
        """Return the baselines and inputs that points ``k`` ``(M,)`` of rows ``(M,)`` lie between."""
        which = k // len(self.alphas) if self.baseline is None else self.baseline[k]
        ends = [
            (baseline_at(b, which, rows), index_rows(x, rows)) for b, x in zip(self.problem.baselines, self.problem.x)
        ]
        return [(b, x + d[k].to(x)) for (b, x), d in zip(ends, self.noise)] if self.noise else ends

    def point(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return points ``k`` ``(M,)`` of rows ``(M,)``, tensors ``(M, ...)``."""
        alphas = self.alphas[k % len(self.alphas)]
        return tuple(
            torch.lerp(b, x, expand_like(alphas, x).expand_as(x)) if x.is_floating_point() else x
            for b, x in self.ends(rows, k)
        )

    def velocity(self, rows: Tensor, k: Tensor) -> Tensors:
        """Return the derivatives of the points by alpha, ``(M, ...)``: input minus baseline."""
        return tuple(x - b for b, x in self.ends(rows, k))


def neighbouring_points(
    evaluated: Iterable[EvaluatedChunk], n: int, points: int
) -> Iterator[tuple[EvaluatedChunk, EvaluatedChunk]]:
    """Yield neighbours on a path: for each sample k that is not a path's first, what was found for some rows at k − 1 and at k.

    Args:
        evaluated: the evaluations along the path, samples in rising order.
        n: the number of rows.
        points: how many points a path has; a new one begins after them.
    """
    last: list[Tensor] = []
    for chunk in evaluated:
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
