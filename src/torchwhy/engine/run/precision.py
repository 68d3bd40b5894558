"""Lower precision where it pays: autocast, but not for the last digits of the scores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from torchwhy.engine.rules.operations import bind_arguments, operation

LINEAR_MAPS = (F.linear, torch.ops.aten.linear.default)  # as Python calls it, and as an exported graph does


class _FullPrecisionHead(TorchFunctionMode):
    """While open, linear maps of one vector a row, a classifier's head say, are computed in their weights' type.

    They cost little beside the layers below, and what they round is the score itself: a logit of 10 in bfloat16 has steps of
    1/16, more than most perturbations change.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in LINEAR_MAPS:
            return func(*args, **kwargs)
        (x,), options = bind_arguments(operation(func), args, kwargs)
        if x.dim() != 2 or len(x) != self.rows:
            return func(*args, **kwargs)
        with torch.autocast(x.device.type, enabled=False):
            return func(x.to(options["weight"].dtype), **options)


@contextmanager
def autocast_except_head(precision: torch.dtype | None, device: torch.device, rows: int) -> Iterator[None]:
    """Let a model that is given ``rows`` rows compute in ``precision`` by autocast while open; None changes nothing."""
    if precision is None:
        yield
        return
    with torch.autocast(device.type, dtype=precision), _FullPrecisionHead(rows):
        yield
