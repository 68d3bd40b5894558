"""Equal to Captum where Captum is right."""

import pytest
import torch
from captum import attr as captum
from nets import inputs, make

import torchwhy as tw

NET, X = make("conv"), inputs("conv", 2)
B = inputs("conv", 2, seed=7)
T = [2, 0]
RULES = ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
EXACT = {"rtol": 1e-10, "atol": 1e-13}
SINGLE = {"rtol": 1e-5, "atol": 1e-5}  # in float32
# Captum rounds the steps of its rules to float32
STEPS = {"rtol": 2e-6, "atol": 1e-9}


def models(dtype=torch.double):
    """Captum's own: network, inputs, target, layer, unit of the layer."""
    from captum.testing.helpers import basic_models as m

    g = torch.Generator().manual_seed(0)
    dense, conv = m.BasicModel_MultiLayer().to(dtype), m.BasicModel_ConvNet().to(dtype).eval()
    return [
        (dense, torch.rand(4, 3, generator=g).to(dtype) * 9, 1, "linear1", (1,)),
        (conv, torch.rand(2, 1, 10, 10, generator=g).to(dtype) * 20, 3, "conv1", (1, 2, 3)),
    ]


def close(ours, theirs, within):
    """Up to ``within``, small numbers in proportion to the largest one."""
    torch.testing.assert_close(ours, theirs, rtol=within["rtol"], atol=within["atol"] * theirs.abs().max().item())


def gradients_are_equal(net, x, target, layer, unit):
    place = dict(net.named_modules())[layer]
    pairs = [
        (tw.Saliency(net).attribute(x, target), captum.Saliency(net).attribute(x, target)),
        (tw.Saliency(net, signed=True).attribute(x, target), captum.Saliency(net).attribute(x, target, abs=False)),
        (tw.InputXGradient(net).attribute(x, target), captum.InputXGradient(net).attribute(x, target)),
        (
            tw.InputXGradient(net, layer=layer).attribute(x, target),
            captum.LayerGradientXActivation(net, place).attribute(x, target),
        ),
        (
            tw.Saliency(net, signed=True).attribute(x, tw.Neuron(layer, unit)),
            captum.NeuronGradient(net, place).attribute(x, unit),
        ),
    ]
    for ours, theirs in pairs:
        close(ours, theirs, EXACT if x.dtype == torch.double else SINGLE)


both_types = pytest.mark.parametrize("dtype", [torch.double, torch.float], ids=str)


@both_types
@pytest.mark.parametrize("number", [0, 1])
def test_gradients_of_captums_own_models(number, dtype):
    gradients_are_equal(*models(dtype)[number])


@pytest.mark.parametrize("layer", [None, "norm"])
def test_integrated_gradients_in_single_precision(layer):
    net, x = make("conv", torch.float), X.float()
    ours = tw.IntegratedGradients(net, n_steps=20, layer=layer).attribute(x, T)
    theirs = captum.IntegratedGradients(net) if layer is None else captum.LayerIntegratedGradients(net, net.norm)
    close(ours, theirs.attribute(x, target=T, n_steps=20), SINGLE)


@both_types
def test_gradients(dtype):
    gradients_are_equal(make("conv", dtype), X.to(dtype), T, "norm", (2, 3, 4))


@pytest.mark.slow
@both_types
def test_gradients_of_resnet18(dtype):
    from torchvision.models import resnet18

    net, x = resnet18().eval().to(dtype), torch.randn(1, 3, 96, 96, dtype=dtype)
    gradients_are_equal(net, x, 5, "layer3.0.conv2", (3, 1, 2))


def trapezoid(rule, n):
    """Captum's trapezoid weights sum to (n - 1)/n, ours to 1."""
    return n / (n - 1) if rule == "riemann_trapezoid" else 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", [None, "conv2"])
def test_integrated_gradients(rule, layer):
    ours = tw.IntegratedGradients(NET, n_steps=12, method=rule, layer=layer).attribute(X, T, baselines=B)
    theirs = captum.IntegratedGradients(NET) if layer is None else captum.LayerIntegratedGradients(NET, NET.conv2)
    if (
        layer is not None
    ):  # Captum cannot explain by a layer that an in-place operation follows: the head is what is left
        ours = tw.IntegratedGradients(NET, n_steps=12, method=rule, layer="norm").attribute(X, T, baselines=B)
        theirs = captum.LayerIntegratedGradients(NET, NET.norm)
    expected = theirs.attribute(X, baselines=B, target=T, n_steps=12, method=rule) * trapezoid(rule, 12)
    torch.testing.assert_close(ours, expected, **STEPS)


@pytest.mark.parametrize("rule", RULES)
def test_conductance_and_internal_influence(rule):
    ours = tw.Conductance(NET, n_steps=12, method=rule, layer="norm").attribute(X, T, baselines=B)
    theirs = captum.LayerConductance(NET, NET.norm).attribute(X, baselines=B, target=T, n_steps=12, method=rule)
    torch.testing.assert_close(ours, theirs, **(EXACT if rule == "gausslegendre" else STEPS))
    ours = tw.InternalInfluence(NET, n_steps=12, method=rule, layer="norm").attribute(X, T, baselines=B)
    theirs = captum.InternalInfluence(NET, NET.norm).attribute(X, baselines=B, target=T, n_steps=12, method=rule)
    torch.testing.assert_close(ours, theirs * trapezoid(rule, 12), **STEPS)


def test_layers_and_neurons():
    unit = (2, 3, 4)
    pairs = [
        (
            tw.InputXGradient(NET, layer="norm").attribute(X, T),
            captum.LayerGradientXActivation(NET, NET.norm).attribute(X, T),
        ),
        (tw.LayerActivation(NET, layer="norm").attribute(X), captum.LayerActivation(NET, NET.norm).attribute(X)),
        (
            tw.Saliency(NET, signed=True).attribute(X, tw.Neuron("norm", unit)),
            captum.NeuronGradient(NET, NET.norm).attribute(X, neuron_selector=unit),
        ),
        (
            tw.Saliency(NET, signed=True).attribute(X, tw.Neuron(tw.Layer("norm", input=True), unit)),
            captum.NeuronGradient(NET, NET.norm).attribute(X, neuron_selector=unit, attribute_to_neuron_input=True),
        ),
    ]
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, **EXACT)
    ours = tw.IntegratedGradients(NET, n_steps=12).attribute(X, tw.Neuron("norm", unit), baselines=B)
    theirs = captum.NeuronIntegratedGradients(NET, NET.norm).attribute(X, unit, baselines=B, n_steps=12)
    torch.testing.assert_close(ours, theirs, **STEPS)
    ours = tw.IntegratedGradients(NET, n_steps=12, layer="norm", attribute_to_layer_input=True).attribute(
        X, T, baselines=B
    )
    theirs = captum.LayerIntegratedGradients(NET, NET.norm).attribute(
        X, baselines=B, target=T, n_steps=12, attribute_to_layer_input=True
    )
    torch.testing.assert_close(ours, theirs, **STEPS)


def test_noise_tunnel_without_noise():
    ours = tw.SmoothGrad(NET, of=tw.IntegratedGradients(NET, n_steps=12), stdevs=0.0, n_samples=3).attribute(X, T)
    theirs = captum.NoiseTunnel(captum.IntegratedGradients(NET)).attribute(
        X, target=T, n_steps=12, nt_samples=3, stdevs=0.0
    )
    torch.testing.assert_close(ours, theirs, **STEPS)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("number", [0, 1])
def test_captums_own_models(number, rule):
    net, x, target, layer, _ = models()[number]
    place = dict(net.named_modules())[layer]
    kind = {"n_steps": 20, "method": rule}
    scale = trapezoid(rule, 20)
    torch.testing.assert_close(
        tw.IntegratedGradients(net, **kind).attribute(x, target),
        captum.IntegratedGradients(net).attribute(x, target=target, **kind) * scale,
        **STEPS,
    )
    torch.testing.assert_close(
        tw.IntegratedGradients(net, layer=layer, **kind).attribute(x, target),
        captum.LayerIntegratedGradients(net, place).attribute(x, target=target, **kind) * scale,
        **STEPS,
    )
    torch.testing.assert_close(
        tw.Conductance(net, layer=layer, **kind).attribute(x, target),
        captum.LayerConductance(net, place).attribute(x, target=target, **kind),
        **STEPS,
    )
    torch.testing.assert_close(
        tw.InternalInfluence(net, layer=layer, **kind).attribute(x, target),
        captum.InternalInfluence(net, place).attribute(x, target=target, **kind) * scale,
        **STEPS,
    )


@pytest.mark.slow
def test_resnet18():
    from torchvision.models import resnet18

    net = resnet18().eval().double()
    x = torch.randn(1, 3, 96, 96, dtype=torch.double)
    for rule in RULES:
        kind = {"n_steps": 8, "method": rule}
        torch.testing.assert_close(
            tw.IntegratedGradients(net, **kind).attribute(x, 5),
            captum.IntegratedGradients(net).attribute(x, target=5, **kind) * trapezoid(rule, 8),
            **STEPS,
        )
        torch.testing.assert_close(  # after bn2 an operation in place stops captum
            tw.IntegratedGradients(net, layer="layer3.0.conv2", **kind).attribute(x, 5),
            captum.LayerIntegratedGradients(net, net.layer3[0].conv2).attribute(x, target=5, **kind)
            * trapezoid(rule, 8),
            **STEPS,
        )
        torch.testing.assert_close(
            tw.Conductance(net, layer="layer3", **kind).attribute(x, 5),
            captum.LayerConductance(net, net.layer3).attribute(x, target=5, **kind),
            **STEPS,
        )
        torch.testing.assert_close(
            tw.InternalInfluence(net, layer="layer3", **kind).attribute(x, 5),
            captum.InternalInfluence(net, net.layer3).attribute(x, target=5, **kind) * trapezoid(rule, 8),
            **STEPS,
        )
