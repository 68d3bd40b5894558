"""Excitation backprop at sums that are no layers: each equals the linear layer of the same weights, by the paper's formula."""

import pytest
import torch
import torch.nn.functional as F
from nets import make
from torch import nn

import torchwhy as tw
from torchwhy.models import shapes, shapes_resnet


class Net(nn.Module):
    """Rows (N, 4) → (N, 3): values of both signs, a sum of them, a rectifier, a head."""

    def __init__(self, add, d):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(6, 4, generator=g, dtype=torch.double))
        self.head = nn.Parameter(torch.randn(3, d, generator=g, dtype=torch.double))
        self.add = add

    def forward(self, x):
        return F.linear(self.add(F.linear(x, self.first)).relu(), self.head)


def layer(*weights, bias=None):
    """What a linear layer with these weights gives: a function of rows (N, 6)."""
    w = torch.tensor(weights, dtype=torch.double)
    return lambda h: F.linear(h, w, None if bias is None else torch.tensor(bias, dtype=torch.double))


def in_place(h):
    a = h[:, :3].clone()
    a += h[:, 3:]
    return a


def batch_norm(h):
    """One without a layer before it: of what a rectifier's like left."""
    z, w = torch.zeros(6).double(), torch.tensor([1.0, 2, -1, 0.5, 1, -2]).double()
    return F.batch_norm(h.tanh(), z, torch.ones(6).double() - 1e-5, w, torch.full((6,), 0.1).double())


EYE, E = torch.eye(3), torch.eye(6)
PAIR = torch.cat([EYE, EYE], 1).tolist()
DIFFERENCE = torch.cat([EYE, -EYE], 1).tolist()
SCALED = torch.cat([EYE, 2 * EYE], 1).tolist()
SCALE = torch.diag(torch.tensor([1.0, 2, -1, 0.5, 1, -2])).tolist()
HALF = [[0.5, 0.5, 0, 0, 0, 0], [0, 0, 0.5, 0.5, 0, 0], [0, 0, 0, 0, 0.5, 0.5]]
# a sum as a model writes it, and the linear layer that it is
SUMS = {
    "+": (lambda h: h[:, :3] + h[:, 3:], layer(*PAIR)),
    "+=": (in_place, layer(*PAIR)),
    "add, alpha": (lambda h: torch.add(h[:, :3], h[:, 3:], alpha=2), layer(*SCALED)),
    "add, other=": (lambda h: torch.add(h[:, :3], other=h[:, 3:]), layer(*PAIR)),
    "-": (lambda h: h[:, :3] - h[:, 3:], layer(*DIFFERENCE)),
    "rsub": (lambda h: torch.rsub(h[:, 3:], h[:, :3]), layer(*DIFFERENCE)),
    "builtin sum": (lambda h: sum(h.split(3, 1)), layer(*PAIR)),
    "sum": (lambda h: h.unflatten(1, (3, 2)).sum(2), layer(*(2 * torch.tensor(HALF)).tolist())),
    "mean": (lambda h: h.unflatten(1, (3, 2)).mean(2), layer(*HALF)),
    "stacked": (lambda h: torch.stack(h.split(3, 1)).sum(0), layer(*PAIR)),
    "avg_pool": (lambda h: F.avg_pool1d(h[:, None], 2)[:, 0], layer(*HALF)),
    "adaptive pool": (lambda h: F.adaptive_avg_pool1d(h[:, None], 3)[:, 0], layer(*HALF)),
    "interpolate": (lambda h: F.interpolate(h[:, None], 3, mode="linear")[:, 0], layer(*HALF)),
    "cumsum": (lambda h: h.cumsum(1), layer(*torch.ones(6, 6).tril().tolist())),
    "number": (lambda h: h + 0.3, layer(*E.tolist(), bias=[0.3] * 6)),
    "number -": (lambda h: h - 0.3, layer(*E.tolist(), bias=[-0.3] * 6)),
    "constant": (lambda h: torch.full((6,), 0.3).double() + h, layer(*E.tolist(), bias=[0.3] * 6)),
    "batch norm": (batch_norm, lambda h: layer(*SCALE, bias=[0.1] * 6)(h.tanh())),
}  # fmt: skip


@pytest.mark.parametrize("contrastive", [False, True])
@pytest.mark.parametrize("name", SUMS)
def test_a_sum_is_the_layer_that_it_is(name, contrastive):
    x, targets = torch.rand(30, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1)), [0, 1, 2] * 10
    given, same = SUMS[name]
    d = given(torch.zeros(1, 6).double()).shape[1]
    torch.testing.assert_close(Net(given, d)(x), Net(same, d)(x))
    found, right = (
        tw.ExcitationBackprop(Net(f, d), contrastive=contrastive).attribute(x, targets) for f in (given, same)
    )
    torch.testing.assert_close(found, right, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(
        tw.LRP(Net(given, d), composite="excitation").attribute(x, targets),
        tw.LRP(Net(same, d), composite="excitation").attribute(x, targets),
        rtol=1e-6,
        atol=1e-9,
    )


def test_by_hand():
    """P(a) = 1 / 1 where a = 1 and b = -0.97 are added: negative activations get nothing."""

    class Add(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Identity(), nn.Identity()

        def forward(self, x):
            return (self.a(x[:, 0]) + self.b(-x[:, 1])).relu()

    x = torch.tensor([[1.0, 0.97]])
    assert tw.ExcitationBackprop(Add()).attribute(x).tolist() == [[1.0, 0.0]]
    a, b = tw.ExcitationBackprop(Add(), layer=["a", "b"]).attribute(x)
    assert (a.item(), b.item()) == (1.0, 0.0)


@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
def test_probabilities_on_a_residual_network(layer):
    net, data = shapes_resnet(), shapes(8, seed=3)
    p = tw.ExcitationBackprop(net, layer=layer).attribute(data.images, data.labels)
    assert p.min() >= 0
    assert p.flatten(1).sum(1).max() <= 1 + 1e-4
    contrast = tw.ExcitationBackprop(net, layer=layer, contrastive=True).attribute(data.images, data.labels)
    assert contrast.flatten(1).abs().sum(1).max() <= 2 + 1e-4  # two distributions differ by no more


@pytest.mark.parametrize("dtype, bound", [(torch.half, 0.02), (torch.bfloat16, 0.1)])
def test_lower_precision_is_not_amplified(dtype, bound):
    net, x = make("conv"), torch.rand(3, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(2))
    right = tw.ExcitationBackprop(net, contrastive=True).attribute(x, 1)
    found = tw.ExcitationBackprop(net.to(dtype), contrastive=True).attribute(x.to(dtype), 1)
    assert (found.double() - right).norm() / right.norm() < bound
