"""Where a model takes its inputs: the device of its parameters, or, where these are kept elsewhere, that on which it computes."""

from __future__ import annotations

import torch
from torch import nn


def device_of_parameters(first: torch.device, model: nn.Module) -> torch.device:
    """Return where a model computes whose first parameter is on a device.

    Parameters that are fetched for each call, from the memory of the CPU or from disk, are on the device ``"meta"`` in between.
    The hooks of ``accelerate`` that fetch them, as ``device_map=`` of transformers puts them, know where to.
    """
    if first.type != "meta":
        return first
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for one in (hook, *getattr(hook, "hooks", ())):
            if (where := getattr(one, "execution_device", None)) is not None:
                return torch.device(where)
    return first
