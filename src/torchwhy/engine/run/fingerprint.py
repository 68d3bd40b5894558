"""Is a model still the one that something was found out about?"""

from __future__ import annotations

from torch import nn

from torchwhy.engine import state
from torchwhy.engine.structure import PLAIN
from torchwhy.engine.torch_internals import own_parts, version_of

PLAIN_TYPES = frozenset((bool, *PLAIN))


def fingerprint(model: nn.Module) -> tuple[object, ...]:
    """Return what changes with a model: its modules, their mode and plain attributes, its parameters and buffers.

    That a tensor was written to is seen by its version, without reading it; torch gives none to what is written through
    ``.data``, nor to inference tensors. Hooks are left out: most of them watch, and those of another thread come and go.
    """
    found: list[object] = []
    held = state.held_here.models.get(id(model))
    for module in model.modules() if held is None else held.modules:
        parameters, buffers, _, compiled = own_parts(module)
        found += (id(module), id(compiled))
        for tensors in (parameters, buffers):
            for t in tensors.values():
                if t is not None:
                    found += (id(t), 0 if t.is_inference() else version_of(t))
        found += [value for value in vars(module).values() if type(value) in PLAIN_TYPES]
    return tuple(found)
