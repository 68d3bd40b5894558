r"""DeepLIFT's RevealCancel rule: positive and negative contributions to a nonlinearity are counted apart.

The input of a nonlinearity changes by :math:`\Delta x = \Delta x^+ + \Delta x^-`. The linear rule (section 3.5.1 of the paper)
says how much of either comes from where: of a linear operation, :math:`\Delta x^\pm` is the sum of the terms
:math:`w_i \Delta z_i` of that sign. What lies between it and the nonlinearity and is linear (batch norm, reshaping, pooling by
the mean) is folded into it. Here the two are tensors of their own, beside the value: a *pair*, made only when a nonlinearity
asks for it. Whatever else uses the value gets its ordinary multiplier, which is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from torchwhy.backprop.deeplift_rules import APART, RULES, difference_slope, rescale, rescale_product, rescale_quotient
from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.engine.rules.decompositions import affine_batch_norm as affine
from torchwhy.engine.rules.decompositions import batch_norm_scale
from torchwhy.engine.rules.mode import (
    OpCall,
    OpRule,
    SavedTensor,
    carries_signal,
    custom_backward,
    in_place_rule,
    pointwise_derivative,
)
from torchwhy.engine.rules.operations import ACTIVATIONS, LINEAR_LAYERS, STRUCTURAL, operation
from torchwhy.engine.rules.paired_run import PairedRules
from torchwhy.engine.rules.tensor_metadata import TensorMetadata

Pair = tuple[Tensor, Tensor]
Lazy = Callable[[], Pair]
POOLS = tuple(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))
MOVES = STRUCTURAL - {"cat", "stack", "hstack", "vstack", "dstack", "column_stack", "pad", "masked_fill", "where", "setitem",
                      "embedding", "detach", "meshgrid", "broadcast_tensors", "grad", "backward", "fold", "col2im"}  # fmt: skip


class RevealCancel(PairedRules):
    """The rules of RevealCancel, and what they know of tensors: their pair, and whether a linear operation made it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.facts = TensorMetadata()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        op = operation(function)
        moved = op.name in MOVES and args and not carries_signal(args[1:], kwargs)
        pair, linear = self.facts.get(args[0], "pair") if moved else None, moved and self.facts.get(args[0], "linear")
        out = super().__torch_function__(function, types, args, kwargs)
        if pair is not None:
            in_place = op.in_place or (kwargs or {}).get("inplace")  # of these only dropout, which does nothing
            move = cache(lambda: [s if in_place else function(s, *args[1:], **(kwargs or {})) for s in pair()])
            if isinstance(out, Tensor):
                self.facts.learn(out, pair=move, linear=linear)
            elif isinstance(out, (tuple, list)):
                for i, part in enumerate(out):
                    self.facts.learn(part, pair=lambda i=i: tuple(s[i] for s in move()), linear=linear)
        return out


def link(call: OpCall, x: Tensor) -> tuple[Tensor, SavedTensor]:
    """What takes signals to `x` as it is now, and its value: the model may write to it before they are asked for."""
    return custom_backward(x.detach(), lambda m: (m,), x), call.mode.hold(x)


def terms(call: OpCall, x: Tensor, x0: Tensor) -> Lazy:
    """The pair of `x` as a term of a sum: what linear operations made it of, else all of it on the side of its sign."""
    if call.mode.facts.get(x, "linear"):
        return call.mode.facts.get(x, "pair")
    at, held = link(call, x)

    def split() -> Pair:
        change = held.value - x0
        up = (change.sign() + 1) / 2  # both halves where nothing changes, as the parts of `x` may cancel
        return (
            custom_backward(change.clamp(min=0), lambda m: (m * up,), at),
            custom_backward(change.clamp(max=0), lambda m: (m * (1 - up),), at),
        )

    return cache(split)


def scaled(pair: Pair, by: Any) -> Pair:
    """The pair of what is multiplied by a constant, which may be negative."""
    if not isinstance(by, Tensor):
        return (pair[0] * by, pair[1] * by) if by >= 0 else (pair[1] * by, pair[0] * by)
    up, down = by.clamp(min=0), by.clamp(max=0)
    return pair[0] * up + pair[1] * down, pair[1] * up + pair[0] * down


def constant(value: Any) -> bool:
    """Whether nothing of the input reaches a value: a number, a parameter."""
    return not isinstance(value, Tensor) or value.grad_fn is None


def evaluate_terms(call: OpCall) -> Tensor:
    """The operation as the model called it, with its own gradient."""
    return call.untouched(call.x) if call.in_place else call()


def note_terms(call: OpCall, y: Any, lazy: Lazy | None) -> Any:
    """Return `y`, whose pair is `lazy`'s."""
    if lazy is not None:
        call.mode.facts.learn(y, pair=cache(lazy), linear=True)
    return y


# ------------------------------------------------------------------------------------------------- linear operations
def through(layer: LinearLayer, call: OpCall, x: Tensor, x0: Tensor, y: Tensor) -> Lazy:
    r"""The linear rule: :math:`m_{\Delta x_i} = \sum_\pm 1[\pm w_i \Delta x_i > 0] w_i m^\pm`, half of w_i where Δx_i = 0."""
    at, held = link(call, x)
    layer.y = SavedTensor(y.new_empty(0, *y.shape[1:]))  # its shape is all that is needed

    def work() -> Pair:
        layer.x = SavedTensor(held.value - x0)
        change = layer.x.value

        def side(sign: int) -> Tensor:
            def backward(m: Tensor) -> tuple[Tensor]:
                m = m.to(layer.weight.dtype)  # they differ under autocast
                same, other = layer.transpose(m, layer.part(sign)), layer.transpose(m, layer.part(-sign))
                return (torch.where(change > 0, same, torch.where(change < 0, other, (same + other) / 2)),)

            return custom_backward(layer.contributions(sign, 0.0, unsigned=False), backward, at)

        return side(+1), side(-1)

    return work


def reveal_linear(call: OpCall) -> Tensor:
    """Fully connected layers and convolutions."""
    y = call()
    if constant(call.x) or not all(map(constant, call.kwargs.values())):
        return y
    layer = LinearLayer.of(call)
    layer.bias = None
    return note_terms(call, y, through(layer, call, call.x, call.base.x, y))


def reveal_matmul(call: OpCall) -> Tensor:
    """x @ W with a constant matrix W is a linear layer; products of two signals are shared as ever."""
    y = rescale_product(call)
    a, b = call.args[0], call.args[1] if len(call.args) > 1 else next(iter(call.kwargs.values()))
    if constant(a) or not constant(b) or b.dim() != 2 or a.dim() < 2:
        return y
    return note_terms(call, y, through(LinearLayer("linear", b.mT, None, {}), call, a, call.base.args[0], y))


def reveal_batch_norm(call: OpCall) -> Tensor:
    """Batch norm scales each channel."""
    pair, y = call.mode.facts.get(call.x, "pair"), affine(call)
    found = batch_norm_scale(call) if pair is not None and call.mode.facts.get(call.x, "linear") else None
    if found is None:
        return y
    by = found[0].view(-1, *[1] * (call.x.dim() - 2)).to(call.x.dtype)
    return note_terms(call, y, lambda: scaled(pair(), by))


@in_place_rule
def reveal_addition(call: OpCall) -> Tensor:
    """a + c b, a - c b, c b - a: the terms of both."""
    b, b0 = (c.args[1] if len(c.args) > 1 else c.kwargs["other"] for c in (call, call.base))
    alpha = call.kwargs.get("alpha", 1)
    weights = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.name]
    signals = [
        (terms(call, v, v0), w)
        for v, v0, w in ((call.x, call.base.x, weights[0]), (b, b0, weights[1]))
        if not constant(v)
    ]
    if call.in_place:
        call.mode._rescue(call.x)  # what the terms hold of it
    y = evaluate_terms(call)
    shape = y.shape

    def work() -> Pair:
        parts = [scaled(pair(), w) for pair, w in signals]
        up, down = (sum(p[i] for p in parts) for i in (0, 1))
        return up.expand(shape), down.expand(shape)  # type: ignore[union-attr]

    return note_terms(call, y, work)


@in_place_rule
def reveal_multiple(call: OpCall) -> Tensor:
    """A multiple of one signal by a constant; products and quotients of signals are shared as ever."""
    by = -1 if call.name == "neg" else call.args[1] if len(call.args) > 1 else call.kwargs["other"]
    signal, factor = (by, call.x) if call.name == "mul" and constant(call.x) else (call.x, by)
    known = call.mode.facts.get(signal, "linear") and constant(factor)
    pair = call.mode.facts.get(signal, "pair") if known else None
    if call.in_place:
        aside = call.beside((call.x.clone(), *call.args[1:]), call.kwargs)
        aside.base = call.base
        y = call.x.copy_(_shared(aside))
    else:
        y = _shared(call)
    if pair is None:
        return y
    factor, shape = 1 / factor if call.name == "div" else factor, y.shape
    return note_terms(call, y, lambda: tuple(s.expand(shape) for s in scaled(pair(), factor)))  # type: ignore[arg-type, return-value]


def _shared(call: OpCall) -> Tensor:
    return call() if call.name == "neg" else rescale_quotient(call) if call.name == "div" else rescale_product(call)


def reveal_sums(call: OpCall) -> Tensor:
    """Sums, means and what puts tensors together: their weights are not negative."""
    y = call()
    many = isinstance(call.x, (tuple, list))
    if carries_signal(call.args[1:], call.kwargs) or not isinstance(y, Tensor):
        return y
    pairs = [terms(call, v, v0) for v, v0 in zip(call.x, call.base.x)] if many else [terms(call, call.x, call.base.x)]

    def work() -> Pair:
        parts = [pair() for pair in pairs]
        up, down = (call([p[i] for p in parts] if many else parts[0][i]) for i in (0, 1))
        return up, down

    return note_terms(call, y, work)


# ----------------------------------------------------------------------------------------------------- nonlinearities
@in_place_rule
def reveal_cancel(call: OpCall) -> Tensor:
    r"""Pointwise y = f(x): :math:`m_{x^\pm} = m_{y^\pm} \Delta y^\pm / \Delta x^\pm`, the mean of the two orders.

    :math:`\Delta y^+ = \tfrac12 [f(x_0 + \Delta x^+) - f(x_0) + f(x_1) - f(x_0 + \Delta x^-)]`, and the other way round. Where
    all of Δx has one sign, or nothing is known of its parts, that is the rescale rule.
    """
    lazy = call.mode.facts.get(call.x, "pair")
    if lazy is None or carries_signal(call.args[1:], call.kwargs):
        return rescale(call)
    up, down = lazy()
    x1, x0 = call.x.detach(), call.base.x
    with torch.no_grad():
        points = x0, x0 + up, x0 + down, x1
        values = call(x0), call(points[1]), call(points[2]), call.value()

    def secant(b: int, a: int) -> Tensor:
        middle = lambda: pointwise_derivative(call, (points[a] + points[b]) / 2)  # noqa: E731
        return difference_slope(values[b], values[a], points[b], points[a], middle)

    of_up, of_down = (secant(1, 0) + secant(3, 2)) / 2, (secant(2, 0) + secant(3, 1)) / 2
    y = custom_backward(values[3], lambda m: (m * of_up, m * of_down), up, down)
    y = call.x.copy_(y) if call.in_place else y

    def parts() -> Pair:
        return (
            custom_backward(of_up * up.detach(), lambda m: (m * of_up,), up),
            custom_backward(of_down * down.detach(), lambda m: (m * of_down,), down),
        )

    call.mode.facts.learn(y, pair=cache(parts), linear=False)
    return y


NONLINEAR: tuple[str, ...] = (*ACTIVATIONS, "abs", "clamp", "clamp_min", "clamp_max")
REVEAL_CANCEL: dict[str, OpRule] = {
    **RULES,
    **dict.fromkeys(NONLINEAR, reveal_cancel),
    **dict.fromkeys(LINEAR_LAYERS, reveal_linear),
    **dict.fromkeys(("matmul", "mm"), reveal_matmul),
    **dict.fromkeys(("add", "sub", "rsub"), reveal_addition),
    **dict.fromkeys(("mul", "div", "neg"), reveal_multiple),
    **dict.fromkeys(("sum", "mean", "cat", "stack", *POOLS), reveal_sums),
}
REVEAL_CANCEL_APART: dict[str, OpRule] = {**APART, "batch_norm": reveal_batch_norm}
