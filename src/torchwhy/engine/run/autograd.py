"""Autograd: holding a model as it is meanwhile, switching graphs on, and the gradients of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.backends import cudnn

from torchwhy.engine import state
from torchwhy.engine.run.device import cpu_default_device
from torchwhy.engine.structure import Model
from torchwhy.engine.torch_internals import (
    BackwardHookFunction,
    BatchNormModule,
    DropoutModule,
    function_of_node,
    own_modules,
    own_parameters,
    put_buffer,
    saved_input,
)

What = str | Sequence[object]
UNCHANGED = nullcontext()
OURS = __name__.partition(".")[0]


def _acquire(thing: object, switch: Callable[[bool], object], during: bool) -> int:
    """Hold a thing, under the lock: the first holder switches it, the last one switches it back."""
    held = state.held.get(id(thing))
    if held is None:
        switch(during)
        held = state.held[id(thing)] = [0, switch, not during, thing]
    held[0] += 1
    return id(thing)


def _release_all(held: Sequence[int]) -> None:
    """Let go of things; the last holder of each undoes its change."""
    with state.lock:
        for key in held:
            state.held[key][0] -= 1
            if not state.held[key][0]:
                _, switch, before, _ = state.held.pop(key)
                switch(before)


class HeldModel:
    """What one walk over a model's modules found, while the model is held.

    Args:
        model: the model; a plain callable has no modules.

    Attributes:
        device: of its first parameter, None without any.
        noisy: the names of modules whose output is random, or mixes rows, in training mode.
        recurrent: whether it has recurrent layers.
    """

    __slots__ = ("device", "mine", "noisy", "recurrent")

    def __init__(self, model: Model) -> None:
        self.device: torch.device | None = None
        self.noisy: list[str] = []
        self.recurrent = False
        self.mine: list[int] = []
        waiting: list[tuple[str, nn.Module]] = [("", model)] if isinstance(model, nn.Module) else []
        seen: set[nn.Module] = set()
        for name, module in waiting:  # grows while it is read
            seen.add(module)
            for p in own_parameters(module).values():
                if p is None:
                    continue
                if self.device is None:
                    self.device = p.device
                trainable = p.requires_grad and not p.is_inference()  # such a one has no gradient, and no switch
                if trainable or id(p) in state.held:
                    self.mine.append(_acquire(p, p.requires_grad_, False))
            if module.training:
                self._hold_training(name, module)
            self.recurrent = self.recurrent or isinstance(module, nn.RNNBase)
            for key, child in own_modules(module).items():
                if child is not None and child not in seen:
                    waiting.append((f"{name}.{key}" if name else key, child))

    def _hold_training(self, name: str, module: nn.Module) -> None:
        """Note a module in training mode, and hold its buffers."""
        if is_random_in_training(module):
            self.noisy.append(name)
        buffers = {k: b for k, b in module.named_buffers(recurse=False) if not b.is_inference()}
        if buffers:
            values = {k: (b, b.clone()) for k, b in buffers.items()}
            self.mine.append(_acquire(module, partial(_restore_buffers, module, values), False))


@contextmanager
def freeze_parameters(model: Model) -> Iterator[HeldModel]:
    """Compute no gradient for the parameters while open, in any thread; the last one out restores them.

    With them the buffers of modules in training mode are put back: a batch norm counts what passes it.
    """
    here = state.held_here.models
    if id(model) in here:  # held by a block around this one
        yield here[id(model)]
        return
    held: HeldModel | None = None
    try:
        with state.lock:
            held = HeldModel(model)
        here[id(model)] = held
        yield held
    finally:
        here.pop(id(model), None)
        if held is not None and held.mine:
            _release_all(held.mine)


def is_random_in_training(module: nn.Module) -> bool:
    """Say whether a module's output is random, or mixes rows, in training mode."""
    if isinstance(module, (DropoutModule, BatchNormModule)):
        return True
    share = getattr(module, "dropout", 0)  # of attention and LSTM, which drop out by themselves
    between = not isinstance(module, nn.RNNBase) or module.num_layers > 1  # layers that there are not
    return isinstance(share, (int, float)) and not isinstance(share, bool) and share > 0 and between


@torch.no_grad()
def _restore_buffers(module: nn.Module, buffers: dict[str, tuple[Tensor, Tensor]], back: bool) -> None:
    """Let each buffer be the tensor that it was, with the value that it had, when the module is let go."""
    if not back:
        return
    for name, (buffer, value) in buffers.items():
        if not buffer.equal(value):
            buffer.copy_(value)
        put_buffer(module, name, buffer)


@contextmanager
def _without_cudnn() -> Iterator[None]:
    """Switch cuDNN off while open, in any thread; the last one out restores it."""
    with state.lock:
        on = cudnn.enabled or id(cudnn) in state.held
        mine = [_acquire(cudnn, partial(setattr, cudnn, "enabled"), False)] if on else []
    try:
        yield
    finally:
        _release_all(mine)


def _no_inference_mode() -> AbstractContextManager[object]:
    """Return what ends the caller's inference mode while open."""
    return torch.inference_mode(False) if torch.is_inference_mode_enabled() else UNCHANGED


@contextmanager
def isolated(model: Model) -> Iterator[HeldModel]:
    """Keep what happens inside apart from the caller's state: parameters frozen, no graph, no inference mode, CPU by default."""
    with _no_inference_mode(), torch.no_grad(), freeze_parameters(model) as held, cpu_default_device():
        yield held


@contextmanager
def enable_grad_for(model: Model, device: torch.device) -> Iterator[None]:
    """Let operations build a graph while open, whatever the caller switched off."""
    with _no_inference_mode(), torch.enable_grad():
        if device.type != "cuda":
            yield
            return
        with freeze_parameters(model) as held, _without_cudnn() if held.recurrent else UNCHANGED:
            yield  # cuDNN has no backward pass of recurrent layers in eval mode


def _in_words(what: What) -> str:
    """Return what is differentiated by, in words."""
    return what if isinstance(what, str) else ", ".join(map(str, what))


def compute_gradients(
    scores: Tensor, wrt: Sequence[Tensor], *, what: What = "inputs", keep: bool = False, build: bool = False
) -> tuple[Tensor, ...]:
    r"""Return the gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error: a word or layers.
        keep: keep the graph for another call.
        build: let the gradients be differentiated again.

    Raises:
        ValueError: the scores depend on none of them, or were computed without a graph.
    """
    if not scores.requires_grad:
        raise ValueError(
            f"the target does not depend on the {_in_words(what)} in a differentiable way (it may come from argmax, rounding, "
            "integers or a detached tensor): choose another target or layer, or a perturbation method, which needs no gradient"
        )
    ones = None if scores.numel() == 1 else torch.ones_like(scores)
    found = torch.autograd.grad(scores, wrt, ones, allow_unused=True, retain_graph=keep or build, create_graph=build)
    if all(g is None for g in found):
        raise ValueError(f"the target does not depend on the {_in_words(what)}: choose another target or layer")
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def gradients_per_target(scores: Sequence[Tensor], wrt: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, ...]]:
    """Return the gradients of each of several scores ``(M,)`` of one forward pass."""
    return [compute_gradients(s, wrt, keep=i + 1 < len(scores), **options) for i, s in enumerate(scores)]


def second_order_gradient(scores: Tensor, wrt: Sequence[Tensor], *, what: What = "inputs") -> tuple[Tensor, ...]:
    r"""Return gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

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


def scan_graph(scores: Tensor, *, guard_norms: bool) -> list[type]:
    """Return the autograd Functions that the graph of some scores goes through, in one walk over all its nodes.

    Those of this package are left out, and those of torch that the hooks of modules put there, which change nothing.
    With ``guard_norms`` its batch norms get their gradients in the layout of their inputs: torch's backward pass of batch
    and instance norm for a single row on the CPU reads a gradient whose memory is transposed, or has its channels last, as if
    it were contiguous (torch 2.14). The graph knows which operations ran, whichever way the model called them, so this is
    done by hooks on its nodes.
    """
    waiting: list[Any] = [] if scores.grad_fn is None else [scores.grad_fn]
    functions, seen = [], set(waiting)
    while waiting:
        node = waiting.pop()
        if isinstance(node, BackwardCFunction):
            kind = function_of_node(node)
            if kind is not BackwardHookFunction and kind.__module__.partition(".")[0] != OURS:
                functions.append(kind)
        elif guard_norms and "BatchNorm" in type(node).__name__:
            node.register_prehook(partial(_like_input, node))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return functions


def _like_input(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the memory format of a node's input: contiguous, or with the channels last."""
    x = saved_input(node)
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return tuple(None if g is None else g.contiguous(memory_format=layout) for g in gradients)
