"""What rules hold for the backward pass, and for how long."""

import weakref

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.backprop.deeplift_rules import APART, RULES
from torchwhy.backprop.propagation import Propagation, rule_table
from torchwhy.engine.rules.in_place import custom_pointwise_backward, in_place_rule
from torchwhy.engine.rules.mode import RuleMode
from torchwhy.engine.rules.paired_run import PairedRules, RecordedRun
from torchwhy.lrp import Epsilon, Gamma


def rule_that_holds_a_factor():
    """Return a rule, and the list of weak references to the factors that its calls hold for the backward pass."""
    held = []

    def rule(call):
        y = call.value()
        factor = torch.ones_like(y)
        held.append(weakref.ref(factor))
        return custom_pointwise_backward(call, y, lambda m: (m * factor,))

    return rule, held


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("in_place", [False, True])
def test_what_rules_hold_is_freed_as_autograd_frees(keep, in_place):
    rule, held = rule_that_holds_a_factor()
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
    rule, held = rule_that_holds_a_factor()
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


NORMS = {
    "layer norm": lambda h: F.layer_norm(h, (4, 4)),
    "group norm": lambda h: F.group_norm(h, 3),
    "RMS norm": lambda h: F.rms_norm(h, (4,)),
}
# what only the shapes of their inputs are needed of on the way back: beside these, a rule keeps factors
NEED_SHAPES = {
    **NORMS,
    "extreme of a dimension": lambda h: h.amax(-1),
    "max-pooling": lambda h: F.max_pool2d(h, 2),
    "extreme of two": lambda h: torch.maximum(h, h.flip(1)),
    "quotient": lambda h: h / (h.flip(1) + 9),
    "product with an inverse": lambda h: h * (h.flip(1) + 9).reciprocal(),
    "power with a signal for exponent": lambda h: 2.0**h,
    "selection by the signal": lambda h: torch.where(h > 0.1, h, h.flip(1)),
    "pointwise": lambda h: h.sigmoid(),
}


def _signal_watched(operation, x):
    """Return the operation's value of a signal that nothing else keeps, and a weak reference to the signal's memory."""
    h = x * 2.0
    watched = StorageWeakRef(h.untyped_storage())
    return operation(h), watched


@pytest.mark.parametrize("operation", NEED_SHAPES.values(), ids=NEED_SHAPES)
def test_rules_of_deeplift_keep_no_tensor_for_its_shape(operation):
    x, baseline = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    recording = RecordedRun(RULES, APART)
    with torch.no_grad(), recording:
        _, of_baseline = _signal_watched(operation, baseline)
    with PairedRules(RULES, APART, recording) as rules:
        y, of_input = _signal_watched(operation, x)
    assert rules.applied
    assert y.requires_grad
    assert of_input.expired()
    assert of_baseline.expired()


@pytest.mark.parametrize("operation", NORMS.values(), ids=NORMS)
def test_norms_of_lrp_keep_no_tensor_for_its_shape(operation):
    with tw.LRP.rules() as rules:
        y, of_input = _signal_watched(operation, torch.randn(2, 3, 4, 4, requires_grad=True))
    assert rules.applied
    assert y.requires_grad
    assert of_input.expired()
