r"""DeepLIFT's rules: how the change of each operation's output is shared among the changes of its inputs.

Every rule has the value of its operation and, backward, multipliers m with :math:`\sum_i m_i \Delta x_i = m_y \Delta y`
exactly, :math:`\Delta` being input minus baseline. As all operations keep this, so does the model: the attributions
:math:`m_i \Delta x_i` sum to f(x) - f(b). In the names below 1 is the input's run, 0 the baseline's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.backprop.deeplift_selections import REDUCTIONS, SELECTION_RULES, share_by_factors, share_gate
from torchwhy.backprop.deeplift_softmax import (
    rescale_attention,
    rescale_log_softmax,
    rescale_logsumexp,
    rescale_softmax,
)
from torchwhy.engine.rules.decompositions import DECOMPOSITIONS, NormLayout
from torchwhy.engine.rules.in_place import custom_pointwise_backward, in_place_rule
from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.operations import EXTREMES, MAX_POOLS, NORMS, POINTWISE, PRODUCTS, OpCall, OpRule
from torchwhy.engine.run.rows import rounding_of
from torchwhy.engine.structure import carries_signal, map_nested


def difference_slope(y1: Tensor, y0: Tensor, x1: Tensor, x0: Tensor, limit: Callable[[], Tensor]) -> Tensor:
    """Return Δy / Δx, or ``limit``, which is asked for only then, where Δx is within rounding of nothing."""
    change = x1 - x0
    nothing = change.abs() <= (x1 + x0).abs().mul_(8 * rounding_of(change.dtype))
    ratio = (y1 - y0).div_(change)
    return torch.where(nothing, limit(), ratio) if bool(nothing.any()) else ratio


def pointwise_derivative(call: OpCall, x: Tensor) -> Tensor:
    """Return f'(x) of the pointwise operation f of a call."""
    if call.name == "relu":
        return (x > 0).to(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        if x.is_complex():  # of a complex differentiable function: torch gives the conjugate
            return torch.autograd.grad(call(x).real.sum(), x)[0].conj()
        return torch.autograd.grad(call(x).sum(), x)[0]


@in_place_rule
def rescale(call: OpCall) -> Tensor:
    r"""Rescale pointwise y = f(x): :math:`m_x = m_y \Delta y / \Delta x`, f'(midpoint) where x did not change (Eq. 11-13)."""
    signals = [i for i, a in enumerate(call.args) if carries_signal(a)]
    if signals != [0] or carries_signal(*call.kwargs.values()):
        return _rescale_at(call, signals)
    x1, x0 = call.x.detach(), call.base.x
    y1, y0 = call(x1), call.base()  # nothing of either has a graph
    if x1.is_complex() and not y1.is_complex():
        return _rescale_size(call, y1, y0)
    factor = difference_slope(y1, y0, x1, x0, lambda: pointwise_derivative(call, (x1 + x0) / 2))
    factor = factor.conj() if factor.is_complex() else factor
    return custom_pointwise_backward(call, y1, lambda m: (m * factor,))


def _rescale_size(call: OpCall, y1: Tensor, y0: Tensor) -> Tensor:
    r"""Share the size of a complex number: :math:`\Delta |z| = \mathrm{Re}(2 \bar z^* \Delta z) / (|z_1| + |z_0|)`."""
    if call.name != "abs":
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    z1, total = call.x.detach(), y1 + y0
    factor = torch.where(total > 0, (z1 + call.base.x) / torch.where(total > 0, total, 1), 0)
    return custom_backward(y1, lambda m: (m * factor,), call.x)


def _rescale_at(call: OpCall, signals: list[int]) -> Tensor:
    """Rescale where the signal is not the first argument (2 ** x); with two signals there is no rule."""
    if len(signals) != 1:
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    (i,) = signals
    x1, x0 = call.args[i].detach(), call.base.args[i]

    def limit() -> Tensor:
        with torch.enable_grad():
            middle = ((x1 + x0) / 2).requires_grad_()
            return torch.autograd.grad(call(*call.args[:i], middle).sum(), middle)[0]

    y1 = call.value()
    factor = difference_slope(y1, call.base.value(), x1, x0, limit)
    return share_by_factors(y1, [(call.args[i], factor)])


@in_place_rule
def rescale_power(call: OpCall) -> Tensor:
    """Rescale x ** c: the square by its midpoint (no cancellation), other exponents by rescale."""
    exponent = call.second("exponent")
    if isinstance(exponent, (int, float)) and exponent == 2:
        return custom_pointwise_backward(call, call.value(), _times(call.x.detach() + call.base.x))
    y = rescale(call)
    if isinstance(exponent, (int, float)) and exponent < 0:
        call.mode.inverses[y] = True
    return y


def _times(factor: Tensor) -> Callable[[Tensor], tuple[Tensor]]:
    return lambda m: (m * factor,)


def rescale_inverse(call: OpCall) -> Tensor:
    """Rescale 1/x and x^(-1/2), with a note for the product that follows (see :func:`rescale_product`)."""
    y = rescale(call)
    call.mode.inverses[y] = True
    return y


def rescale_product(call: OpCall) -> Tensor:
    r"""Share bilinear (or quadratic) y = ab: :math:`\Delta y = \bar b \Delta a + \bar a \Delta b`, bars the midpoints of 0 and 1.

    Each factor gets the mean of its two marginal contributions, as its Shapley value in a game of two players would be.
    If b is an inverse 1/σ, the product is the quotient a/σ and shared as such: a hand-written norm stays stable.
    """
    pairs = _signals(call.args, call.base.args) + _signals(call.kwargs, call.base.kwargs)
    if len(pairs) == 1 and call.name in PRODUCTS:
        return _scale_by_constant(call, pairs[0]) if call.name == "mul" else call()
    if len(pairs) > 2:
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    middles = {id(a): (a.detach() + b) / 2 for a, b in pairs}
    y, signals = call.value(), [a for a, _ in pairs]
    if call.name == "mul":  # the most frequent, without a second forward
        scale = next((k for k in (0, 1) if pairs[k][0] in call.mode.inverses), None)
        if scale is not None:
            return _scaled_by(y, pairs[1 - scale], pairs[scale])
        a, b = (middles[id(s)] for s in signals)
        return custom_backward(y, lambda m: (_times_conj(m, b, a), _times_conj(m, a, b)), *signals)

    def middle_of(value: object) -> object:
        return middles.get(id(value), value)

    at = call.with_args(map_nested(middle_of, call.args), map_nested(middle_of, call.kwargs))

    def backward(m: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            points = {key: value.requires_grad_() for key, value in middles.items()}
            found = torch.autograd.grad(at(), list(points.values()), m)
        return found

    return custom_backward(y, backward, *{id(s): s for s in signals}.values())


def _scale_by_constant(call: OpCall, signal: tuple[Tensor, Tensor]) -> Tensor:
    """Return the product with what no gradient passes, which may differ between the runs."""
    is_first = call.x is signal[0]
    gate = (call.second("other"), call.base.second("other")) if is_first else (call.x, call.base.x)
    return share_gate(call, signal, gate)


def _times_conj(m: Tensor, factor: Tensor, of: Tensor) -> Tensor:
    """Return m times the conjugate of a factor, in the shape and kind of the other factor."""
    product = (m * factor.conj()).sum_to_size(of.shape)
    return product if of.is_complex() or not product.is_complex() else product.real


def _scaled_by(y: Tensor, factor: tuple[Tensor, Tensor], inverse: tuple[Tensor, Tensor]) -> Tensor:
    """Share y = a r, r = 1/σ, as the quotient a/σ: Δσ = -Δr / (r1 r0)."""
    (a1, a0), (r1, r0) = factor, inverse
    one, zero = r1.detach(), r0
    of_a, of_sigma = _share_of_quotient(a1.detach(), 1 / one, a0, 1 / zero)
    of_r = -of_sigma / (one * zero)
    return share_by_factors(y, [(a1, of_a), (r1, of_r)])


def _signals(new: object, old: object) -> list[tuple[Tensor, Tensor]]:
    """Return the pairs (tensor now, tensor then) that a gradient passes through."""
    pairs: list[tuple[Tensor, Tensor]] = []

    def collect(a: object, b: Tensor) -> None:
        if isinstance(a, Tensor) and carries_signal(a):
            pairs.append((a, b))

    map_nested(collect, new, old)
    return pairs


Share = tuple[Tensor, Tensor]


def _share_of_quotient(a1: Tensor, b1: Tensor, a0: Tensor, b0: Tensor) -> Share:
    r"""Return what a change of a and of b counts in y = a/b.

    :math:`\Delta y = (\Delta a - \bar y \Delta b) / \bar b`, the midpoint rule of a = yb, bounded also where b is almost
    zero in one run (the variance of a constant baseline); :math:`a \cdot (1/b)` where b changes its sign.
    """
    same, middle, both = b1 * b0 > 0, (b1 + b0) / 2, b1 * b0
    of_a = torch.where(same, 1 / middle, middle / both)
    of_b = torch.where(same, -(a1 / b1 + a0 / b0) / 2 / middle, -(a1 + a0) / 2 / both)
    return of_a, of_b


def rescale_quotient(call: OpCall) -> Tensor:
    """Share a / b, see :func:`_share_of_quotient`."""
    (a1, b1), (a0, b0) = _pair(call), _pair(call.base)
    if not carries_signal(b1):
        return call()
    y, wide = call.value(), [torch.as_tensor(t, dtype=b1.dtype, device=b1.device) for t in (a1, b1, a0, b0)]
    share = _share_of_quotient(*(t.detach() for t in wide))
    out = share_by_factors(y, [(s, f) for s, f in zip((a1, b1), share) if carries_signal(s)])
    if not carries_signal(a1):
        call.mode.inverses[out] = True
    return out


def rescale_norm(call: OpCall) -> Tensor:
    r"""Share layer, group, instance and RMS norm: y = c/σ (times w, plus a bias), c = x - mean(x), σ² = mean(c²) + ε.

    :math:`\Delta y = (\Delta c - \bar y \Delta\sigma) / \bar\sigma` and :math:`\Delta\sigma = \mathrm{mean}(\bar c
    \Delta c) / \bar\sigma` (the midpoint rules of c = yσ and of σ²), bars the midpoints of the two runs.
    """
    if call.name == "instance_norm" and not call.kwargs.get("use_input_stats", True):
        return call()  # running statistics: affine
    norm, x1, x0, y = NormLayout.of(call), call.x.detach(), call.base.x, call.value()

    def parts(x: Tensor) -> tuple[Tensor, Tensor]:
        c = norm.fold(x)
        c = c - c.mean(norm.dims, keepdim=True) if norm.centred else c
        return c, (c.square().mean(norm.dims, keepdim=True) + norm.eps).sqrt()

    (c1, s1), (c0, s0) = parts(x1), parts(x0)
    middle, spread, sigma = (c1 / s1 + c0 / s0) / 2, (c1 + c0) / 2, (s1 + s0) / 2

    def backward(m: Tensor) -> tuple[Tensor]:
        m = norm.fold(m if norm.weight is None else m * norm.weight) / sigma
        back = m - spread / sigma * (m * middle).mean(norm.dims, keepdim=True)
        back = back - back.mean(norm.dims, keepdim=True) if norm.centred else back
        return (back.reshape(norm.shape),)

    return custom_backward(y, backward, call.x)


def rescale_vector_norm(call: OpCall) -> Tensor:
    r"""Share the Euclidean norm n: :math:`\Delta n = \sum 2 \bar x \Delta x / (n_1 + n_0)`. Other orders keep their gradient."""
    order = call.kwargs.get("p", call.kwargs.get("ord", 2))
    is_finite = isinstance(order, (int, float)) and 1 <= order < torch.inf and not call.x.is_complex()
    if not (is_finite or order in (2, "fro", None)) or carries_signal(*call.kwargs.values()):
        call.mode.count_without_rule(call.name, call.args, call.kwargs)
        return call()
    n1, n0, x1, x0 = call.value(), call.base.value(), call.x.detach(), call.base.x
    dims = _dimensions(call.kwargs.get("dim"), x1.dim())
    wide = [1 if i in dims else n for i, n in enumerate(x1.shape)]
    if order in (2, "fro", None):
        total = (n1 + n0).reshape(wide)
        factor = torch.where(total > 0, (x1 + x0) / total, 0)
    else:
        factor = _slope_of_norm(x1, x0, n1.reshape(wide), n0.reshape(wide), float(order))
    return custom_backward(n1, lambda m: (factor * m.reshape(wide),), call.x)


def _slope_of_norm(x1: Tensor, x0: Tensor, n1: Tensor, n0: Tensor, p: float) -> Tensor:
    r"""Return the rescale rules of :math:`|x|^p` and of the p-th root of their sum, one behind the other."""
    middle, root = (x1 + x0) / 2, (n1 + n0) / 2
    powers = difference_slope(x1.abs() ** p, x0.abs() ** p, x1, x0, lambda: p * middle.sign() * middle.abs() ** (p - 1))
    if p == 1:
        return powers

    def limit() -> Tensor:
        return torch.where(root > 0, root ** (1 - p) / p, 0)

    return powers * difference_slope(n1, n0, n1**p, n0**p, limit)


def rescale_std(call: OpCall) -> Tensor:
    """Take the standard deviation apart: the square root of the variance, which is quadratic."""
    with call.mode:
        return torch.sqrt(torch.var(call.x, *call.args[1:], **call.kwargs))


def rescale_maximum(call: OpCall) -> object:
    r"""Give the change of what max-pooling and other extremes put out to one input.

    If the maximum rose, to where the input has it; if it fell, to where the baseline has it. There
    :math:`\Delta x` has the sign of :math:`\Delta y` and at least its size: the multiplier lies in [0, 1].
    """
    if call.name in ("maximum", "minimum", "fmax", "fmin") or isinstance(call.second("other", "dim"), Tensor):
        return _extreme_of_two(call)
    if call.name in MAX_POOLS:
        return _max_pool(call)
    dim = call.kwargs.get("dim")
    x1, x0, out, low = call.x.detach(), call.base.x, call.value(), call.name in ("amin", "min")
    dims = _dimensions(dim, x1.dim())
    order = [*(d for d in range(x1.dim()) if d not in dims), *dims]  # what the extreme goes over comes last
    back = [order.index(d) for d in range(x1.dim())]

    def flatten(x: Tensor) -> Tensor:
        return x.permute(order).flatten(x.dim() - len(dims))

    wide1, wide0 = flatten(x1), flatten(x0)
    wide, shape = wide1.shape, [x1.shape[d] for d in order]
    find = torch.min if low else torch.max
    (y1, i1), (y0, i0) = find(wide1, -1, keepdim=True), find(wide0, -1, keepdim=True)
    where = torch.where((y1 > y0) if low else (y1 < y0), i0, i1)
    a, b = wide1.gather(-1, where), wide0.gather(-1, where)
    factor = difference_slope(y1, y0, a, b, lambda: torch.ones_like(y1))

    def backward(m: Tensor) -> tuple[Tensor]:
        part = factor.new_zeros(wide).scatter_(-1, where, m.reshape(factor.shape) * factor)
        return (part.reshape(shape).permute(back),)

    if isinstance(out, Tensor):
        return custom_backward(out, backward, call.x)
    return type(out)((custom_backward(out[0], backward, call.x), out[1]))


def _dimensions(dim: int | Sequence[int] | None, n: int) -> tuple[int, ...]:
    """Return the dimensions, counted from the front, that are meant of n: None is all."""
    if dim is None:
        return tuple(range(n))
    return tuple(d % n for d in ([dim] if isinstance(dim, int) else dim))


def _pair(call: OpCall) -> tuple[Any, Any]:
    """Return the two operands of a call."""
    return call.x, call.second("other")


def _extreme_of_two(call: OpCall) -> Tensor:
    """Apply the same rule to the pair in max(a, b); one of the two may be constant."""
    is_max = call.name in ("max", "maximum", "fmax")
    extreme, exceeds = (torch.maximum, torch.ge) if is_max else (torch.minimum, torch.le)
    (a1, b1), (a0, b0) = _pair(call), _pair(call.base)
    y1, y0 = extreme(a1, b1).detach(), extreme(a0, b0)
    # to a or to b: to the one that is the extreme in the run where the output exceeds the other's
    first = torch.where(exceeds(y1, y0), exceeds(a1, b1), exceeds(a0, b0)).detach()

    def slope(mask: Tensor, p1: Tensor, p0: Tensor) -> Tensor:
        found = difference_slope(y1, y0, p1.detach().expand_as(y1), p0.expand_as(y1), lambda: torch.ones_like(y1))
        return torch.where(mask, found, 0)

    factors = (slope(first, a1, a0), slope(~first, b1, b0))
    return share_by_factors(y1, [(s, f) for s, f in zip((a1, b1), factors) if carries_signal(s)])


def _max_pool(call: OpCall) -> object:
    """Apply the same rule within each window."""
    function: Callable = getattr(F, call.name)
    options = {k: v for k, v in call.kwargs.items() if k != "return_indices" and v is not None}
    x1, x0 = call.x.detach(), call.base.x
    spatial = int(call.name[-2])
    (y1, i1), (y0, i0) = (function(x, **options, return_indices=True) for x in (x1, x0))
    where = torch.where(y1 >= y0, i1, i0).flatten(-spatial)  # positions within one map
    a, b = (x.flatten(-spatial).gather(-1, where) for x in (x1, x0))
    flat1, flat0 = y1.flatten(-spatial), y0.flatten(-spatial)
    factor, shape = difference_slope(flat1, flat0, a, b, lambda: torch.ones_like(flat1)), x1.shape

    def backward(m: Tensor) -> tuple[Tensor]:
        back = factor.new_zeros(shape).flatten(-spatial)
        return (back.scatter_add_(-1, where, m.flatten(-spatial) * factor).view(shape),)

    y = custom_backward(y1, backward, call.x)
    return (y, i1) if call.kwargs.get("return_indices") is True else y


RULES: dict[str, OpRule] = {
    **DECOMPOSITIONS,
    **REDUCTIONS,
    "std": rescale_std,
    **dict.fromkeys(POINTWISE, rescale),
    **dict.fromkeys((*PRODUCTS, "square", "var"), rescale_product),
    "pow": rescale_power,
    "div": rescale_quotient,
    **dict.fromkeys(("rsqrt", "reciprocal"), rescale_inverse),
    "softmax": rescale_softmax,
    "log_softmax": rescale_log_softmax,
    "logsumexp": rescale_logsumexp,
    "scaled_dot_product_attention": rescale_attention,
    **dict.fromkeys(NORMS, rescale_norm),
    **dict.fromkeys((*MAX_POOLS, *EXTREMES), rescale_maximum),
    "vector_norm": rescale_vector_norm,
    **SELECTION_RULES,
}
# those of them that take an operation apart, in both runs
APART = frozenset(("std", *REDUCTIONS, *(name for name, rule in DECOMPOSITIONS.items() if RULES[name] is rule)))
