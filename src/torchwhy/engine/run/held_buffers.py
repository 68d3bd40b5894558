"""A module's buffers, put back when the model is let go."""

from __future__ import annotations

from operator import is_

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from torchwhy.engine.run.warn import warn
from torchwhy.engine.torch_internals import own_buffers, version_of

LARGE_BUFFER = 2**27  # bytes


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
        """Put the buffers back when the last one lets go, see :func:`acquire`."""
        if back and (self.is_changed() or self._is_rewritten()):
            self.restore()
