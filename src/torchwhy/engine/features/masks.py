"""Masks: features → masks → masked inputs → batched evaluation → a stream of scores.

Methods whose masks are known by number, not searched for, run through :func:`evaluate_masks`.  They say which masks they want and
what they make of the scores; how many of them share a model call, what fills the holes and what happens when memory runs
out is decided here.  Masks are made for the rows of one batch and then forgotten, so memory does not grow with their number.

A mask is 1 (True) where an element is kept and 0 (False) where it is replaced; values between blend the two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.run.rows import baseline_at, index_rows, to_device
from torchwhy.engine.structure import Keywords
from torchwhy.problem import Problem

MaskFunction = Callable[[Tensor, Tensor], tuple[Tensor, ...]]
FillFunction = Callable[[Tensor, Tensor], tuple[Tensor, ...]]

FEATURES_NOTED, COALITIONS_NOTED = 64, 2**12  # of which scores are kept, at most


def blend_with_fill(keep: Tensor, x: Tensor, fill: Tensor) -> Tensor:
    """Return x where kept, the fill where not: exact for boolean masks (and integer inputs), linear between 0 and 1."""
    if keep.dtype == torch.bool:
        return torch.where(keep, x, fill)
    return torch.lerp(fill, x, keep.to(x.dtype))


def evaluate_masks(
    problem: Problem,
    masks: MaskFunction,
    span: tuple[int, int],
    *,
    rows: Tensor | None = None,
    unit: int = 1,
    fill: FillFunction | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Yield scores of the inputs under the masks numbered ``span[0]`` to ``span[1] - 1``, as a stream.

    Args:
        problem: with ``x`` and ``baselines``: the holes are filled with each of the K baselines in turn, and the K scores
            averaged, by the weights of the baselines where these have any.
        masks: ``(index, rows)`` → the masks with these numbers (M,), on the CPU and rising, for these rows (M,): for each of
            ``x`` (M, \\*), broadcastable to ``x[rows]``. It may be asked for the same ones again, so what it draws must
            depend on the number alone, and with several targets not on which of a row's it is for: they share the scores.
        span: the first number, and the one after the last.
        rows: the rows of the input to evaluate, all of them if None.
        unit: the stream comes in multiples of so many masks.
        fill: ``(index, rows)`` → what the holes are filled with, in place of the baselines.

    Yields:
        ``(first, s)``: s (m, N, ...) in float64, the scores of the masks first to first + m - 1.
    """
    start, stop = span
    wanted, several = problem.rows if rows is None else rows, problem.n_targets > 1
    wanted = wanted[:: problem.n_targets]
    k, n = (1 if fill else problem.n_baselines), len(wanted)

    def work(a: int, b: int) -> Tensor:
        job = torch.arange(a, b)
        index, row = start + job // (n * k), wanted[to_device(job // k % n, wanted.device)]
        holes = fill(index, row) if fill else tuple(baseline_at(t, job % k, row) for t in problem.baselines)
        z = [blend_with_fill(m, index_rows(t, row), h) for m, t, h in zip(masks(index, row), problem.x, holes)]
        if not several:
            return problem.run.scores(z, row).double()
        with torch.no_grad():
            return torch.stack(problem.run.scores_of_targets(z, row), 1).double()

    per_unit = unit * n * k
    held: list[Tensor] = []
    first = start
    for part in problem.batching.run((stop - start) * n * k, work):
        held.append(part)
        units = sum(map(len, held)) // per_unit
        if units:
            s = torch.cat(held)
            held = [s[units * per_unit :]]
            s = problem.mean_over_baselines(s[: units * per_unit].view(units * unit, n, k, *s.shape[1:]), 2)
            yield first, s.flatten(1, 2) if several else s
            first += units * unit


def evaluate_all(
    problem: Problem,
    masks: MaskFunction,
    span: tuple[int, int],
    *,
    rows: Tensor | None = None,
    fill: FillFunction | None = None,
) -> Tensor:
    """Return all scores of a span of masks at once, (m, N): for the methods whose summary needs them together.

    Raises:
        FloatingPointError: scores that are NaN or infinite.
    """
    s = torch.cat([s for _, s in evaluate_masks(problem, masks, span, rows=rows, fill=fill)])
    if not bool(s.isfinite().all()):
        raise FloatingPointError(
            f"the model gave {int((~s.isfinite()).sum())} scores that are NaN or infinite on perturbed inputs: choose "
            "baselines that it can take, or a target that is finite there"
        )
    return s


def note_coalitions(known: list[tuple[Tensor, Tensor]], kept: Tensor, scores: Tensor, n: int) -> None:
    """Add the scores ``(m, N)`` of coalitions ``(m, d)``, true where a feature is there, if they are of all n rows, and few."""
    few = sum(len(z) for z, _ in known) + len(kept) <= COALITIONS_NOTED and kept.shape[1] <= FEATURES_NOTED
    if few and scores.shape[1] == n:
        known.append((kept.cpu(), scores.detach().cpu()))


def coalitions_as_details(known: Sequence[tuple[Tensor, Tensor]]) -> Keywords:
    """Return ``coalitions`` ``(1, M, d)`` and ``coalition_scores`` ``(N, M)``, each coalition once; nothing where none are known.

    >>> z, v = torch.tensor([[False], [True], [False]]), torch.tensor([[1.0], [2.0], [1.0]])
    >>> coalitions_as_details([(z, v)])["coalition_scores"]
    tensor([[1., 2.]])
    """
    if not known:
        return {}
    kept, scores = (torch.cat(parts) for parts in zip(*known))
    different, where = kept.unique(dim=0, return_inverse=True)
    first = torch.full((len(different),), len(kept)).scatter_reduce(0, where, torch.arange(len(kept)), "amin")
    return {"coalitions": different[None], "coalition_scores": scores[first].T.contiguous()}


def score_drops(problem: Problem, masks: MaskFunction, count: int, fill: FillFunction | None = None) -> Tensor:
    """Return how far each of the masks 1..count lets the score drop below that of mask 0, which keeps everything: (N, count)."""
    s = evaluate_all(problem, masks, (0, count + 1), fill=fill)
    return (s[0] - s[1:]).T


@dataclass(frozen=True)
class SlidingWindows:
    """Boxes of a size that slide over a shape by a step; those over the far edge are cut off there.

    >>> SlidingWindows((5,), (2,), (2,)).counts
    (3,)
    """

    shape: tuple[int, ...]
    size: tuple[int, ...]
    step: tuple[int, ...]

    @property
    def counts(self) -> tuple[int, ...]:
        """Windows along each dimension."""
        return tuple(-(-(n - w) // s) + 1 for n, w, s in zip(self.shape, self.size, self.step))

    def keep(self, index: Tensor, device: torch.device) -> Tensor:
        """Return masks that drop the windows ``index`` (M,), counted row by row; others drop nothing.

        Shape: (M, *), 1 along the dimensions that every window covers whole.
        """
        counts = self.counts
        total = math.prod(counts)
        valid = (index >= 0) & (index < total)
        inside = to_device(valid, device).view(-1, *[1] * len(self.shape))
        left = index.clamp(0, total - 1)
        for dim in reversed(range(len(self.shape))):  # the last dimension counts fastest
            if counts[dim] == 1 and self.size[dim] == self.shape[dim]:
                continue
            at, left = left % counts[dim], left // counts[dim]
            start, here = to_device(at, device)[:, None] * self.step[dim], torch.arange(self.shape[dim], device=device)
            line = (here >= start) & (here < start + self.size[dim])
            inside = inside & line.view(-1, *[self.shape[dim] if k == dim else 1 for k in range(len(self.shape))])
        return ~inside

    def mean_over(self, values: Tensor) -> Tensor:
        """Return the mean value of the windows that cover each element.  Shape: values (N, windows), result (N, *shape)."""
        mean = values.view(-1, *self.counts)
        for n, size, step, count in zip(self.shape, self.size, self.step, self.counts):
            mean = mean.movedim(1, -1)  # the first dimension left of windows; its elements come last
            if count == 1:
                mean = mean.expand(*mean.shape[:-1], n)
                continue
            at = torch.arange(n, device=values.device)
            if size == step:  # one window covers each element
                mean = mean[..., at // step]
                continue
            first, last = ((at - size) // step + 1).clamp(min=0), (at // step).clamp(max=count - 1)  # that cover it
            total = F.pad(mean.cumsum(-1), (1, 0))
            mean = (total[..., last + 1] - total[..., first]) / (last - first + 1)
        return mean
