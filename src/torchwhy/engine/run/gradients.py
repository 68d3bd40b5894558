"""Gradients of scores with respect to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def compute_gradients(
    scores: Tensor, wrt: Sequence[Tensor], *, what: str = "inputs", keep: bool = False, build: bool = False
) -> tuple[Tensor, ...]:
    r"""Gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error.
        keep: keep the graph for another call.
        build: let the gradients be differentiated again.

    Raises:
        ValueError: the scores depend on none of them, or were computed without a graph.
    """
    nothing = f"the target does not depend on the {what}"
    if not scores.requires_grad:
        raise ValueError(
            f"{nothing} in a differentiable way (it may come from argmax, rounding, integers or a detached "
            "tensor): choose another target or layer, or a perturbation method, which needs no gradient"
        )
    ones = torch.ones_like(scores)  # no sum: it would be one operation more for rules that are at work
    found = torch.autograd.grad(scores, wrt, ones, allow_unused=True, retain_graph=keep or build, create_graph=build)
    if all(g is None for g in found):
        raise ValueError(f"{nothing}: choose another target or layer")
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def gradients_per_target(scores: Sequence[Tensor], wrt: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, ...]]:
    """The gradients of each of several scores ``(M,)`` of one forward pass."""
    return [compute_gradients(s, wrt, keep=i + 1 < len(scores), **options) for i, s in enumerate(scores)]


def second_order_gradient(scores: Tensor, wrt: Sequence[Tensor], *, what: str = "inputs") -> tuple[Tensor, ...]:
    r"""Gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

    Arguments and errors as for :func:`compute_gradients`.
    """
    slopes = compute_gradients(scores, wrt, what=what, build=True)
    found = []
    for z, g in zip(wrt, slopes):
        bend = None
        if g.requires_grad:
            (bend,) = torch.autograd.grad((g * z.detach()).sum(), z, allow_unused=True, retain_graph=True)
        found.append(g.detach() if bend is None else g.detach() - bend / 2)
    return tuple(found)
