r"""Layer-wise relevance propagation, operation by operation: what is not a linear layer, and how the rules are dealt out.

Relevance is x m throughout. Pointwise functions pass it on unchanged (m_x = m_y y/x); a product of two signals shares it,
or gives all of it to the signal where the other is a gate (a sigmoid); norms and denominators count as constants. Attention
weights are gates too (Ali et al. 2022, arXiv:2202.07304, which conserves relevance), or signals: then softmax keeps its
gradient, its deep Taylor decomposition, and they share (Achtibat et al. 2024, arXiv:2402.05602, Eq. 13-16).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.backprop.linear_layer import LinearLayer, apply_rule
from torchwhy.backprop.lrp_rules import FIRST_ONLY, Norm, Pass, stabilize
from torchwhy.engine.rules.decompositions import DECOMPOSITIONS, batch_norm_scale
from torchwhy.engine.rules.decompositions import affine_batch_norm as affine
from torchwhy.engine.rules.mode import (
    OpCall,
    OpRule,
    RuleMode,
    carries_signal,
    custom_backward,
    custom_pointwise_backward,
    in_place_rule,
    keep_gradient,
)
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
    operation,
    out_of_place,
)
from torchwhy.engine.rules.tensor_metadata import TensorMetadata
from torchwhy.engine.structure import map_nested

MATMULS = ("matmul", "mm", "bmm")
GATES = {"sigmoid": 2, "hardsigmoid": 2, "tanh": 1}  # a factor of the higher rank is the gate
THROUGH_ORIGIN = frozenset((*RECTIFIERS, "tanh", "softsign", "tanhshrink", "hardshrink", "softshrink", "expm1", "log1p", "sqrt",
                            "square", "sin", "tan", "asin", "atan", "sinh", "asinh", "atanh", "erf")) - {
    "softplus", "threshold"}  # fmt: skip
KEEPS_GATE = frozenset(("add", "sub", "rsub", "mul", "div", "neg", *STRUCTURAL))

# the first layer, or what holds it
MAY_SEE_INPUT = frozenset((*LINEAR_LAYERS, *MATMULS, *(set(DECOMPOSITIONS) - {"batch_norm"})))


class Propagation(RuleMode):
    """Rules with what LRP has to know about tensors: no negative entries, a gate, the model's input, from which layer.

    `first` is the rule of the linear layers that see the input, if of the kinds `first_of`. With it, or with a rule of its
    kind in a table, what arrives at the input is relevance, not a multiplier (``reads_relevance``). ``met`` has whether a
    linear layer saw the input, for those that ran.
    """

    def __init__(
        self,
        table: Mapping[str, OpRule],
        *,
        first: Any = None,
        first_of: tuple[str, ...] = LINEAR_LAYERS,
        reads_relevance: bool = False,
        softmax_gates: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(table, **options)
        self.gates = {**GATES, "softmax": 2} if softmax_gates else GATES
        self.first, self.reads_relevance = first, reads_relevance or first is not None
        self.first_of = first_of
        self.met: set[bool] = set()
        self.facts = TensorMetadata()
        self.fact, self.learn = self.facts.get, self.facts.learn

    def __torch_function__(self, function, types, args=(), kwargs=None):
        op = operation(function)
        written = 1 if op.in_place or op.name == "set" else 0  # arguments that must be themselves
        args, kwargs = (
            (*args[:written], *map_nested(detach_parameter, args[written:])),
            map_nested(detach_parameter, dict(kwargs or {})),
        )
        if self.reads_relevance and op.name not in STRUCTURAL and not self._may_see_input(op.name):
            given = args
            args, kwargs = map_nested(self.leave_input, args), map_nested(self.leave_input, kwargs)
            if op.in_place and given and args[0] is not given[0]:
                return given[0].copy_(out_of_place(op.name, function)(*args, **kwargs))
        out = super().__torch_function__(function, types, args, kwargs)
        if isinstance(out, (Tensor, tuple, list)):
            self._note(op.name, args, out)
        return out

    def _may_see_input(self, name: str) -> bool:
        return name in MAY_SEE_INPUT and self._rule(name) not in (keep_gradient, pass_rule)  # these know no relevance

    def is_input(self, tensor: Any) -> bool:
        """Whether a tensor is the model's input, or that rearranged."""
        return isinstance(tensor, Tensor) and (
            (tensor.requires_grad and tensor.is_leaf) or bool(self.fact(tensor, "input"))
        )

    def leave_input(self, value: Any) -> Any:
        """Turn the multiplier that arrives at the input into relevance, for operations other than the first layer."""
        if not (torch.is_grad_enabled() and self.is_input(value) and value.requires_grad):
            return value
        x = value.detach()
        return custom_backward(x, lambda m: (x * m,), value)

    def _note(self, name: str, args: tuple, out: Any) -> None:
        tensors = [
            a for a in (args[0] if args and isinstance(args[0], (tuple, list)) else args) if isinstance(a, Tensor)
        ]
        others = [a for a in args[1:] if isinstance(a, (int, float))]
        facts: dict[str, Any] = {}
        if name in NONNEGATIVE:
            facts["nonnegative"] = True
        elif name in KEEPS_SIGN and tensors and (name in STRUCTURAL or not others or name not in ("add", "mul")):
            facts["nonnegative"] = all(self.fact(t, "nonnegative") for t in tensors)
        if name in self.gates:
            facts["gate"] = self.gates[name]
        elif name in KEEPS_GATE and sum(t.requires_grad for t in tensors) == 1:
            facts["gate"] = max(self.fact(t, "gate") or 0 for t in tensors)
        if self.reads_relevance and name in STRUCTURAL and tensors:
            facts["input"] = self.is_input(tensors[0])
        if any(facts.values()):
            for tensor in out if isinstance(out, (tuple, list)) else (out,):
                self.learn(tensor, **facts)


def detach_parameter(value: Any) -> Any:
    """A trainable parameter without its gradient, for models that are plain callables: it carries no signal."""
    return value.detach() if isinstance(value, nn.Parameter) and value.requires_grad else value


# ------------------------------------------------------------------------------------------------- linear layers
def linear_rule(rule: Any) -> OpRule:
    """The rule of a linear layer as a rule of the engine."""

    def apply(call: OpCall) -> Tensor:
        if not carries_signal(call.x):
            return call()  # the weight carries the signal: a hyper-network
        return propagate(LinearLayer.of(call), call, call.x, call.value(), rule)

    return apply


def propagate(layer: LinearLayer, call: OpCall, x: Tensor, y: Tensor, rule: Any) -> Tensor:
    """Return `y`, the layer's value, with the rule's backward, or that of the first layer's rule at the input."""
    mode = call.mode
    layer.nonnegative = bool(mode.fact(x, "nonnegative"))
    sees_input = mode.reads_relevance and mode.is_input(x)
    mode.met.add(sees_input)
    chosen = mode.first if sees_input and mode.first is not None and layer.name in mode.first_of else rule
    if isinstance(chosen, FIRST_ONLY):
        if not sees_input:
            raise ValueError(
                f"the {type(chosen).__name__} rule gives relevance to inputs that are zero and can stand only at a layer "
                f"that sees the model's input; this {layer.name!r} does not. Give it as first=, and another rule here"
            )
        layer.x, layer.y = mode.hold(x), mode.hold(y)
        out = custom_backward(y, lambda m: (chosen.relevance(layer, m.to(layer.weight.dtype)),), x)
    else:
        out = apply_rule(layer, call, mode.leave_input(x) if sees_input else x, y, chosen)
    mode.learn(out, producer=(layer, x, rule))
    return out


def batch_norm_rule(call: OpCall) -> Tensor:
    """Fold batch norm into the linear layer before it, for the rule only; without one it is affine: its gradient."""
    producer = call.mode.fact(call.x, "producer")
    if producer is None or (producer[0].name == "linear" and call.x.dim() != 2):
        return affine(call)
    found = batch_norm_scale(call)
    if found is None:
        return call()
    layer, x, rule = producer
    return propagate(layer.folded(*found), call, x, call.value(), rule)


def matmul_rule(rule: Any) -> Callable[[OpCall], Tensor]:
    """x @ W with a constant matrix W is a linear layer; two signals share."""

    def apply(call: OpCall) -> Tensor:
        a, b = call.args[0], call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))
        if not carries_signal(a) or carries_signal(b) or b.dim() != 2 or a.dim() < 2:
            leave = call.mode.leave_input if call.mode.reads_relevance else lambda v: v
            return split_rule(call.beside(map_nested(leave, call.args), map_nested(leave, call.kwargs)))
        return propagate(LinearLayer("linear", b.mT, None, {}), call, a, call.value(), rule)

    return apply


# ------------------------------------------------------------------------------------------------- everything else
def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    """X, with its gradient times a factor."""
    return custom_backward(x.detach(), lambda m: (m * factor,), x)


@in_place_rule
def pass_rule(call: OpCall) -> Tensor:
    r"""Identity rule :math:`R_x = R_y`, that is :math:`m_x = m_y y / x`."""
    if len(call.args) > 1 and carries_signal(call.args[1:]):
        call.mode._count_plain(call.name, call.args, call.kwargs)
        return call()
    y = call.value()
    if y.shape != call.x.shape:
        raise ValueError(f"Pass: {call.name!r} changes the shape, so that relevance cannot pass elementwise")
    x = call.x.detach()
    factor = y / (torch.where(x == 0, 1, x) if call.name in THROUGH_ORIGIN else stabilize(x, 1e-6))
    return custom_pointwise_backward(call, y, lambda m: (m * factor,))


def split_rule(call: OpCall) -> Tensor:
    """Products of several signals: each gets an equal share (Achtibat et al. 2024, Eq. 16); a gate gets nothing."""
    signals: list[Tensor] = []
    map_nested(
        lambda v: signals.append(v) if isinstance(v, Tensor) and carries_signal(v) else None, (call.args, call.kwargs)
    )
    if len(signals) < 2:
        return call()
    ranks = [call.mode.fact(s, "gate") or 0 for s in signals]
    if len(set(ranks)) > 1:
        gate = signals[ranks.index(max(ranks))]
        change = lambda v: v.detach() if v is gate else v  # noqa: E731
    else:
        part = 1 / len(signals)
        change = lambda v: scaled_gradient(v, part) if isinstance(v, Tensor) and carries_signal(v) else v  # noqa: E731
    return call.beside(map_nested(change, call.args), map_nested(change, call.kwargs))()


def attention_rule(call: OpCall) -> Tensor:
    """Fused attention: all to the values, or half, and half to the weights, which queries and keys share."""
    q, k, v = call.args[0], call.kwargs["key"], call.kwargs["value"]
    if "softmax" in call.mode.gates and carries_signal(v):
        return call.beside((q.detach(),), {**call.kwargs, "key": k.detach()})()
    both = carries_signal(q) or carries_signal(k)
    half = 0.5 if both and carries_signal(v) else 1.0
    inner = half * (0.5 if carries_signal(q) and carries_signal(k) else 1.0)
    take = lambda t, f: scaled_gradient(t, f) if carries_signal(t) else t  # noqa: E731
    kwargs = {**call.kwargs, "key": take(k, inner), "value": take(v, half)}
    return call.beside((take(q, inner),), kwargs)()


def quotient_rule(call: OpCall) -> Tensor:
    """a / b: the denominator counts as a constant; 1 / b with a constant numerator stops here."""
    other = call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    other = other.detach() if isinstance(other, Tensor) else other
    return call.function(call.args[0], other, **{k: v for k, v in call.kwargs.items() if k != "other"})


def block_rule(call: OpCall) -> Tensor:
    """1/x, 1/√x: a scale, which gets no relevance."""
    return call.value()


def power_rule(call: OpCall) -> Tensor:
    """x ** c passes relevance on; with c < 0 it is a scale."""
    exponent = call.args[1] if len(call.args) > 1 else call.kwargs.get("exponent")
    if isinstance(exponent, (int, float)) and exponent < 0:
        return call.value()
    if not isinstance(call.x, Tensor) or not carries_signal(call.x):
        call.mode._count_plain(call.name, call.args, call.kwargs)
        return call()
    return pass_rule(call)


def norm_rule(call: OpCall) -> Tensor:
    r"""Layer, group, instance and RMS norm with the scale σ a constant: y = w (x - mean(x)) / σ + bias."""
    options, x = call.kwargs, call.x.detach()
    if call.name == "instance_norm" and not options.get("use_input_stats", True):
        return call()
    weight, shape, eps = options.get("weight"), x.shape, options.get("eps", 1e-5)
    eps = torch.finfo(x.dtype).eps if eps is None else eps
    if call.name in ("layer_norm", "rms_norm"):
        dims, fold = tuple(range(-len(options["normalized_shape"]), 0)), lambda t: t
    else:
        groups = options.get("num_groups", shape[1])
        dims, fold = (-1,), lambda t: t.reshape(shape[0], groups, -1)
        weight = None if weight is None else weight.view(1, -1, *[1] * (len(shape) - 2))
    folded = fold(x)
    if call.name == "rms_norm":
        sigma = (folded.square().mean(dims, keepdim=True) + eps).sqrt()
    else:
        sigma = (folded.var(dims, correction=0, keepdim=True) + eps).sqrt()

    def backward(m: Tensor) -> tuple[Tensor]:
        back = fold(m if weight is None else m * weight) / sigma
        back = back if call.name == "rms_norm" else back - back.mean(dims, keepdim=True)
        return (back.reshape(shape),)

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
    "div": quotient_rule,
    "batch_norm": batch_norm_rule,
    "scaled_dot_product_attention": attention_rule,
}


def rule_table(convolution: Any, linear: Any) -> dict[str, OpRule]:
    """All rules, given those of the convolutions and of the fully connected layers."""
    return {
        **BASE_RULES,
        **dict.fromkeys(CONVOLUTIONS, linear_rule(convolution)),
        "linear": linear_rule(linear),
        **dict.fromkeys(MATMULS, matmul_rule(linear)),
    }


def gradient_rule(name: str) -> OpRule:
    """The rule of an operation that keeps its gradient: that of batch norm is computed here, see :func:`affine`."""
    return affine if name == "batch_norm" else keep_gradient


def module_rules(rule: Any) -> dict[str, OpRule]:
    """What `rule` changes inside a module that it was chosen for."""
    if isinstance(rule, Pass):
        return dict.fromkeys((*POINTWISE, *NORMS, *LINEAR_LAYERS, "batch_norm"), pass_rule)
    if isinstance(rule, Norm):
        return {name: gradient_rule(name) for name in (*POINTWISE, *NORMS, "batch_norm")}
    if callable(rule):
        raise TypeError(f"{rule!r} is a function: choose it by operation, not by module")
    return {**dict.fromkeys(LINEAR_LAYERS, linear_rule(rule)), **dict.fromkeys(MATMULS, matmul_rule(rule))}
