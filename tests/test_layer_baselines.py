"""``tw.AtLayer``: what the absence of a unit of a layer is; and what flows through a unit, ``tw.NeuronConductance``."""

import numpy as np
import pytest
import torch
from torch import nn

import torchwhy as tw


def dense():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()


NET = dense()
X = torch.randn(3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))
B = torch.randn(3, 6, dtype=torch.double, generator=torch.Generator().manual_seed(2))
H = NET[0](X).detach()


def above(h):
    """The score as a function of what the first layer passes."""
    return NET[1:](h)[:, 1]


@pytest.mark.parametrize(
    ("value", "absent"),
    [
        (0.0, torch.zeros(1, 5).double()),
        (0.7, torch.full((1, 5), 0.7).double()),
        (torch.arange(5).double(), torch.arange(5).double()[None]),
        (H.flip(0), H.flip(0)),
        (tw.Mean(), H.mean(1, keepdim=True).expand(3, 5)),
    ],
)
def test_ablation_by_hand(value, absent):
    by_hand = torch.stack([above(H) - above(torch.where(torch.arange(5) == k, absent, H)) for k in range(5)], 1)
    found = tw.FeatureAblation(NET, layer="0").attribute(X, 1, baselines=tw.AtLayer(value))
    torch.testing.assert_close(found, by_hand)
    if value is not tw.Mean():  # another number than the layer's value at a baseline of the input
        assert not torch.allclose(found, tw.FeatureAblation(NET, layer="0").attribute(X, 1))


def test_a_path_begins_at_the_layer():
    e = tw.IntegratedGradients(NET, layer="0", n_steps=200).explain(X, 1, baselines=tw.AtLayer(0.0))
    torch.testing.assert_close(e.attributions.sum(1), above(H) - above(H * 0), rtol=1e-6, atol=1e-9)
    assert float(e.completeness_gap.max()) < 1e-8


def test_several_layers():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()

        def forward(self, x):
            return (self.a(x) * self.b(x)).sum(1)

    net = Two()
    a, b = tw.FeatureAblation(net, layer=["a", "b"]).attribute(X, baselines=tw.AtLayer((1.0, 2.0)))
    p, q = net.a(X), net.b(X)
    torch.testing.assert_close(a, ((p - 1) * q).detach())
    torch.testing.assert_close(b, (p * (q - 2)).detach())


def test_it_is_for_layers():
    with pytest.raises(ValueError, match=r"baselines: shape \(1, 5\) .* for what a layer passes layer_baselines="):
        tw.FeatureAblation(NET, layer="0").attribute(X, 1, baselines=torch.zeros(1, 5).double())
    with pytest.raises(TypeError, match="AtLayer is for methods that explain by a layer"):
        tw.FeatureAblation(NET).attribute(X, 1, baselines=tw.AtLayer(0.0))
    with pytest.raises(TypeError, match="AtLayer is for methods that explain by a layer"):
        tw.Conductance(NET, layer="0").attribute(X, 1, baselines=tw.AtLayer(0.0))
    with pytest.raises(ValueError, match="does not broadcast"):
        tw.FeatureAblation(NET, layer="0").attribute(X, 1, baselines=tw.AtLayer(torch.zeros(6)))


def through(unit, points=80, layer=2):
    """The definition: the slope of the score by the unit times that of the unit by the inputs, over a Gauss-Legendre rule."""
    at, weights = np.polynomial.legendre.leggauss(points)
    total = torch.zeros_like(X)
    for t, w in zip((at + 1) / 2, weights / 2):
        z = (B + t * (X - B)).requires_grad_()
        y = NET[: layer + 1](z)
        (up,) = torch.autograd.grad(NET[layer + 1 :](y)[:, 1].sum(), y, retain_graph=True)
        (down,) = torch.autograd.grad(y[:, unit].sum(), z)
        total += w * up[:, [unit]] * down * (X - B)
    return total


@pytest.mark.parametrize("unit", [0, 3])
def test_neuron_conductance_by_hand(unit):
    method = tw.NeuronConductance(NET, neuron=tw.Neuron("2", unit), n_steps=80)
    torch.testing.assert_close(method.attribute(X, 1, baselines=B), through(unit))


def test_all_units_are_integrated_gradients():
    each = [tw.NeuronConductance(NET, neuron=tw.Neuron("2", k)).attribute(X, 1, baselines=B) for k in range(4)]
    torch.testing.assert_close(torch.stack(each).sum(0), tw.IntegratedGradients(NET).attribute(X, 1, baselines=B))
    flow = tw.Conductance(NET, layer="2", n_steps=1000).attribute(X, 1, baselines=B)
    torch.testing.assert_close(torch.stack(each, 1).sum(2), flow, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("neuron", [None, "2", tw.Neuron("2", lambda a: a[:, 0])])
def test_one_unit(neuron):
    with pytest.raises((TypeError, ValueError), match="neuron"):
        tw.NeuronConductance(NET, neuron=neuron)


def test_maps_of_the_nearest_cell():
    torch.manual_seed(0)
    net, x = (
        nn.Sequential(nn.Conv2d(1, 3, 3, stride=2), nn.Flatten(), nn.Linear(27, 2)).double(),
        torch.randn(2, 1, 8, 8).double(),
    )
    small = tw.GradCAM(net, layer="0", upsample=False).attribute(x, 1)
    large = tw.GradCAM(net, layer="0", interpolation="nearest").attribute(x, 1)
    cell = (torch.arange(8) * 3) // 8
    assert torch.equal(large, small[:, :, cell][:, :, :, cell])


def test_a_layer_of_vectors_is_one_cell():
    found = tw.GradCAM(NET, layer="1", relu=False, upsample=False).attribute(X, 1)
    by_hand = tw.InputXGradient(NET, layer="1").attribute(X, 1).sum(1, keepdim=True)
    torch.testing.assert_close(found[:, :, 0], by_hand)
    with pytest.raises(ValueError, match="no grid of cells"):
        tw.GradCAM(NET, layer="1").attribute(X, 1)


class TwoStreams(nn.Module):
    """A score of a row of numbers and of another row beside it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.own, self.other = nn.Linear(6, 3).double(), nn.Linear(6, 3).double()

    def forward(self, x, beside):
        return (self.own(x).tanh() * self.other(beside)).sum(1)


@pytest.mark.parametrize("method", [tw.IntegratedGradients, tw.DeepLIFT, tw.FeatureAblation])
def test_a_layer_of_what_is_given_besides_has_no_baseline_of_its_own(method):
    net = TwoStreams()
    with pytest.warns(UserWarning, match=r"'other'.* further arguments, which stay as they are: give them among"):
        none = method(net, layer=["own", "other"]).attribute(X, additional_forward_args=B)
    assert none[0].any()
    assert not none[1].any()
    both = method(net, layer=["own", "other"]).attribute((X, B))  # filterwarnings makes a warning an error
    assert all(a.any() for a in both)
    assert method(net, layer="own").attribute(X, additional_forward_args=B).any()
