"""Every rule of LRP on every kind of linear layer equals its dense-matrix version from the papers."""

import pytest
import torch
from reference import rules as slow
from torch import nn
from torch.nn import functional as F

from torchwhy.backprop.propagation import Propagation, rule_table
from torchwhy.lrp import AlphaBeta, Epsilon, Excitation, Flat, Gamma, WSquare, ZBox, ZPlus

LAYERS = {
    "linear": (lambda b: nn.Linear(7, 5, bias=b), (7,)),
    "linear_3d": (lambda b: nn.Linear(4, 3, bias=b), (3, 4)),
    "conv1d": (lambda b: nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2, bias=b), (4, 9)),
    "conv1d_same": (lambda b: nn.Conv1d(2, 3, 4, padding="same", dilation=2, bias=b), (2, 9)),
    "conv2d": (lambda b: nn.Conv2d(2, 3, 3, padding=1, bias=b), (2, 5, 4)),
    "conv2d_dilated": (lambda b: nn.Conv2d(2, 3, (2, 3), dilation=(1, 2), stride=(2, 1), bias=b), (2, 5, 6)),
    "conv2d_circular": (lambda b: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular", bias=b), (2, 4, 4)),
    "conv3d": (lambda b: nn.Conv3d(1, 2, 2, bias=b), (1, 3, 3, 3)),
    "conv_transpose1d": (lambda b: nn.ConvTranspose1d(4, 4, 3, stride=2, groups=2, bias=b), (4, 4)),
    "conv_transpose2d": (lambda b: nn.ConvTranspose2d(2, 3, 3, 2, 1, output_padding=1, bias=b), (2, 3, 3)),
    "conv_transpose3d": (lambda b: nn.ConvTranspose3d(1, 2, 2, bias=b), (1, 2, 2, 2)),
    "matmul": (lambda b: Matmul(b), (3, 4)),
    "addmm": (lambda b: Addmm(), (4,)),
}
RULES = {
    "epsilon": (Epsilon(0.01), lambda *a: slow.epsilon(*a, epsilon=0.01)),
    "gamma": (Gamma(0.3), lambda *a: slow.gamma(*a, gamma=0.3)),
    "alpha2_beta1": (AlphaBeta(2, 1), slow.alpha_beta),
    "alpha1.5_beta0.5": (AlphaBeta(1.5, 0.5), lambda *a: slow.alpha_beta(*a, alpha=1.5, beta=0.5)),
    "zplus": (ZPlus(), slow.zplus),
    "excitation": (Excitation(), slow.excitation),
    "flat": (Flat(), slow.flat),
    "wsquare": (WSquare(), slow.wsquare),
    "zbox": (ZBox(-4.0, 5.0), lambda *a: slow.zbox(*a, low=-4.0, high=5.0)),
}
FIRST = ("flat", "wsquare", "zbox")


class Matmul(nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.w, self.b = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(5) * bias)

    def forward(self, x):
        return x @ self.w


class Addmm(Matmul):
    def __init__(self):
        super().__init__(True)

    def forward(self, x):
        return torch.addmm(torch.zeros_like(self.b), x, self.w)


def relevance(module, x, r, rule):
    """What the library hands to x if the output has relevance r."""
    first = isinstance(rule, (Flat, WSquare, ZBox))
    x = x.clone().requires_grad_()
    with Propagation(rule_table(rule, rule), first=rule if first else None):
        y = module(x)
    (signal,) = torch.autograd.grad(y, x, r / y.detach())
    return signal if first else x.detach() * signal


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("sign", ["any", "nonnegative"])
def test_rule_equals_its_dense_version(rule, layer, bias, sign):
    build, shape = LAYERS[layer]
    module = build(bias).double().requires_grad_(False)
    x = torch.randn(2, *shape, dtype=torch.double)
    run, seen = module, x
    if sign == "nonnegative":  # the library takes a shorter way where it knows the sign
        if rule in FIRST:
            pytest.skip("these stand at the input")
        run, seen = (lambda v: module(F.relu(v))), x.relu()
    y = run(x)
    r = torch.randn_like(y)
    found = relevance(run, x, r, RULES[rule][0])
    w, b = slow.matrix(module, seen[0])  # of every row
    for i in range(2):
        expected = RULES[rule][1](w, b, seen[i].flatten(), r[i].flatten())
        torch.testing.assert_close(found[i].flatten(), expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "alpha2_beta1", "zplus", "flat", "zbox"])
@pytest.mark.parametrize("layer", ["linear", "conv2d", "conv_transpose1d", "conv_transpose2d"])
def test_batch_norm_is_folded_into_the_layer_before_it(rule, layer):
    build, shape = LAYERS[layer]
    linear = build(True).double()
    channels = linear(torch.zeros(1, *shape, dtype=torch.double)).shape[1]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d}[len(shape)](channels).double()
    for t in (norm.running_mean, norm.weight, norm.bias):
        nn.init.normal_(t)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    module = nn.Sequential(linear, norm).eval().requires_grad_(False)
    x = torch.randn(2, *shape, dtype=torch.double)
    r = torch.randn_like(module(x))
    found = relevance(module, x, r, RULES[rule][0])
    w, b = slow.matrix(module, x[0])
    for i in range(2):
        torch.testing.assert_close(
            found[i].flatten(), RULES[rule][1](w, b, x[i].flatten(), r[i].flatten()), rtol=1e-6, atol=1e-9
        )


def test_batch_norm_without_a_layer_before_it_keeps_its_gradient():
    norm = nn.BatchNorm1d(3).double().eval()
    nn.init.normal_(norm.weight)
    x = torch.randn(2, 3, dtype=torch.double)
    found = relevance(lambda v: norm(v * 1.0), x, torch.ones(2, 3, dtype=torch.double), Epsilon(0.0))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    torch.testing.assert_close(found, x * scale / norm(x).detach())


@pytest.mark.parametrize("rule", ["epsilon", "alpha2_beta1", "zplus", "gamma"])
def test_relevance_is_conserved_without_biases(rule):
    net = nn.Sequential(
        nn.Linear(40, 60, bias=False), nn.GELU(), nn.Linear(60, 50, bias=False), nn.Tanh(), nn.Linear(50, 3, bias=False)
    )
    x = torch.randn(4, 40, dtype=torch.double, requires_grad=True)
    given = Epsilon(0.0) if rule == "epsilon" else RULES[rule][0]
    with Propagation(rule_table(given, given)):
        y = net.double()(x)
    (m,) = torch.autograd.grad(y[:, 1].sum(), x)
    torch.testing.assert_close((x * m).sum(1), y[:, 1], rtol=1e-5, atol=1e-8)


def test_zero_input_gets_its_relevance_at_the_first_layer():
    """The readout does not divide by the input, and other uses of the input add to it."""
    w = torch.randn(3, 4, dtype=torch.double)
    x = torch.zeros(1, 4, dtype=torch.double)
    r = torch.ones(1, 3, dtype=torch.double)
    found = relevance(lambda v: F.linear(v, w) + 1.0, x, r, Flat())
    assert found.abs().sum() == 0  # y is the constant alone: nothing to hand on
    found = relevance(lambda v: F.linear(v.flatten(1), w, torch.ones(3).double()), x, r, ZBox(-1.0, 1.0))
    expected = slow.zbox(w, None, x[0], r[0], -1.0, 1.0)
    torch.testing.assert_close(found[0], expected)
    both = relevance(lambda v: F.linear(v, w) + v[:, :3], x + 2, r, Flat())
    y = F.linear(x + 2, w)
    part = slow.flat(w, None, x[0] + 2, (r * y / (y + 2))[0]) + torch.cat(
        [(r * 2 / (y + 2))[0], torch.zeros(1).double()]
    )
    torch.testing.assert_close(both[0], part)
