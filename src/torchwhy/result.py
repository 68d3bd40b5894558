"""What a method returns: attributions, and what was measured on the way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

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
