"""Layers inside ``nn.TransformerEncoder`` with a padding mask, whose fast path would hand them nested tensors."""

import pytest
import torch
from cases import in_turn
from torch import nn
from torch.backends import mha

import torchwhy as tw


class Encoder(nn.Module):
    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.emb = nn.Linear(4, 8)
        self.enc = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, **options)
        self.fc = nn.Linear(8, 3)

    def forward(self, x, pad):
        return self.fc(self.enc(self.emb(x), src_key_padding_mask=pad)[:, 0])


X = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))
PADS = {
    "padded": torch.tensor([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]]).bool(),
    "whole": torch.zeros(2, 6, dtype=torch.bool),
}
LAYERS = ("enc.layers.0", "enc.layers.1.norm1", "enc.layers.1.linear1", "enc.layers.1.self_attn.out_proj", "enc")
METHODS = {
    "LayerActivation": lambda m, layer: tw.LayerActivation(m, layer=layer),
    "InputXGradient": lambda m, layer: tw.InputXGradient(m, layer=layer),
    "IntegratedGradients": lambda m, layer: tw.IntegratedGradients(m, layer=layer, n_steps=8),
    "DeepLIFT": lambda m, layer: tw.DeepLIFT(m, layer=layer),
    "LRP": lambda m, layer: tw.LRP(m, layer=layer),
    "FeatureAblation": lambda m, layer: tw.FeatureAblation(m, layer=layer),
    "Conductance": lambda m, layer: tw.Conductance(m, layer=layer, n_steps=8),
    "AblationCAM": lambda m, layer: tw.AblationCAM(m, layer=layer, upsample=False),
    "GradCAM": lambda m, layer: tw.GradCAM(m, layer=layer, upsample=False),
}


def explained(method, model, layer, pad):
    target = {} if method == "LayerActivation" else {"target": 1}
    if method == "FeatureAblation":
        target["feature_mask"] = torch.zeros(1, 1, 1, dtype=torch.long)
    return METHODS[method](model, layer).attribute(X, additional_forward_args=pad, **target)


@pytest.mark.parametrize("method, layer", in_turn(METHODS, LAYERS, 2))
def test_a_padded_encoder_is_explained_by_its_layers(method, layer):
    if layer == "enc.layers.1.self_attn.out_proj":  # whose parameters attention uses by itself
        with pytest.raises(LookupError, match="did not run"):
            explained(method, Encoder().eval(), layer, PADS["padded"])
        return
    for pad in PADS.values():
        if layer == "enc" and "CAM" in method:
            continue  # no grid over six tokens
        found = explained(method, Encoder().eval(), layer, pad)
        expected = explained(method, Encoder(enable_nested_tensor=False).eval(), layer, pad)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert mha.get_fastpath_enabled()


def test_neurons_and_concepts_too():
    pad, models = PADS["padded"], [Encoder(enable_nested_tensor=nested).eval() for nested in (True, False)]
    neuron = tw.Neuron("enc.layers.0", (1, 2))
    found, expected = (tw.FeatureAblation(m).attribute(X, neuron, additional_forward_args=pad) for m in models)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    found, expected = (
        tw.SmoothGrad(m, n_samples=2, generator=0).attribute(X, neuron, additional_forward_args=pad) for m in models
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_choice_of_the_fast_path_is_left_alone(enabled):
    mha.set_fastpath_enabled(enabled)
    try:
        seen = []
        model = Encoder().eval()
        model.enc.layers[0].register_forward_hook(lambda *_: seen.append(mha.get_fastpath_enabled()))
        tw.InputXGradient(model, layer="enc.layers.1", check=False).attribute(
            X, 1, additional_forward_args=PADS["padded"]
        )
        assert seen
        assert not any(seen)
        assert mha.get_fastpath_enabled() is enabled
        with pytest.raises(ValueError, match="index 7"):
            tw.InputXGradient(model, layer="enc.layers.1").attribute(X, 7, additional_forward_args=PADS["padded"])
        assert mha.get_fastpath_enabled() is enabled
    finally:
        mha.set_fastpath_enabled(True)


def test_models_without_an_encoder_do_not_touch_it():
    seen, net = [], nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    net[0].register_forward_hook(lambda *_: seen.append(mha.get_fastpath_enabled()))
    tw.InputXGradient(net, layer="0").attribute(X[0], 1)
    assert all(seen)
