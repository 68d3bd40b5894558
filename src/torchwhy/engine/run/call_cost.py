"""What a model call costs, counted at its operations: bytes and convolutions follow from shapes alone, not from a clock."""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.engine.torch_internals import DispatchMode, makes_new_memory, running_backward_pass

_CONVOLUTION = torch.ops.aten.convolution.default
_JOIN = torch.ops.aten.cat.default
_COPY = torch.ops.aten.clone.default


class CallCost(DispatchMode):
    """Count what the operations make while the block lasts, forward and backward; of convolutions the forward pass.

    Attributes:
        total: bytes of all new tensors.
        largest: bytes of the largest one.
        convolutions: number of convolutions of images.
        multiply_adds: of these.
        grouped: how many of them mix channels in groups of several.
        convolved: bytes of their outputs.
        rearranged: bytes of images that are others joined, or a copy with the channels in groups, as to shuffle them.
        dtype: of the last convolution; None without any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = self.convolutions = self.multiply_adds = self.convolved = self.rearranged = 0
        self.grouped = 0
        self.dtype: torch.dtype | None = None

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is _CONVOLUTION and args[0].dim() in (4, 5):
            self.convolutions += 1
            self.grouped += 1 < args[8] < args[0].shape[1]
            self.multiply_adds += out.numel() * args[1][0].numel()
            self.convolved += out.numel() * out.element_size()
            self.dtype = out.dtype
        elif (func is _JOIN and out.dim() in (4, 5)) or (func is _COPY and out.dim() in (5, 6)):
            self.rearranged += out.numel() * out.element_size() * (running_backward_pass() < 0)
        if makes_new_memory(func):
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, Tensor):
                    size = t.numel() * t.element_size()
                    self.total, self.largest = self.total + size, max(self.largest, size)
        return out
