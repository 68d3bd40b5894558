"""The caller's default device and autocast, which are for the model and not for what a method computes itself.

Inside :func:`torch_defaults` there are none of them; around each call of the model, :func:`as_the_caller` puts them back. What
a method makes has its type named, so that ``torch.set_default_dtype``, which holds for all threads, need not be touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch

from torchwhy.engine import state


def _can_autocast(kind: str) -> bool:
    """Return whether this version of torch knows autocast for a type of device."""
    try:
        torch.is_autocast_enabled(kind)
    except RuntimeError:
        return False
    return True


AUTOCASTING = tuple(filter(_can_autocast, ("cpu", "cuda", "mps", "xpu")))  # types of devices


class CallersState(NamedTuple):
    """What the caller switched on.

    Args:
        device: the default device, None for the CPU.
        autocast: the types of devices that compute in a lower precision, and in which.
        autocast_cache: whether the parameters in that precision are kept from one operation to the next.
    """

    device: torch.device | None
    autocast: tuple[tuple[str, torch.dtype], ...]
    autocast_cache: bool


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Compute without autocast while open, and make tensors for which no device is named on the CPU."""
    lower = [kind for kind in AUTOCASTING if torch.is_autocast_enabled(kind)]
    device = torch.get_default_device()
    if device.type == "cpu" and not lower:
        yield
        return
    autocast = tuple((kind, torch.get_autocast_dtype(kind)) for kind in lower)
    found = CallersState(None if device.type == "cpu" else device, autocast, torch.is_autocast_cache_enabled())
    before = state.callers_state.set(found)
    try:
        with ExitStack() as contexts:
            if found.device is not None:
                contexts.enter_context(torch.device("cpu"))
            for kind in lower:
                contexts.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        state.callers_state.reset(before)


@contextmanager
def as_the_caller(found: CallersState) -> Iterator[None]:
    """Let what the caller switched on hold while open: around each call of the model."""
    with ExitStack() as contexts:
        if found.device is not None:
            contexts.enter_context(found.device)
        for kind, dtype in found.autocast:
            contexts.enter_context(torch.autocast(kind, dtype=dtype, cache_enabled=found.autocast_cache))
        yield
