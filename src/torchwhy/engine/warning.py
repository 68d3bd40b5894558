"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings


def warn(message: str) -> None:
    """Warn, with the place of the first caller outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)
