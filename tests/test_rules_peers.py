"""Equal to Captum and, with its canonizers, to Zennit, where these are right."""

import pytest
import torch
import torchvision
from captum import attr as captum
from nets import make
from torch import nn

import torchwhy as tw


class Plain(nn.Module):
    """No module is used twice and nothing is functional: what Captum needs."""

    def __init__(self, act=nn.ReLU, pool=nn.AvgPool2d):
        super().__init__()
        self.conv1, self.act1, self.pool = nn.Conv2d(3, 6, 3), act(), pool(2)
        self.conv2, self.act2 = nn.Conv2d(6, 8, 3), act()
        self.fc, self.act3, self.head = nn.Linear(32, 10), act(), nn.Linear(10, 4)

    def forward(self, x):
        x = self.act2(self.conv2(self.pool(self.act1(self.conv1(x)))))
        return self.head(self.act3(self.fc(x.flatten(1))))


X = torch.randn(3, 3, 10, 10, dtype=torch.double, generator=torch.Generator().manual_seed(0))
T = [0, 1, 2]


@pytest.mark.filterwarnings("ignore")
def test_captum_guided_and_deconvolution():
    net = Plain().double().eval()
    torch.testing.assert_close(tw.GuidedBackprop(net).attribute(X, T), captum.GuidedBackprop(net).attribute(X, T))
    torch.testing.assert_close(tw.DeconvNet(net).attribute(X, T), captum.Deconvolution(net).attribute(X, T))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("act", [nn.ReLU, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.ELU, nn.LeakyReLU])
def test_captum_deeplift(act):
    net, b = Plain(act).double().eval(), torch.randn_like(X)
    expected = captum.DeepLift(net).attribute(X, b, T)
    torch.testing.assert_close(tw.DeepLIFT(net).attribute(X, T, baselines=b), expected)
    expected = captum.LayerDeepLift(net, net.conv2).attribute(X, b, T)
    torch.testing.assert_close(tw.DeepLIFT(net, layer="conv2").attribute(X, T, baselines=b), expected)
    expected = captum.DeepLiftShap(net).attribute(X, b, T)
    torch.testing.assert_close(tw.DeepSHAP(net).attribute(X, T, baselines=b), expected)


@pytest.mark.filterwarnings("ignore")
def test_captum_lrp_epsilon():
    net = Plain().double().eval()
    expected = captum.LRP(net).attribute(X, T)
    found = tw.LRP(net, composite="epsilon", epsilon=1e-9).attribute(X, T)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.filterwarnings("ignore")
def test_captum_deeplift_is_not_complete_on_max_pooling():
    """Which is why the networks above have none."""
    net, b = Plain(pool=nn.MaxPool2d).double().eval().requires_grad_(False), torch.randn_like(X)
    change = (net(X) - net(b))[range(3), T]
    theirs = captum.DeepLift(net).attribute(X, b, T).flatten(1).sum(1)
    assert (theirs - change).abs().max() > 0.01
    torch.testing.assert_close(tw.DeepLIFT(net).attribute(X, T, baselines=b).flatten(1).sum(1), change)


def settle(model):
    """Batch norm statistics that matter; no eps, which Zennit applies twice where it folds."""
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eps = 1e-12  # some versions refuse 0
            nn.init.normal_(m.running_mean, std=0.1)
            nn.init.normal_(m.bias, std=0.1)
            nn.init.uniform_(m.running_var, 0.5, 1.5)
            nn.init.uniform_(m.weight, 0.5, 1.5)
    return model.double().eval()


def excitation():
    """Zennit's own, but for sums and average pools, which share by x / sum(x) there, also where x has both signs."""
    from zennit import composites as z
    from zennit import core
    from zennit import rules as r
    from zennit import types as t
    from zennit.layer import Sum

    def by_positive_part():
        return core.BasicHook(
            input_modifiers=[lambda x: x.clamp(min=0)],
            param_modifiers=[r.NoMod()],
            output_modifiers=[lambda y: y],
            gradient_mapper=lambda g, ys: [g / (y + 1e-12) for y in ys],
            reducer=lambda xs, gs: xs[0] * gs[0],
        )

    sums = [(Sum, by_positive_part()), (t.AvgPool, by_positive_part())]
    return z.LayerMapComposite(
        [(t.Activation, r.Pass()), *sums, (t.Linear, r.ZPlus(stabilizer=1e-12, zero_params="bias"))]
    )


def composites(x):
    """Ours, Zennit's, and the input: with a stabiliser that does not matter."""
    from zennit import composites as z
    from zennit import rules as r
    from zennit import types as t

    tiny = {"epsilon": 1e-12, "stabilizer": 1e-12}
    box = {"low": torch.full_like(x[:1], -3), "high": torch.full_like(x[:1], 3)}
    base = z.layer_map_base(stabilizer=1e-12)
    return {
        "epsilon": (z.LayerMapComposite([*base, (t.Linear, r.Epsilon(1e-12))]), {}, x),
        "epsilon_plus": (z.EpsilonPlus(**tiny), {}, x),
        "epsilon_plus_flat": (z.EpsilonPlusFlat(**tiny), {}, x),
        "epsilon_gamma_box": (z.EpsilonGammaBox(**box, **tiny), {"low": -3.0, "high": 3.0}, x),
        "epsilon_alpha2_beta1": (z.EpsilonAlpha2Beta1(**tiny), {}, x),
        "epsilon_alpha2_beta1_flat": (z.EpsilonAlpha2Beta1Flat(**tiny), {}, x),
        "excitation": (excitation(), {}, x.abs()),
    }


SLOW = ("resnet18", "vgg11_bn", "vgg16_bn", "resnet50")


def network(model):
    """One of torchvision's; "resnet": blocks of its ResNet-18, with and without a convolution beside them."""
    resnet = torchvision.models.resnet
    if model == "resnet":
        return resnet.ResNet(resnet.BasicBlock, [2, 1, 1, 1], num_classes=5)
    return getattr(torchvision.models, model)(num_classes=5)


@pytest.mark.parametrize("model", ["resnet", *(pytest.param(m, marks=pytest.mark.slow) for m in SLOW)])
def test_zennit(model):
    pytest.importorskip("zennit")
    from zennit.attribution import Gradient
    from zennit.torchvision import ResNetCanonizer, VGGCanonizer

    net, side = settle(network(model)), 32 if model == "resnet" else 64
    x = torch.randn(1, 3, side, side, dtype=torch.double).clamp(-3, 3)
    for name, (composite, options, given) in composites(x).items():
        composite.canonizers = [VGGCanonizer() if "vgg" in model else ResNetCanonizer()]
        found = tw.LRP(net, composite=name, epsilon=1e-12, **options).attribute(given, 3)
        with Gradient(net, composite) as attributor:
            _, expected = attributor(given, lambda out: out * torch.eye(5, dtype=torch.double)[[3]])
        error = (found - expected).norm() / expected.norm()
        assert error < 1e-6, f"{name}: {error}"


def test_the_shared_network_is_not_what_captum_can_do():
    """Its ReLU is used twice and once functional: the reason for rules by operation."""
    net, x = make("conv"), torch.randn(2, 3, 8, 8, dtype=torch.double)
    explanation = tw.DeepLIFT(net).explain(x, 1)
    assert explanation.completeness_gap.max() < 1e-12
    assert explanation.details["operations_with_rule"]["relu"] == 2
