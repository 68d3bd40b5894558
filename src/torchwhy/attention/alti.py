"""Attention by what it moves: the sizes of the vectors that tokens hand to each other."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.attention.attention_method import AttentionMethod
from torchwhy.attention.capture import Attentions, by_head, chosen
from torchwhy.engine.rules.mode import OpCall
from torchwhy.engine.rules.operations import STRUCTURAL, operation

MOVING = ("transpose", "permute", "movedim")


class Transformations(Attentions):
    """Also keep, for each attention, the projection of its heads that follows, and what its result is added to."""

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
        op, tensors = operation(function), self._tensors((*args, *(kwargs or {}).values()))
        index = self._added(tensors) if op.name == "add" and "alpha" not in (kwargs or {}) else None
        after = max((self._after.get(t, 0) for t in tensors), default=0)
        out = super().__torch_function__(function, types, args, kwargs)
        for t in self._tensors((out,)):
            self._after[t] = after if op.name in STRUCTURAL else len(self.found)  # the same numbers, or new ones
        if index is not None:
            self._results[out] = index
        return out

    def _added(self, pair: list[Tensor]) -> int | None:
        """Keep what the result of an attention is added to, if it was there before; else which attention it is."""
        for result, other in (pair, pair[::-1]) if len(pair) == 2 else ():
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
        before = len(self.found)
        out = super()._product(call)
        if len(self.found) > before:
            self._results[out] = before
        return out

    def _passing(self, call: OpCall) -> Any:
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


class ALTI(AttentionMethod):
    r"""What tokens hand to each other, multiplied over the layers: :math:`C_L \cdots C_1` with
    :math:`C_{ij} \propto [\|y_i\|_1 - \|y_i - T_i(x_j)\|_1]^+`, rows adding up to 1.

    :math:`T_i(x_j) = \sum_h A^h_{ij} W_O^h v^h_j + 1_{i=j} x_i` is the vector that token j contributes to
    :math:`y_i = \sum_j T_i(x_j) + b_O`, so that values, projection and the way around the attention count by what they do, where
    rollout takes the weights and one half. In [0, 1], adding up to 1 over all tokens. It does not know the target.

    Paper: Ferrando, Gállego, Costa-jussà 2022, arXiv:2203.04212, equations 8 to 10. The layer norm that follows in models
    of the BERT kind is left out; so are MLPs, those too that run beside the attention (after it, on the same input).

    Raises:
        ValueError: an attention whose projection, or what it is added to, is not seen.
    """

    paper: ClassVar[str] = "arXiv:2203.04212"
    capture: ClassVar[type[Attentions]] = Transformations

    def matrices(self, seen: Any, n: int) -> list[Tensor]:
        """The contributions C ``(n, 1, T, T)`` of each chosen layer."""
        if self.heads is not None:
            raise ValueError("heads: the heads of ALTI are one vector; leave them out")
        super().matrices(seen, n)  # its checks
        layers = chosen(range(len(seen.found)), self.layers, "layers")
        return [self._contributions(seen, i, n)[:, None] for i in layers]

    def mix(self, attentions: list[Tensor], slopes: list[Tensor], tokens: Tensor) -> Tensor:
        """The chosen rows of the product, from the last layer down."""
        found = attentions[-1][:, 0, tokens]
        for layer in reversed(attentions[:-1]):
            found = found @ layer[:, 0]
        return found.mean(1)

    def _contributions(self, seen: Transformations, index: int, n: int) -> Tensor:
        if index not in seen.projections or index not in seen.residuals:
            raise ValueError(
                f"layers: of attention {index} the projection of the heads, or what its result is added to, was not seen; "
                "choose other layers=, or AttentionRollout"
            )
        a = by_head(seen.found[index].detach(), n)
        a = a.to(torch.promote_types(torch.promote_types(a.dtype, seen.residuals[index][0].dtype), torch.float))
        v = by_head(seen.values[index].detach(), n)
        weight, bias = seen.projections[index]
        moved = torch.einsum("nhsd,ehd->nhse", v.to(a), weight.to(a).unflatten(1, (a.shape[1], -1)))
        result = torch.einsum("nhts,nhse->nte", a, moved) + (0 if bias is None else bias.to(a))
        near = max(1e-2, *(10 * torch.finfo(t.dtype).eps for t in seen.residuals[index]))
        for turn in (lambda t: t, lambda t: t.transpose(0, 1)):  # rows first, or tokens first
            x, added = (turn(t.to(a)) for t in seen.residuals[index])
            if added.shape == result.shape and bool((_peaks(added - result) <= near * _peaks(result)).all()):
                return torch.stack([_token_shares(a[k], moved[k], x[k], x[k] + added[k]) for k in range(n)])
        raise ValueError(
            f"layers: the result of attention {index} is scaled or changed before it is added to its input, so that the "
            "tokens' shares are not known; choose other layers=, or AttentionRollout"
        )


def _peaks(t: Tensor) -> Tensor:
    """The largest absolute value of each row, ``(n,)``."""
    return t.flatten(1).abs().amax(1)


def _token_shares(a: Tensor, moved: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """C ``(T, T)`` of one row: weights ``(heads, T, T)``, projected values ``(heads, T, E)``, residual and sum ``(T, E)``."""
    handed = torch.einsum("hts,hse->tse", a, moved)
    handed.diagonal().add_(x.T)
    near = (y.abs().sum(1, keepdim=True) - (y[:, None] - handed).abs().sum(2)).clamp(min=0)
    return near / near.sum(1, keepdim=True).clamp(min=torch.finfo(near.dtype).tiny)
