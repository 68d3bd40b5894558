"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence


def warn(message: str) -> None:
    """Warn, with the place of the first caller outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def warn_of_training(names: Sequence[str]) -> None:
    """Warn of modules in training mode that draw at random or mix rows."""
    if names:
        warn(
            f"the model is in training mode: {', '.join(names[:3])}{', ...' if names[3:] else ''} make its output "
            "random or let rows influence each other; call model.eval() first",
        )
