"""What a method returns: attributions, and what was measured on the way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor

from torchwhy.engine.structure import Keywords, Structure, Tensors


class ScoreEnds(NamedTuple):
    """The scores of each row, ``(N,)``: at the inputs, and at the baselines, averaged over these; None where there is none.

    ``probabilities``: of the class that is explained, where the target is one. ``eps``: the relative rounding of the scores.
    """

    scores: Tensor | None = None
    base_scores: Tensor | None = None
    probabilities: Tensor | None = None
    eps: float = 0.0

    def rounding(self) -> Tensor | None:
        """Return how far scores of this size may be apart by rounding alone, ``(N,)``."""
        if self.scores is None:
            return None
        size = (
            self.scores.abs() if self.base_scores is None else torch.maximum(self.scores.abs(), self.base_scores.abs())
        )
        return size * self.eps * (8 if self.eps < 1e-5 else 2)  # sums inside are in single precision at least


@dataclass(frozen=True, eq=False)
class Result:
    """Attributions with what a method found out about them.

    Args:
        attributions: one tensor for each tensor that is explained.
        completeness_gap: ``(N,)``, where the method knows it; None lets the base class measure it for methods that are
            complete.
        standard_error: of each attribution, for methods that sample.
        details: further facts by name.
        baselines: from where the attributions add up to the score, where that is not the problem's baselines.
        has_gap: False where the attributions add up to nothing, although the method is complete elsewhere.
        form: how the attributions are put together, where only a run of the model says it.
        ends: the scores at the inputs and the baselines, which the base class measures.
    """

    attributions: Tensors
    completeness_gap: Tensor | None = None
    standard_error: Tensors | None = None
    details: Keywords = field(default_factory=dict)
    has_gap: bool = True
    baselines: Tensors | None = None
    form: Structure | None = None
    ends: ScoreEnds | None = None


def as_result(name: str, found: object, n: int, count: int = 1) -> Result:
    """Return what the ``_attribute`` of a method returned as a :class:`Result`.

    Args:
        name: of the method, for the errors.
        found: a result, or its attributions.
        n: how many rows they must have.
        count: how many tensors they must be at least.

    Raises:
        TypeError: neither a result nor tensors in a tuple or a list.
        ValueError: another number of rows or of tensors.
    """
    given = found.attributions if isinstance(found, Result) else found
    values = tuple(given) if isinstance(given, Iterable) and not isinstance(given, (Tensor, Mapping, str)) else ()
    if not values or not all(isinstance(v, Tensor) for v in values):
        got = "a tensor" if isinstance(given, Tensor) else type(given).__name__
        raise TypeError(
            f"{name}._attribute returned {got}: expected a tuple with one tensor for each that is explained, of one as "
            "(attributions,), or a Result of it"
        )
    for value in values:
        if value.shape[:1] != (n,):
            raise ValueError(
                f"{name}._attribute returned attributions of shape {tuple(value.shape)}: expected one for each row, ({n}, ...)"
            )
    if len(values) < count:
        raise ValueError(f"{name}._attribute returned {len(values)} tensors: expected {count}, one for each input")
    return replace(found, attributions=values) if isinstance(found, Result) else Result(values)


def refuse_not_finite(name: str) -> NoReturn:
    """Refuse attributions of a method that are NaN or infinite."""
    raise FloatingPointError(
        f"{name}: the attributions are NaN or infinite; the gradients overflow or the model divides by zero"
    )


__all__ = ["Result", "ScoreEnds"]
