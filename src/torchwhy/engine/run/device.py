"""Devices: the caller's ``torch.set_default_device``, and moving tensors without waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from torchwhy.engine import state


@contextmanager
def cpu_default_device() -> Iterator[None]:
    """Make tensors for which no device is named on the CPU while open, whatever the caller's default device is.

    That default is for the model, which the runner calls with it, and not for what a method makes for itself.
    """
    device = torch.get_default_device()
    if device.type == "cpu":
        yield
        return
    before = state.callers_device.set(device)
    try:
        with torch.device("cpu"):
            yield
    finally:
        state.callers_device.reset(before)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return the tensor on a device, without waiting for what the device still has to do.

    From the CPU's pageable memory the copy is taken before the call returns, so there is nothing to wait for; the other way
    the number is not there before the device is done.
    """
    return tensor.to(device, non_blocking=tensor.device.type == "cpu" and not tensor.is_pinned())
