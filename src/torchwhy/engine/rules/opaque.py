"""What rules do not reach: TorchScript and the like, the inside of autograd Functions, transforms of ``torch.func``.

And what they look through: the identity that torch puts into the graph for the backward hooks of a module.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor, nn

from torchwhy.engine.run.warn import warn
from torchwhy.engine.torch_internals import (
    COMPILED_ATTRIBUTE,
    NOT_KNOWN,
    BackwardHookNode,
    base_of_view,
    hooks_on_saved_tensors,
    own_modules,
    unwrap_transformed,
)


def below_hooks(tensor: Tensor) -> Tensor:
    """Return what a tensor was before the full backward hooks of modules got it; a tensor without them as it is.

    Torch hands a module with such hooks a view of its input, and gives a view of its output. Of an input that is a view itself,
    what it is a view of is returned.
    """
    base = base_of_view(tensor) if type(tensor.grad_fn) is BackwardHookNode else None
    return tensor if base is None else base


def is_same_place(a: Tensor, b: Tensor) -> bool:
    """Say whether of two tensors that share memory each element is at the same place."""
    return a.shape == b.shape and a.stride() == b.stride() and int(a.storage_offset()) == int(b.storage_offset())


def outside_transforms(value: object) -> object:
    """Return a tensor as it is outside of the transforms of ``torch.func`` that are running; anything else as it is."""
    return unwrap_transformed(value) if isinstance(value, Tensor) else value


def keep_saved(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd keeps for the backward pass, as it is."""
    return tensor


@dataclass(eq=False)
class SavedTensor:
    """A tensor kept for the backward pass, see :meth:`torchwhy.engine.rules.mode.RuleMode.save_for_backward`."""

    value: Tensor


class HoldsHooks:
    """What a mode of rules does about hooks on saved tensors, as a checkpoint has them, which would know no rules."""

    keeps_saved = False  # it does so already, and torch cannot tell

    @contextmanager
    def without_others_hooks(self) -> Iterator[None]:
        """Let autograd keep saved tensors as they are."""
        self.keeps_saved = hooks_on_saved_tensors(True) is NOT_KNOWN
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep_saved, keep_saved):
                yield
        finally:
            self.keeps_saved = False


def refuse_gradient_inside() -> NoReturn:
    """Refuse a model that computes a gradient itself, which rules would change, and with it what the model gives."""
    raise ValueError(
        "the model computes a gradient inside (torch.autograd.grad), which rules would change, and with it the model's output; "
        "use a method without rules, such as IntegratedGradients, or detach what needs no explanation before the call"
    )


def refuse_opaque_module(name: str, module: nn.Module) -> NoReturn:
    """Refuse a module of these kinds."""
    if isinstance(module, torch.jit.ScriptModule):
        what, instead = "TorchScript, whose operations cannot be given rules", "the nn.Module it came from"
    elif isinstance(module, nn.DataParallel):
        what, instead = "DataParallel, which runs on threads that rules do not reach", "its `.module`"
    else:
        original = f"its `{COMPILED_ATTRIBUTE}`" if COMPILED_ATTRIBUTE in own_modules(module) else "one that is not"
        what, instead = "compiled, so that its operations cannot be given rules", original
    raise TypeError(f"{f'module {name!r}' if name else 'the model'} is {what}; use {instead}")


def refuse_without_rule(name: str) -> NoReturn:
    """Refuse an operation without a rule, in strict mode."""
    raise NotImplementedError(
        f"strict=True, and the non-linear operation {name!r} has no rule: its plain gradient would be used. "
        "Give it a rule, or leave strict off and see the operations counted on the Explanation"
    )


def refuse_unreached(name: str, where: str) -> NoReturn:
    """Refuse what no rule reaches, in strict mode."""
    raise NotImplementedError(
        f"strict=True, and rules do not reach what is inside {name!r} ({where}): its plain gradient would be used. "
        "Write it out in torch's operations, or leave strict off and see it counted on the Explanation"
    )


def warn_of_unreached(label: str, names: Iterable[str]) -> None:
    """Warn that a method kept the plain gradient of autograd Functions, or of operations in TorchScript or transforms."""
    warn(
        f"{label}: {', '.join(sorted(names))} kept the plain gradient, as rules do not reach what is inside autograd "
        "Functions, functions of TorchScript and the transforms of torch.func, such as vmap: write it out in torch's operations"
    )


def warn_if_without_rules(label: str, counts: Mapping[str, Mapping[str, int]], unreached: Iterable[set[str]]) -> None:
    """Warn of a method that no operation had a rule of, while some needed one: it is the plain gradient.

    Args:
        label: the method.
        counts: how often operations ran by a rule and, non-linear ones, without, as ``count_operations`` gives them.
        unreached: the names, in each call, of what no rule reaches, of which there is a warning already.
    """
    plain = counts["plain_operations"]
    if not counts["operations_with_rule"] and set(plain).difference(*unreached):
        names = ", ".join(f"{name} ({n} times)" for name, n in sorted(plain.items()))
        warn(
            f"{label}: no operation of the model has a rule, so that the result is the plain gradient; without: {names}"
        )
