"""What rules find out about a tensor, to be asked by the rules of the operations that get it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine.torch_internals import version_of


class TensorMetadata:
    """Facts of tensors by name. They die with the tensor, and are forgotten once it is written to."""

    def __init__(self) -> None:
        self._facts: WeakIdKeyDictionary = WeakIdKeyDictionary()  # tensor -> (its version, its facts)

    def get(self, tensor: Any, name: str) -> Any:
        """Return what is known of a tensor; None if nothing, or if it was written to since."""
        version, facts = self._facts.get(tensor, (0, {})) if isinstance(tensor, Tensor) else (0, {})
        return facts.get(name) if facts and version == version_of(tensor) else None

    def set(self, tensor: Any, **facts: Any) -> None:
        """Note facts of a tensor."""
        if isinstance(tensor, Tensor):
            now = version_of(tensor)
            version, known = self._facts.get(tensor, (now, {}))
            self._facts[tensor] = (now, {**known, **facts} if version == now else facts)
