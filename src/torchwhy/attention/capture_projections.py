"""Attention matrices as they are computed, with the projection of the heads that follows and the way around."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.attention.capture import AttentionCapture
from torchwhy.engine.rules.mode import OpCall
from torchwhy.engine.rules.operations import STRUCTURAL, operation
from torchwhy.engine.structure import tensors_in

MOVING = ("transpose", "permute", "movedim")


class ProjectionCapture(AttentionCapture):
    """While open, also keep for each attention the projection of its heads that follows, and what its result is added to.

    ``projections`` holds weight and bias by the number of the attention, ``residuals`` what its result is added to, and the
    result.
    """

    def __init__(self, *, graph: bool = False) -> None:
        super().__init__(graph=graph)
        follow = {"linear": self._linear, "addmm": self._addmm}
        self.table = {**self.table, **dict.fromkeys(MOVING, self._passing), **follow}
        self.projections: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.residuals: dict[int, tuple[Tensor, Tensor]] = {}  # what the result is added to, and the result
        self._beside: dict[int, Tensor | int] = {}  # what was added to the result that is newer than it
        self._results = WeakIdKeyDictionary()  # tensor -> of which attention it is the result
        self._after = WeakIdKeyDictionary()  # tensor -> how many attentions ran before it was computed

    def __torch_function__(self, function, types, args=(), kwargs=None):
        op, tensors = operation(function), tensors_in((*args, *(kwargs or {}).values()))
        index = self._added(tensors) if op.name == "add" and "alpha" not in (kwargs or {}) else None
        after = max((self._after.get(t, 0) for t in tensors), default=0)
        out = super().__torch_function__(function, types, args, kwargs)
        for t in tensors_in((out,)):
            self._after[t] = after if op.name in STRUCTURAL else len(self.matrices)  # the same numbers, or new ones
        if index is not None:
            self._results[out] = index
        return out

    def _added(self, pair: list[Tensor]) -> int | None:
        """Keep what the result of an attention is added to, if it was there before; else which attention it is."""
        if len(pair) != 2:
            return None
        for result, other in (pair, pair[::-1]):
            index = self._results.get(result)
            if index not in self.projections or index in self.residuals or other.shape != result.shape:
                continue
            beside = self._beside.get(index, 0)
            if self._after.get(other, 0) > index:  # an MLP that runs beside the attention
                self._beside[index] = beside + other.detach()
                return index
            self.residuals[index] = other.detach().clone(), result.detach() - beside
            break
        return None

    def _product(self, call: OpCall) -> Tensor:
        before = len(self.matrices)
        out = super()._product(call)
        if len(self.matrices) > before:
            self._results[out] = before
        return out

    def _passing(self, call: OpCall) -> object:
        out = super()._passing(call)
        if isinstance(out, Tensor) and isinstance(call.x, Tensor) and call.x in self._results:
            self._results[out] = self._results[call.x]
        return out

    def _linear(self, call: OpCall) -> Tensor:
        return self._project(call, call.x, call.kwargs["weight"], call.kwargs.get("bias"))

    def _addmm(self, call: OpCall) -> Tensor:
        return self._project(call, call.kwargs["mat1"], call.kwargs["mat2"].T, call.x)

    def _project(self, call: OpCall, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        out, index = call(), self._results.get(x)
        if index is not None and index not in self.projections:
            self.projections[index] = weight.detach(), None if bias is None else bias.detach()
            self._results[out] = index
        return out
