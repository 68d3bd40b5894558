"""Callables as targets: how many arguments they take, one for each row, and what is said when they go wrong."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.run.batching import is_out_of_memory
from torchwhy.engine.structure import Output, index_output, named_parts, tensors_in
from torchwhy.engine.torch_internals import without_torch_functions

if TYPE_CHECKING:
    from torchwhy.problem import ScoreFunction
    from torchwhy.targets.target import Target

Scorer = Callable[..., Tensor]  # (output) or (output, rows) → (M,)

ADVICE = (
    "the output has the rows of one call, which may be some of the inputs or several times the same; for what belongs to a "
    "row (masks, boxes, labels) take `target(output, rows)`, rows being which of the inputs these are"
)


def takes_rows(function: Scorer) -> bool:
    """Say whether a callable target takes ``(output, rows)``: whether it has a second positional parameter without a default.

    Raises:
        TypeError: it takes neither ``(output)`` nor ``(output, rows)``.
    """
    try:
        seen = function.forward if isinstance(function, nn.Module) else function
        parameters = list(inspect.signature(seen).parameters.values())
    except (TypeError, ValueError):  # made in C, without a signature
        return False
    required = [p for p in parameters if p.default is p.empty]
    places = [p for p in required if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    room = any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
    if len(places) > 2 or not room or any(p.kind is p.KEYWORD_ONLY for p in required):
        names = ", ".join(p.name for p in required) or "nothing"
        raise TypeError(f"target: a callable takes (output) or (output, rows); this one takes {names}")
    return len(places) == 2


def call_scorer(function: Scorer, output: Output, rows: Tensor, *, with_rows: bool) -> Tensor:
    """Return the scores ``(M,)`` that a callable gives to a model's output for rows ``(M,)``.

    Raises:
        ValueError: no score per row.
        IndexError, RuntimeError: what the callable raised, with what it may have overlooked.
    """
    m = len(rows)
    try:
        scores = function(output, rows.clone()) if with_rows else function(output)
    except (IndexError, RuntimeError) as error:
        if with_rows or is_out_of_memory(error):
            raise
        kind = IndexError if isinstance(error, IndexError) else RuntimeError
        raise kind(
            f"target: the callable failed on the output of a call of {m} rows: {error}. Mind: {ADVICE}"
        ) from error
    if not isinstance(scores, Tensor) or scores.shape != (m,):
        got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        mind = "" if with_rows or not isinstance(scores, Tensor) or not scores.dim() else f"; {ADVICE}"
        raise ValueError(f"target: the callable must return one score per row, shape ({m},); it returned {got}{mind}")
    return scores


@dataclass(eq=False)
class ScorerOfOutput:
    """A callable of the output alone, as a target for N > 1 rows.

    One that holds something for each of the N rows fits no call of another number. In a call of N rows that are not those, in
    their order, its numbers would be silently of other rows: there it is tried on one row more.

    Args:
        function: ``(output) -> (M,)``.
        n: the number of rows N.
        is_tried: whether it is known to score any number of rows.
    """

    function: Scorer
    n: int
    is_tried: bool = False

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores of rows ``(M,)``.

        Raises:
            ValueError: it scores the caller's N rows alone, and this call has others.
        """
        scores = call_scorer(self.function, output, rows, with_rows=False)
        if not self.is_tried and (len(rows) != self.n or rows.tolist() != list(range(self.n))):
            if len(rows) == self.n:
                self._try_one_row_more(output, rows)
            self._try_another_order(output, rows, scores)
            self.is_tried = len(rows) > 1
        return scores

    def _try_another_order(self, output: Output, rows: Tensor, scores: Tensor) -> None:
        """Refuse a callable whose scores depend on a row's place in the call, as what it holds for each row makes them."""
        m = len(rows)
        tensors = tensors_in([output] if isinstance(output, Tensor) else named_parts(output).values())
        if not all(t.dim() and len(t) == m for t in tensors):  # where its rows are is not known
            return
        order = torch.arange(m, device=rows.device).roll(1) if m > 1 else rows.new_zeros(self.n)
        with torch.no_grad(), without_torch_functions():  # rules see none of this
            again = call_scorer(self.function, output, rows, with_rows=False)
            moved = call_scorer(self.function, index_output(output, order, m), rows[order], with_rows=False)
            atol = 1e-3 * float(scores.abs().max())
            follows = torch.allclose(moved, scores[order.to(scores.device)], 1e-3, atol)
            by_place = torch.allclose(again, scores) and not follows
        if by_place:
            raise ValueError(
                f"target: the callable scores a row by its place in the call, as if a call had all {self.n} inputs, once and in "
                f"order; this one has {m} rows. Mind: {ADVICE}"
            )

    def _try_one_row_more(self, output: Output, rows: Tensor) -> None:
        """Refuse a callable that scores N rows and does not score N + 1."""
        tensors = tensors_in([output] if isinstance(output, Tensor) else named_parts(output).values())
        if not all(t.dim() and len(t) == self.n for t in tensors):  # where its rows are is not known
            return
        place = torch.arange(self.n + 1, device=rows.device) % self.n
        try:
            with torch.no_grad(), without_torch_functions():  # no operations of the score: rules do not see them
                call_scorer(self.function, index_output(output, place, self.n), rows[place], with_rows=False)
        except (IndexError, RuntimeError, ValueError) as error:
            if is_out_of_memory(error):
                raise
            raise ValueError(
                f"target: the callable scores {self.n} rows and not {self.n + 1}, as if a call had each input once, in order; "
                f"this call has the inputs {rows.tolist()}. Mind: {ADVICE}"
            ) from error


@dataclass(frozen=True, eq=False)
class RowsOf:
    """A target for some of the rows that it was made for, as a callable that a caller could give.

    Args:
        target: for N rows.
        rows: ``(M,)``, which of them are meant.
    """

    target: ScoreFunction
    rows: Tensor

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores of ``rows``, counted among the chosen ones."""
        return self.target.select(output, self.rows.to(rows.device)[rows])


@dataclass(frozen=True, eq=False)
class OnePerRow:
    """A target of its own for each of N rows.

    Args:
        each: N targets, each made for N rows.
    """

    each: Sequence[Target]

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores of rows ``(M,)``; each target sees the part of the output that belongs to its row."""
        m, which = len(rows), rows.tolist()
        places = {row: [i for i, r in enumerate(which) if r == row] for row in dict.fromkeys(which)}
        if len(places) == 1:
            return self.each[which[0]].select(output, rows)
        scores: dict[int, Tensor] = {}
        for row, at in places.items():
            index = torch.tensor(at, device=rows.device)
            found = self.each[row].select(index_output(output, index, m), rows[index])
            scores |= dict(zip(at, found.unbind()))
        return torch.stack([scores[i] for i in range(m)])
