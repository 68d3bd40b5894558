"""LRP as a method: which rule where, on models that are functions, that normalise their input, in half precision."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.lrp import Epsilon

D = torch.double


def mlp():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)).double()


def conv():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)
    ).double()


def images():
    return torch.randn(3, 2, 6, 6, dtype=D)


def test_the_default_tells_features_of_a_fully_connected_network_apart():
    """The flat rule, which it has for convolutions, would give all of them the same."""
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    expected = tw.LRP(net, composite="epsilon").attribute(x, 0)
    assert expected.std(1).min() > 0
    for model in (net, lambda v: net(v)):
        torch.testing.assert_close(tw.LRP(model).attribute(x, 0), expected)
    same = tw.LRP(net, composite="epsilon_plus_flat").attribute(x, 0)
    torch.testing.assert_close(same, same[:, :1].expand(3, 5))
    net, x = conv(), images()
    expected = tw.LRP(net, composite="epsilon_plus_flat").attribute(x, 0)
    for model in (net, lambda v: net(v)):
        torch.testing.assert_close(tw.LRP(model).attribute(x, 0), expected)


W = nn.Parameter(torch.tensor([[1.0], [-2.0], [0.5]], dtype=D))
SCALE = nn.Parameter(torch.tensor([0.5, 1.5, 3.0], dtype=D))
FUNCTIONS = {
    "matmul": lambda x: (x @ W)[:, 0],
    "transposed": lambda x: (x @ W.T.mT)[:, 0],
    "made_of_parameters": lambda x: (x @ (2 * W))[:, 0],
    "product": lambda x: (x * SCALE).sum(1),
    "in_place": lambda x: x.clone().mul_(SCALE).sum(1),
    "einsum": lambda x: torch.einsum("ni,i->n", x, SCALE),
    "linear": lambda x: F.linear(x, W.T, SCALE[:1] * 0)[:, 0],
}


@pytest.mark.parametrize("model", FUNCTIONS.values(), ids=FUNCTIONS)
def test_trainable_parameters_of_a_function_take_no_share(model):
    x = torch.randn(4, 3, dtype=D)
    found = tw.LRP(model, composite="epsilon", epsilon=1e-12).attribute(x)
    torch.testing.assert_close(found, tw.InputXGradient(model).attribute(x))
    assert W.requires_grad
    assert W.grad is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first": "flat"},
        {"first": Epsilon()},
        {"composite": "epsilon_plus_flat"},
        {"composite": "epsilon_gamma_box", "low": -3.0, "high": 3.0},
    ],
    ids=str,
)
def test_a_first_rule_that_no_layer_gets_is_no_secret(options):
    net, x = conv(), images()
    with pytest.warns(UserWarning, match="rule is for linear layers that see the input, and none does"):
        tw.LRP(lambda v: net((v - 0.5) / 0.2), **options).attribute(x, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (net, lambda v: net(v.clone())):
            tw.LRP(model, **options).attribute(x, 0)
        tw.LRP(mlp()).attribute(torch.randn(3, 5, dtype=D), 0)  # whose first layer keeps its rule
        tw.LRP(nn.Sequential(nn.Linear(5, 8), nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 1, 4), nn.Flatten())).attribute(
            torch.randn(3, 5), 0
        )


def test_convolutions_may_keep_their_gradient():
    net, x = conv(), images()
    expected = tw.LRP(net, composite={F.conv2d: Epsilon(0.0)}).attribute(x, 0)
    torch.testing.assert_close(tw.LRP(net, composite={F.conv2d: "norm"}).attribute(x, 0), expected)
    with pytest.warns(UserWarning, match="the Flat rule is for linear layers"):
        found = tw.LRP(net, composite={F.conv2d: "norm"}, first="flat").attribute(x, 0)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("batch_size", [None, 1])
def test_bounds_are_the_same_for_all_rows(batch_size):
    net, x = mlp(), torch.randn(3, 5, dtype=D)
    options = {"composite": "epsilon", "first": "zbox", "batch_size": batch_size}
    expected = tw.LRP(net, low=-4.0, high=4.0, **options).attribute(x, 0)
    for shape in ((5,), (1, 5), (1,)):
        high = torch.full(shape, 4.0)
        torch.testing.assert_close(tw.LRP(net, low=-high, high=high, **options).attribute(x, 0), expected)
    with pytest.raises(ValueError, match=r"low= of shape \(3, 5\) does not broadcast to a row .* hold for all rows"):
        tw.LRP(net, low=torch.full((3, 5), -4.0), high=4.0, **options).attribute(x, 0)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus_flat", "epsilon_gamma", "epsilon_alpha2_beta1"])
@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_half_precision(composite, dtype):
    """Where a unit gets nothing at all, as from a black part of the picture, ε is all that is left to divide by."""
    net = conv()
    for m in net:
        if getattr(m, "bias", None) is not None:
            nn.init.zeros_(m.bias)
    x = images()
    x[..., :3] = 0
    exact = tw.LRP(net, composite=composite).attribute(x, 0)
    found = tw.LRP(net.to(dtype), composite=composite).attribute(x.to(dtype), 0)
    assert (found.double() - exact).norm() / exact.norm() < (0.05 if dtype == torch.half else 0.3)


@pytest.mark.parametrize(
    "options",
    [
        {"composite": "epsilon_gamma_box"},
        {"composite": "epsilon_gamma_box", "low": 0.0},
        {"first": "zbox"},
        {"composite": {nn.Conv2d: "zbox"}},
        {"composite": tw.lrp.EPSILON.replace(by_name={"conv": "zbox"})},
    ],
)
def test_a_box_without_bounds_is_refused_in_the_constructor(options):
    with pytest.raises(ValueError, match="low= and high="):
        tw.LRP(nn.Identity(), **options)


def test_a_box_that_another_first_rule_stands_in_for_needs_no_bounds():
    assert tw.LRP(nn.Identity(), composite="epsilon_gamma_box", first="flat").first == "flat"
