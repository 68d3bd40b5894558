"""``target="each"``: every token of a response explained by every unit of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution
    from torchwhy.samples.sample import Sample


def explain_each_token(method: Attribution, sample: Sample) -> Explanation:
    """Return one explanation of the T tokens of a sample's response: attributions ``(N, T, units)``, scores ``(N, T)``.

    Raises:
        ValueError: a sample without a response.
    """
    ready, _ = sample.asked(method.model, "each")
    return stack_targets(method.explain_each(ready, ready.each_target()))


def stack_targets(each: Sequence[Explanation]) -> Explanation:
    """Return the explanations of several targets, which are of one run, as one, the targets behind the rows."""

    def stacked(name: str) -> Tensor | None:
        values = [getattr(e, name) for e in each]
        return torch.stack(values, 1) if all(isinstance(v, Tensor) for v in values) else None

    names = ("attributions", "standard_error", "completeness_gap", "scores", "base_scores")
    changed: Keywords = {name: stacked(name) for name in names}
    return replace(
        each[0],
        target="each",
        **changed,
    )
