"""Checks of settings that several methods share."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

# what a model raises that was given another number of rows than it takes; anything else is the caller's to see
MISFITS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, AttributeError, AssertionError)


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return ``value``, a setting that counts something.

    Raises:
        ValueError: it is no int, or too small.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name}={value!r}: expected an int of at least {least}")
    return int(value)


def finite_numbers(name: str, value: object) -> Tensor:
    """Return a setting that is a number, or several in a list, an array or a tensor, as a tensor.

    Raises:
        ValueError: it is none, or not finite.
    """
    try:
        found = None if isinstance(value, (bool, bytes, bytearray)) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        found = None
    is_number = found is not None and bool(found.numel()) and found.dtype != torch.bool and not found.is_complex()
    if found is None or not is_number or not bool(found.isfinite().all()):
        raise ValueError(f"{name}={value!r}: expected finite numbers, one or several")
    return found
