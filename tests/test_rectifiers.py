"""Guided backpropagation and the deconvolution network see a rectifier whichever way a model spells it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchwhy as tw

ZERO = torch.zeros((), dtype=torch.double)


def write(h):
    h = h.clone()
    h[h < 0] = 0
    return h


def write_rows(h):
    h = h.clone()
    h[h <= 0] = 0.0
    return h * 1


RELU = {
    "clamp": lambda h: h.clamp(min=0),
    "clamp_float": lambda h: torch.clamp(h, 0.0),
    "clip": lambda h: h.clip(0),
    "clamp_min": lambda h: h.clamp_min(0),
    "clamp_tensor": lambda h: torch.clamp(h, min=ZERO),
    "clamp_zeros": lambda h: torch.clamp(h, min=torch.zeros(8, dtype=h.dtype)),
    "clamp_in_place": lambda h: h.clone().clamp_(min=0),
    "clamp_min_in_place": lambda h: (h * 1).clamp_min_(0),
    "maximum": lambda h: torch.maximum(h, ZERO),
    "maximum_first": lambda h: torch.maximum(torch.zeros_like(h), h),
    "max": lambda h: torch.max(h, torch.zeros_like(h)),
    "max_method": lambda h: h.max(other=ZERO),
    "fmax": lambda h: torch.fmax(h, ZERO),
    "where": lambda h: torch.where(h > 0, h, 0.0),
    "where_zeros": lambda h: torch.where(h > 0, h, torch.zeros_like(h)),
    "where_ge": lambda h: torch.where(h >= ZERO, h, ZERO),
    "where_less": lambda h: torch.where(h < 0, 0.0, h),
    "where_zero_first": lambda h: torch.where(torch.lt(ZERO, h), h, ZERO),
    "where_not": lambda h: torch.where(~(h > 0), ZERO, h),
    "where_method": lambda h: h.where(h > 0, ZERO),
    "masked_fill": lambda h: h.masked_fill(h < 0, 0),
    "masked_fill_in_place": lambda h: h.clone().masked_fill_(h <= 0, 0.0),
    "masked_fill_not": lambda h: h.masked_fill(torch.logical_not(h > 0), 0.0),
    "times": lambda h: h * (h > 0),
    "times_first": lambda h: (h > 0) * h,
    "times_float": lambda h: h * (h > 0).double(),
    "times_to": lambda h: h * h.gt(0).to(h.dtype),
    "times_in_place": lambda h: h.clone().mul_(h > 0),
    "times_detached": lambda h: h * (h.detach() > 0),
    "write": write,
    "write_rows": write_rows,
    "threshold": lambda h: F.threshold(h, 0, 0),
    "index_put": lambda h: torch.index_put(h, (h < 0,), ZERO),
    "index_put_in_place": lambda h: h.clone().index_put_((h <= 0,), ZERO),
    "masked_scatter": lambda h: h.masked_scatter(h < 0, torch.zeros_like(h)),
}
RELU6 = {
    "clamp": lambda h: h.clamp(0, 6),
    "clamp_by_name": lambda h: torch.clamp(h, max=6.0, min=0.0),
    "clamp_in_place": lambda h: h.clone().clamp_(0, 6),
    "hardtanh": lambda h: F.hardtanh(h, 0, 6),
}
OTHER = {  # selections and bounds that are no rectifiers: as they are, and counted
    "where_other": (lambda h: torch.where(h.flip(1) > 0, h, 0.0), {"where by sign": 1}),
    "where_signals": (lambda h: torch.where(h > 0, h, 0.1 * h), {"where by sign": 1}),
    "masked_fill_up": (lambda h: h.masked_fill(h > 0, 0.0), {"masked_fill by sign": 1}),
    "written_since": (lambda h: _written_since(h), {"mul by sign": 1}),
    "clamp_low": (lambda h: h.clamp(min=-0.1), {"clamp": 1}),
    "clamp_max": (lambda h: h.clamp(max=0.1), {"clamp": 1}),
    "maximum_one": (lambda h: torch.maximum(h, ZERO + 0.1), {"maximum": 1}),
    "index_put_other": (lambda h: h.index_put((h.flip(1) < 0,), ZERO), {"index_put by sign": 1}),
    "index_put_up": (lambda h: h.index_put((h > 0,), ZERO), {"index_put by sign": 1}),
    "index_put_adds": (lambda h: h.index_put((h < 0,), ZERO, accumulate=True), {}),
    "where_given": (lambda h: torch.where(torch.arange(8) < 4, h, 0.0), {}),
    "masked_fill_given": (lambda h: h.masked_fill(torch.arange(8) < 4, 0.0), {}),
}


def _written_since(h):
    h = h.clone()
    mask = h > 0
    h.sub_(1)
    return h * mask


class Net(nn.Module):
    """Two hidden layers, the rectifier of the second one a plain ReLU."""

    def __init__(self, f):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c, self.f = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3), f
        self.double()

    def forward(self, x):
        return self.c(F.relu(self.b(self.f(self.a(x)))))


X = 4 * torch.randn(3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def by_hand(guided, high=torch.inf):
    """The signal at the input, from the papers."""
    net = Net(None)
    h1 = net.a(X)
    h2 = net.b(h1.clamp(0, high))
    g = net.c.weight[1].expand(3, 8).clamp(min=0)
    g = (g * (h2 > 0) if guided else g) @ net.b.weight
    g = g.clamp(min=0)
    return ((g * ((h1 > 0) & (h1 < high)) if guided else g) @ net.a.weight).detach()


METHODS = {"guided": tw.GuidedBackprop, "deconv": tw.DeconvNet}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", RELU)
def test_a_rectifier_is_seen_in_any_spelling(method, spelling):
    found = METHODS[method](Net(RELU[spelling])).explain(X, 1)
    torch.testing.assert_close(found.attributions, by_hand(method == "guided"))
    assert found.details["plain_operations"] == {}
    assert not found.attributions.equal(tw.Saliency(Net(F.relu), signed=True).attribute(X, 1))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spelling", RELU6)
def test_two_bounds_are_a_rectifier(method, spelling):
    found = METHODS[method](Net(RELU6[spelling])).explain(X, 1)
    torch.testing.assert_close(found.attributions, by_hand(method == "guided", 6))
    assert found.details["plain_operations"] == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", OTHER)
def test_what_is_no_rectifier_keeps_its_gradient_and_is_counted(method, name):
    f, plain = OTHER[name]
    net = Net(f)
    found = METHODS[method](net).explain(X, 1)
    assert found.details["plain_operations"] == plain
    x = X.clone().requires_grad_()
    h = f(net.a(x))
    upper = METHODS[method](lambda h: net.c(F.relu(net.b(h)))).attribute(h.detach(), 1)
    (expected,) = torch.autograd.grad(h, x, upper)
    torch.testing.assert_close(found.attributions, expected)


def test_the_rules_by_hand_see_them_too():
    x = X.clone().requires_grad_()
    with tw.GuidedBackprop.rules() as rules:
        y = Net(RELU["where"])(x)[:, 1].sum()
    (found,) = torch.autograd.grad(y, x)
    torch.testing.assert_close(found, by_hand(True))
    assert rules.applied == {"relu": 2}
