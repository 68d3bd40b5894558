"""A number that a caller writes is rounded once, to the type that it is for: 0.1 is 0.1 in float64."""

import pytest
import torch
from nets import inputs, make

import torchwhy as tw

ROW = torch.full((1, 5), 0.1, dtype=torch.double)


@pytest.mark.parametrize(
    "method",
    [
        tw.FeatureAblation,
        tw.ExactShapley,
        tw.IntegratedGradients,
        tw.DeepLIFT,
        lambda net: tw.KernelSHAP(net, generator=0),
        lambda net: tw.Occlusion(net, sliding_window_shapes=1),
    ],
)
def test_a_baseline_is_what_a_tensor_of_it_is(method):
    net, x = make("smooth"), inputs("smooth")
    number, tensor = (method(net).attribute(x, 1, baselines=b) for b in (0.1, ROW))
    assert torch.equal(number, tensor)


def test_a_baseline_by_hand():
    found = tw.FeatureAblation(lambda x: x.sum(1)).attribute(torch.zeros(1, 2).double(), baselines=0.1)
    assert found.tolist() == [[-0.1, -0.1]]


def test_a_standard_deviation():
    net, x = make("smooth"), inputs("smooth")
    seen = []
    net.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach().clone()))
    for stdevs in (0.1, 1.0):
        tw.SmoothGrad(net, stdevs=stdevs, n_samples=4, generator=0, check=False).attribute(x, 1)
    noise = [z - x.repeat(4, 1) for z in seen]
    torch.testing.assert_close(noise[0], 0.1 * noise[1], rtol=1e-12, atol=1e-15)


def test_values_of_a_grid():
    found = tw.PartialDependence(make("smooth")).measure(inputs("smooth", 12), 1, feature=0, grid=[0.1, 0.7])
    assert found.grid[0].tolist() == [0.1, 0.7]


def test_bounds_of_a_counterfactual():
    net, x = make("smooth"), inputs("smooth")
    found = tw.Counterfactual(net, bounds=(-0.7, 0.1)).generate(x.clamp(-0.7, 0.1)).found
    assert found.min().item() >= -0.7
    assert found.max().item() <= 0.1
