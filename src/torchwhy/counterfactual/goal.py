"""When a row has flipped: how far its score is from what is wanted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.structure import Output
from torchwhy.targets import DerivedTarget, find_logits

ROUNDING = 8  # units in the last place of the larger score


@dataclass
class Goal(DerivedTarget):
    """The gap of each row, which is below zero once the row has flipped; it takes a target's place in a problem.

    Args:
        target: the wanted class or classes; a callable, whose score must pass the margin; None for any class but the
            present one (of a single score: the other sign).
        margin: by how much the wanted class must lead, in units of the score.
        present: the present class (or sign) of each row ``(N,)``, for ``target`` None.
    """

    margin: float
    present: Tensor | None = None

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return gaps ``(M,)``: how much the wanted class is behind the best other one, plus the margin.

        Raises:
            ValueError: an output that is neither ``(M, classes)`` nor one score per row.
        """
        if self.target.function is not None:
            return self.margin - self.target.select(output, rows)
        out = find_logits(output)
        if self.target.index is None and out.numel() == len(rows):
            out = out.reshape(len(rows), 1)
        if out.dim() != 2 or len(out) != len(rows):
            raise ValueError(
                f"the model's output has shape {tuple(out.shape)} for {len(rows)} rows: a counterfactual needs (N, classes); "
                "pass a callable target, whose score must become positive"
            )
        if self.target.index is not None:
            own = self.target.select(out, rows)
            classes = self.classes(rows)
            return _gap(_best_other(out, classes), own) + self.margin
        if self.present is None:  # the first look
            return out.argmax(1) if out.shape[1] > 1 else out[:, 0]
        present = self.present[rows]
        if out.shape[1] == 1:
            return out[:, 0] * torch.where(present > 0, 1, -1) + self.margin
        classes = present.long()
        return _gap(out.gather(1, classes[:, None])[:, 0], _best_other(out, classes)) + self.margin

    def classes(self, rows: Tensor) -> Tensor:
        """Return the wanted class of rows ``(M,)``."""
        index = self.target.index
        return index[rows, 0] if isinstance(index, Tensor) else torch.full_like(rows, (index or (0,))[0])


def _gap(ahead: Tensor, behind: Tensor) -> Tensor:
    """Return ``ahead - behind``, plus what rounding may make of it in another batch: who has overtaken has done so in all."""
    size = torch.maximum(ahead.detach().abs(), behind.detach().abs()).nan_to_num(posinf=0.0)
    return ahead - behind + ROUNDING * torch.finfo(ahead.dtype).eps * size


def _best_other(out: Tensor, classes: Tensor) -> Tensor:
    """Return the largest output of each row but that of its class, ``(M,)``."""
    return out.scatter(1, classes[:, None], -torch.inf).max(1).values
