"""The caller's ``torch.set_default_device``, which is for the model and not for what a method makes for itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchwhy.engine import state


@contextmanager
def cpu_default_device() -> Iterator[None]:
    """Make tensors for which no device is named on the CPU while open, whatever the caller's default device is.

    That default is for the model, which the runner calls with it, and not for what a method makes for itself.
    """
    device = torch.empty(0).device  # in less time than torch.get_default_device() takes
    if device.type == "cpu":
        yield
        return
    before = state.callers_device.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        state.callers_device.reset(before)
