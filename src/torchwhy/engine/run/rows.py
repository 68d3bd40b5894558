"""Rows: picking, shaping, moving and summing tensors whose first dimension is the rows of a batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

RowForm = (
    int | Literal["list"] | None
)  # how a model takes rows of one shape: behind one another along a dimension, as a list


@dataclass(frozen=True, eq=False)
class Stacked:
    """Rows of one shape ``(M, ...)`` that stand for what the model takes in another form."""

    rows: Tensor
    form: RowForm


def give_rows(z: Tensor, form: RowForm) -> Tensor | list[Tensor]:
    """Return rows ``(M, ...)`` as the model takes them."""
    if form is None:
        return z
    return list(z.unbind(0)) if form == "list" else torch.cat(z.unbind(0), form)


def expand_like(weights: Tensor, like: Tensor) -> Tensor:
    """Return ``weights`` ``(M,)`` shaped to multiply ``like`` ``(M, ...)``, in its type."""
    return weights.to(like).reshape(-1, *[1] * (like.dim() - 1))


def exact_tensor(value: object, device: torch.device | None = None) -> Tensor:
    """Return a number, or a list of them, as a float64 tensor, which then is rounded once, to the type that it is for.

    A tensor keeps its type.
    """
    return torch.as_tensor(value, dtype=None if isinstance(value, Tensor) else torch.double, device=device)


def as_type_of(like: Tensor, values: object, name: str) -> Tensor:
    """Return numbers in the type, and on the device, of ``like``.

    Args:
        like: a tensor of that type.
        values: a tensor, a number or a list of these.
        name: of the argument, for errors.

    Raises:
        ValueError: the type cannot hold one of them: 0.9 is no integer, -1 and 300 are none from 0 to 255.
    """
    given = exact_tensor(values)
    if given.layout is not torch.strided:
        given = given.to_dense()
    found = given.to(like)
    if like.is_complex() or (like.is_floating_point() and like.dtype not in (torch.half, torch.bfloat16)):
        return found
    exact = given.to(like.device, torch.double)
    wrong = ~found.isfinite() & exact.isfinite() if like.is_floating_point() else found.double() != exact
    if wrong.any():
        first = float(exact[wrong].flatten()[0])
        kind = str(like.dtype).removeprefix("torch.")
        raise ValueError(
            f"{name}: {first:g} is no {kind}, which is what the inputs hold; give such numbers, or inputs of floats"
        )
    return found


def index_rows(t: Tensor, rows: Tensor) -> Tensor:
    """Return rows ``(M,)`` of ``t`` ``(N, ...)``, without a copy if there is only one."""
    return t.expand(len(rows), *t.shape[1:]) if len(t) == 1 else t[rows]


def baseline_at(baselines: Tensor, k: Tensor, rows: Tensor) -> Tensor:
    """Return baselines ``k`` ``(M,)`` of rows ``(M,)``, shape ``(M, ...)``, from ``(K, N or 1, ...)``."""
    if len(baselines) == 1:
        return index_rows(baselines[0], rows)
    return baselines[to_device(k, rows.device), rows if baselines.shape[1] > 1 else torch.zeros_like(rows)]


def sum_per_row(tensors: Sequence[Tensor]) -> Tensor:
    """Return the sum of each row ``(M, ...)`` over several tensors, ``(M,)``, in at least single precision."""
    return torch.stack(
        [t.reshape(len(t), -1).sum(1, dtype=torch.promote_types(t.dtype, torch.float)) for t in tensors]
    ).sum(0)


def all_finite(t: Tensor) -> bool:
    """Say whether a tensor has no NaN and nothing infinite."""
    if not t.is_floating_point():
        return True
    t = t.detach() if t.requires_grad else t
    if t.numel() == 1:
        return math.isfinite(t.item())
    # the sum is one operation, and tells where it is finite; a sum may also overflow
    return math.isfinite(t.sum().item()) or bool(t.isfinite().all())


@cache
def rounding_of(dtype: torch.dtype) -> float:
    """Return the rounding of a type of floats: the distance from 1 to the next number."""
    return torch.finfo(dtype).eps


def rows_between(tensors: Sequence[Tensor], start: int, stop: int) -> Sequence[Tensor]:
    """Return the rows from ``start`` to before ``stop`` of each tensor: the tensors themselves, where these are all."""
    return tensors if stop - start == tensors[0].shape[0] else [t[start:stop] for t in tensors]


def at_least_float32(t: Tensor) -> Tensor:
    """Return the tensor in single precision at least: sums are not kept in half."""
    return t.float() if t.dtype in (torch.half, torch.bfloat16) else t


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device, without waiting for what the device still has to do.

    From the CPU's pageable memory the copy is taken before the call returns, so there is nothing to wait for; the other way
    the number is not there before the device is done.
    """
    return tensor.to(device, non_blocking=tensor.device.type == "cpu" and not tensor.is_pinned())
