"""Attention matrices as they are computed, whichever way a model writes its attention."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine.rules.decompositions import DECOMPOSITIONS
from torchwhy.engine.rules.mode import OpCall, RuleMode

Value = TypeVar("Value")
Which = int | Iterable[int] | None  # of the layers or heads; None is all

FILLING = ("nan_to_num", "where", "masked_fill")  # set some of the weights, such as those of a query without a key
# what a model may do to its weights before it multiplies the values with them
PASSING = (
    *("dropout", "alpha_dropout", "feature_dropout", "to", "type_as", "type", "float", "half", "bfloat16", "double"),
    *("view", "reshape", "flatten", "unflatten", "contiguous", "clone", "squeeze", "unsqueeze", "expand", "mul"),
    "cast",
    *FILLING,
)
FUSED = ("scaled_dot_product_attention", "multi_head_attention_forward")


class Attentions(RuleMode):
    """While open, keep every softmax whose result multiplies values: softmax(q kᵀ) v, hand-written, fused or in a module.

    Where a model sets some of the weights after the softmax, the matrix has them so.

    Args:
        graph: make the matrices differentiable: also those on which no gradient depends become leaves.

    ``found`` lists the matrices in the order of the model, ``values`` what each is multiplied with.
    """

    always = True

    def __init__(self, *, graph: bool = False) -> None:
        fused = {name: DECOMPOSITIONS[name] for name in FUSED}
        products = dict.fromkeys(("matmul", "bmm", "einsum"), self._product)
        super().__init__({**dict.fromkeys(PASSING, self._passing), "softmax": self._softmax, **products, **fused})
        self.graph = graph
        self.found: list[Tensor] = []
        self.values: list[Tensor] = []
        self._weights = WeakIdKeyDictionary()  # tensor -> the softmax that it comes from

    def _softmax(self, call: OpCall) -> Tensor:
        weights = call()
        dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
        if weights.dim() < 3 or dim not in (-1, weights.dim() - 1):
            return weights
        if self.graph and not weights.requires_grad:
            weights = weights.detach().requires_grad_()
        self._weights[weights] = weights
        return weights

    def _passing(self, call: OpCall) -> Any:
        out = call()
        source = next((a for a in self._tensors(call.args) if a in self._weights), None)
        if source is not None and isinstance(out, Tensor) and out.is_floating_point():
            weights = self._weights[source]
            self._weights[out] = out if call.name in FILLING and out.shape == weights.shape else weights
        return out

    def _product(self, call: OpCall) -> Tensor:
        tensors = self._tensors((*call.args, *call.kwargs.values()))
        source = next((t for t in tensors if t in self._weights), None)
        if source is not None and len(tensors) == 2:
            weights, values = self._weights[source], next((t for t in tensors if t is not source), source)
            # values come with the rows; a plain matrix is a projection of probabilities
            if values.dim() > 2 and not any(weights is w for w in self.found):
                self.found.append(weights)
                self.values.append(values)
        return call()

    @staticmethod
    def _tensors(values: Iterable[object]) -> list[Tensor]:
        flat = [v for value in values for v in (value if isinstance(value, (tuple, list)) else [value])]
        return [v for v in flat if isinstance(v, Tensor)]


def by_head(weights: Tensor, n: int) -> Tensor:
    """Matrices ``(n, heads, T, S)`` of n rows.

    Raises:
        ValueError: another number of rows, as of attention within windows.
    """
    if weights.dim() == 3 and len(weights) % n == 0:
        return weights.unflatten(0, (n, -1))
    if weights.dim() != 4 or len(weights) != n:
        raise ValueError(
            f"the model's attention has the shape {tuple(weights.shape)} for {n} rows: it is within windows or "
            "groups of tokens, and no matrix from all tokens to all tokens; use a gradient method, LRP or a CAM"
        )
    return weights


def select(matrices: list[Tensor], layers: Which, heads: Which, n: int) -> list[Tensor]:
    """The chosen layers and heads, each ``(n, heads, T, T)``.

    Raises:
        ValueError: no attention at all, between different sequences, or of different lengths; no numbers of layers or heads.
        IndexError: no such layer or head.
    """
    if not matrices:
        raise ValueError(
            "the model computes no attention, softmax(q kᵀ) v, that can be seen; use a gradient method, LRP or a CAM"
        )
    count, matrices = len(matrices), chosen(matrices, layers, "layers")
    dtype = reduce(torch.promote_types, (m.dtype for m in matrices), torch.float)  # they may differ from layer to layer
    found = [by_head(m.to(dtype), n) for m in matrices]
    shapes = sorted({tuple(m.shape[2:]) for m in found})
    if len(shapes) > 1 or shapes[0][0] != shapes[0][1]:
        raise ValueError(
            f"layers: the attention matrices are {', '.join(f'{t} × {s}' for t, s in shapes)}; they must be square and of "
            f"one size: choose layers= of one sequence, from 0 to {count - 1}"
        )
    if heads is None:
        return found
    return [torch.stack(chosen(m.unbind(1), heads, "heads"), 1) for m in found]


def chosen(items: Sequence[Value], which: Which, name: str) -> list[Value]:
    """The items of the chosen layers or heads, as ``name`` says.

    Raises:
        ValueError: no numbers, or none at all.
        IndexError: no such layer or head.
    """
    count = len(items)
    numbers = range(count) if which is None else list(which) if isinstance(which, Iterable) else [which]
    if not numbers or not all(hasattr(i, "__index__") for i in numbers):
        raise ValueError(f"{name}={which!r}: expected numbers from 0 to {count - 1}, one or several; None is all")
    for i in numbers:
        if not -count <= i < count:
            raise IndexError(f"{name}: there is no {i}; the model has {count} (0 to {count - 1})")
    return [items[i] for i in numbers]


__all__ = ["Attentions", "Which", "by_head", "chosen", "select"]
