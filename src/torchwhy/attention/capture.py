"""Attention matrices as they are computed, whichever way a model writes its attention."""

from __future__ import annotations

from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.attention.lineage import CARRYING, Lineage, LineageTracker
from torchwhy.engine.rules.decompositions import DECOMPOSITIONS
from torchwhy.engine.rules.mode import OpCall, RuleMode
from torchwhy.engine.rules.operations import TorchFunction, operation
from torchwhy.engine.structure import Keywords, tensors_in

FILLING = ("nan_to_num", "where", "masked_fill")  # set some of the weights, such as those of a query without a key
CUTTING = (
    "getitem",
    "narrow",
    "slice",
    "split",
    "split_with_sizes",
    "chunk",
    "tensor_split",
)  # leave out some keys, such as sinks
# what a model may do to its weights before it multiplies the values with them
PASSING = (
    *("dropout", "alpha_dropout", "feature_dropout", "to", "type_as", "type", "float", "half", "bfloat16", "double"),
    *("view", "reshape", "flatten", "unflatten", "contiguous", "clone", "squeeze", "unsqueeze", "expand", "mul"),
    "cast",
    *FILLING,
    *CUTTING,
)
FUSED = ("scaled_dot_product_attention", "multi_head_attention_forward")


class AttentionCapture(RuleMode):
    """While open, keep every softmax whose result multiplies values: softmax(q kᵀ) v, hand-written, fused or in a module.

    Where a model sets some of the weights after the softmax, the matrix has them so; where it cuts off keys that belong to no
    token, such as learned sinks, the matrix is what is left.

    Args:
        graph: make the matrices differentiable: also those on which no gradient depends become leaves.

    ``matrices`` lists them in the order of the model, ``values`` what each is multiplied with, ``queries`` and ``keys`` the
    lineages of the tokens of their rows and columns.
    """

    always = True

    def __init__(self, *, graph: bool = False) -> None:
        fused = {name: DECOMPOSITIONS[name] for name in FUSED}
        products = dict.fromkeys(("matmul", "bmm", "einsum"), self._product)
        super().__init__({**dict.fromkeys(PASSING, self._passing), "softmax": self._softmax, **products, **fused})
        self.graph = graph
        self.matrices: list[Tensor] = []
        self.values: list[Tensor] = []
        self.queries: list[Lineage] = []
        self.keys: list[Lineage] = []
        self.lineages = LineageTracker()
        self._weights = WeakIdKeyDictionary()  # tensor -> the softmax that it comes from

    def __torch_function__(
        self, function: TorchFunction, types: object, args: tuple = (), kwargs: Keywords | None = None
    ) -> object:
        out = super().__torch_function__(function, types, args, kwargs)
        op = operation(function)
        if not op.asks or op.name in CARRYING:
            self.lineages.follow(op, (*args, *(kwargs or {}).values()), out)
        return out

    def _softmax(self, call: OpCall) -> Tensor:
        weights = call()
        dim = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
        if weights.dim() < 3 or dim not in (-1, weights.dim() - 1):
            return weights
        query = self.lineages.of_queries(call.x)
        if self.graph and not weights.requires_grad:
            weights = weights.detach().requires_grad_()
        self._weights[weights] = weights, query
        return weights

    def _passing(self, call: OpCall) -> object:
        out = call()
        source = next((a for a in tensors_in(call.args) if a in self._weights), None)
        if source is None:
            return out
        weights, query = self._weights[source]
        for part in tensors_in([out]):
            if part.is_floating_point():
                changed = (call.name in FILLING and part.shape == weights.shape) or call.name in CUTTING
                self._weights[part] = (part if changed else weights), query
        return out

    def _product(self, call: OpCall) -> Tensor:
        tensors = tensors_in((*call.args, *call.kwargs.values()))
        source = next((t for t in tensors if t in self._weights), None)
        found = None
        if source is not None and len(tensors) == 2:
            (weights, query), values = self._weights[source], next((t for t in tensors if t is not source), source)
            # values come with the rows; a plain matrix is a projection of probabilities
            if values.dim() > 2 and not any(weights is w for w in self.matrices):
                key = self.lineages.of(values)
                found = query._replace(attentions=query.attentions | key.attentions | {len(self.matrices)})
                self.matrices.append(weights)
                self.values.append(values)
                self.queries.append(query)
                self.keys.append(key)
        out = call()
        if found is not None:
            self.lineages.settle(out, found)
        return out
