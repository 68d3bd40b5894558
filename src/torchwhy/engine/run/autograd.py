"""Autograd: holding a model as it is meanwhile, switching graphs on, and the gradients of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.backends import cudnn, mha
from torch.nn.parameter import is_lazy

from torchwhy.engine import state
from torchwhy.engine.run.defaults import AUTOCASTING, torch_defaults
from torchwhy.engine.run.placement import device_of_parameters
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Model
from torchwhy.engine.torch_internals import (
    BackwardHookFunction,
    BatchNormModule,
    DropoutModule,
    function_of_node,
    own_buffers,
    own_modules,
    own_parameters,
    saved_input,
    version_of,
)

What = str | Sequence[object]
UNCHANGED = nullcontext()
OURS = __name__.partition(".")[0]

LARGE_BUFFER = 2**27  # bytes


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


class HeldBuffers:
    """A module's buffers, to be put back: the tensors that they were, with the values that they had.

    Of one larger than ``LARGE_BUFFER``, weights in all but their name, no copy is made, and a warning says if it was written to.

    Args:
        name: the module's name.
        module: whose own buffers are held; inference tensors, which nobody can write to outside of inference mode, as they are.
    """

    def __init__(self, name: str, module: nn.Module) -> None:
        self.name, self.module = name, module
        self.before = dict(self._now())
        self.values: list[tuple[str, Tensor, int, Tensor | None]] = []
        for key, b in self.before.items():
            if b is not None and not b.is_inference() and not is_lazy(b):
                value = b.detach().clone() if b.nbytes <= LARGE_BUFFER else None
                self.values.append((key, b, version_of(b), value))

    def _now(self) -> dict[str, Tensor | None]:
        scripted = isinstance(self.module, torch.jit.ScriptModule)
        return dict(self.module.named_buffers(recurse=False)) if scripted else own_buffers(self.module)

    def is_changed(self) -> bool:
        """Say whether a buffer was written to, as far as its version says, replaced, added or taken away."""
        now = self._now()
        same = len(now) == len(self.before) and all(map(is_, now.values(), self.before.values()))
        return not same or any(version_of(b) != version for _, b, version, _ in self.values)

    def _is_rewritten(self) -> bool:
        """Say whether a buffer has other values: torch's batch norm writes without a new version."""
        looked_at = (v for v in self.values if v[1].device.type == "cpu" or getattr(self.module, "training", False))
        return any(value is not None and not b.equal(value) for _, b, _, value in looked_at)

    @torch.no_grad()
    def restore(self) -> None:
        """Put the buffers back."""
        for i, (key, b, version, value) in enumerate(self.values):
            if value is None:
                if version_of(b) != version:
                    warn(f"the model writes to its buffer {key!r} of {self.name!r}, which is too large to be put back")
            elif version_of(b) != version or not b.equal(value):
                b.copy_(value)
            self.values[i] = (key, b, version_of(b), value)
        if isinstance(self.module, torch.jit.ScriptModule):
            for key, buffer in self.before.items():
                setattr(self.module, key, buffer)
        else:
            now = own_buffers(self.module)
            now.clear()
            now.update(self.before)

    def __call__(self, back: bool) -> None:
        """Put the buffers back when the last one lets go, see :func:`_acquire`."""
        if back and (self.is_changed() or self._is_rewritten()):
            self.restore()


class HeldModel:
    """What one walk over a model's modules found, while the model is held.

    Args:
        model: the model; a plain callable has no modules.

    Attributes:
        device: of its first parameter, None without any.
        buffers: those of each module that has some.
        n_training: how many modules are in training mode.
        noisy: the names of modules whose output is random, or mixes rows, in training mode.
        may_draw: whether its scores may be random, which a trial has to say: it runs code that is not torch's own, and no trial
            found yet that it gives one row the same score twice in this mode; one with noisy modules is warned of anyway.
        recurrent: whether it has recurrent layers.
        nests: whether it has encoders that may pack padded sequences into nested tensors, which no hook of a layer can use.
    """

    __slots__ = ("buffers", "device", "may_draw", "mine", "n_training", "nests", "noisy", "recurrent")

    def __init__(self, model: Model) -> None:
        self.device: torch.device | None = None
        self.noisy: list[str] = []
        self.buffers: list[HeldBuffers] = []
        self.recurrent = self.nests = False
        self.n_training = 0
        self.mine: list[int] = []
        waiting: list[tuple[str, nn.Module]] = [("", model)] if isinstance(model, nn.Module) else []
        seen: set[nn.Module] = set()
        for name, module in waiting:  # grows while it is read
            seen.add(module)
            for p in own_parameters(module).values():
                if p is None:
                    continue
                if self.device is None:
                    self.device = p.device if p.device.type != "meta" else device_of_parameters(p.device, model)
                trainable = p.requires_grad and not p.is_inference()  # such a one has no gradient, and no switch
                if trainable or id(p) in state.held:
                    self.mine.append(_acquire(p, p.requires_grad_, False))
            if getattr(module, "training", False):  # frozen TorchScript has no mode
                self.n_training += 1
                if is_random_in_training(module):
                    self.noisy.append(name)
            if own_buffers(module):
                self._hold_buffers(name, module)
            self.recurrent = self.recurrent or isinstance(module, nn.RNNBase)
            self.nests = self.nests or isinstance(module, nn.TransformerEncoder)
            for key, child in own_modules(module).items():
                if child is not None and child not in seen:
                    waiting.append((f"{name}.{key}" if name else key, child))
        foreign = self.n_training or any(not type(module).__module__.startswith("torch.nn.") for module in seen)
        known = bool(seen) and state.repeating.get(waiting[0][1]) == self.n_training
        self.may_draw = not (self.noisy or known) and (bool(foreign) or not seen)

    def _hold_buffers(self, name: str, module: nn.Module) -> None:
        """Hold a module's buffers, with the values that they had for the first that came."""
        first = id(module) not in state.held
        found = HeldBuffers(name, module) if first else state.held[id(module)][1]
        self.mine.append(_acquire(module, found, False))
        self.buffers.append(found)

    def restore_buffers(self) -> None:
        """Let all buffers be what they were, so that no call of the model depends on those before."""
        for held in self.buffers:
            if held.is_changed():
                held.restore()


@contextmanager
def freeze_parameters(model: Model) -> Iterator[HeldModel]:
    """Compute no gradient for the parameters while open, in any thread; the last one out restores them.

    With them the buffers are put back: a batch norm in training mode counts what passes it, other modules keep running means
    or caches in any mode.
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


@contextmanager
def without_nested_tensors() -> Iterator[None]:
    """Let ``nn.TransformerEncoder`` run padded sequences as they are while open, in any thread; the last one out restores it.

    Its fast path, which it takes where no parameter asks for a gradient, hands nested tensors to its layers.
    """
    with state.lock:
        on = mha.get_fastpath_enabled() or id(mha) in state.held
        mine = [_acquire(mha, mha.set_fastpath_enabled, False)] if on else []
    try:
        yield
    finally:
        _release_all(mine)


@contextmanager
def isolated(model: Model) -> Iterator[HeldModel]:
    """Keep what happens inside apart from the caller's state: parameters frozen, no graph, no inference mode, no autocast."""
    # an empty tensor tells the default device in less time than torch.get_default_device()
    is_usual = torch.empty(0).device.type == "cpu" and not any(map(torch.is_autocast_enabled, AUTOCASTING))
    usual = UNCHANGED if is_usual else torch_defaults()
    mode = torch.inference_mode(False) if torch.is_inference_mode_enabled() else UNCHANGED
    with mode, torch.no_grad(), freeze_parameters(model) as held, usual:
        yield held


@contextmanager
def enable_grad_for(model: Model, device: torch.device) -> Iterator[None]:
    """Let operations build a graph while open, whatever the caller switched off."""
    mode = torch.inference_mode(False) if torch.is_inference_mode_enabled() else UNCHANGED
    with mode, torch.enable_grad():
        if device.type != "cuda":
            yield
            return
        with freeze_parameters(model) as held, _without_cudnn() if held.recurrent else UNCHANGED:
            yield  # cuDNN has no backward pass of recurrent layers in eval mode


def _in_words(what: What) -> str:
    """Return what is differentiated by, in words."""
    return what if isinstance(what, str) else ", ".join(map(str, what))


def compute_gradients(
    scores: Tensor,
    wrt: Sequence[Tensor],
    *,
    what: What = "inputs",
    names: Sequence[object] = (),
    keep: bool = False,
    build: bool = False,
) -> tuple[Tensor, ...]:
    r"""Return the gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error: a word or layers.
        names: of each of ``wrt``, to warn of one that the scores do not depend on; layers are their own.
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
        raise ValueError(
            f"the target does not depend on the {_in_words(what)}, or an operation in between has no gradient, as those of int8 "
            "models: choose another target or layer, or a perturbation method, which needs no gradient"
        )
    if any(g is None for g in found):
        _warn_of_unreached(found, names or ([] if isinstance(what, str) else what))
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def _warn_of_unreached(gradients: Sequence[Tensor | None], names: Sequence[object]) -> None:
    """Warn of what no gradient reaches, where each has a name."""
    if len(names) == len(gradients):
        unreached = [str(name) for name, g in zip(names, gradients) if g is None]
        warn(
            f"the target does not depend on {' and '.join(unreached)} in a differentiable way: the attributions there are zero; "
            "where the model rounds or detaches it, casts it to integers or runs it under no_grad, a perturbation method, which "
            "needs no gradient, sees what it does"
        )


def second_order_gradient(
    scores: Tensor, wrt: Sequence[Tensor], *, what: What = "inputs", keep: bool = False
) -> tuple[Tensor, ...]:
    r"""Return gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

    Arguments and errors as for :func:`compute_gradients`; the graph is kept in any case.
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
    waiting: list[torch.autograd.graph.Node | None] = [scores.grad_fn]
    functions: list[type] = []
    seen = {None, scores.grad_fn}
    while waiting:
        if (node := waiting.pop()) is None:
            continue
        if isinstance(node, BackwardCFunction):
            kind = function_of_node(node)
            if kind is not BackwardHookFunction and kind.__module__.partition(".")[0] != OURS:
                functions.append(kind)
        elif guard_norms and "BatchNorm" in type(node).__name__:
            node.register_prehook(partial(_like_input, node))
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return functions


def _like_input(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the memory format of a node's input: contiguous, or with the channels last."""
    x = saved_input(node)
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return tuple(None if g is None else g.contiguous(memory_format=layout) for g in gradients)
