"""Gradients of scores, with the model's parameters frozen meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn
from torch.overrides import TorchFunctionMode

from torchwhy.engine.rules.mode import has_rule

_lock = threading.Lock()
_changed_things: dict[
    int, list[Any]
] = {}  # the id of what is changed meanwhile -> [how many runs hold it, what undoes that, itself]


def _acquire(thing: Any, change: Callable[[Any], Callable[[], Any]]) -> int:
    """Hold a thing, under the lock: the first that does changes it, and learns what undoes that."""
    held = _changed_things.get(id(thing))
    if held is None:
        held = _changed_things[id(thing)] = [0, change(thing), thing]
    held[0] += 1
    return id(thing)


def _release_all(held: Sequence[int]) -> None:
    with _lock:
        for key in held:
            _changed_things[key][0] -= 1
            if not _changed_things[key][0]:
                _changed_things.pop(key)[1]()


@contextmanager
def freeze_parameters(model: Any) -> Iterator[None]:
    """While open, no gradient is computed for the parameters, in any thread; the last one out restores them.

    And with them the buffers of modules in training mode: a batch norm counts what passes it.
    """
    mine: list[int] = []
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    try:
        with _lock:
            for m in modules:  # their own tensors, by themselves: named_parameters() would walk the modules again
                for p in m._parameters.values():
                    if p is None:
                        continue
                    trainable = p.requires_grad and not p.is_inference()  # such a one has no gradient, and no switch
                    if trainable or id(p) in _changed_things:
                        mine.append(_acquire(p, _freeze))
                buffers = (
                    {k: b for k, b in m.named_buffers(recurse=False) if not b.is_inference()} if m.training else {}
                )
                if buffers:
                    mine.append(_acquire(m, partial(_keep_buffers, buffers)))
        yield
    finally:
        _release_all(mine)


def _freeze(parameter: Tensor) -> Callable[[], Any]:
    parameter.requires_grad_(False)
    return partial(parameter.requires_grad_, True)


def _keep_buffers(buffers: dict[str, Tensor], module: nn.Module) -> Callable[[], Any]:
    return partial(_restore_buffers, module, {k: (b, b.clone()) for k, b in buffers.items()})


@torch.no_grad()
def _restore_buffers(module: nn.Module, buffers: dict[str, tuple[Tensor, Tensor]]) -> None:
    """Let each buffer be the tensor that it was, with the value that it had."""
    for name, (buffer, value) in buffers.items():
        if not buffer.equal(value):
            buffer.copy_(value)
        module._buffers[name] = buffer


class _OneRowNorm(TorchFunctionMode):
    """Batch and instance norm of a single row, its input and its gradient in one layout.

    Their backward pass on the CPU reads a transposed one wrongly (torch 2.14), that of instance norm channels-last too.
    """

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = getattr(func, "__name__", ""), dict(kwargs or {})
        if name not in ("batch_norm", "instance_norm") or has_rule(name):  # a rule of it has a backward of its own
            return func(*args, **kwargs)
        x, args = (args[0], args[1:]) if args else (kwargs.pop("input"), ())
        if len(x) != 1:
            return func(x, *args, **kwargs)
        last = (
            name == "batch_norm"
            and x.dim() == 4
            and not x.is_contiguous()
            and x.is_contiguous(memory_format=torch.channels_last)
        )
        layout = torch.channels_last if last else torch.contiguous_format
        y = func(x.contiguous(memory_format=layout), *args, **kwargs)
        if y.requires_grad:
            y.register_hook(lambda g: g.contiguous(memory_format=layout))
        return y


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """While open, cuDNN is off, in any thread; the last one out restores it."""
    with _lock:
        mine = [_acquire(cudnn, _switch_cudnn_off)]
    try:
        yield
    finally:
        _release_all(mine)


def _switch_cudnn_off(backend: Any) -> Callable[[], Any]:
    before, backend.enabled = backend.enabled, False
    return partial(setattr, backend, "enabled", before)


@contextmanager
def enable_grad_for(model: Any, device: torch.device) -> Iterator[None]:
    """While open, operations build a graph, whatever the caller switched off."""
    kinds = {type(m) for m in model.modules()} if isinstance(model, nn.Module) else set()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if device.type == "cuda" and any(issubclass(k, nn.RNNBase) for k in kinds):
            stack.enter_context(_without_cudnn())  # it has no backward pass in eval mode
        if device.type == "cpu":
            stack.enter_context(_OneRowNorm())
        yield


def compute_gradients(
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
    ones = torch.ones_like(scores)  # no sum: it would be one operation more for rules that are at work
    found = torch.autograd.grad(scores, wrt, ones, allow_unused=True, retain_graph=keep or build, create_graph=build)
    if all(g is None for g in found):
        raise ValueError(f"{nothing}: choose another target or layer")
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def gradients_per_target(scores: Sequence[Tensor], wrt: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, ...]]:
    """The gradients of each of several scores ``(M,)`` of one forward pass."""
    return [compute_gradients(s, wrt, keep=i + 1 < len(scores), **options) for i, s in enumerate(scores)]


def second_order_gradient(scores: Tensor, wrt: Sequence[Tensor], *, what: str = "inputs") -> tuple[Tensor, ...]:
    r"""Gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

    Arguments and errors as for :func:`compute_gradients`.
    """
    slopes = compute_gradients(scores, wrt, what=what, build=True)
    found = []
    for z, g in zip(wrt, slopes):
        bend = None
        if g.requires_grad:
            (bend,) = torch.autograd.grad((g * z.detach()).sum(), z, allow_unused=True, retain_graph=True)
        found.append(g.detach() if bend is None else g.detach() - bend / 2)
    return tuple(found)
