"""Rules of elementwise operations that write where the model wants the result by themselves: without a copy on the way."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from torchwhy.engine.rules.mode import Backward, backward_of_rule, custom_backward
from torchwhy.engine.rules.operations import OpCall, OpRule

RuleType = TypeVar("RuleType", bound=OpRule)


class _InPlaceBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, backward):
        ctx.rule, ctx.others = backward, (0, 2)
        ctx.set_materialize_grads(False)
        ctx.mark_dirty(x)
        return x.copy_(y)

    backward = staticmethod(backward_of_rule)  # type: ignore[assignment]


def custom_pointwise_backward(call: OpCall, y: Tensor, backward: Backward) -> Tensor:
    """Return the value ``y`` of an elementwise operation, in the place of its input if the model asked for that."""
    if call.in_place:
        return _InPlaceBackward.apply(call.x, y, backward)
    return custom_backward(y, backward, call.x)


def in_place_rule(rule: RuleType) -> RuleType:
    """Mark a rule that ends in :func:`custom_pointwise_backward` and keeps nothing of its input for the backward pass."""
    rule.in_place = True  # type: ignore[attr-defined]
    return rule
