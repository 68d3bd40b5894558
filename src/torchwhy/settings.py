"""What the classes of this library share: settings in the constructor, shown when printed."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from torch import nn


@dataclass(kw_only=True, repr=False)
class Settings:
    """The base of all classes that are dataclasses of a model and settings."""

    model: Any = field(kw_only=False)

    def settings(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        found = {}
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            value = getattr(self, f.name)
            if f.init and f.name != "model" and not _same(value, default):
                found[f.name] = value
        return found

    def __repr__(self) -> str:
        name = getattr(self.model, "__name__", type(self.model).__name__)
        shown = {
            k: f"<{type(v).__name__}>" if isinstance(v, nn.Module) else repr(v) for k, v in self.settings().items()
        }
        return f"{type(self).__name__}({', '.join([name, *(f'{k}={v}' for k, v in shown.items())])})"


def _same(value: Any, default: Any) -> bool:
    """Whether a setting is its default; tensors, also within a tuple, are none."""
    if value is default or type(value) is not type(default):
        return value is default
    try:
        return bool(value == default)
    except (RuntimeError, ValueError):  # tensors and arrays of several elements have no truth value
        return False
