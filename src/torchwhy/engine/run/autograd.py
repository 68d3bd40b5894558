"""Autograd: holding a model as it is meanwhile, switching graphs on, and the gradients of scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction
from torch.backends import cudnn

from torchwhy.engine import state
from torchwhy.engine.run.defaults import AUTOCASTING, torch_defaults
from torchwhy.engine.run.fingerprint import fingerprint
from torchwhy.engine.run.held_buffers import HeldBuffers
from torchwhy.engine.run.placement import device_of_parameters
from torchwhy.engine.run.torch_errors import raise_in_words
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import AnyModel, Model
from torchwhy.engine.torch_internals import (
    COMPILED_MARK,
    BackwardHookFunction,
    BatchNormModule,
    DropoutModule,
    count_function_modes,
    function_of_node,
    own_parts,
    running_node,
    saved_input,
)

What = str | Sequence[object]
UNCHANGED = nullcontext()
OURS = __name__.partition(".")[0]


def acquire(thing: object, switch: Callable[[bool], object], during: bool) -> int:
    """Hold a thing, under the lock: the first holder switches it, the last one switches it back."""
    held = state.held.get(id(thing))
    if held is None:
        switch(during)
        held = state.held[id(thing)] = [0, switch, not during, thing]
    held[0] += 1
    return id(thing)


def release_all(held: Sequence[int]) -> None:
    """Let go of things; the last holder of each undoes its change."""
    with state.lock:
        for key in held:
            state.held[key][0] -= 1
            if not state.held[key][0]:
                _, switch, before, _ = state.held.pop(key)
                switch(before)


def is_trainable(parameter: Tensor) -> bool:
    """Say whether a parameter requires a gradient, by itself: while its model is held, in any thread, it does not."""
    with state.lock:
        held = state.held.get(id(parameter))
        return parameter.requires_grad if held is None else bool(held[2])


class HeldModel:
    """What one walk over a model's modules found, while the model is held.

    Args:
        model: the model; a plain callable has no modules.

    Attributes:
        device: of its first parameter, None without any.
        modules: the name of each module, the first one it has, in the order of ``named_modules``.
        buffers: those of each module that has some.
        noisy: the names of modules whose output is random, or mixes rows, in training mode.
        may_draw: whether its scores may be random, which a trial has to say: it runs code that is not torch's own, and no trial
            found yet that it gives one row the same score twice in this mode; one with noisy modules is warned of anyway.
        recurrent: whether it has recurrent layers.
        nests: whether it has encoders that may pack padded sequences into nested tensors, which no hook of a layer can use.
        compiled: whether ``torch.compile`` made a part of it, which may leave out hooks that came later.
        opaque: whether Python does not see the operations of a part of it, as of one that is compiled.
    """

    __slots__ = (
        "buffers",
        "compiled",
        "device",
        "may_draw",
        "mine",
        "modules",
        "nests",
        "noisy",
        "opaque",
        "recurrent",
    )

    def __init__(self, model: AnyModel) -> None:
        self.device: torch.device | None = None
        self.noisy: list[str] = []
        self.buffers: list[HeldBuffers] = []
        self.compiled = False
        trains = False
        kinds: set[type] = set()
        self.mine: list[int] = []
        self.modules: dict[nn.Module, str] = {}
        waiting: list[tuple[str, nn.Module]] = [("", model)] if isinstance(model, nn.Module) else []
        while waiting:
            name, module = waiting.pop()
            if module in self.modules:
                continue
            self.modules[module] = name
            parameters, buffers, modules, compiled = own_parts(module)
            for p in parameters.values():
                if p is None:
                    continue
                if self.device is None:
                    self.device = p.device if p.device.type != "meta" else device_of_parameters(p.device, model)
                trainable = p.requires_grad and not p.is_inference()  # such a one has no gradient, and no switch
                if trainable or id(p) in state.held:
                    self.mine.append(acquire(p, p.requires_grad_, False))
            if getattr(module, "training", False):  # frozen TorchScript has no mode
                trains = True
                if is_random_in_training(module):
                    self.noisy.append(name)
            if buffers:
                self._hold_buffers(name, module)
            if compiled is not None or hasattr(vars(module).get("forward"), COMPILED_MARK):
                self.compiled = True
            kinds.add(type(module))
            for key, child in reversed(modules.items()):
                if child is not None:
                    waiting.append((f"{name}.{key}" if name else key, child))
        self.recurrent = any(issubclass(kind, nn.RNNBase) for kind in kinds)
        self.nests = any(issubclass(kind, nn.TransformerEncoder) for kind in kinds)
        self.opaque = self.compiled or any(
            issubclass(kind, (torch.jit.ScriptModule, nn.DataParallel)) for kind in kinds
        )
        foreign = not all(kind.__module__.startswith("torch.nn.") for kind in kinds)
        may_draw = not self.noisy and (trains or foreign or not self.modules)
        known = state.repeating.get(model) if may_draw and isinstance(model, nn.Module) else None
        self.may_draw = may_draw and (known is None or known != fingerprint(model))

    def _hold_buffers(self, name: str, module: nn.Module) -> None:
        """Hold a module's buffers, with the values that they had for the first that came."""
        first = id(module) not in state.held
        found = HeldBuffers(name, module) if first else state.held[id(module)][1]
        self.mine.append(acquire(module, found, False))
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
            release_all(held.mine)


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
        mine = [acquire(cudnn, partial(setattr, cudnn, "enabled"), False)] if on else []
    try:
        yield
    finally:
        release_all(mine)


@contextmanager
def isolated(model: Model) -> Iterator[HeldModel]:
    """Keep what happens inside apart from the caller's state: parameters frozen, no graph, no inference mode, no autocast."""
    # a default device is a torch function mode; an empty tensor tells it in less time than torch.get_default_device()
    on_cpu = not count_function_modes() or torch.empty(0).device.type == "cpu"
    is_usual = on_cpu and not any(map(torch.is_autocast_enabled, AUTOCASTING))
    try:
        if is_usual and not torch.is_inference_mode_enabled():
            with torch.no_grad(), freeze_parameters(model) as held:
                yield held
            return
        mode = torch.inference_mode(False) if torch.is_inference_mode_enabled() else UNCHANGED
        with mode, torch.no_grad(), freeze_parameters(model) as held, torch_defaults():
            yield held
    except RuntimeError as error:
        raise_in_words(error)


@contextmanager
def enable_grad_for(model: Model, device: torch.device) -> Iterator[None]:
    """Let operations build a graph while open, whatever the caller switched off."""
    if device.type != "cuda" and not torch.is_inference_mode_enabled():
        with torch.enable_grad():
            yield
        return
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


def passes_states_besides(layer: object) -> bool:
    """Say whether a layer is an LSTM of which the steps are taken, while it passes its last states, too."""
    chosen = getattr(layer, "output", None) is not None or getattr(layer, "input", False)
    return isinstance(getattr(layer, "module", None), nn.LSTM) and not chosen


def _hint_of_inside(what: What) -> str:
    """Return what to do about tensors that layers hand back and use inside, where one of several was chosen, or the first."""
    if isinstance(what, str):
        return ""
    if all(getattr(layer, "output", None) is None for layer in what):
        names = [getattr(layer, "name", "") for layer in what if passes_states_besides(layer)]
        states = [f"tw.Layer({name!r}, output=(1, 0))" for name in names]
        return "".join(f"; the last states of a recurrent layer, besides its steps, are {layer}" for layer in states)
    return (
        "; what a layer hands back but uses inside, as attention matrices, can be read, not replaced: by InputXGradient, "
        "Saliency, LinearApproximation, Conductance and InternalInfluence"
    )


def compute_gradients(
    scores: Tensor,
    wrt: Sequence[Tensor],
    *,
    what: What = "inputs",
    names: Callable[[], Sequence[object]] | None = None,
    keep: bool = False,
    build: bool = False,
) -> tuple[Tensor, ...]:
    r"""Return the gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error: a word or layers.
        names: gives the name of each of ``wrt``, to warn of one that the scores do not depend on; layers are their own.
        keep: keep the graph for another call.
        build: let the gradients be differentiated again.

    Raises:
        ValueError: the scores depend on none of them, or were computed without a graph.
    """
    if not scores.requires_grad:
        raise ValueError(
            f"the target does not depend on the {_in_words(what)} in a differentiable way (it may come from argmax, rounding, "
            "integers, a detached tensor, or a forward under torch.no_grad or torch.inference_mode): choose another target or "
            "layer, or a perturbation method, which needs no gradient" + _hint_of_inside(what)
        )
    ones = None if scores.numel() == 1 else torch.ones_like(scores)
    found = torch.autograd.grad(scores, wrt, ones, allow_unused=True, retain_graph=keep or build, create_graph=build)
    missing = [g is None for g in found]
    if not any(missing):
        return found
    if all(missing):
        raise ValueError(
            f"the target does not depend on the {_in_words(what)}, or an operation in between has no gradient, as those of int8 "
            "models: choose another target or layer, or a perturbation method, which needs no gradient"
            + _hint_of_inside(what)
        )
    if names is not None:
        _warn_of_unreached(found, names())
    elif not isinstance(what, str):
        _warn_of_unreached(found, what)
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
            node.register_prehook(_like_input)
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)
    return functions


def _like_input(gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the memory format of the running node's input: contiguous, or with the channels last."""
    x = saved_input(running_node())  # a hook that kept its node would keep the graph, too
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return tuple(None if g is None else g.contiguous(memory_format=layout) for g in gradients)
