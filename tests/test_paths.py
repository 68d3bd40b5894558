"""Methods of paths and of noise: in half precision, with their error bars, and what they refuse."""

import re

import pytest
import torch
from nets import inputs, make
from torch import nn

import torchwhy as tw


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_guided_ig_in_half_precision(dtype):
    """The way of all features is above the largest half, and a step of it below what bfloat16 tells apart."""
    x = (20 + 20 * torch.rand(2, 3000)).to(dtype)
    w = torch.randn(3000).double() / 30
    net = lambda v: (v.double() @ w).square()  # noqa: E731
    found = tw.GuidedIG(net, max_dist=0.1).attribute(x)
    exact = tw.GuidedIG(net, max_dist=0.1).attribute(x.double())
    assert found.dtype == dtype
    assert (found.double() - exact).norm() / exact.norm() < 0.05


def test_guided_ig_without_a_distance_is_the_rule_that_its_docstring_names():
    net, x = make("conv"), inputs("conv")
    (rule,) = re.findall(r"integrated gradients \((\w+) sums\)", tw.GuidedIG.__doc__)
    found = tw.GuidedIG(net, n_steps=7, max_dist=0).attribute(x, 1)
    straight = tw.IntegratedGradients(net, n_steps=7, method=f"riemann_{rule}")
    torch.testing.assert_close(found, straight.attribute(x, 1))


def test_idgi_of_small_gradients_in_half_precision():
    w = 1e-4 * torch.arange(1.0, 4.0)
    x = torch.full((1, 3), 100.0).half()
    found = tw.IDGI(lambda v: (v.float() * w).sum(1)).attribute(x)
    torch.testing.assert_close(found[0].float(), w.square() / w.square().sum() * w.sum() * 100, rtol=5e-3, atol=0)


def test_idgi_refuses_what_it_would_not_use():
    net, x = make("conv"), inputs("conv")
    with pytest.raises(ValueError, match="of: give layer= to IDGI"):
        tw.IDGI(net, of=tw.IntegratedGradients(net, layer="conv1")).attribute(x, 1)
    with pytest.raises(TypeError, match="baselines: IDGI has no use for them"):
        tw.IDGI(net, of=tw.BlurIG(net, n_steps=5)).attribute(x, 1, baselines=0.5)
    with pytest.raises(ValueError, match="of: tolerance given"):
        tw.IDGI(net, of=tw.IntegratedGradients(net, tolerance=0.1)).attribute(x, 1)
    at = tw.IDGI(net, of=tw.BlurIG(net, n_steps=5), layer="conv1").explain(x, 1)
    assert at.completeness_gap.max() < 1e-9


class Folded(nn.Module):
    """Sequences (N, T, 4) → (N, 2), all steps of all rows in one call of a layer."""

    def __init__(self):
        super().__init__()
        self.step, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.step(x.flatten(0, 1)).tanh().unflatten(0, x.shape[:2]).mean(1))


@pytest.mark.parametrize("method", [tw.Conductance, tw.InternalInfluence, tw.IntegratedGradients])
def test_layers_that_pass_several_entries_a_row(method):
    net, x = Folded(), torch.randn(2, 5, 4)
    found = method(net, layer="step").attribute(x, 0)
    alone = [method(net, layer="step").attribute(row[None], 0) for row in x]
    torch.testing.assert_close(found, torch.cat(alone))
    assert found.shape == (2, 5, 3)
    assert method(net, layer="head").attribute(x, 0).shape == (2, 2)


@pytest.mark.parametrize("method", [tw.SmoothGrad, tw.ExpectedGradients, tw.GradientSHAP])
def test_one_sample_says_nothing_of_the_error(method):
    net, x = make("conv"), inputs("conv")
    assert method(net, n_samples=1, generator=0).explain(x, 1).standard_error.isinf().all()
    assert method(net, n_samples=2, generator=0).explain(x, 1).standard_error.isfinite().all()


def test_no_error_is_given_for_another_statistic():
    net, x, given = make("conv"), inputs("conv"), {"n_samples": 4, "generator": 0}
    for method in (tw.SquareGrad(net, **given), tw.VarGrad(net, **given), tw.SmoothGrad(net, channels="max", **given)):
        assert method.explain(x, 1).standard_error is None
    of = tw.SmoothGrad(net, of=tw.Saliency(net, channels="max"), **given).explain(x, 1)
    assert of.standard_error.shape == of.attributions.shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    "make",
    [
        tw.IntegratedGradients,
        lambda f: tw.IntegratedGradients(f, tolerance=0.01),
        tw.GuidedIG,
        tw.IDGI,
        lambda f: tw.SmoothGrad(f, generator=0),
        lambda f: tw.ExpectedGradients(f, generator=0),
    ],
)
def test_inputs_of_one_number_a_row(make):
    data = {"age": torch.tensor([1.0, 2.0]), "income": torch.tensor([3.0, 5.0])}
    method = make(lambda age, income: age * income + age)
    options = {"baselines": "uniform"} if isinstance(method, tw.ExpectedGradients) else {}
    found = method.explain(data, **options).attributions
    assert {k: tuple(v.shape) for k, v in found.items()} == {"age": (2,), "income": (2,)}
    if type(method) is tw.IntegratedGradients:
        total = found["age"] + found["income"]
        torch.testing.assert_close(total, data["age"] * data["income"] + data["age"], rtol=1e-4, atol=1e-4)


def test_noise_of_its_own_size_on_each_input():
    f = lambda a, b: (3 * a + 5 * b).sum(1)  # noqa: E731
    x = (torch.ones(1, 4, dtype=torch.double), torch.ones(1, 4, dtype=torch.double))
    settings = {"n_samples": 400, "generator": 0}
    first, second = tw.GradientSHAP(f, stdevs=(0.0, 0.5), **settings).attribute(x)
    torch.testing.assert_close(first, torch.full_like(first, 3.0))  # without noise the linear part is exact
    assert 0 < float((second - 5).abs().max()) < 5 * 5 * 0.5 / 400**0.5
    both = tw.GradientSHAP(f, stdevs=0.5, **settings).attribute(x)
    torch.testing.assert_close(both, tw.GradientSHAP(f, stdevs=(0.5, 0.5), **settings).attribute(x))
    assert float((both[0] - 3).abs().max()) > 0
