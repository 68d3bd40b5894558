"""Gradients of scores with respect to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from torchwhy.engine.torch_internals import saved_input

What = str | Sequence[object]


def _in_words(what: What) -> str:
    """Return what is differentiated by, in words."""
    return what if isinstance(what, str) else ", ".join(map(str, what))


def compute_gradients(
    scores: Tensor, wrt: Sequence[Tensor], *, what: What = "inputs", keep: bool = False, build: bool = False
) -> tuple[Tensor, ...]:
    r"""Return the gradients :math:`\partial s_n / \partial z_n` of each row's score with respect to its own row.

    Args:
        scores: ``(M,)``.
        wrt: tensors ``(M, ...)``; one that the scores do not depend on has gradient zero.
        what: what ``wrt`` is, for the error: a word or layers.
        keep: keep the graph for another call.
        build: let the gradients be differentiated again.

    Raises:
        ValueError: the scores depend on none of them, or were computed without a graph.
    """
    if not scores.requires_grad:
        raise ValueError(
            f"the target does not depend on the {_in_words(what)} in a differentiable way (it may come from argmax, rounding, "
            "integers or a detached tensor): choose another target or layer, or a perturbation method, which needs no gradient"
        )
    ones = torch.ones_like(scores)  # no sum: it would be one operation more for rules that are at work
    found = torch.autograd.grad(scores, wrt, ones, allow_unused=True, retain_graph=keep or build, create_graph=build)
    if all(g is None for g in found):
        raise ValueError(f"the target does not depend on the {_in_words(what)}: choose another target or layer")
    return tuple(torch.zeros_like(z) if g is None else g for z, g in zip(wrt, found))


def gradients_per_target(scores: Sequence[Tensor], wrt: Sequence[Tensor], **options: Any) -> list[tuple[Tensor, ...]]:
    """Return the gradients of each of several scores ``(M,)`` of one forward pass."""
    return [compute_gradients(s, wrt, keep=i + 1 < len(scores), **options) for i, s in enumerate(scores)]


def second_order_gradient(scores: Tensor, wrt: Sequence[Tensor], *, what: What = "inputs") -> tuple[Tensor, ...]:
    r"""Return gradients with half the curvature towards zero taken off, :math:`g - \tfrac12 H z`, for each of ``wrt`` by itself.

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


def guard_norm_backward(scores: Tensor) -> None:
    """Give the batch norms in the graph of the score of a single row gradients in the layout of their inputs.

    Torch's backward pass of batch and instance norm for a single row on the CPU reads a gradient whose memory is transposed, or
    has its channels last, as if it were contiguous (torch 2.14). The graph knows which operations ran, whichever way the
    model called them, so their incoming gradients are laid out anew by hooks on its nodes.
    """
    if scores.grad_fn is None:
        return
    waiting, seen = [scores.grad_fn], {scores.grad_fn}
    while waiting:
        node = waiting.pop()
        if "BatchNorm" in type(node).__name__:
            node.register_prehook(partial(_like_input, node))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _like_input(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the memory format of a node's input: contiguous, or with the channels last."""
    x = saved_input(node)
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return tuple(None if g is None else g.contiguous(memory_format=layout) for g in gradients)
