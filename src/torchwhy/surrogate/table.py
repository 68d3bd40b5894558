"""The columns of a table, whatever it came in: a tensor, an array, a data frame, or several tensors side by side."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from torchwhy.engine.run.rows import as_type_of
from torchwhy.engine.structure import Tensors


@dataclass(frozen=True)
class TableColumns:
    """Rows whose elements are columns, numbered through the tensors.

    Args:
        tensors: ``(N, ...)`` each, such as numbers and the indices of categories.
        names: of the columns, where they have any.
    """

    tensors: Tensors
    names: Sequence[str] | None = None

    @property
    def d(self) -> int:
        """The number of columns."""
        return sum(t[0].numel() for t in self.tensors)

    def number(self, column: object) -> int | None:
        """Return a column's number, from a number or a name; None where there is no such column."""
        if isinstance(column, str):
            return list(self.names).index(column) if self.names is not None and column in self.names else None
        try:
            found = operator.index(column)  # type: ignore[arg-type]
        except TypeError:
            return None
        return found if 0 <= found < self.d and not isinstance(column, bool) else None

    def place(self, column: int) -> tuple[int, int]:
        """Return which tensor a column is in, and where in its row."""
        for k, t in enumerate(self.tensors):
            if column < t[0].numel():
                return k, column
            column -= t[0].numel()
        raise IndexError(f"column {column} of {self.d}")

    def column(self, column: int) -> Tensor:
        """Return the values of a column, ``(N,)``, in its own type."""
        k, at = self.place(column)
        return self.tensors[k].flatten(1)[:, at]

    def numbers(self) -> Tensor:
        """Return all columns as float64 numbers ``(N, d)``, on the CPU."""
        return torch.cat([t.flatten(1).double().cpu() for t in self.tensors], 1)

    def with_columns(self, rows: Tensor, columns: Sequence[int], values: Tensor) -> list[Tensor]:
        """Return rows ``(M,)`` in which the columns have other values ``(M, columns)``."""
        z = [t[rows].flatten(1) for t in self.tensors]  # indexing copies
        for i, column in enumerate(columns):
            k, at = self.place(column)
            z[k][:, at] = values[:, i].to(z[k])
        return [part.view(len(rows), *t.shape[1:]) for part, t in zip(z, self.tensors)]

    def held_by(self, column: int, values: object, name: str) -> Tensor:
        """Return values ``(G,)`` in the column's type.

        Raises:
            ValueError: the type cannot hold one of them.
        """
        return as_type_of(self.column(column), values, name)

    def is_one_hot(self, columns: Sequence[int]) -> bool:
        """Say whether in every row one of the columns is 1 and the others are 0."""
        values = torch.stack([self.column(c).double() for c in columns], 1)
        return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())
