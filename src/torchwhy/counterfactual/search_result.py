"""What a search for counterfactuals found."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.counterfactual.changes import draw_changes
from torchwhy.engine.structure import flatten
from torchwhy.engine.tables import FrameForm
from torchwhy.input_types import Inputs
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption


@dataclass(frozen=True, repr=False)
class Found(Viewable):
    """The outcome of a search for counterfactuals.

    Args:
        counterfactuals: in the inputs' form; ``(N, n_diverse, ...)`` where several were asked for: of a data frame a data frame,
            the candidates of a row one below the other. Where none was found, the last attempt.
        found: ``(N,)`` or ``(N, n_diverse)``: whether it gets the wanted answer.
        distance: likewise, from the row; NaN where none was found. A step from one label to another counts as their numbers do.
        steps: likewise, how many it took to flip.
        history: ``(steps, ...)``, the gap to the wanted answer before each step, in units of the score; below zero once
            flipped.
        inputs: the rows.
        table: how a data frame becomes numbers and back, None of tensors.
    """

    counterfactuals: Inputs
    found: Tensor
    distance: Tensor
    steps: Tensor
    history: Tensor
    inputs: Inputs | None = None
    table: FrameForm | None = None

    def _changes(self) -> tuple[Tensor, Tensor]:
        """Return the rows, and what was found for each, the nearest of several; of several tensors side by side."""
        if self.table is None:
            before, after = flatten(self.inputs)[0], flatten(self.counterfactuals)[0]
        else:
            codes = self.table.encode(self.counterfactuals, "counterfactuals")
            before = (self.table.encode(self.inputs, "inputs"),)
            after = (codes.view(*self.found.shape, codes.shape[1]),)
        if self.found.dim() == 2:
            nearest = self.distance.nan_to_num(torch.inf).argmin(1)
            after = tuple(t[torch.arange(len(t)), nearest] for t in after)
        if len(before) == 1:
            return before[0], after[0]
        return torch.cat([t.flatten(1) for t in before], 1), torch.cat([t.flatten(1) for t in after], 1)

    def _picture(self, pictures: ModuleType, **options: AnyOption) -> Figure:
        before, after = self._changes()
        if self.table is not None:
            options = {"names": [str(c) for c in self.table.columns], "labels": self.table.labels, **options}
        return draw_changes(before, after, self.found.reshape(len(self.found), -1).any(1).tolist(), pictures, **options)

    def _table(self) -> Table:
        before, after = (t.flatten(1) for t in self._changes())
        lines: list[list[object]] = []
        for row, j in (before != after).nonzero().tolist():
            b, a = before[row, j].item(), after[row, j].item()
            if self.table is None or j not in self.table.labels:
                name = j if self.table is None else self.table.columns[j]
                lines.append([row, name, b, a, a - b])
            else:
                lines.append([row, self.table.columns[j], self.table.value(j, b), self.table.value(j, a), None])
        return ["row", "feature", "before", "after", "change"], lines
