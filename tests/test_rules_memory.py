"""What rules hold for the backward pass, and for how long."""

import weakref

import pytest
import torch
from torch.nn import functional as F

from torchwhy.backprop.propagation import Propagation, rule_table
from torchwhy.engine.rules.in_place import custom_pointwise_backward, in_place_rule
from torchwhy.engine.rules.mode import RuleMode
from torchwhy.lrp import Epsilon, Gamma


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_rules_hold_is_freed_as_autograd_frees(keep, in_place):
    held = []

    def rule(call):
        y = call.value()
        factor = torch.ones_like(y)
        held.append(weakref.ref(factor))
        return custom_pointwise_backward(call, y, lambda m: (m * factor,))

    x = torch.randn(4, requires_grad=True)
    with RuleMode({"relu": in_place_rule(rule)}):
        y = F.relu(x * 2, inplace=in_place).sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=keep)
    assert (held[0]() is not None) is keep
    if keep:
        torch.testing.assert_close(torch.autograd.grad(y, x)[0], first)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        torch.autograd.grad(y, x)


def test_what_nothing_goes_back_through_is_freed_at_once():
    held = []

    def rule(call):
        y = call.value()
        factor = torch.ones_like(y)
        held.append(weakref.ref(factor))
        return custom_pointwise_backward(call, y, lambda m: (m * factor,))

    with RuleMode({"relu": rule}) as rules:
        y = F.relu(torch.randn(4, requires_grad=True) * 2)
        y.sum()  # an operation that the node of y is given to
        assert held[0]() is not None
        del y
        assert held[0]() is None
    assert not rules.unreached


def test_the_epsilon_rule_of_linear_layers_holds_no_input():
    seen = []

    class Seen(Propagation):
        def save_for_backward(self, tensor):
            seen.append(tuple(tensor.shape))
            return super().save_for_backward(tensor)

    x, weight = torch.randn(2, 3, requires_grad=True), torch.randn(5, 3)
    for rule, shapes in ((Epsilon(), [(2, 5)]), (Gamma(), [(2, 5), (2, 3)])):
        seen.clear()
        with Seen(rule_table(rule, rule)):
            F.linear(x, weight)
        assert seen == shapes
