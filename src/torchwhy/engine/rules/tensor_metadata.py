"""What rules learn of a tensor, to be asked by the rules of the operations that get it."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary


class TensorMetadata:
    """Facts of tensors by name. They die with the tensor, and are forgotten once it is written to."""

    def __init__(self) -> None:
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def get(self, tensor: Any, name: str) -> Any:
        """What is known of a tensor, None if nothing or if it was written to since."""
        known = self._known.get(tensor) if isinstance(tensor, Tensor) else None
        return known.get(name) if known is not None and known["version"] == tensor._version else None

    def learn(self, tensor: Any, **facts: Any) -> None:
        """Note facts of a tensor."""
        if isinstance(tensor, Tensor):
            known = self._known.get(tensor)
            fresh = known is not None and known["version"] == tensor._version
            self._known[tensor] = {**(known if fresh else {}), **facts, "version": tensor._version}  # type: ignore[dict-item]
