"""Rows as vectors, and their constraints: what of them may change, between which bounds, and to which values."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.run.rows import exact_tensor

BoundLike = bool | float | Tensor | Sequence[float | Tensor]


@dataclass
class RowVectors:
    """The inputs of a model as vectors ``(N, D)``.

    Args:
        shapes, dtypes: of a row of each input tensor.
        low, high: the bounds ``(1 or N, D)``, infinite where there are none.
        free: ``(1 or N, D)``, True where a value may change.
        integers: columns that are rounded.
        groups: columns of which one is 1 and the others are 0.
    """

    shapes: list[torch.Size]
    dtypes: list[torch.dtype]
    low: Tensor
    high: Tensor
    free: Tensor
    integers: list[int]
    groups: list[list[int]]

    @property
    def scale(self) -> Tensor:
        """The width of the bounds, 1 where there are none."""
        width = self.high - self.low
        return torch.where(width.isfinite() & (width > 0), width, torch.ones_like(width))

    def of(self, value: Tensor, rows: Tensor) -> Tensor:
        """Return the part of a bound or mask that belongs to ``rows``."""
        return value if len(value) == 1 else value[rows]

    def tensors(self, z: Tensor) -> list[Tensor]:
        """Return vectors ``(M, D)`` in the shapes of the inputs."""
        parts = z.split([math.prod(s) for s in self.shapes], 1)
        return [p.reshape(len(z), *s).to(t) for p, s, t in zip(parts, self.shapes, self.dtypes)]

    def valid(self, z: Tensor) -> Tensor:
        """Return ``z`` with integers rounded, and each group's largest column 1 and the others 0."""
        if not (self.integers or self.groups):
            return z
        z = z.clone()
        z[:, self.integers] = z[:, self.integers].round()
        for group in self.groups:
            z[:, group] = torch.nn.functional.one_hot(z[:, group].argmax(1), len(group)).to(z)
        return z


def vectors(tensors: Sequence[Tensor]) -> Tensor:
    """Return input tensors ``(N, ...)`` as one matrix ``(N, D)``, in single precision at least."""
    kind = torch.float32
    for t in tensors:
        kind = torch.promote_types(kind, t.dtype)
    return torch.cat([t.reshape(len(t), -1).to(kind) for t in tensors], 1)


def constraints_per_row(
    tensors: Sequence[Tensor],
    bounds: tuple[BoundLike | None, BoundLike | None] | None,
    changeable: BoundLike | Sequence[str] | None,
    integers: Sequence[int | str],
    one_hot: Sequence[Sequence[int | str]],
    names: Sequence[str] | None = None,
    labels: Mapping[int, int] | None = None,
    whole_columns: Sequence[int] = (),
) -> RowVectors:
    """Return the checked description of the inputs ``(N, ...)``; columns go by number, or by ``names`` where there are any.

    ``labels`` says of columns of a data frame that hold labels how many there are: they stay the numbers of one;
    ``whole_columns`` are those of integer types: they stay whole, unless a value is missing.

    Raises:
        ValueError: bounds that are none or exclude an input, a mask or columns that do not fit the inputs.
    """
    x = vectors(tensors)
    low, high = (None, None) if bounds is None else bounds
    low, high = -torch.inf if low is None else low, torch.inf if high is None else high
    whole, groups = _columns_of_tables(tensors, x.shape[1], integers, one_hot, names)
    columns = [*whole, *(c for g in groups for c in g)]
    low, high = (_broadcast_constraint(v, tensors, "bounds").to(x, copy=True) for v in (low, high))
    if not bool((low <= high).all()):  # also where one is NaN
        raise ValueError(f"bounds={bounds!r}: low is not below high everywhere")
    broken = (x[:, whole] != x[:, whole].round()).nonzero()
    if len(broken):
        row, k = broken[0].tolist()
        raise ValueError(
            f"integers: column {whole[k]} holds {float(x[row, whole[k]]):.4g} in row {row}, which is no whole number; leave it "
            "out, or give the column as it was before it was scaled"
        )
    typed = [c for c in whole_columns if torch.equal(x[:, c], x[:, c].round())]
    whole += [c for c in dict.fromkeys([*_integer_columns(tensors), *typed]) if c not in columns]
    for c, count in (labels or {}).items():
        whole += [c] if c not in columns and c not in whole else []
        low[:, c], high[:, c] = low[:, c].clamp(min=0), high[:, c].clamp(max=count - 1)
    low[:, whole], high[:, whole] = low[:, whole].ceil(), high[:, whole].floor()
    for group in groups:
        low[:, group], high[:, group] = 0, 1
    free = _broadcast_constraint(_named_mask(changeable, names, x.shape[1]), tensors, "changeable").bool()
    if not bool(free.any()):
        raise ValueError("changeable: no value may change")
    rows = RowVectors([t.shape[1:] for t in tensors], [t.dtype for t in tensors], low, high, free, whole, groups)
    _check_inside(x, rows)
    return rows


def check_bounds(bounds: object) -> None:
    """Refuse what are no bounds of inputs, whatever these are; infinite ones are none on that side.

    Raises:
        ValueError: they are not.
    """
    if bounds is None:
        return
    if not (isinstance(bounds, (tuple, list)) and len(bounds) == 2):
        raise ValueError(f"bounds={bounds!r}: expected (low, high), or None for no bounds")
    if not all(end is None or _holds_numbers(end) for end in bounds):
        raise ValueError(
            f"bounds={bounds!r}: expected numbers, tensors or series of them, or None for none on that side"
        )
    low, high = bounds
    if isinstance(low, Real) and isinstance(high, Real) and not low <= high:
        raise ValueError(f"bounds={bounds!r}: low is not below high everywhere")


def check_changeable(changeable: object) -> None:
    """Refuse what is neither a mask of inputs, whatever these are, nor names of columns.

    Raises:
        ValueError: it is not.
    """
    known = changeable is None or isinstance(changeable, (bool, str)) or _holds_numbers(changeable, names=True)
    if not known or (isinstance(changeable, Real) and changeable not in (0, 1)):
        raise ValueError(
            f"changeable={changeable!r}: expected a mask, true where a value may change, names of columns, or None for all"
        )


def _holds_numbers(value: object, *, names: bool = False) -> bool:
    """Say whether a value is a number, an array or tensor, or a list of these; with ``names`` also of strings."""
    if isinstance(value, (list, tuple)):
        return bool(value) and all(_holds_numbers(v, names=names) or (names and isinstance(v, str)) for v in value)
    if isinstance(value, Real):
        return value == value  # NaN does not
    if isinstance(value, Tensor):
        return not bool(value.isnan().any())
    return hasattr(value, "__array__") and bool(np.all(np.asarray(value) == np.asarray(value)))  # nor does an array


def _columns_of_tables(
    tensors: Sequence[Tensor],
    d: int,
    integers: Sequence[int | str],
    one_hot: Sequence[Sequence[int | str]],
    names: Sequence[str] | None,
) -> tuple[list[int], list[list[int]]]:
    """Return the numbers of the columns of whole numbers, and of each one-hot group, of tables with d columns.

    Raises:
        ValueError: columns that there are not or that are named twice.
    """
    whole = [_column(c, names, "integers") for c in integers]
    groups = [[_column(c, names, "one_hot") for c in g] for g in one_hot]
    columns = [*whole, *(c for g in groups for c in g)]
    if columns and any(t.dim() != 2 for t in tensors):
        raise ValueError("integers, one_hot: columns are those of a table, inputs (N, d)")
    if any(not 0 <= c < d for c in columns) or len(set(columns)) < len(columns):
        raise ValueError(f"integers, one_hot: {columns} are not different columns of 0 to {d - 1}")
    return whole, groups


def _check_inside(x: Tensor, rows: RowVectors) -> None:
    """Refuse inputs ``(N, d)`` that do not keep to the constraints themselves.

    Raises:
        ValueError: a value out of its bounds, no whole number, not one-hot, or a group of which only some may change.
    """
    outside = (x < rows.low) | (x > rows.high)
    if bool(outside.any()):
        row, column = outside.nonzero()[0].tolist()
        raise ValueError(
            f"bounds: they exclude the inputs ({int(outside.sum())} values; the first is {float(x[row, column]):.4g} in row "
            f"{row}); give bounds=(low, high) of the data, numbers or tensors that broadcast to the inputs, or None"
        )
    if not torch.equal(rows.valid(x), x):
        raise ValueError("integers, one_hot: some of the inputs are not whole numbers or not one-hot in these columns")
    for group in rows.groups:
        if not torch.equal(rows.free[:, group].any(1), rows.free[:, group].all(1)):
            raise ValueError(f"changeable: of the one-hot columns {group} either all may change or none")


def _column(column: int | str, names: Sequence[str] | None, setting: str) -> int:
    """Return the number of a column.

    Raises:
        ValueError: a name that there is not.
    """
    if not isinstance(column, str):
        return operator.index(column)
    if names is None:
        raise ValueError(
            f"{setting}: {column!r} is a name, but the inputs have none; give a data frame, or numbers of columns"
        )
    if column not in names:
        raise ValueError(f"{setting}: no column {column!r}; there are {', '.join(map(repr, names))}")
    return list(names).index(column)


def _named_mask(changeable: BoundLike | Sequence[str] | None, names: Sequence[str] | None, d: int) -> BoundLike:
    """Return which values may change, as a mask, where the columns are named."""
    if changeable is None:
        return True
    named = [changeable] if isinstance(changeable, str) else changeable
    if isinstance(named, (list, tuple)) and any(isinstance(c, str) for c in named):
        mask = torch.zeros(d, dtype=torch.bool)
        mask[[_column(c, names, "changeable") for c in named]] = True
        return mask
    return changeable  # type: ignore[return-value]


def _integer_columns(tensors: Sequence[Tensor]) -> list[int]:
    """Return the columns of tensors that hold integers."""
    found: list[int] = []
    start = 0
    for t in tensors:
        width = t[0].numel()
        if not t.is_floating_point():
            found += range(start, start + width)
        start += width
    return found


def _broadcast_constraint(value: BoundLike, tensors: Sequence[Tensor], name: str) -> Tensor:
    """Return ``value`` as ``(1, D)``, or ``(N, D)`` if it differs from row to row.

    Raises:
        ValueError: a shape that does not broadcast.
    """
    values = value if len(tensors) > 1 and isinstance(value, (tuple, list)) else [value] * len(tensors)
    parts = []
    for v, t in zip(values, tensors):
        v = exact_tensor(v, t.device)
        try:
            parts.append(v.expand_as(t).flatten(1) if v.dim() == t.dim() else v.expand(t.shape[1:]).flatten()[None])
        except RuntimeError:
            raise ValueError(f"{name}: shape {tuple(v.shape)} does not broadcast to inputs {tuple(t.shape)}") from None
    n = max(map(len, parts))
    return torch.cat([p.expand(n, -1) for p in parts], 1)
