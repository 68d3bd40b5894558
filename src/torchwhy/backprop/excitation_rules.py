r"""Excitation backprop's rule, :math:`P(j) = \sum_k \frac{x_j w_{jk}^+}{\sum_i x_i w_{ik}^+} P(k)`, for sums that are no layers.

A skip connection, a mean, an average pool, a batch norm that no linear layer precedes are linear layers with fixed weights. Where
what they add up has both signs, their gradient is no such rule: of 1 - 0.97 it gives 33 to the 1. Constants that are added
get nothing, as biases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from torchwhy.backprop.lrp_rules import stabilize
from torchwhy.backprop.propagation import batch_norm_rule, foldable_producer
from torchwhy.engine.rules.decompositions import batch_norm_scale
from torchwhy.engine.rules.mode import custom_backward
from torchwhy.engine.rules.operations import OpCall, OpRule
from torchwhy.engine.structure import carries_signal

EPSILON_OF_SUMS = 1e-9  # as that of the rule of layers
MEANS = ("mean", "sum", "nansum", "cumsum", "interpolate", "avg_pool1d", "avg_pool2d", "avg_pool3d",
         "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")  # fmt: skip


def share_by_excitation(
    call: OpCall, signals: Sequence[Tensor], excite: Callable[[Sequence[Tensor]], Tensor]
) -> Tensor:
    """Hand relevance to signals in the proportions of what they add to ``excite``, the operation's positive part."""
    y = call.value()
    with torch.enable_grad():
        positive = [s.detach().clamp(min=0).requires_grad_() for s in signals]
        z = excite(positive).expand_as(y)
    kept = call.mode.save_for_backward(y)

    def backward(m: Tensor) -> tuple[Tensor, ...]:
        c = (m * kept.value / stabilize(z.detach(), EPSILON_OF_SUMS)).to(z.dtype)
        found = torch.autograd.grad(z, positive, c, retain_graph=True)
        return tuple(torch.where(p > 0, g, 0) for p, g in zip(positive, found))

    return custom_backward(y, backward, *signals)


def excited_sum(call: OpCall) -> object:
    """Share among the signals of a sum or difference; what is taken off has a negative weight, and gets nothing."""
    operands = (call.x, call.second("other"))
    alpha = call.kwargs.get("alpha", 1)
    weights = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[call.name]
    terms = [(x, max(w, 0)) for x, w in zip(operands, weights) if isinstance(x, Tensor) and carries_signal(x)]
    are_plain = len(terms) == 2 and all(w > 0 and call.mode.noted(x, "nonnegative") for x, w in terms)
    if are_plain or not all(x.is_floating_point() for x, _ in terms):
        return call()  # its gradient is the rule

    def excite(positive: Sequence[Tensor]) -> Tensor:
        found = positive[0] * terms[0][1]
        return found + positive[1] * terms[1][1] if len(positive) == 2 else found

    return share_by_excitation(call, [x for x, _ in terms], excite)


def excited_mean(call: OpCall) -> object:
    """Share among the elements that are added up with weights that are not negative."""
    is_cubic = "bicubic" in (*call.args[1:], *call.kwargs.values())  # which has negative weights
    if not isinstance(call.x, Tensor) or call.mode.noted(call.x, "nonnegative") or is_cubic:
        return call()
    return share_by_excitation(call, [call.x], lambda positive: call(positive[0]))


def excited_batch_norm(call: OpCall) -> object:
    """Fold batch norm into the linear layer before it; without one it is a layer of one weight to a channel."""
    found = None if foldable_producer(call) is not None or not carries_signal(call.x) else batch_norm_scale(call)
    if found is None:
        return batch_norm_rule(call)
    scale = found[0].clamp(min=0).view(-1, *[1] * (call.x.dim() - 2)).to(call.x.dtype)
    return share_by_excitation(call, [call.x], lambda positive: positive[0] * scale)


EXCITATION_RULES: dict[str, OpRule] = {
    **dict.fromkeys(("add", "sub", "rsub"), excited_sum),
    **dict.fromkeys(MEANS, excited_mean),
    "batch_norm": excited_batch_norm,
}
