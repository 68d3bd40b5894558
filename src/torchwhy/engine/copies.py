"""Copies of objects that hold tensors, such as caches of keys and values, which a model changes as it runs."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor, nn

from torchwhy.engine.structure import tensors_and_modules

Value = TypeVar("Value")


@runtime_checkable
class RowCache(Protocol):
    """A cache of keys and values that can be made of other rows, as those of transformers."""

    def batch_repeat_interleave(self, repeats: int) -> object:
        """Repeat each row."""

    def batch_select_indices(self, indices: Tensor) -> object:
        """Keep some rows."""


def held_tensors(value: object) -> Iterator[Tensor]:
    """Yield the tensors in an object; those of modules are the modules' own."""
    return (part for part in tensors_and_modules(value) if isinstance(part, Tensor))


def holds_tensors(value: object) -> bool:
    """Say whether an object that is no tensor holds one."""
    return not isinstance(value, (Tensor, nn.Module)) and next(held_tensors(value), None) is not None


def rows_held(value: object) -> int | None:
    """Return the number of rows of an object's tensors, the length of the first one that has a length; None without any."""
    return next((len(t) for t in held_tensors(value) if t.dim()), None)


def copy_holder(value: Value) -> Value:
    """Return a copy of an object in which every tensor is another one, without a graph, and modules are the same."""
    return copy.deepcopy(
        value, {id(v): v.detach().clone() if isinstance(v, Tensor) else v for v in tensors_and_modules(value)}
    )


def copy_repeated(value: object, m: int) -> object:
    """Return a copy of a cache of one row with the row m times, None where it cannot be repeated."""
    if not isinstance(value, RowCache):
        return None
    made = copy_holder(value)
    try:
        made.batch_repeat_interleave(m)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return made
