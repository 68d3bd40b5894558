r"""Distances, similarities and losses of two signals, taken apart into differences, norms, products and squares.

Each function here is a rule, as in :mod:`~torchwhy.engine.rules.decompositions`: it computes the operation by its definition from
smaller ones *with the mode on*, so that these get their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.rules.operations import OpCall, OpRule
from torchwhy.engine.structure import AnyOutput


def definition(*names: str, **defaults: object) -> Callable[[Callable[..., Tensor]], OpRule]:
    """Make a rule of a function that has the arguments of an operation, by these names, and computes its definition.

    With others, torch's older ``size_average`` or weights of rows, an operation keeps the plain gradient, and is counted.
    """
    every = (*names, *defaults)

    def rule_of(function: Callable[..., Tensor]) -> OpRule:
        @wraps(function)
        def rule(call: OpCall) -> AnyOutput:
            given = {**dict(zip(every, call.args)), **{k: v for k, v in call.kwargs.items() if v is not None}}
            if len(call.args) > len(every) or not given.keys() <= set(every):
                call.mode.count_without_rule(call.name, call.args, call.kwargs)
                return call()
            with call.mode:
                return function(**{**defaults, **given})

        return rule

    return rule_of


def reduced(values: Tensor, reduction: str) -> Tensor:
    """Return a loss of each element, their mean or their sum."""
    return values if reduction == "none" else getattr(values, reduction)()


def norm(difference: Tensor, p: float, dim: int | None, keepdim: bool = False) -> Tensor:
    """Return the p-norm over a dimension, or over all."""
    if p == 1 and dim is not None:
        return difference.abs().sum(dim, keepdim=keepdim)
    return torch.linalg.vector_norm(difference, p, dim, keepdim)


@definition("x1", "x2", dim=1, eps=1e-8)
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int, eps: float) -> Tensor:
    """Return the sum of the products of two vectors, each divided by its length."""
    a, b = (x / norm(x, 2, dim, keepdim=True).clamp_min(eps) for x in (x1, x2))
    return (a * b).sum(dim)


@definition("x1", "x2", p=2.0, eps=1e-6, keepdim=False)
def pairwise_distance(x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool) -> Tensor:
    """Return the norm of the difference of the last dimension."""
    return norm(x1 - x2 + eps, p, -1, keepdim)


@definition("x1", "x2", p=2.0, compute_mode=None)
def cdist(x1: Tensor, x2: Tensor, p: float, compute_mode: object) -> Tensor:
    """Return the norm of the difference of each row of one with each row of the other."""
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


@definition("input", "other", p=2.0)
def dist(input: Tensor, other: Tensor, p: float) -> Tensor:
    """Return the norm of a difference."""
    return norm(input - other, p, None)


@definition("input", "other")
def hypot(input: Tensor, other: Tensor) -> Tensor:
    """Return the length of the vector of two numbers."""
    return norm(torch.stack(torch.broadcast_tensors(input, other)), 2, 0)


@definition("input", "other")
def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """Return log-sum-exp of two numbers."""
    return torch.logsumexp(torch.stack(torch.broadcast_tensors(input, other)), 0)


@definition("x", "y", dim=-1)
def vecdot(x: Tensor, y: Tensor, dim: int) -> Tensor:
    """Return the inner product over a dimension."""
    return (x.conj() * y).sum(dim)


@definition("input", "target", reduction="mean")
def mse_loss(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return the square of a difference."""
    return reduced((input - target).square(), reduction)


@definition("input", "target", reduction="mean")
def l1_loss(input: Tensor, target: Tensor, reduction: str) -> Tensor:
    """Return the absolute value of a difference."""
    return reduced((input - target).abs(), reduction)


def bent(difference: Tensor, at: float) -> Tensor:
    """Return the half square of a difference up to a size, and a line beyond it."""
    size = difference.abs()
    low = size.clamp(max=at)
    return low * (size - low / 2)


@definition("input", "target", reduction="mean", delta=1.0)
def huber_loss(input: Tensor, target: Tensor, reduction: str, delta: float) -> Tensor:
    """Return the half square of a difference up to ``delta``, and a line beyond it."""
    return reduced(bent(input - target, delta), reduction)


@definition("input", "target", reduction="mean", beta=1.0)
def smooth_l1_loss(input: Tensor, target: Tensor, reduction: str, beta: float) -> Tensor:
    """Return the Huber loss divided by where it bends."""
    if beta == 0:
        return reduced((input - target).abs(), reduction)
    return reduced(bent(input - target, beta) / beta, reduction)


@definition("input", "target", reduction="mean", log_target=False)
def kl_div(input: Tensor, target: Tensor, reduction: str, log_target: bool) -> Tensor:
    """Return the target's probability times the difference of the logarithms."""
    if log_target:
        values = target.exp() * (target - input)
    else:
        values = torch.xlogy(target, target) - target * input
    return reduced(values.sum() / len(values), "none") if reduction == "batchmean" else reduced(values, reduction)


@definition("anchor", "positive", "negative", margin=1.0, p=2.0, eps=1e-6, swap=False, reduction="mean")
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, p: float, eps: float, swap: bool, reduction: str
) -> Tensor:
    """Return how far the distance to the positive is from being smaller, by a margin, than that to the negative."""
    near, far = (norm(anchor - other + eps, p, -1) for other in (positive, negative))
    if swap:
        far = torch.minimum(far, norm(positive - negative + eps, p, -1))
    return reduced((margin + near - far).clamp(min=0), reduction)


@definition("input1", "input2", "target", margin=0.0, reduction="mean")
def cosine_embedding_loss(input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: str) -> Tensor:
    """Return 1 minus the cosine where the target is 1, what it has above a margin where it is -1."""
    cosine = F.cosine_similarity(input1, input2, dim=-1)
    return reduced(torch.where(target == 1, 1 - cosine, (cosine - margin).clamp(min=0)), reduction)


@definition("input", "tensor1", "tensor2", value=1)
def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
    """Return input + value · tensor1 / tensor2."""
    return input + value * (tensor1 / tensor2)


@definition("input", "vec1", "vec2", beta=1, alpha=1)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, beta: float, alpha: float) -> Tensor:
    """Return beta · input + alpha · the outer product of two vectors."""
    product = alpha * (vec1[:, None] * vec2)
    return product if beta == 0 else beta * input + product


@definition("input", "end", "weight")
def lerp(input: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    """Return start + weight · (end - start)."""
    return input + weight * (end - input)


@definition("input", dim=None, keepdim=False, dtype=None)
def prod(input: Tensor, dim: int | None, keepdim: bool, dtype: torch.dtype | None) -> Tensor:
    """Return the product over a dimension, or over all, two factors at a time."""
    values = input if dtype is None else input.to(dtype)
    whole = [1] * values.dim() if keepdim and dim is None else None
    factors: Sequence[Tensor] = values.flatten().unbind() if dim is None else values.unbind(dim)
    while len(factors) > 1:
        pairs = [a * b for a, b in zip(factors[::2], factors[1::2])]
        factors = [*pairs, *factors[len(pairs) * 2 :]]
    if dim is None:
        return factors[0] if whole is None else factors[0].view(whole)
    return factors[0].unsqueeze(dim) if keepdim else factors[0]


DISTANCES: dict[str, OpRule] = {
    "cosine_similarity": cosine_similarity,
    "pairwise_distance": pairwise_distance,
    "cdist": cdist,
    "dist": dist,
    "hypot": hypot,
    "logaddexp": logaddexp,
    "linalg_vecdot": vecdot,
    "mse_loss": mse_loss,
    "l1_loss": l1_loss,
    "huber_loss": huber_loss,
    "smooth_l1_loss": smooth_l1_loss,
    "kl_div": kl_div,
    "triplet_margin_loss": triplet_margin_loss,
    "cosine_embedding_loss": cosine_embedding_loss,
    "addcdiv": addcdiv,
    "addr": addr,
    "lerp": lerp,
    "prod": prod,
}
