"""What is counted while a model runs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.rows import all_finite


@dataclass
class Tally:
    """Counts of the model's runs for one call of a method.

    Args:
        evaluations: rows that went through the model.
        eps: the rounding of the model's scores, relative to their size.
        not_finite: whether a score was NaN or infinite; on a GPU a tensor there, so that nothing waits for it.
    """

    evaluations: int = 0
    eps: float = 0.0
    not_finite: Tensor | bool = False

    def count(self, rows: int) -> None:
        """Count rows that went through the model."""
        self.evaluations += rows

    def see(self, scores: Tensor, *, check_finite: bool) -> None:
        """Note the type of the scores, and whether all are finite."""
        if not scores.is_floating_point():
            return
        self.eps = max(self.eps, torch.finfo(scores.dtype).eps)
        if not check_finite or self.not_finite is True:
            return
        if scores.device.type == "cpu":
            self.not_finite = not all_finite(scores.detach()) or self.not_finite
        else:  # nothing waits for the device
            bad = ~scores.detach().isfinite().all()
            self.not_finite = bad if self.not_finite is False else bad | self.not_finite

    def check_finite(self) -> None:
        """Refuse scores that were NaN or infinite.

        Raises:
            FloatingPointError: there were some.
        """
        if bool(self.not_finite):
            raise FloatingPointError(
                "the target is NaN or infinite for some of the rows that were evaluated: an attribution "
                "would be meaningless; check the model, the inputs and precision="
            )
