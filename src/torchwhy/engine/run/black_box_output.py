"""What black boxes return: arrays, data frames, lists and dicts of these, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.structure import Output, named_parts


def output_to_tensors(out: object, m: int | None, device: torch.device) -> Output:
    """Return what a black box returned for m rows, with tensors in the place of arrays; anything else as it is.

    Raises:
        TypeError: it holds no numbers.
    """
    if isinstance(out, Tensor):
        return out
    if isinstance(out, Mapping):
        return {k: output_to_tensors(v, m, device) for k, v in out.items()}
    if hasattr(out, "to_numpy"):  # a data frame or a series: by position, whatever its index
        return _array_to_tensor(out.to_numpy(), device)
    if isinstance(out, (list, tuple)) and not hasattr(out, "_fields") and len(out):
        return _list_to_tensors(out, m, device)
    return _array_to_tensor(np.asarray(out), device) if hasattr(out, "__array__") else out


def _list_to_tensors(out: list | tuple, m: int | None, device: torch.device) -> Output:
    """Return a list with an entry for each row as one tensor, and several outputs as they are, each a tensor."""
    if all(isinstance(v, Tensor) for v in out):
        scalars = all(v.dim() == 0 for v in out)
        return torch.stack([v.to(device) for v in out]) if scalars else out
    if not all(isinstance(v, (Real, list, tuple, np.ndarray, np.generic, str)) for v in out):
        return out
    arrays = [v for v in out if isinstance(v, np.ndarray) and v.ndim]
    outputs = len(arrays) == len(out) and all(len(v) == m for v in arrays)  # each of them for all rows
    if outputs and (isinstance(out, tuple) or len(out) != m):
        return type(out)(_array_to_tensor(v, device) for v in out)
    try:
        return _array_to_tensor(np.asarray(out), device)
    except ValueError:  # of different lengths
        return out


def _array_to_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor.

    Raises:
        TypeError: it holds no numbers.
    """
    try:
        if array.dtype == object:
            array = array.astype(np.float64)
        whole = np.require(array, requirements=["C", "W"])  # those of a data frame may be read-only
        return torch.as_tensor(whole.reshape(array.shape), device=device)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"model: it returned no numbers ({error}); give scores, such as those of predict_proba"
        ) from None


def is_scores(out: Output) -> bool:
    """Say whether an output is one from which scores can be taken without being told how."""
    if isinstance(out, Tensor):
        return True
    tensors = {k: v for k, v in named_parts(out).items() if isinstance(v, Tensor)}
    return "logits" in tensors or len(tensors) == 1


def same_scores(out: Output, other: Output) -> bool:
    """Say whether the first rows of an output equal another output, of these rows alone, up to rounding."""
    a, b = _scores(out), _scores(other)
    if a.dim() and b.dim():
        a = a[: len(b)]
    if a.shape != b.shape:
        return False
    kinds = [torch.finfo(t.dtype).eps if t.is_floating_point() else 0.0 for t in (a, b)]
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    size = float(torch.maximum(a.abs(), b.abs()).nan_to_num(posinf=0.0).max()) if a.numel() else 0.0
    return torch.allclose(a, b, rtol=0.0, atol=size * max(kinds) * 1024, equal_nan=True)


def _scores(out: Output) -> Tensor:
    """Return the tensor of scores in an output."""
    if isinstance(out, Tensor):
        return out
    tensors = {k: v for k, v in named_parts(out).items() if isinstance(v, Tensor)}
    return tensors["logits"] if "logits" in tensors else next(iter(tensors.values()))
