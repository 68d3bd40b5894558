"""What the training rows are worth for some answers: the result of the methods of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption


class RankedRows(NamedTuple):
    """Training rows in order, as ``torch.topk`` has them: values ``(N, k)`` and row numbers ``(N, k)``."""

    values: Tensor
    indices: Tensor


@dataclass(frozen=True, eq=False, repr=False)
class Influences(Viewable):
    """The worth of each training row for each explained row.

    Args:
        attributions: ``(N, n_train)``; positive: the row helped (with it the loss is lower, the score higher).
        labels: of the explained rows ``(N,)``, None where they are not one number each.
        training_labels: of the training rows ``(n_train,)``, likewise.
        method: the class that said so.
        rows: the explained rows.
        training: the training rows.
    """

    attributions: Tensor
    labels: Tensor | None
    training_labels: Tensor | None
    method: str
    rows: RowsInBatches = field(repr=False)
    training: RowsInBatches = field(repr=False)

    def __len__(self) -> int:
        return len(self.attributions)

    def top(self, k: int = 5) -> RankedRows:
        """Return the k training rows that helped most, the first one most (proponents)."""
        return RankedRows(*self.attributions.topk(self._within(k), 1))

    def bottom(self, k: int = 5) -> RankedRows:
        """Return the k training rows that harmed most, the first one most (opponents)."""
        return RankedRows(*self.attributions.topk(self._within(k), 1, largest=False))

    def _within(self, k: int) -> int:
        """Return k, or as many training rows as there are.

        Raises:
            ValueError: less than 1.
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r}: expected an int of at least 1")
        return min(k, self.attributions.shape[1])

    def _picture(
        self, pictures: ModuleType, row: int = 0, top: int = 5, names: Sequence[str] | None = None,
        **options: AnyOption,
    ) -> Figure:  # fmt: skip
        """Draw the training rows that helped and harmed a row most: their pictures, where rows are images, else bars.

        Args:
            pictures: :mod:`torchwhy.visualize`.
            row: which of the explained rows.
            top: how many of each.
            names: of the training rows; None gives their numbers and labels.
            options: of :func:`torchwhy.visualize.gallery` or :func:`torchwhy.visualize.bars`.
        """
        if not 0 <= row < len(self):
            raise IndexError(f"row {row}: there are {len(self)}")
        helped, harmed = self.top(top), self.bottom(top)
        (image,) = self.rows.take([row])
        chosen = list(dict.fromkeys([*helped.indices[row].tolist(), *harmed.indices[row].tolist()]))
        known = [self._name(i) if names is None else names[i] for i in chosen]
        values = self.attributions[row, chosen]
        if image.dim() != 3 or image.shape[0] not in (1, 3):
            order = values.argsort(descending=True).tolist()
            shown: dict[str, AnyOption] = {"xlabel": self.method, "top": len(chosen), **options}
            return pictures.bars(values[order], [known[i] for i in order], **shown)
        own = f"row {row}" + ("" if self.labels is None else f" ({self.labels[row].item()})")
        images, k = self.training.take(chosen), len(helped.indices[row])
        shown = {"max_columns": k + 1, **options}
        captions = [f"{v:+.3g}" for v in values.tolist()]
        ends = [slice(0, k), slice(k, None)] if len(images) > k else [slice(0, k)]  # a line each, unless all are shown
        panels = [panel for end in ends for panel in (image, *images[end])]
        titles = [title for end in ends for title in (own, *known[end])]
        below = [caption for end in ends for caption in ("explained", *captions[end])]
        return pictures.gallery(panels, titles, captions=below, **shown)

    def _name(self, i: int) -> str:
        return f"train {i}" + ("" if self.training_labels is None else f" ({self.training_labels[i].item()})")

    def _table(self) -> Table:
        """Return a line for each explained row and training row, those that helped most first."""
        values, order = self.attributions.sort(1, descending=True)
        labels = None if self.training_labels is None else self.training_labels.tolist()
        lines: list[list[object]] = []
        for n, (line, rows) in enumerate(zip(values.tolist(), order.tolist())):
            lines += [[n, i, *([] if labels is None else [labels[i]]), v] for i, v in zip(rows, line)]
        return ["row", "training row", *([] if labels is None else ["label"]), "influence"], lines


def finite_influences(values: Tensor, method: str) -> Tensor:
    """Return values.

    Raises:
        ValueError: one is NaN or infinite.
    """
    wrong = (~values.isfinite()).nonzero()
    if len(wrong):
        row, i = wrong[0].tolist()
        raise ValueError(
            f"{method}: the influence of training row {i} on row {row} is {float(values[row, i])}: a loss or a gradient is not "
            "finite there"
        )
    return torch.as_tensor(values)
