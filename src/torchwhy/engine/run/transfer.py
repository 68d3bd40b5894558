"""From the CPU to where the model is, without waiting for what the device still has to do."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device.

    From the CPU's pageable memory the copy is taken before the call returns, so there is nothing to wait for; the other way
    the number is not there before the device is done.
    """
    return tensor.to(device, non_blocking=tensor.device.type == "cpu" and not tensor.is_pinned())
