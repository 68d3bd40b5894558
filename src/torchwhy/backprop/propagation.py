r"""Layer-wise relevance propagation, operation by operation: what is not a linear layer, and how the rules are dealt out.

Relevance is x m throughout. Pointwise functions pass it on unchanged (m_x = m_y y/x); a product of two signals shares it,
or gives all of it to the signal where the other is a gate (a sigmoid); norms and denominators count as constants. Attention
weights are gates too (Ali et al. 2022, arXiv:2202.07304, which conserves relevance), or signals: then softmax keeps its
gradient, its deep Taylor decomposition, and they share (Achtibat et al. 2024, arXiv:2402.05602, Eq. 13-16).

Some rules need to know where a tensor comes from, which no single operation says. So :class:`Propagation` notes facts about
the tensors that pass (``note`` and ``noted`` of :class:`~torchwhy.engine.rules.mode.RuleMode`), under these names:

* ``nonnegative``: no entry is negative, as after a ReLU and the pooling that follows it: rules of layers take a shorter way.
* ``gate``: 1 or 2 for what a tanh or a sigmoid made; a factor of the higher rank is the gate of a product.
* ``input``: the model's input, rearranged at most: a layer that gets it is one that sees the input.
* ``producer``: ``(layer, x, rule)`` of the linear layer that made it. A batch norm that follows is folded into that layer: its
  rule then starts at the batch norm's output and hands relevance straight to x, past the layer's own node in the graph.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.backprop.lrp_rules import InputRule, LinearRule, stabilize
from torchwhy.engine.rules.decompositions import DECOMPOSITIONS, NormLayout, affine_batch_norm, batch_norm_scale
from torchwhy.engine.rules.in_place import custom_pointwise_backward, in_place_rule
from torchwhy.engine.rules.mode import RuleMode, custom_backward, keep_gradient
from torchwhy.engine.rules.opaque import below_hooks
from torchwhy.engine.rules.operations import (
    CONVOLUTIONS,
    EXTREMES,
    KEEPS_SIGN,
    LINEAR_LAYERS,
    MAX_POOLS,
    NONNEGATIVE,
    NORMS,
    POINTWISE,
    PRODUCTS,
    RECTIFIERS,
    STRUCTURAL,
    OpCall,
    Operation,
    OpRule,
    RuleTable,
    TorchFunction,
    out_of_place,
)
from torchwhy.engine.structure import Keywords, carries_signal, map_nested
from torchwhy.engine.torch_internals import BackwardHookNode

MATMULS = ("matmul", "mm", "bmm")
GATES = {"sigmoid": 2, "hardsigmoid": 2, "tanh": 1}  # a factor of the higher rank is the gate
THROUGH_ORIGIN = frozenset((*RECTIFIERS, "tanh", "softsign", "tanhshrink", "hardshrink", "softshrink", "expm1", "log1p", "sqrt",
                            "square", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh", "erf")) - {
    "softplus", "threshold"}  # fmt: skip
KEEPS_GATE = frozenset(("add", "sub", "rsub", "mul", "div", "neg", *STRUCTURAL))
NOTED = NONNEGATIVE | KEEPS_SIGN | KEEPS_GATE | {*GATES, "softmax"}  # operations that say something of their result

# the first layer, or what holds it
MAY_SEE_INPUT = frozenset((*LINEAR_LAYERS, *MATMULS, *(set(DECOMPOSITIONS) - {"batch_norm"})))


class Propagation(RuleMode):
    """Rules with what LRP has to know about tensors: no negative entries, a gate, the model's input, from which layer.

    Args:
        table: rules by the name of their operation, see :func:`rule_table`.
        first: the rule of the linear layers that see the input, in place of the table's; None for no other.
        first_at: the kinds of layers that ``first`` is for.
        returns_relevance: whether what arrives at the input is relevance, not a multiplier: where ``first``, or a rule in a
            table, is an :class:`InputRule`.
        softmax_gates: whether attention weights are gates, which get no relevance.
        options: of :class:`RuleMode`.

    ``linear_layer_seen`` and ``first_layer_seen`` say whether a linear layer ran, and whether one that sees the input did.
    """

    facts_of_views = frozenset(("nonnegative", "gate", "input"))

    def __init__(
        self,
        table: RuleTable,
        *,
        first: LinearRule | None = None,
        first_at: tuple[str, ...] = LINEAR_LAYERS,
        returns_relevance: bool = False,
        softmax_gates: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(table, **options)
        self.gates = {**GATES, "softmax": 2} if softmax_gates else GATES
        self.first, self.first_at = first, first_at
        self.returns_relevance = returns_relevance or first is not None
        self.linear_layer_seen = self.first_layer_seen = False

    def run_operation(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation without the gradients of trainable parameters, and note what it says of its result."""
        written = args[:1] if op.in_place else ()  # which must be itself
        args = (*written, *map(detach_parameter, args[len(written) :]))
        kwargs = {name: detach_parameter(value) for name, value in kwargs.items()}
        if self.returns_relevance and op.name not in STRUCTURAL and not self._may_see_input(op.name):
            args, kwargs = map_nested(self.leave_input, args), map_nested(self.leave_input, kwargs)
            if written and args[0] is not written[0]:
                return written[0].copy_(out_of_place(op.name, function)(*args, **kwargs))
        out = super().run_operation(op, function, args, kwargs)
        if op.name in NOTED and isinstance(out, (Tensor, tuple, list)):
            self._note(op.name, args, out)
        return out

    def _may_see_input(self, name: str) -> bool:
        return name in MAY_SEE_INPUT and self.tables[-1].get(name) not in (keep_gradient, pass_rule)  # these know none

    def is_input(self, tensor: object) -> bool:
        """Return whether a tensor is the model's input, or that rearranged."""
        if not isinstance(tensor, Tensor):
            return False
        if type(tensor.grad_fn) is BackwardHookNode:
            tensor = below_hooks(tensor)
        return (tensor.requires_grad and tensor.is_leaf) or bool(self.noted(tensor, "input"))

    def leave_input(self, value: Any) -> Any:
        """Turn the multiplier that arrives at the input into relevance, for operations other than the first layer."""
        if not (carries_signal(value) and self.is_input(value)):
            return value
        x = value.detach()
        return custom_backward(x, lambda m: (x * m,), value)

    def _note(self, name: str, args: tuple, out: object) -> None:
        """Note what an operation says of its result, see above."""
        operands = args[0] if args and isinstance(args[0], (tuple, list)) else args
        tensors = [a for a in operands if isinstance(a, Tensor)]
        facts: dict[str, int] = {}
        if name in NONNEGATIVE:
            facts["nonnegative"] = True
        elif name in KEEPS_SIGN and tensors and not (name in ("add", "mul") and _has_number(args[1:])):
            facts["nonnegative"] = all(self.noted(t, "nonnegative") for t in tensors)
        if name in self.gates:
            facts["gate"] = self.gates[name]
        elif name in KEEPS_GATE and sum(t.requires_grad for t in tensors) == 1:
            facts["gate"] = max(self.noted(t, "gate") or 0 for t in tensors)
        if self.returns_relevance and name in STRUCTURAL and tensors:
            facts["input"] = self.is_input(tensors[0])
        if any(facts.values()):
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                self.note(tensor, **facts)


def _has_number(values: tuple) -> bool:
    return any(isinstance(v, (int, float)) for v in values)


def detach_parameter(value: object) -> object:
    """Return a trainable parameter without its gradient, for models that are plain callables: it carries no signal."""
    if type(value) is Tensor or value is None:
        return value
    if isinstance(value, Tensor):
        return value.detach() if value.requires_grad and isinstance(value, nn.Parameter) else value
    nested = isinstance(value, (tuple, list, dict)) and carries_signal(value)
    return map_nested(detach_parameter, value) if nested else value


# ------------------------------------------------------------------------------------------------- linear layers
def linear_rule(call: OpCall, *, rule: LinearRule) -> Tensor:
    """Hand relevance down through a fully connected layer or a convolution."""
    if not carries_signal(call.x):
        return call()  # the weight carries the signal: a hyper-network
    return propagate(LinearLayer.of(call), call, call.x, rule)


def propagate(layer: LinearLayer, call: OpCall, x: Tensor, rule: LinearRule) -> Tensor:
    """Return the layer's value with the rule's backward, or that of the first layer's rule at the input."""
    mode, y = call.mode, call.value()
    layer.known_nonnegative = bool(mode.noted(x, "nonnegative"))
    sees_input = mode.returns_relevance and mode.is_input(x)
    mode.linear_layer_seen, mode.first_layer_seen = True, mode.first_layer_seen or sees_input
    first = sees_input and mode.first is not None and layer.name in mode.first_at
    chosen: LinearRule = mode.first if first else rule
    layer.saved_output = mode.save_for_backward(y)
    # a convolution is transposed for inputs of a certain size
    if layer.name != "linear" or isinstance(chosen, InputRule) or chosen.needs_input:
        layer.saved_input = mode.save_for_backward(x)
    if not isinstance(chosen, InputRule):
        signal, hand_down = mode.leave_input(x) if sees_input else x, chosen.multiplier
    elif sees_input:
        signal, hand_down = x, chosen.relevance
    else:
        raise ValueError(
            f"the {type(chosen).__name__} rule gives relevance to inputs that are zero and can stand only at a layer "
            f"that sees the model's input; this {layer.name!r} does not. Give it as first=, and another rule here"
        )
    shape = x.shape

    def backward(m: Tensor) -> tuple[Tensor]:
        found = hand_down(layer, m.to(layer.weight.dtype))
        if not isinstance(found, Tensor) or found.shape != shape:
            got = f"the shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"the {type(chosen).__name__} rule returned {got} at a {layer.name!r} whose input has "
                f"the shape {tuple(shape)}: return a tensor of the input's shape, such as layer.transpose(m, layer.weight)"
            )
        return (found,)

    out = custom_backward(y, backward, signal)
    mode.note(out, producer=(layer, x, rule))
    return out


def foldable_producer(call: OpCall) -> Any:
    """Return the linear layer, its input and its rule, into which a batch norm can be folded; None without one."""
    producer = call.mode.noted(call.x, "producer")
    return None if producer is None or (producer[0].name == "linear" and call.x.dim() != 2) else producer


def batch_norm_rule(call: OpCall) -> Tensor:
    """Fold batch norm into the linear layer before it, for the rule only; without one it is affine: its gradient."""
    producer = foldable_producer(call)
    if producer is None:
        return affine_batch_norm(call)
    found = batch_norm_scale(call)
    if found is None:
        return call()
    layer, x, rule = producer
    return propagate(layer.folded(*found), call, x, rule)


def addmm_rule(call: OpCall, *, rule: LinearRule) -> object:
    """Hand relevance down through bias + x @ W with constants W and bias: a linear layer, as graphs of ATen spell it."""
    bias, x, w = call.x, call.kwargs["mat1"], call.kwargs["mat2"]
    is_plain = call.kwargs.get("alpha", 1) == call.kwargs.get("beta", 1) == 1 and bias.dim() == 1
    if not is_plain or carries_signal(bias, w) or not carries_signal(x):
        return DECOMPOSITIONS["addmm"](call)
    return propagate(LinearLayer("linear", w.mT, bias, {}), call, x, rule)


def matmul_rule(call: OpCall, *, rule: LinearRule) -> Tensor:
    """Hand relevance down through a product: x @ W with a constant matrix W is a linear layer; two signals share."""
    a, b = call.x, call.second("other", "mat2", "tensor2")
    if carries_signal(a) and not carries_signal(b) and b.dim() == 2 and a.dim() >= 2:
        return propagate(LinearLayer("linear", b.mT, None, {}), call, a, rule)
    if call.mode.returns_relevance:
        leave = call.mode.leave_input
        call = call.with_args(map_nested(leave, call.args), map_nested(leave, call.kwargs))
    return split_rule(call)


# ------------------------------------------------------------------------------------------------- everything else
def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x with its gradient times a factor."""
    return custom_backward(x.detach(), lambda m: (m * factor,), x) if carries_signal(x) else x


@in_place_rule
def pass_rule(call: OpCall) -> Tensor:
    r"""Apply the identity rule :math:`R_x = R_y`, that is :math:`m_x = m_y y / x`."""
    if len(call.args) > 1 and carries_signal(call.args[1:]):
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    y = call.value()
    if y.shape != call.x.shape:
        raise ValueError(f"Pass: {call.name!r} changes the shape, so that relevance cannot pass elementwise")
    x = call.x.detach()
    factor = y / (torch.where(x == 0, 1, x) if call.name in THROUGH_ORIGIN else stabilize(x, 1e-6))
    return custom_pointwise_backward(call, y, lambda m: (m * factor,))


def split_rule(call: OpCall) -> Tensor:
    """Give each factor of a product an equal share (Achtibat et al. 2024, Eq. 16); a gate gets nothing."""
    signals: list[Tensor] = []

    def collect(value: object) -> None:
        if isinstance(value, Tensor) and carries_signal(value):
            signals.append(value)

    map_nested(collect, (call.args, call.kwargs))
    if len(signals) < 2:
        return call()
    ranks = [call.mode.noted(s, "gate") or 0 for s in signals]
    gate = signals[ranks.index(max(ranks))] if len(set(ranks)) > 1 else None

    def change(value: object) -> object:
        if not isinstance(value, Tensor):
            return value
        if gate is None:
            return scaled_gradient(value, 1 / len(signals))
        return value.detach() if value is gate else value

    return call.with_args(map_nested(change, call.args), map_nested(change, call.kwargs))()


def attention_rule(call: OpCall) -> Tensor:
    """Give what fused attention gets to the values, or half of it, and half to the weights, which queries and keys share."""
    q, k, v = call.x, call.kwargs["key"], call.kwargs["value"]
    if "softmax" in call.mode.gates and carries_signal(v):
        return call.with_args((q.detach(),), {**call.kwargs, "key": k.detach()})()
    half = 0.5 if carries_signal(q, k) and carries_signal(v) else 1.0
    inner = half * (0.5 if carries_signal(q) and carries_signal(k) else 1.0)
    kwargs = {**call.kwargs, "key": scaled_gradient(k, inner), "value": scaled_gradient(v, half)}
    return call.with_args((scaled_gradient(q, inner),), kwargs)()


def quotient_rule(call: OpCall) -> Tensor:
    """Take the denominator of a / b as a constant; 1 / b with a constant numerator stops here."""
    other = call.second("other")
    other = other.detach() if isinstance(other, Tensor) else other
    return call.function(call.x, other, **{k: v for k, v in call.kwargs.items() if k != "other"})


def block_rule(call: OpCall) -> Tensor:
    """Give no relevance to 1/x and 1/√x, which are scales."""
    return call.value()


def power_rule(call: OpCall) -> Tensor:
    """Pass relevance through x ** c; with c < 0 it is a scale."""
    exponent = call.second("exponent")
    if isinstance(exponent, (int, float)) and exponent < 0:
        return call.value()
    if not isinstance(call.x, Tensor) or not carries_signal(call.x):
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    return pass_rule(call)


def reduction_rule(call: OpCall) -> Tensor:
    """Keep the gradient of sums, means and extremes of elements by their index; a product of them has no rule."""
    if "prod" in (*call.args[3:], *call.kwargs.values()):
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
    return call()


def norm_rule(call: OpCall) -> Tensor:
    r"""Take layer, group, instance and RMS norm with the scale σ a constant: y = w (x - mean(x)) / σ + bias."""
    if call.name == "instance_norm" and not call.kwargs.get("use_input_stats", True):
        return call()
    norm, x = NormLayout.of(call), call.x.detach()
    folded = norm.fold(x)
    spread = (
        folded.var(norm.dims, correction=0, keepdim=True) if norm.centred else folded.square().mean(norm.dims, True)
    )
    sigma = (spread + norm.eps).sqrt()

    def backward(m: Tensor) -> tuple[Tensor]:
        back = norm.fold(m if norm.weight is None else m * norm.weight) / sigma
        back = back - back.mean(norm.dims, keepdim=True) if norm.centred else back
        return (back.reshape(norm.shape),)

    return custom_backward(call.value(), backward, call.x)


BASE_RULES: dict[str, OpRule] = {
    **DECOMPOSITIONS,
    **dict.fromkeys(POINTWISE, pass_rule),
    **dict.fromkeys(
        ("relu", "leaky_relu", "prelu", "rrelu", "abs"), keep_gradient
    ),  # through the origin: y / x is the slope
    **dict.fromkeys(("softmax", "vector_norm", *MAX_POOLS, *EXTREMES), keep_gradient),
    **dict.fromkeys(PRODUCTS, split_rule),
    **dict.fromkeys(NORMS, norm_rule),
    **dict.fromkeys(("rsqrt", "reciprocal"), block_rule),
    "pow": power_rule,
    "scatter_reduce": reduction_rule,
    "div": quotient_rule,
    "batch_norm": batch_norm_rule,
    "scaled_dot_product_attention": attention_rule,
}


def rule_table(convolution: LinearRule, linear: LinearRule) -> dict[str, OpRule]:
    """Return the rules of all operations, given those of the convolutions and of the fully connected layers."""
    return {
        **BASE_RULES,
        **dict.fromkeys(CONVOLUTIONS, partial(linear_rule, rule=convolution)),
        "linear": partial(linear_rule, rule=linear),
        **dict.fromkeys(MATMULS, partial(matmul_rule, rule=linear)),
        "addmm": partial(addmm_rule, rule=linear),
    }
