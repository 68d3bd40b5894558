"""Shortcuts of torch that pass by the hooks of layers, switched off while layers are read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import mha

from torchwhy.engine import state
from torchwhy.engine.run.autograd import acquire, release_all


@contextmanager
def without_nested_tensors() -> Iterator[None]:
    """Let ``nn.TransformerEncoder`` run padded sequences as they are while open, in any thread; the last one out restores it.

    Its fast path, which it takes where no parameter asks for a gradient, hands nested tensors to its layers.
    """
    with state.lock:
        on = mha.get_fastpath_enabled() or id(mha) in state.held
        mine = [acquire(mha, mha.set_fastpath_enabled, False)] if on else []
    try:
        yield
    finally:
        release_all(mine)


class _Eager:
    """The switch that lets what ``torch.compile`` made run as the Python code that it was made from."""

    def __call__(self, on: bool) -> None:
        if on:
            self.stance = torch.compiler.set_stance("force_eager")
        else:
            self.stance.__exit__(None, None, None)


_eager = _Eager()


@contextmanager
def without_compiled_code() -> Iterator[None]:
    """Let compiled modules run as Python code while open, with the hooks of now, in any thread; the last one out restores it."""
    with state.lock:
        mine = [acquire(_eager, _eager, True)] if hasattr(torch.compiler, "set_stance") else []  # since torch 2.6
    try:
        yield
    finally:
        release_all(mine)
