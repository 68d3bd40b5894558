"""Several targets for each row, as a target for each pair of a row and a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.structure import Output, index_output
from torchwhy.targets.calling import RowsOf
from torchwhy.targets.target import Target, TargetLike

if TYPE_CHECKING:
    from torchwhy.problem import ScoreFunction


@dataclass(frozen=True, eq=False)
class EachTarget:
    """T targets of N rows, as a target of N T pairs; pair n T + t is row n with target t.

    Args:
        each: the targets.
    """

    each: Sequence[ScoreFunction]

    @property
    def given(self) -> TargetLike:
        """The targets as the caller gave them."""
        return [t.given for t in self.each]

    def select_rows(self, rows: Tensor) -> TargetLike:
        """Return the target for the chosen pairs, as a caller could give it."""
        given, which = rows // len(self.each), (rows % len(self.each)).unique().tolist()
        return self.each[which[0]].select_rows(given) if len(which) == 1 else RowsOf(self, rows)

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return the scores ``(M,)`` of pairs ``(M,)`` from an output of M rows."""
        given, which = rows // len(self.each), rows % len(self.each)
        numbers = which.unique().tolist()
        if len(numbers) == 1:
            return self.each[numbers[0]].select(output, given)
        places, parts = [], []
        for number in numbers:
            at = (which == number).nonzero()[:, 0]
            places.append(at)
            parts.append(self.each[number].select(index_output(output, at, len(rows)), given[at]))
        return torch.cat(parts)[torch.cat(places).argsort()]


def join_targets(each: Sequence[ScoreFunction], n: int, device: torch.device) -> ScoreFunction:
    """Return the target of N T pairs from T targets of N rows: an index for each pair, where all of them are indices."""
    indices: list[Tensor] = []
    for target in each:
        if not isinstance(target, Target) or target.index is None or target.neuron is not None:
            return EachTarget(each)
        indices.append(torch.as_tensor(target.index, device=device).expand(n, -1))
    if len({i.shape[1] for i in indices}) != 1:
        return EachTarget(each)
    pairs = torch.stack(indices, 1).flatten(0, 1)
    bounds = tuple(pairs.amax(0).tolist()), tuple(pairs.amin(0).tolist())
    return Target(pairs, *bounds, given=[tuple(i) if len(i) > 1 else i[0] for i in pairs.tolist()])
