r"""DeepLIFT's RevealCancel rule: positive and negative contributions to a nonlinearity are counted apart.

The input of a nonlinearity changes by :math:`\Delta x = \Delta x^+ + \Delta x^-`. The linear rule (section 3.5.1 of the paper)
says how much of either comes from where: of a linear operation, :math:`\Delta x^\pm` is the sum of the terms
:math:`w_i \Delta z_i` of that sign. What lies between it and the nonlinearity and is linear (batch norm, reshaping, pooling by
the mean) is folded into it.

How that is done. Beside the value of a tensor there may be its *parts* :math:`(\Delta x^+, \Delta x^-)`, two tensors of their
own, through which a multiplier for each flows back. Most tensors never need them, and they cost a second forward pass of their
operation. So a linear operation computes nothing: it leaves a recipe, :data:`LazyParts`, a function that makes the parts when a
nonlinearity asks (:func:`note_parts`, which notes it of the tensor as ``parts``). The recipe of a sum asks for those of its
terms in turn (:func:`parts_of_term`), down to the tensors that no linear operation made: there all of the change is on the
side of its sign. The nonlinearity (:func:`reveal_cancel`) then gives each part its own multiplier, and its output has parts
too. Whatever else uses a value gets its ordinary multiplier, which is the same for both parts.

Between the recipe and its use the model may write to the tensor that the recipe is about. :func:`link` therefore takes, while
the value is as it is, an identity of the tensor, through which the multipliers of the parts return to it, and a saved copy of
its value.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from torchwhy.backprop.deeplift_rules import (
    RULES,
    difference_slope,
    pointwise_derivative,
    rescale,
    rescale_product,
    rescale_quotient,
)
from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.engine.rules.decompositions import affine_batch_norm, batch_norm_scale
from torchwhy.engine.rules.in_place import in_place_rule
from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.opaque import SavedTensor
from torchwhy.engine.rules.operations import (
    ACTIVATIONS,
    LINEAR_LAYERS,
    STRUCTURAL,
    OpCall,
    Operation,
    OpRule,
    TorchFunction,
)
from torchwhy.engine.rules.paired_run import PairedRules
from torchwhy.engine.structure import Keywords, carries_signal

Parts = tuple[Tensor, Tensor]  # the positive and the negative part of the change of a tensor
LazyParts = Callable[[], Parts]
POOLS = tuple(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3))
MOVES = STRUCTURAL - {"cat", "stack", "hstack", "vstack", "dstack", "column_stack", "pad", "masked_fill", "where", "setitem",
                      "embedding", "detach", "meshgrid", "broadcast_tensors", "grad", "backward", "fold", "col2im",
                      "as_strided_scatter", "block_diag", "cartesian_prod", "combinations", "detach_copy", "diagonal_scatter",
                      "select_scatter", "slice_scatter", "resize", "resize_as", "sparse_mask"}  # fmt: skip


class RevealCancel(PairedRules):
    """The rules of RevealCancel, and what they know of tensors: their parts, and whether a linear operation made it."""

    def run_operation(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation; one that moves elements moves the parts of its input too, when they are asked for."""
        moves = op.name in MOVES and args and not carries_signal(args[1:], kwargs)
        parts = self.noted(args[0], "parts") if moves else None
        linear = parts is not None and self.noted(args[0], "linear")
        out = super().run_operation(op, function, args, kwargs)
        if parts is None:
            return out
        in_place = op.in_place or kwargs.get("inplace")  # of these only dropout, which does nothing

        @cache
        def move() -> list[object]:
            return [part if in_place else function(part, *args[1:], **kwargs) for part in parts()]

        if isinstance(out, Tensor):
            self.note(out, parts=move, linear=linear)
        elif isinstance(out, (tuple, list)):
            for i, piece in enumerate(out):
                self.note(piece, parts=partial(_piece, move, i), linear=linear)
        return out


def _piece(move: Callable[[], list[Any]], i: int) -> Parts:
    """Return the parts of the i-th of several tensors that an operation made of one."""
    up, down = move()
    return up[i], down[i]


def link(call: OpCall, x: Tensor) -> tuple[Tensor, SavedTensor]:
    """Return an identity of ``x``, through which multipliers return to it as it is now, and its value, saved."""
    return custom_backward(x.detach(), lambda m: (m,), x), call.mode.save_for_backward(x)


def parts_of_term(call: OpCall, x: Tensor, x0: Tensor) -> LazyParts:
    """Return the parts of ``x`` as a term of a sum: what linear operations made it of, else all on the side of its sign."""
    if call.mode.noted(x, "linear"):
        return call.mode.noted(x, "parts")
    at, saved = link(call, x)

    @cache
    def split() -> Parts:
        change = saved.value - x0
        up = (change.sign() + 1) / 2  # both halves where nothing changes, as the parts of ``x`` may cancel
        return (
            custom_backward(change.clamp(min=0), lambda m: (m * up,), at),
            custom_backward(change.clamp(max=0), lambda m: (m * (1 - up),), at),
        )

    return split


def scaled(parts: Parts, by: float | Tensor) -> Parts:
    """Return the parts of what is multiplied by a constant, which may be negative."""
    if not isinstance(by, Tensor):
        return (parts[0] * by, parts[1] * by) if by >= 0 else (parts[1] * by, parts[0] * by)
    up, down = by.clamp(min=0), by.clamp(max=0)
    return parts[0] * up + parts[1] * down, parts[1] * up + parts[0] * down


def is_constant(value: object) -> bool:
    """Return whether nothing of the input reaches a value: a number, a parameter."""
    return not isinstance(value, Tensor) or value.grad_fn is None


def note_parts(call: OpCall, y: Tensor, lazy: LazyParts) -> Tensor:
    """Return ``y``, the result of a linear operation, with a note of how its parts are made."""
    call.mode.note(y, parts=cache(lazy), linear=True)
    return y


# ------------------------------------------------------------------------------------------------- linear operations
def through_layer(layer: LinearLayer, call: OpCall, x: Tensor, x0: Tensor, y: Tensor) -> LazyParts:
    r"""Return the parts of a layer's output, by the linear rule.

    :math:`m_{\Delta x_i} = \sum_\pm 1[\pm w_i \Delta x_i > 0] w_i m^\pm`, and half of :math:`w_i` where :math:`\Delta x_i = 0`.
    """
    at, saved = link(call, x)
    layer.saved_output = SavedTensor(y.new_empty(0, *y.shape[1:]))  # its shape is all that is needed

    def work() -> Parts:
        change = saved.value - x0
        layer.saved_input = SavedTensor(change)

        def side(sign: int) -> Tensor:
            def backward(m: Tensor) -> tuple[Tensor]:
                m = m.to(layer.weight.dtype)  # they differ under autocast
                same, other = (layer.transpose(m, layer.signed_weight(s)) for s in (sign, -sign))
                return (torch.where(change > 0, same, torch.where(change < 0, other, (same + other) / 2)),)

            return custom_backward(layer.contributions(sign, 0.0, nonnegative=False), backward, at)

        return side(+1), side(-1)

    return work


def reveal_linear(call: OpCall) -> Tensor:
    """Note the parts of fully connected layers and convolutions."""
    y = call()
    if is_constant(call.x) or not all(map(is_constant, call.kwargs.values())):
        return y
    layer = LinearLayer.of(call)
    layer.bias = None
    return note_parts(call, y, through_layer(layer, call, call.x, call.base.x, y))


def reveal_matmul(call: OpCall) -> Tensor:
    """Take x @ W with a constant matrix W as a linear layer; products of two signals are shared as ever."""
    y = rescale_product(call)
    a, b = call.x, call.second("other", "mat2", "tensor2")
    if is_constant(a) or not is_constant(b) or b.dim() != 2 or a.dim() < 2:
        return y
    return note_parts(call, y, through_layer(LinearLayer("linear", b.mT, None, {}), call, a, call.base.args[0], y))


def reveal_batch_norm(call: OpCall) -> Tensor:
    """Note the parts of batch norm, which scales each channel."""
    parts, y = call.mode.noted(call.x, "parts"), affine_batch_norm(call)
    found = batch_norm_scale(call) if parts is not None and call.mode.noted(call.x, "linear") else None
    if found is None:
        return y
    by = found[0].view(-1, *[1] * (call.x.dim() - 2)).to(call.x.dtype)
    return note_parts(call, y, lambda: scaled(parts(), by))


@in_place_rule
def reveal_addition(call: OpCall) -> Tensor:
    """Note the parts of a + c b, a - c b, c b - a: the sums of those of both terms."""
    b, b0 = call.second("other"), call.base.second("other")
    alpha = call.kwargs.get("alpha", 1)
    weights = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.name]
    operands = ((call.x, call.base.x, weights[0]), (b, b0, weights[1]))
    terms = [(parts_of_term(call, v, v0), weight) for v, v0, weight in operands if not is_constant(v)]
    if call.in_place:
        call.mode.copy_before_overwrite(call.x)  # what the terms saved of it
    y = call.as_called(call.x)
    shape = y.shape

    def work() -> Parts:
        ups, downs = zip(*(scaled(parts(), weight) for parts, weight in terms))
        return sum(ups).expand(shape), sum(downs).expand(shape)  # type: ignore[union-attr]

    return note_parts(call, y, work)


@in_place_rule
def reveal_multiple(call: OpCall) -> Tensor:
    """Note the parts of a multiple of one signal by a constant; products and quotients of signals are shared as ever."""
    by = -1 if call.name == "neg" else call.second("other")
    signal, factor = (by, call.x) if call.name == "mul" and is_constant(call.x) else (call.x, by)
    is_known = call.mode.noted(signal, "linear") and is_constant(factor)
    parts = call.mode.noted(signal, "parts") if is_known else None
    if call.in_place:
        aside = call.with_args((call.x.clone(), *call.args[1:]), call.kwargs)
        aside.base = call.base
        y = call.x.copy_(_rescale_multiple(aside))
    else:
        y = _rescale_multiple(call)
    if parts is None:
        return y
    factor, shape = 1 / factor if call.name == "div" else factor, y.shape

    def work() -> Parts:
        up, down = scaled(parts(), factor)
        return up.expand(shape), down.expand(shape)

    return note_parts(call, y, work)


def _rescale_multiple(call: OpCall) -> Tensor:
    """Return the value with the rescale rule's backward."""
    if call.name == "neg":
        return call()
    return rescale_quotient(call) if call.name == "div" else rescale_product(call)


def reveal_sums(call: OpCall) -> Tensor:
    """Note the parts of sums, means and what puts tensors together: their weights are not negative."""
    y = call()
    if carries_signal(call.args[1:], call.kwargs) or not isinstance(y, Tensor):
        return y
    many = isinstance(call.x, (tuple, list))
    tensors, bases = (call.x, call.base.x) if many else ([call.x], [call.base.x])
    terms = [parts_of_term(call, v, v0) for v, v0 in zip(tensors, bases)]

    def work() -> Parts:
        ups, downs = zip(*(parts() for parts in terms))
        return (call(list(ups)), call(list(downs))) if many else (call(ups[0]), call(downs[0]))

    return note_parts(call, y, work)


# ----------------------------------------------------------------------------------------------------- nonlinearities
@in_place_rule
def reveal_cancel(call: OpCall) -> Tensor:
    r"""Give the parts of x multipliers of their own, at pointwise y = f(x).

    :math:`m_{x^\pm} = m_{y^\pm} \Delta y^\pm / \Delta x^\pm`, with the mean of the two orders in which the parts may come,
    :math:`\Delta y^+ = \tfrac12 [f(x_0 + \Delta x^+) - f(x_0) + f(x_1) - f(x_0 + \Delta x^-)]`, and the other way round. Where
    all of Δx has one sign, or nothing is known of its parts, that is the rescale rule.
    """
    lazy = call.mode.noted(call.x, "parts")
    if lazy is None or carries_signal(call.args[1:], call.kwargs):
        return rescale(call)
    up, down = lazy()
    x1, x0 = call.x.detach(), call.base.x
    with torch.no_grad():
        points = x0, x0 + up, x0 + down, x1
        values = call(x0), call(points[1]), call(points[2]), call.value()

    def secant(b: int, a: int) -> Tensor:
        def at_middle() -> Tensor:
            return pointwise_derivative(call, (points[a] + points[b]) / 2)

        return difference_slope(values[b], values[a], points[b], points[a], at_middle)

    of_up, of_down = (secant(1, 0) + secant(3, 2)) / 2, (secant(2, 0) + secant(3, 1)) / 2
    y = custom_backward(values[3], lambda m: (m * of_up, m * of_down), up, down)
    y = call.x.copy_(y) if call.in_place else y

    @cache
    def parts_of_output() -> Parts:
        return (
            custom_backward(of_up * up.detach(), lambda m: (m * of_up,), up),
            custom_backward(of_down * down.detach(), lambda m: (m * of_down,), down),
        )

    call.mode.note(y, parts=parts_of_output, linear=False)
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
    "batch_norm": reveal_batch_norm,
}
