"""Gradients of scores, with the model's parameters frozen meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

_lock = threading.Lock()
_holders: WeakIdKeyDictionary = WeakIdKeyDictionary()  # parameter -> how many runs keep it frozen


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """While open, no gradient is computed for the parameters, in any thread; the last one out restores them."""
    mine: list[Tensor] = []
    with _lock:
        for p in model.parameters() if isinstance(model, nn.Module) else ():
            if p in _holders or p.requires_grad:
                _holders[p] = _holders.get(p, 0) + 1
                p.requires_grad_(False)
                mine.append(p)
    try:
        yield
    finally:
        with _lock:
            for held in mine:
                _holders[held] -= 1
                if not _holders[held]:
                    del _holders[held]
                    held.requires_grad_(True)


@contextmanager
def differentiable(model: Any, device: torch.device) -> Iterator[None]:
    """While open, operations build a graph, whatever the caller switched off."""
    recurrent = (
        device.type == "cuda"
        and isinstance(model, nn.Module)
        and any(isinstance(m, nn.RNNBase) for m in model.modules())
    )
    with torch.inference_mode(False), torch.enable_grad():
        if recurrent:  # cuDNN has no backward pass for recurrent layers in eval mode
            with torch.backends.cudnn.flags(enabled=False):
                yield
        else:
            yield


def gradient(
    scores: Tensor, wrt: Sequence[Tensor], *, what: str = "inputs", keep: bool = False, build: bool = False
) -> tuple[Tensor, ...]:
    r"""Gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error.
        keep: keep the graph for another call.
        build: let the gradients be differentiated again.

    Raises:
        ValueError: the scores depend on none of them, or were computed without a graph.
    """
    nothing = f"the target does not depend on the {what}"
    if not scores.requires_grad:
        raise ValueError(
            f"{nothing} in a differentiable way (it may come from argmax, rounding, integers or a detached "
            "tensor): choose another target or layer, or a perturbation method, which needs no gradient"
        )
    found = torch.autograd.grad(scores.sum(), wrt, allow_unused=True, retain_graph=keep or build, create_graph=build)
    if all(g is None for g in found):
        raise ValueError(f"{nothing}: choose another target or layer")
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def gradients_of_each(scores: Sequence[Tensor], wrt: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, ...]]:
    """The gradients of each of several scores ``(M,)`` of one forward pass."""
    return [gradient(s, wrt, keep=i + 1 < len(scores), **options) for i, s in enumerate(scores)]


def curved(scores: Tensor, wrt: Sequence[Tensor], *, what: str = "inputs") -> tuple[Tensor, ...]:
    r"""Gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

    Arguments and errors as for :func:`gradient`.
    """
    slopes = gradient(scores, wrt, what=what, build=True)
    found = []
    for z, g in zip(wrt, slopes):
        bend = None
        if g.requires_grad:
            (bend,) = torch.autograd.grad((g * z.detach()).sum(), z, allow_unused=True, retain_graph=True)
        found.append(g.detach() if bend is None else g.detach() - bend / 2)
    return tuple(found)
