r"""Operations that torch runs as one, taken apart into those that have rules: attention, recurrent layers, a few others.

Each function here is a rule: it computes the operation from smaller ones *with the mode on*, so that these get their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules.distances import DISTANCES
from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.operations import OpCall
from torchwhy.engine.structure import as_tuple, carries_signal
from torchwhy.engine.torch_internals import body_without_dispatch


def decompose_body(call: OpCall) -> object:
    """Run the Python body of a torch function, operation by operation."""
    body = body_without_dispatch(call.function)
    if body is None:
        raise NotImplementedError(f"{call.name} has no Python body to take apart")
    with call.mode:
        return body(*call.args, **call.kwargs)


def attention_operands(call: OpCall) -> tuple[Tensor, Tensor, Tensor, Tensor | None, float, Tensor | None]:
    """Return what ``F.scaled_dot_product_attention`` works on: q, k, v, bias, scale and dead.

    The bias is added to the scores, the scale multiplies q. A query that the mask lets look at no key, such as one of the
    padding, is dead: it gets 0, and its bias is 0 here.

    Raises:
        NotImplementedError: dropout is on.
    """
    q, options = call.args[0], call.kwargs
    k, v, bias = options["key"], options["value"], options.get("attn_mask")
    if options.get("dropout_p"):
        raise NotImplementedError("attention with dropout has no rule: call model.eval() first")
    if options.get("is_causal"):
        bias = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    if bias is not None and bias.dtype == torch.bool:
        bias = torch.zeros_like(bias, dtype=q.dtype).masked_fill(~bias, -math.inf)
    dead = None
    if bias is not None and not options.get("is_causal"):
        dead = bias.eq(-math.inf).all(-1, keepdim=True)
        bias = bias.masked_fill(dead, 0)
    if options.get("enable_gqa"):
        k = k.repeat_interleave(q.shape[-3] // k.shape[-3], -3)
        v = v.repeat_interleave(q.shape[-3] // v.shape[-3], -3)
    return q, k, v, bias, options.get("scale") or 1 / math.sqrt(q.shape[-1]), dead


def decompose_attention(call: OpCall) -> Tensor:
    r"""Take ``F.scaled_dot_product_attention`` apart by its definition: softmax(q kᵀ · scale + mask) v."""
    with call.mode:
        q, k, v, bias, scale, dead = attention_operands(call)
        scores = torch.matmul(q * scale, k.transpose(-2, -1))
        weights = F.softmax(scores if bias is None else scores + bias, dim=-1)
        return torch.matmul(weights if dead is None else weights.masked_fill(dead, 0), v)


def decompose_glu(call: OpCall) -> Tensor:
    """Take the gated linear unit apart: a · sigmoid(b) of the two halves of its input."""
    with call.mode:
        a, b = call.x.chunk(2, dim=call.kwargs.get("dim", -1))
        return a * torch.sigmoid(b)


def decompose_addmm(call: OpCall) -> Tensor:
    """Take ``torch.addmm`` and ``torch.baddbmm`` apart: beta · input + alpha · mat1 @ mat2; no input with beta = 0."""
    alpha, beta = call.kwargs.get("alpha", 1), call.kwargs.get("beta", 1)
    first, second = ("batch1", "batch2") if call.name == "baddbmm" else ("mat1", "mat2")
    with call.mode:
        product = torch.matmul(call.kwargs[first], call.kwargs[second])
        product = product if alpha == 1 else product * alpha
        if beta == 0:
            return product
        return (call.x if beta == 1 else call.x * beta) + product


def decompose_addcmul(call: OpCall) -> Tensor:
    """Take ``torch.addcmul`` apart: input + value · tensor1 · tensor2."""
    value = call.kwargs.get("value", 1)
    with call.mode:
        product = call.kwargs["tensor1"] * call.kwargs["tensor2"]
        return call.x + (product if value == 1 else product * value)


def batch_norm_scale(call: OpCall) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift per channel of batch norm with running statistics; None (and counted) without."""
    options = call.kwargs
    if options.get("training") or options.get("running_mean") is None:
        call.mode.count_without_rule(call.name, call.args, {})
        return None
    scale = (options["running_var"] + options.get("eps", 1e-5)).rsqrt()
    scale = scale if options.get("weight") is None else scale * options["weight"]
    shift = -options["running_mean"] * scale
    return scale.detach(), shift if options.get("bias") is None else shift + options["bias"]


def affine_batch_norm(call: OpCall) -> Tensor:
    """Run batch norm with running statistics as the affine operation that it is.

    Torch's own backward of it is wrong on the CPU for a single row whose incoming gradient is transposed (seen in 2.14).
    """
    found = batch_norm_scale(call)
    if found is None or not carries_signal(call.x):
        return call()
    scale = found[0].view(-1, *[1] * (call.x.dim() - 2)).to(call.x.dtype)
    return custom_backward(call.value(), lambda m: (m * scale,), call.x)


class NormLayout(NamedTuple):
    """Over which elements layer, group, instance and RMS norm take their mean and spread.

    Args:
        dims: the dimensions that one mean goes over, of the input as :meth:`fold` arranges it.
        shape: of the input.
        groups: the number of groups of channels, None where the normalized dimensions are the last ones.
        weight: what the result is multiplied with, in a shape that broadcasts to the input, or None.
        eps: what is added to the mean of squares.
        centred: whether the mean is taken off.
    """

    dims: tuple[int, ...]
    shape: torch.Size
    groups: int | None
    weight: Tensor | None
    eps: float
    centred: bool

    @classmethod
    def of(cls, call: OpCall) -> NormLayout:
        """Return the layout of a call."""
        options, shape, weight = call.kwargs, call.x.shape, call.kwargs.get("weight")
        eps = options.get("eps", 1e-5)
        eps = torch.finfo(call.x.dtype).eps if eps is None else eps
        if call.name in ("layer_norm", "rms_norm"):
            dims = tuple(range(-len(options["normalized_shape"]), 0))
            return cls(dims, shape, None, weight, eps, call.name == "layer_norm")
        weight = None if weight is None else weight.view(1, -1, *[1] * (len(shape) - 2))
        return cls((-1,), shape, options.get("num_groups", shape[1]), weight, eps, True)

    def fold(self, x: Tensor) -> Tensor:
        """Return a tensor of the input's shape with what one mean goes over in ``dims``."""
        return x if self.groups is None else x.reshape(self.shape[0], self.groups, -1)


# ------------------------------------------------------------------------------------------------ recurrent layers
Weights = list  # of the input, of the state, their biases, which may be None


def _lstm_step(x: Tensor, state: tuple[Tensor, ...], w: Weights) -> tuple[Tensor, ...]:
    h, c = state
    gates = F.linear(x, w[0], w[2]) + F.linear(h, w[1], w[3])
    i, f, g, o = gates.chunk(4, dim=-1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return (h if len(w) < 5 else F.linear(h, w[4])), c


def _gru_step(x: Tensor, state: tuple[Tensor, ...], w: Weights) -> tuple[Tensor, ...]:
    (h,) = state
    xr, xz, xn = F.linear(x, w[0], w[2]).chunk(3, dim=-1)
    hr, hz, hn = F.linear(h, w[1], w[3]).chunk(3, dim=-1)
    z = torch.sigmoid(xz + hz)
    n = torch.tanh(xn + torch.sigmoid(xr + hr) * hn)
    return ((1 - z) * n + z * h,)


def _simple_step(activation: Callable) -> Callable:
    def step(x: Tensor, state: tuple[Tensor, ...], w: Weights) -> tuple[Tensor, ...]:
        return (activation(F.linear(x, w[0], w[2]) + F.linear(state[0], w[1], w[3])),)

    return step


STEPS = {
    "lstm": _lstm_step,
    "gru": _gru_step,
    "rnn_tanh": _simple_step(torch.tanh),
    "rnn_relu": _simple_step(torch.relu),
}


def _scan(step: Callable, xs: list[Tensor], state: tuple[Tensor, ...], w: list, back: bool) -> tuple[list, tuple]:
    """Run ``step`` over time. Steps may hold fewer rows than the state (packed sequences): the first ones are meant."""
    out = list(xs)
    for t in reversed(range(len(xs))) if back else range(len(xs)):
        rows = len(xs[t])
        new = step(xs[t], tuple(s[:rows] for s in state), w)
        state = tuple(n if rows == len(s) else torch.cat([n, s[rows:]]) for n, s in zip(new, state))
        out[t] = new[0]
    return out, state


def decompose_recurrent(call: OpCall) -> tuple[Tensor, ...]:
    """Run ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` step by step: packed or not, stacked, in both directions, projected."""
    packed = isinstance(call.args[3], bool) is False
    if packed:
        data, sizes, hidden, weights, bias, layers, dropout, train, both = call.args
        batch_first = False
    else:
        data, hidden, weights, bias, layers, dropout, train, both, batch_first = call.args
    if dropout and train:
        raise NotImplementedError(f"{call.name} with dropout has no rule: call model.eval() first")
    states = as_tuple(hidden)
    steps = 1 if batch_first else 0  # the dimension along which they lie
    with call.mode:
        if packed:
            xs = list(data.split(sizes.tolist()))
        else:
            xs = list(data.unbind(steps))
        per = len(weights) // (layers * (2 if both else 1))
        last: list[tuple] = []
        for layer in range(layers):
            outs = []
            for direction in range(2 if both else 1):
                k = layer * (2 if both else 1) + direction
                w = list(weights[k * per : (k + 1) * per])
                w = w if bias else [*w[:2], None, None, *w[2:]]
                out, state = _scan(STEPS[call.name], xs, tuple(s[k] for s in states), w, direction == 1)
                outs.append(out)
                last.append(state)
            xs = [torch.cat(pair, -1) for pair in zip(*outs)] if both else outs[0]
        y = torch.cat(xs) if packed else torch.stack(xs, steps)
        return y, *(torch.stack([state[k] for state in last]) for k in range(len(states)))


def decompose_cell(call: OpCall) -> object:
    """Run ``nn.LSTMCell``, ``nn.GRUCell`` and ``nn.RNNCell`` as one step of their layer."""
    x, hidden, *w = call.args
    state = as_tuple(hidden)
    with call.mode:
        new = STEPS[call.name.removesuffix("_cell")](x, state, w)
    return new if len(new) > 1 else new[0]


RECURRENT = {
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), decompose_recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), decompose_cell),
}
DECOMPOSITIONS = {
    "multi_head_attention_forward": decompose_body,
    "normalize": decompose_body,
    "local_response_norm": decompose_body,
    "softmin": decompose_body,
    "scaled_dot_product_attention": decompose_attention,
    "batch_norm": affine_batch_norm,
    "glu": decompose_glu,
    "addmm": decompose_addmm,
    "baddbmm": decompose_addmm,
    "addcmul": decompose_addcmul,
    **RECURRENT,
    **DISTANCES,
}
