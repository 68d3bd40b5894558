"""A curve for each row: scores along a horizontal axis, and the area under them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Viewable):
    """Scores along a horizontal axis, for each row.

    ``fractions`` (S,) ascending, or (N, S) where the rows have different numbers of features; ``scores`` (N, S); ``xlabel``
    is what the fractions are of, ``bounds`` what a score can be, None if anything.

    >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[4.0, 2.0, 0.0]])).auc
    tensor([2.])
    """

    fractions: Tensor
    scores: Tensor
    xlabel: str = "fraction of the input replaced"
    bounds: tuple[float, float] | None = None

    @property
    def auc(self) -> Tensor:
        """The mean height (N,): the area by the trapezoidal rule over the length of the axis, in the unit of the scores.

        The mean score where the axis has no length.
        """
        width = self.fractions.diff(dim=-1).to(self.scores)
        length = width.sum(-1)
        area = ((self.scores[:, 1:] + self.scores[:, :-1]) / 2 * width).sum(1)
        return torch.where(length > 0, area / length, self.scores.mean(1))

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        return pictures.curve(self, **options)

    def _table(self) -> Table:
        own = self.fractions.expand(self.scores.shape).tolist()
        lines: list[list[object]] = [
            [row, fraction, score]
            for row, (at, scores) in enumerate(zip(own, self.scores.tolist()))
            for fraction, score in zip(at, scores)
        ]
        return ["row", "fraction", "score"], lines


def check_fractions(values: Sequence[float], name: str = "fractions", *, below: float = 1.0) -> Tensor:
    """Return ascending fractions as a tensor (S,).

    Raises:
        ValueError: not ascending, or not between 0 and ``below``.
    """
    found = torch.as_tensor(values, dtype=torch.double)
    if found.dim() != 1 or not len(found) or bool((found.diff() <= 0).any()) or not 0 <= found[0] <= found[-1] <= below:
        raise ValueError(f"{name}={values!r}: expected ascending numbers from 0 to {below:g}")
    return found
