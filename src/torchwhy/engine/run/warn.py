"""Warnings that point at the caller's line."""

from __future__ import annotations

import sys
import warnings

from torch import nn


def warn(message: str) -> None:
    """Warn, with the place of the first caller outside this package."""
    package, level, frame = __name__.partition(".")[0], 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (package, "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def warn_if_training(model: nn.Module) -> None:
    """Warn of modules in training mode that draw at random or mix rows."""
    names = [name for name, m in model.named_modules() if m.training and _is_random_in_training(m)]
    if names:
        warn(
            f"the model is in training mode: {', '.join(names[:3])}{', ...' if names[3:] else ''} make its output "
            "random or let rows influence each other; call model.eval() first",
        )


def _is_random_in_training(module: nn.Module) -> bool:
    share = getattr(module, "dropout", 0)  # of attention and LSTM, which drop out by themselves
    between = not isinstance(module, nn.RNNBase) or module.num_layers > 1  # layers that there are not
    drops = isinstance(share, (int, float)) and not isinstance(share, bool) and share > 0 and between
    return drops or isinstance(module, (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm))
