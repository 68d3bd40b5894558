"""The caller's ``torch.set_default_device``, which is for the model and not for what a method makes for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_callers_device: ContextVar[torch.device | None] = ContextVar("_callers", default=None)


@contextmanager
def cpu_default_device() -> Iterator[None]:
    """While open, a tensor for which no device is named is made on the CPU, as without a default device."""
    device = torch.get_default_device()
    if device.type == "cpu":
        yield
        return
    before = _callers_device.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        _callers_device.reset(before)


@contextmanager
def callers_default_device() -> Iterator[None]:
    """While open, the default device is what it was when it was :func:`cpu_default_device`."""
    device = _callers_device.get()
    if device is None:
        yield
        return
    with torch.device(device):
        yield
