"""Further arguments of a model: the same for all rows, one for each row, or rows of different lengths behind one another."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, overload

import torch
from torch import Tensor

from torchwhy.engine.copies import RowCache, copy_holder, copy_repeated, holds_tensors, rows_held
from torchwhy.engine.structure import map_nested


class Argument:
    """The base class: an argument that knows what it is for each row of a call."""

    def for_rows(self, rows: Tensor) -> object:
        """Return what the model is given for rows ``(M,)``, a copy: a model may write to it."""
        raise NotImplementedError

    def take(self, rows: Tensor) -> Argument:
        """Return the argument of a question whose rows are these ``(M,)``."""
        return self


@dataclass(frozen=True, eq=False)
class Shared(Argument):
    """An argument that is the same for all rows, such as prompts that are scored against each picture, prototypes or a mask.

    Args:
        value: anything. Tensors, and objects that hold some, are copied for each call; a cache of one row is repeated for the
            rows of a call.

    >>> prompts = torch.randn(2, 5)
    >>> score = lambda picture, prompts: picture @ prompts.T
    >>> import torchwhy as tw
    >>> tw.FeatureAblation(score).attribute(torch.randn(2, 5), 1, additional_forward_args=tw.Shared(prompts)).shape
    torch.Size([2, 5])
    """

    value: object

    def __post_init__(self) -> None:
        map_nested(_refuse_marks, self.value)

    def for_rows(self, rows: Tensor) -> object:
        """Return a copy of the value."""
        return map_nested(lambda part: _copy(part, len(rows)), self.value)


class PassedWhole(Shared):
    """A tensor that is marked neither way and has another number of rows than the inputs: passed as it is."""


def _refuse_marks(part: object) -> None:
    if isinstance(part, (Argument, Ragged)):
        raise TypeError(f"tw.Shared: holds a tw.{type(part).__name__}; mark each tensor once")


def _copy(part: object, m: int) -> object:
    """Return a copy of what holds tensors, a cache of one row repeated m times; anything else as it is."""
    if isinstance(part, Tensor):
        return part.detach().clone()
    if not holds_tensors(part):
        return part
    repeated = copy_repeated(part, m) if m > 1 and rows_held(part) == 1 else None
    return copy_holder(part) if repeated is None else repeated


@dataclass(frozen=True, eq=False)
class PerRow(Argument):
    """An argument with one part for each row.

    Args:
        tensor: with N rows along ``dim``.
        dim: the dimension of the rows, such as 1 for the states of an LSTM.

    Raises:
        TypeError: no tensor.
        ValueError: a dimension that there is not.
    """

    tensor: Tensor
    dim: int = 0

    def __post_init__(self) -> None:
        _check_dimension("PerRow", self.tensor, self.dim)

    def for_rows(self, rows: Tensor) -> Tensor:
        """Return the rows' parts, along the same dimension."""
        values = self.tensor.detach()
        if values.shape[self.dim] == 1:
            shape = list(values.shape)
            shape[self.dim] = len(rows)
            return values.expand(shape).clone()  # its own: a model may write to it, or view it
        return values.index_select(self.dim, rows.to(values.device))

    def take(self, rows: Tensor) -> PerRow:
        """Return the rows' parts as such an argument."""
        return PerRow(self.for_rows(rows), self.dim)


@dataclass(frozen=True, eq=False)
class Unmarked(Argument):
    """A tensor that has as many rows as the inputs and is marked neither way: it follows them until a trial says otherwise.

    Args:
        tensor: its parts for the rows of a question.
        whole: all of it.
        name: of the argument.
    """

    tensor: Tensor
    whole: Tensor
    name: str

    def for_rows(self, rows: Tensor) -> Tensor:
        """Return the rows' parts."""
        return PerRow(self.tensor).for_rows(rows)

    def take(self, rows: Tensor) -> Unmarked:
        """Return the rows' parts as such an argument."""
        return Unmarked(self.for_rows(rows), self.whole, self.name)


@dataclass(frozen=True, eq=False)
class Ragged:
    """Rows of different lengths behind one another: the patches of several pictures, the nodes of several graphs.

    As an input, and as a further argument. Attributions of a ragged input are ragged likewise. ``len`` is the number of rows,
    ``ragged[i]`` the tensor of one and ``ragged[a:b]`` a ragged tensor of some.

    Args:
        tensor: the rows behind one another.
        sizes: the length of each of the N rows.
        points_into: the name of a ragged input or argument into which the numbers of ``tensor`` point, such as the edges of
            graphs into their nodes: counted through all rows, each row's into its own. They are shifted to where these rows
            lie in a call. ``"rows"`` for numbers of rows, such as the number of the graph that each node is in.
        dim: the dimension along which the rows lie. None is the first one, or the last one where that alone is as long as all
            rows (edges ``(2, E)``).

    Raises:
        TypeError: no tensor, or sizes that are no whole numbers.
        ValueError: sizes that are negative or do not add up to the tensor's length.

    >>> import torchwhy as tw
    >>> nodes = tw.Ragged(torch.randn(5, 4), [2, 3])
    >>> len(nodes), nodes[1].shape
    (2, torch.Size([3, 4]))
    """

    tensor: Tensor
    sizes: Sequence[int]
    points_into: str | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        _check_dimension("Ragged", self.tensor, self.dim or 0)
        sizes = _as_sizes(self.sizes)
        object.__setattr__(self, "sizes", sizes)
        shape, total = self.tensor.shape, sum(sizes)
        if self.dim is None:
            last = shape[0] != total and shape[-1] == total
            object.__setattr__(self, "dim", len(shape) - 1 if last else 0)
        if self.points_into is not None and self.tensor.is_floating_point():
            raise TypeError(f"tw.Ragged: points_into={self.points_into!r}, but its numbers are {self.tensor.dtype}")
        if shape[self.along] != total:
            raise ValueError(
                f"tw.Ragged: the sizes {_in_short(sizes)} add up to {total}, but the tensor of shape {tuple(shape)} has "
                f"{shape[self.along]} along dimension {self.along}"
            )

    @property
    def along(self) -> int:
        """The dimension along which the rows lie."""
        return self.dim or 0

    @property
    def shape(self) -> torch.Size:
        """The shape of the tensor."""
        return self.tensor.shape

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.tensor.split(list(self.sizes), self.along))

    @overload
    def __getitem__(self, row: int) -> Tensor: ...
    @overload
    def __getitem__(self, row: slice) -> Ragged: ...
    def __getitem__(self, row: int | slice) -> Tensor | Ragged:
        parts = self.tensor.split(list(self.sizes), self.along)
        if not isinstance(row, slice):
            return parts[row]
        if self.points_into is not None:
            raise ValueError("tw.Ragged: rows whose numbers point into another tensor make no sense alone; take one")
        return Ragged(torch.cat(parts[row], self.along), self.sizes[row], dim=self.along)


def _check_dimension(name: str, tensor: object, dim: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"tw.{name}: expected a tensor, got {type(tensor).__name__}")
    if not isinstance(dim, int) or not -tensor.dim() <= dim < tensor.dim():
        raise ValueError(f"tw.{name}: dim={dim}, but the tensor has shape {tuple(tensor.shape)}")


def _as_sizes(sizes: Sequence[int] | Tensor) -> tuple[int, ...]:
    """Return lengths of rows as ints."""
    try:
        found = tuple(operator.index(size) for size in (sizes.tolist() if isinstance(sizes, Tensor) else sizes))
    except TypeError:
        raise TypeError(f"tw.Ragged: sizes={sizes!r}; expected whole numbers, the length of each row") from None
    if not found or min(found) < 0:
        raise ValueError(f"tw.Ragged: sizes={_in_short(found)}; expected the length of each row, none negative")
    return found


def _in_short(sizes: Sequence[int]) -> str:
    return str(list(sizes)) if len(sizes) <= 8 else f"[{', '.join(map(str, sizes[:8]))}, ...]"


@dataclass(frozen=True, eq=False)
class PackedRows(Argument):
    """A ragged argument in its checked form.

    Args:
        tensor: the rows behind one another; numbers that point somewhere count from the begin of their row there.
        sizes: the length of each row, ``(N,)``.
        dim: the dimension along which they lie.
        space: how much each row takes there, ``(N,)``; None for values.
    """

    tensor: Tensor
    sizes: Tensor
    dim: int
    space: Tensor | None = None

    @classmethod
    def check(cls, given: Ragged, space: Tensor | None, name: str) -> PackedRows:
        """Return a ragged argument that points into rows of these sizes ``(N,)``, None for values.

        Raises:
            ValueError: a number that points outside of its row.
        """
        sizes, values = torch.tensor(given.sizes), given.tensor.detach()
        if space is None:
            return cls(values, sizes, given.along)
        starts, device = space.cumsum(0) - space, values.device
        shape = [-1 if k == given.along else 1 for k in range(values.dim())]
        row = torch.arange(len(sizes)).repeat_interleave(sizes)
        local = values - starts[row].to(device).view(shape)
        outside = ((local < 0) | (local >= space[row].to(device).view(shape))).nonzero()
        if len(outside):
            at = tuple(outside[0].tolist())
            i = int(row[at[given.along]])
            raise ValueError(
                f"{name}: row {i} holds {int(values[at])}, which is outside of that row of "
                f"{given.points_into!r}, {int(starts[i])} to {int(starts[i] + space[i]) - 1}; the numbers count through all rows"
            )
        return cls(local, sizes, given.along, space)

    def for_rows(self, rows: Tensor) -> Tensor:
        """Return the rows behind one another, their numbers counting through all of them."""
        rows = rows.cpu()
        found = self._select(rows)
        if self.space is None:
            return found
        space = self.space[rows]
        starts = (space.cumsum(0) - space).repeat_interleave(self.sizes[rows])
        return found + starts.to(found).view([-1 if k == self.dim else 1 for k in range(found.dim())])

    def take(self, rows: Tensor) -> PackedRows:
        """Return the rows as such an argument."""
        rows = rows.cpu()
        space = None if self.space is None else self.space[rows]
        return PackedRows(self._select(rows), self.sizes[rows], self.dim, space)

    def _select(self, rows: Tensor) -> Tensor:
        sizes, starts = self.sizes[rows], self.sizes.cumsum(0) - self.sizes
        within = torch.arange(int(sizes.sum())) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
        at = starts[rows].repeat_interleave(sizes) + within
        return self.tensor.index_select(self.dim, at.to(self.tensor.device))


@dataclass(frozen=True, eq=False)
class Holder(Argument):
    """An object that holds tensors, such as a cache of keys and values, marked neither way: copied for each call.

    Args:
        value: the object.
        n: the number of rows.
    """

    value: object
    n: int

    @cached_property
    def fits(self) -> Literal["selected", "repeated", "one row"]:
        """How it is brought to the rows of a call: where it has all rows or one; else it takes calls of one row."""
        held = rows_held(self.value)
        if self.n > 1 and held == self.n and isinstance(self.value, RowCache):
            return "selected"
        return "repeated" if held == 1 and copy_repeated(self.value, 2) is not None else "one row"

    def for_rows(self, rows: Tensor) -> object:
        """Return a copy with the rows, where it can be had, else a copy."""
        if self.fits == "repeated" and len(rows) > 1:
            return copy_repeated(self.value, len(rows))
        made = copy_holder(self.value)
        if self.fits == "selected" and isinstance(made, RowCache):
            made.batch_select_indices(rows)
        return made

    def take(self, rows: Tensor) -> Holder:
        """Return the object with the rows, as such an argument."""
        return Holder(self.for_rows(rows) if self.fits == "selected" else self.value, len(rows))


__all__ = ["PerRow", "Ragged", "Shared"]
