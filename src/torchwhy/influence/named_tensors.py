"""A model's parameters and buffers by name, and calls of the model with others in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call

from torchwhy.engine import state
from torchwhy.engine.structure import AnyOutput
from torchwhy.engine.torch_internals import own_parts

NamedTensors = dict[str, Tensor]


def places_of_tensors(model: nn.Module) -> dict[str, list[str]]:
    """Return where each parameter and each buffer lies, by the name that ``named_parameters`` and ``named_buffers`` give it.

    Of a tensor that several modules share these are several places, of a module with several names those of the first.
    """
    found: dict[int, list[str]] = {}
    modules = list(model.named_modules())
    for kind in (nn.Module.named_parameters, nn.Module.named_buffers):
        for prefix, module in modules:
            for place, tensor in kind(module, prefix, recurse=False, remove_duplicate=False):
                found.setdefault(id(tensor), []).append(place)
    return {places[0]: places for places in found.values()}


def call_with_tensors(
    model: nn.Module, tensors: NamedTensors, places: Mapping[str, list[str]], args: tuple[Tensor, ...], kwargs: NamedTensors
) -> AnyOutput:  # fmt: skip
    """Return what a model gives with other tensors in the place of its parameters and buffers, which are put back.

    Each place is named once: of a module with two names torch would put back, second, what it had put in first.

    Args:
        model: the model.
        tensors: by the names that are the keys of ``places``.
        places: see :func:`places_of_tensors`.
        args, kwargs: what the model is called with.
    """
    everywhere = {place: tensors[name] for name, some in places.items() for place in some}
    return functional_call(model, everywhere, args, kwargs, tie_weights=False)


@contextmanager
def left_as_it_is(model: nn.Module) -> Iterator[None]:
    """Put back what modules have (parameters, buffers, attributes) where it is replaced while open.

    Attributes too: recurrent layers keep a list of their weights, pruned ones the weight that they computed, and what a
    transform of ``torch.func`` made of these is good for nothing outside of it, not even to be copied. Another thread that
    comes to the same model waits.
    """
    with state.lock:
        turn = state.turns.setdefault(model, threading.RLock())
    with turn:
        modules = [m for m in model.modules() if not isinstance(m, torch.jit.ScriptModule)]
        kept = [(now, dict(now)) for m in modules for now in (vars(m), *own_parts(m)[:2])]
        try:
            yield
        finally:
            for now, before in kept:
                if len(now) != len(before) or any(now.get(key) is not value for key, value in before.items()):
                    now.clear()
                    now.update(before)
