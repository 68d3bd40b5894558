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
            if not f.init or f.name == "model" or value is default:
                continue
            if not (type(value) is type(default) and value == default):
                found[f.name] = value
        return found

    def __repr__(self) -> str:
        name = getattr(self.model, "__name__", type(self.model).__name__)
        shown = {
            k: f"<{type(v).__name__}>" if isinstance(v, nn.Module) else repr(v) for k, v in self.settings().items()
        }
        return f"{type(self).__name__}({', '.join([name, *(f'{k}={v}' for k, v in shown.items())])})"
