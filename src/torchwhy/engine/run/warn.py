"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

from torch import Tensor


def warn(message: str) -> None:
    """Warn, with the place of the first caller outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def warn_of_randomness(once: Tensor, again: Tensor) -> None:
    """Warn of a model that gives one row different scores, ``(1,)`` each, from call to call."""
    warn(
        f"the model draws at random: the same row scored {float(once[0]):.4g} and then {float(again[0]):.4g}, so that its "
        "attributions are those of chance too, and no generator repeats them; switch the randomness off (model.eval(), "
        "dropout, drop path, noise), or draw from a fixed seed in the model; check=False leaves this trial out"
    )


def warn_of_training(names: Sequence[str]) -> None:
    """Warn of modules in training mode that draw at random or mix rows."""
    if names:
        warn(
            f"the model is in training mode: {', '.join(names[:3])}{', ...' if names[3:] else ''} make its output "
            "random or let rows influence each other; call model.eval() first",
        )
