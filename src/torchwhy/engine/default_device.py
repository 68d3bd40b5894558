"""The caller's ``torch.set_default_device``, which is for the model and not for what a method makes for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_callers: ContextVar[torch.device | None] = ContextVar("_callers", default=None)


@contextmanager
def set_aside() -> Iterator[None]:
    """While open, a tensor for which no device is named is made on the CPU, as without a default device."""
    device = torch.get_default_device()
    if device.type == "cpu":
        yield
        return
    before = _callers.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        _callers.reset(before)


@contextmanager
def as_the_caller_has_it() -> Iterator[None]:
    """While open, the default device is what it was when it was :func:`set_aside`."""
    device = _callers.get()
    if device is None:
        yield
        return
    with torch.device(device):
        yield
