"""The layers, heads and tokens that are chosen of a model's attention matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from numbers import Integral
from typing import TypeVar

import torch
from torch import Tensor

Item = TypeVar("Item")
Indices = int | Iterable[int] | None  # of the layers or heads; None is all


def by_head(weights: Tensor, n: int) -> Tensor:
    """Return matrices ``(n, heads, T, S)`` of n rows.

    Raises:
        ValueError: another number of rows, as of attention within windows.
    """
    if weights.dim() == 3 and len(weights) % n == 0:
        return weights.unflatten(0, (n, -1))
    if weights.dim() != 4 or len(weights) != n:
        raise ValueError(
            f"the model's attention has the shape {tuple(weights.shape)} for {n} rows: it is within windows or "
            "groups of tokens, and no matrix from all tokens to all tokens; use a gradient method, LRP or a CAM"
        )
    return weights


def matrices_by_head(matrices: Sequence[Tensor], heads: Indices, n: int) -> list[Tensor]:
    """Return matrices ``(n, heads, T, S)`` of the chosen heads, of one type.

    Raises:
        ValueError: attention within windows.
        IndexError: no such head.
    """
    dtype = reduce(torch.promote_types, (m.dtype for m in matrices), torch.float)  # they may differ from layer to layer
    found = [by_head(m.to(dtype), n) for m in matrices]
    if heads is None:
        return found
    return [torch.stack(select_items(m.unbind(1), heads, "heads"), 1) for m in found]


def select_items(items: Sequence[Item], which: Indices, name: str) -> list[Item]:
    """Return the items of the chosen layers or heads, as ``name`` says.

    Raises:
        IndexError: no such layer or head.
    """
    return [items[i] for i in select_numbers(len(items), which, name)]


def select_numbers(count: int, which: Indices, name: str) -> list[int]:
    """Return the numbers, from 0, of the chosen ones among ``count``.

    Raises:
        IndexError: no such layer or head.
    """
    numbers = list(range(count)) if which is None else index_list(which)
    for i in numbers:
        if not -count <= i < count:
            raise IndexError(f"{name}: there is no {i}; the model has {count} (0 to {count - 1})")
    return [int(i) % count for i in numbers]


def index_list(which: int | Iterable[int]) -> list[int]:
    """Return one number or several as a list."""
    found = which.tolist() if hasattr(which, "tolist") else which  # a tensor or an array, also of one number
    return list(found) if isinstance(found, Iterable) else [found]


def pick_rows(matrix: Tensor, tokens: Tensor) -> Tensor:
    """Return rows ``(n, K, S)`` of matrices ``(n, T, S)``: those of tokens ``(n, K)``."""
    return matrix.gather(1, tokens[..., None].expand(-1, -1, matrix.shape[2]))


def check_indices(name: str, which: Indices) -> None:
    """Refuse a setting that is no number and not several.

    Raises:
        ValueError: it is not.
    """
    if which is None:
        return
    numbers = [] if isinstance(which, (Iterator, bytes)) else index_list(which)
    if not numbers or not all(_is_index(i) for i in numbers):
        raise ValueError(f"{name}={which!r}: expected a number from 0 on, or a list of them; None is all")


def _is_index(value: object) -> bool:
    """Say whether a value is a whole number, also in a tensor of its own."""
    value = value.tolist() if isinstance(value, Tensor) else value
    return isinstance(value, Integral) and not isinstance(value, bool)
