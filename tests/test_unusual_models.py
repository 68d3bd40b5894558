"""Models and inputs that are unusual: the right numbers, or words that say what would do."""

import copy

import pytest
import torch
from torch import nn

import torchwhy as tw

G = torch.Generator().manual_seed(0)
X = torch.randn(4, 5, generator=G)


class Squeezed(nn.Module):
    """A regression that ends in ``squeeze``: a bare number for one row."""

    def __init__(self, squeeze=True):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.squeeze = nn.Conv2d(1, 2, 3, padding=1), nn.Linear(2, 1), squeeze

    def forward(self, x):
        y = self.head(self.conv(x).relu().mean((2, 3)))
        return y.squeeze() if self.squeeze else y[:, 0]


KEYS = ["add_bias_kv", "add_zero_attn"]
PICTURES = torch.rand(3, 1, 6, 6, generator=G)


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(
    "method",
    [
        tw.Saliency,
        tw.InputXGradient,
        tw.IntegratedGradients,
        tw.GradCAM,
        tw.LRP,
        tw.DeepLIFT,
        tw.FeatureAblation,
        lambda m: tw.KernelSHAP(m, n_samples=80, generator=0),
        lambda m: tw.Occlusion(m, sliding_window_shapes=(1, 2, 2)),
    ],
)
def test_a_bare_number_is_the_score_of_a_single_row(method, rows):
    found, expected = (method(Squeezed(squeeze)).attribute(PICTURES[:rows]) for squeeze in (True, False))
    torch.testing.assert_close(found, expected)


def test_a_bare_number_for_several_rows_is_refused():
    for method in (tw.Saliency, tw.FeatureAblation):
        with pytest.raises(ValueError, match=r"given \d rows and returned an output of shape \(\)"):
            method(lambda x: x.sum(), batch_size=2).attribute(X)


@pytest.mark.parametrize(
    "method", [tw.Saliency, tw.IntegratedGradients, tw.DeepLIFT, tw.LRP, tw.SmoothGrad, tw.GuidedIG]
)
def test_complex_inputs_are_called_so(method):
    z = torch.randn(2, 3, dtype=torch.complex64)
    with pytest.raises(TypeError, match=r"a complex number is explained by its two parts; pass torch.view_as_real"):
        method(lambda z: z.abs().sum(1)).attribute(z)
    found = method(lambda z: torch.view_as_complex(z).abs().sum(1)).attribute(torch.view_as_real(z))
    assert found.shape == (2, 3, 2)


@pytest.mark.parametrize(
    "layers", [nn.Linear(5, 3), nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))], ids=["linear", "norm"]
)
@pytest.mark.parametrize("method", [tw.Saliency, tw.IntegratedGradients, tw.GuidedBackprop, tw.SmoothGrad])
def test_parameters_made_in_inference_mode_are_named(layers, method):
    net = nn.Sequential(layers, nn.ReLU(), nn.Linear(3, 2)).eval()
    with torch.inference_mode():
        made = copy.deepcopy(net)
    with pytest.raises(ValueError, match=r"made under torch.inference_mode.*copy.deepcopy\(model\)"):
        method(made).attribute(X, 1)
    torch.manual_seed(0)
    found = method(copy.deepcopy(made), **({"generator": 0} if method is tw.SmoothGrad else {})).attribute(X, 1)
    expected = method(net, **({"generator": 0} if method is tw.SmoothGrad else {})).attribute(X, 1)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(tw.FeatureAblation(made).attribute(X, 1), tw.FeatureAblation(net).attribute(X, 1))


@pytest.mark.parametrize("method", [tw.Saliency, tw.FeatureAblation, tw.IntegratedGradients])
@pytest.mark.filterwarnings("ignore:the model is in training mode")
def test_a_neuron_behind_batch_norm_in_training_mode(method):
    net = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))
    found = method(net, batch_size=4).attribute(X, tw.Neuron("2", 1))
    expected = method(lambda x: net[2](net[1](net[0](x)))[:, 1], batch_size=4).attribute(X)
    torch.testing.assert_close(found, expected)
    pair = tw.IntegratedGradients(net, layer=["0", "0"])
    with pytest.raises(ValueError, match="layer"):
        tw.IntegratedGradients(net, layer=["0", "2"]).attribute(X, 1)
    assert pair.layer == ["0", "0"]


@pytest.mark.parametrize("options", [dict.fromkeys(keys, True) for keys in (KEYS[:1], KEYS[1:], KEYS)])
@pytest.mark.parametrize("method", [tw.AttentionRollout, tw.AttentionFlow, tw.RawAttention])
def test_keys_that_are_no_tokens_are_named(method, options):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True, **options), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.attention(x, x, x)[0][:, 0])

    with pytest.raises(
        ValueError, match=r"5 × [67]: there are keys that belong to none of the tokens, as with add_bias_kv"
    ):
        method(Net().eval()).attribute(torch.randn(2, 5, 8))


def test_concepts_of_other_sizes_are_named():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()
    small, large = torch.rand(6, 3, 6, 6), [torch.rand(6, 3, 8, 8) for _ in range(3)]
    with pytest.raises(
        ValueError, match=r"64 of concepts\['a'\], 144 of random\[0\].*use examples of one size, or pool=True"
    ):
        tw.TCAV(net, layer="0", level=0.25).fit({"a": small}, large)
    with pytest.raises(ValueError, match=r"64 of concepts\['a'\], 144 of concepts\['b'\]"):
        tw.TCAV(net, layer="0").fit({"a": small, "b": large[0]})
    assert tw.TCAV(net, layer="0", level=0.25, pool=True).fit({"a": small}, large).concepts == ("a",)
