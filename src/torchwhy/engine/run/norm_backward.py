"""A correction of torch's backward pass of batch and instance norm for a single row on the CPU.

It reads a gradient whose memory is transposed, or has its channels last, as if it were contiguous (torch 2.14). The graph knows
which operations ran, whichever way the model called them, so their incoming gradients are laid out anew by hooks on its nodes.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor


def guard_norm_backward(scores: Tensor) -> None:
    """Give the batch norms in the graph of the score of a single row gradients in the layout of their inputs."""
    if len(scores) != 1 or scores.device.type != "cpu" or scores.grad_fn is None:
        return
    waiting, seen = [scores.grad_fn], {scores.grad_fn}
    while waiting:
        node = waiting.pop()
        if "BatchNorm" in node.name():
            node.register_prehook(partial(_like_input, node))
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def _like_input(node: Any, gradients: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Return gradients in the memory format of a node's input: contiguous, or with the channels last."""
    x = node._saved_input
    last = x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if last else torch.contiguous_format
    return tuple(None if g is None else g.contiguous(memory_format=layout) for g in gradients)
