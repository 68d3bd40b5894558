"""What the classes of this library share: settings in the constructor, shown when printed."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from torch import nn


@dataclass(kw_only=True, repr=False)
class Settings:
    """The base of all classes that are dataclasses of a model and settings."""

    model: Any = field(kw_only=False)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__eq__" not in vars(cls):  # the one that a dataclass then writes cannot compare tensors
            cls.__eq__ = Settings.__eq__  # type: ignore[method-assign]

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(_equal_settings(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        found = {}
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            value = getattr(self, f.name)
            if f.init and f.name != "model" and not (type(value) is type(default) and _equal_settings(value, default)):
                found[f.name] = value
        return found

    def __repr__(self) -> str:
        name = getattr(self.model, "__name__", type(self.model).__name__)
        shown = {
            k: f"<{type(v).__name__}>" if isinstance(v, nn.Module) else repr(v) for k, v in self.settings().items()
        }
        return f"{type(self).__name__}({', '.join([name, *(f'{k}={v}' for k, v in shown.items())])})"


def _equal_settings(a: Any, b: Any) -> bool:
    """Whether two settings are equal: tensors and arrays where they have one shape and equal numbers."""
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(map(_equal_settings, a, b))
    if any(hasattr(v, "__array__") and getattr(v, "shape", ()) != () for v in (a, b)):
        return a is b or (type(a) is type(b) and a.shape == b.shape and bool((a == b).all()))
    return a is b or bool(a == b)
