"""Holding a model as it is: parameters without gradients, buffers put back, cuDNN off where it has no backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.backends import cudnn

from torchwhy.engine import state
from torchwhy.engine.run.device import cpu_default_device
from torchwhy.engine.torch_internals import BatchNormModule, DropoutModule, own_modules, own_parameters, put_buffer


def _acquire(thing: Any, switch: Callable[[bool], Any], during: bool) -> int:
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

    def __init__(self, model: Any) -> None:
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
                self.device = self.device or p.device
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
def freeze_parameters(model: Any) -> Iterator[HeldModel]:
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


@contextmanager
def isolated(model: Any) -> Iterator[HeldModel]:
    """Keep what happens inside apart from the caller's state: parameters frozen, no graph, no inference mode, CPU by default."""
    mode = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with mode, torch.no_grad(), freeze_parameters(model) as held:
        if torch.get_default_device().type == "cpu":
            yield held
            return
        with cpu_default_device():
            yield held


@contextmanager
def enable_grad_for(model: Any, device: torch.device) -> Iterator[None]:
    """Let operations build a graph while open, whatever the caller switched off."""
    mode = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
    with mode, torch.enable_grad():
        if device.type != "cuda":
            yield
            return
        with freeze_parameters(model) as held, _without_cudnn() if held.recurrent else nullcontext():
            yield  # cuDNN has no backward pass of recurrent layers in eval mode
