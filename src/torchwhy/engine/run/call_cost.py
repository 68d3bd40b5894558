"""What a model call costs, counted at its operations: bytes and convolutions follow from shapes alone, not from a clock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from torchwhy.engine.structure import tensors_in
from torchwhy.engine.torch_internals import DispatchMode, makes_new_memory, running_backward_pass

_CONVOLUTION = torch.ops.aten.convolution.default
_BATCH_NORM = torch.ops.aten.native_batch_norm.default
_SUM = torch.ops.aten.sum.dim_IntList


class CallCost(DispatchMode):
    """Count what the operations make while the block lasts, forward and backward; of convolutions the forward pass.

    Attributes:
        total: bytes of all new tensors.
        largest: bytes of the largest one.
        convolutions: number of convolutions of images.
        batch_norms: number of batch norms of images.
        convolved: bytes of the convolutions' outputs.
        summed: bytes of images whose groups of channels are summed: of split attention.
        dtype: of the last convolution; None without any.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = self.convolutions = self.batch_norms = self.convolved = self.summed = 0
        self.dtype: torch.dtype | None = None
        self._pauses = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Count nothing while open: what is made once, and not for each row."""
        self._pauses = True
        try:
            yield
        finally:
            self._pauses = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if self._pauses:
            return out
        if func is _CONVOLUTION and args[0].dim() in (4, 5):
            self.convolutions += 1
            self.convolved += out.numel() * out.element_size()
            self.dtype = out.dtype
        elif func is _BATCH_NORM and args[0].dim() in (4, 5):
            self.batch_norms += 1
        elif func is _SUM and args[0].dim() in (5, 6) and running_backward_pass() < 0:
            self.summed += args[0].numel() * args[0].element_size()
        if makes_new_memory(func):
            for t in tensors_in((out,)):
                size = t.numel() * t.element_size()
                self.total, self.largest = self.total + size, max(self.largest, size)
        return out
