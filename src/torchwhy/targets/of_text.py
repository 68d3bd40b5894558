"""Targets over sequences and embeddings: a span of an answer, the likeness to another embedding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.structure import Output, named_parts
from torchwhy.targets.score_target import (
    Numbers,
    RowScorer,
    ScoreTarget,
    check_numbers,
    check_row_count,
    numbers_of_rows,
    of_rows,
)
from torchwhy.targets.target import find_logits


@dataclass(frozen=True, eq=False)
class Span(ScoreTarget):
    r"""The log probability of an answer from one token to another, as models that answer by a part of the text give it:

    :math:`\log \mathrm{softmax}(s_n)_{a} + \log \mathrm{softmax}(e_n)_{b}`, s and e the logits ``(N, length)`` of where it starts
    and ends: ``start_logits`` and ``end_logits`` of the output, the first two of a tuple, or the last dimension of a tensor
    ``(N, length, 2)``.

    Args:
        start, end: the first and the last token, each an int or one for each row, from the end where negative.

    Raises:
        ValueError: an end before the start, a token that there is not, an output without such logits.
    """

    start: Numbers
    end: Numbers

    def for_rows(self, n: int) -> RowScorer:
        """Return the target, after a check that its tokens fit n rows."""
        start, end = (torch.as_tensor(check_numbers(k, getattr(self, k), n)) for k in ("start", "end"))
        if bool(((start > end) & ((start < 0) == (end < 0))).any()):
            raise ValueError(f"end={self.end!r}: before start={self.start!r}")
        return self

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the log probabilities of the rows' spans."""
        ends = _start_and_end_logits(output, len(rows))
        return _log_prob_at("start", ends[0], self.start, rows) + _log_prob_at("end", ends[1], self.end, rows)


def _start_and_end_logits(output: Output, m: int) -> tuple[Tensor, Tensor]:
    """Return the logits ``(M, length)`` of where an answer starts and where it ends."""
    if isinstance(output, Tensor):
        found: list[object] = list(output.unbind(-1)) if output.dim() == 3 and output.shape[-1] == 2 else []
    else:
        parts = named_parts(output)
        named = [parts.get("start_logits"), parts.get("end_logits")]
        found = named if None not in named else [parts.get(0), parts.get(1)]
    tensors = [t for t in found if isinstance(t, Tensor) and t.dim() == 2 and len(t) == m]
    if len(tensors) != 2:
        raise ValueError(
            "target: Span needs an output with start_logits and end_logits (N, length), a tuple of both, or a tensor "
            "(N, length, 2)"
        )
    return tensors[0], tensors[1]


def _log_prob_at(name: str, logits: Tensor, at: Numbers, rows: Tensor) -> Tensor:
    """Return the log probabilities ``(M,)`` of positions."""
    place, size = numbers_of_rows(at, rows, logits), logits.shape[1]
    if bool(((place >= size) | (place < -size)).any()):
        raise ValueError(f"{name}={at!r}: the output has {size} positions")
    return logits.log_softmax(1).gather(1, (place % size)[:, None])[:, 0]


@dataclass(frozen=True, eq=False)
class Similarity(ScoreTarget):
    r"""The cosine similarity of the model's output to an embedding: :math:`f(x_n) \cdot e_n / (|f(x_n)|\, |e_n|)`.

    Between −1 and 1. The embedding is held: what makes the *pair* alike is explained from the side of the inputs.

    Args:
        embedding: ``(D,)``, or one for each row, ``(N, D)``.
        output: the name of the tensor ``(N, D)`` where the model gives several, such as ``"image_embeds"``, or
            ``"pooler_output"``; None is the only one.

    Raises:
        ValueError: an embedding of another size than the output's, or of length 0; no tensor of this name.

    >>> Similarity(torch.tensor([2.0, 0.0]))(torch.tensor([[3.0, 4.0]]), torch.tensor([0]))
    tensor([0.6000])
    """

    embedding: Tensor
    output: str | None = None

    def for_rows(self, n: int) -> RowScorer:
        """Return the target, after a check that its embeddings fit n rows."""
        e = self.embedding
        if not isinstance(e, Tensor) or not e.is_floating_point() or e.dim() not in (1, 2):
            raise TypeError(f"embedding: expected a tensor (D,) or (N, D) of real numbers, got {_kind(e)}")
        check_row_count("embedding", e, n, dims=2)
        if not bool(e.norm(dim=-1).gt(0).all()):
            raise ValueError("embedding: of length 0, it has no direction")
        return self

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the similarities of the rows."""
        out = self._vectors(output)
        e = of_rows(self.embedding.detach(), rows, out, dims=2)
        if out.shape != e.shape:
            raise ValueError(
                f"embedding: shape {tuple(self.embedding.shape)}, but the output has {tuple(out.shape)} for {len(rows)} rows; "
                "give one vector of the output's size, or one for each row"
            )
        return torch.cosine_similarity(out, e.to(out.dtype), dim=1, eps=0.0)

    def _vectors(self, output: Output) -> Tensor:
        """Return the tensor of the output that is compared."""
        if self.output is None:
            return find_logits(output)
        parts = named_parts(output)
        found = parts.get(self.output)
        if not isinstance(found, Tensor):
            known = ", ".join(str(k) for k, v in parts.items() if isinstance(v, Tensor)) or "none"
            raise ValueError(f"output={self.output!r}: the model's output has no such tensor; it has {known}")
        return found


def _kind(value: object) -> str:
    """Return what a value is, in words."""
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
