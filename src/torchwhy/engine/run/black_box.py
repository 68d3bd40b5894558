"""Models that are not modules: any callable from arrays to arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.engine.structure import Model


@dataclass
class BlackBox:
    """A callable that takes and gives NumPy arrays, or tensors, as a function of tensors.

    It is first called with tensors; if it cannot take them, with arrays, from then on.
    """

    function: Callable[..., Any]
    arrays: bool | None = None

    def __call__(self, *args: object, **kwargs: object) -> Any:
        """Return the function's output, arrays made tensors on the inputs' device."""
        device = next((a.device for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), torch.device("cpu"))
        if self.arrays is None:
            try:
                out = self.function(*args, **kwargs)
                self.arrays = False
            except (TypeError, AttributeError, ValueError, RuntimeError) as tensor_error:
                try:
                    out = self.function(*map(_to_array, args), **{k: _to_array(v) for k, v in kwargs.items()})
                    self.arrays = True
                except Exception:
                    raise tensor_error from None
        elif self.arrays:
            out = self.function(*map(_to_array, args), **{k: _to_array(v) for k, v in kwargs.items()})
        else:
            try:
                out = self.function(*args, **kwargs)
            except RuntimeError as error:
                if "numpy() on Tensor that requires grad" not in str(error):
                    raise
                raise TypeError(
                    "model: it works on NumPy arrays, which have no gradient; choose a method that needs none, such as "
                    "KernelSHAP, LIME or Occlusion"
                ) from error
        return _output_to_tensor(out, device)


def as_model(model: Model, *, gradient: bool = False) -> Any:
    """Return ``model`` itself if it is a module, else as a :class:`BlackBox`; a scikit-learn estimator by its probabilities.

    With ``gradient`` it must take tensors.

    Raises:
        TypeError: it cannot be called.
    """
    if isinstance(model, nn.Module):
        return model
    if not callable(model):
        named = next((n for n in ("predict_proba", "decision_function", "predict") if hasattr(model, n)), None)
        if named is None:
            raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")
        model = getattr(model, named)
    if gradient:
        return BlackBox(model, arrays=False)
    estimator = hasattr(getattr(model, "__self__", None), "get_params")
    return BlackBox(model, arrays=True if estimator else None)


def _output_to_tensor(out: object, device: torch.device) -> Any:
    """Return an array, or a list of numbers, as a tensor; anything else as it is."""
    numbers = isinstance(out, list) and bool(out) and all(isinstance(v, (Real, list)) for v in out)
    if isinstance(out, Tensor) or not (numbers or hasattr(out, "__array__")):
        return out
    try:
        return torch.as_tensor(out, device=device)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"model: it returned no numbers ({error}); give scores, such as those of predict_proba"
        ) from None


def _to_array(value: object) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
