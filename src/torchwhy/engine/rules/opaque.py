"""What rules cannot reach: compiled modules, the inside of autograd Functions, what runs in a transform of ``torch.func``."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn

from torchwhy.engine.structure import Model
from torchwhy.engine.torch_internals import (
    COMPILED_ATTRIBUTE,
    BackwardHookFunction,
    class_of_function_node,
    unwrap_transformed,
)

OURS = __name__.partition(".")[0]


def refuse_opaque_models(model: Model) -> None:
    """Raise for models whose operations Python does not see.

    Raises:
        TypeError: a module is TorchScript, made by ``torch.compile``, or ``DataParallel``.
    """
    if not isinstance(model, nn.Module):
        return
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            what, instead = "TorchScript, whose operations cannot be given rules", "the nn.Module it came from"
        elif hasattr(module, COMPILED_ATTRIBUTE):
            what, instead = "compiled, so that its operations cannot be given rules", f"its `{COMPILED_ATTRIBUTE}`"
        elif isinstance(module, nn.DataParallel):
            what, instead = "DataParallel, which runs on threads that rules do not reach", "its `.module`"
        else:
            continue
        name = next(name for name, m in model.named_modules() if m is module)
        raise TypeError(f"{f'module {name!r}' if name else 'the model'} is {what}; use {instead}")


def autograd_functions(scores: Tensor) -> Counter[str]:
    """Return how often the graph of some scores goes through autograd Functions that are not of this package, by name.

    Torch's own that module hooks put there change nothing and are left out.
    """
    found: Counter[str] = Counter()
    waiting = [] if scores.grad_fn is None else [scores.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        kind = class_of_function_node(node)
        if kind is not None and kind is not BackwardHookFunction and kind.__module__.partition(".")[0] != OURS:
            found[kind.__name__] += 1
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)
    return found


def outside_transforms(value: object) -> object:
    """Return a tensor as it is outside of the transforms of ``torch.func`` that are running; anything else as it is."""
    return unwrap_transformed(value) if isinstance(value, Tensor) else value
