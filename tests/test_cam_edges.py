"""The class activation maps in lower precision, on signals, in small batches, of other targets; what FinerCAM compares."""

import numpy as np
import pytest
import torch
from reference import cam as slow
from test_cam import CLOSE, NET, TARGETS, X, pooled
from test_cam_layers import tokens
from torch import nn

import torchwhy as tw


@pytest.mark.parametrize("method", [tw.AblationCAM, tw.CAM])
def test_scores_and_activations_in_one_precision(method):
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 3)]
    net = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 256, 3), nn.ReLU(), *head).eval()
    full, low = (
        method(net, layer="3", upsample=False, relu=False, precision=precision).attribute(X.float(), TARGETS)
        for precision in (None, "bf16")
    )
    # what is lost with one of 256 channels is no more than what is rounded away below the layer
    torch.testing.assert_close(low, full, rtol=0, atol=0.02 * full.abs().max().item())


class Points(nn.Module):
    """Signals (N, 1, 32) → (N, 3), a token for each point."""

    def __init__(self):
        super().__init__()
        self.into, self.act, self.head = nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.act(self.into(x.mT)).square().mean(1))


@pytest.mark.parametrize("method", [tw.GradCAM, tw.AblationCAM, tw.EigenCAM])
@pytest.mark.parametrize("kind", ["strided", "pooled", "points"])
def test_signals_with_as_many_channels_as_points(kind, method):
    torch.manual_seed(0)
    head = nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(32, 3)
    net, layer, reshape = {
        "strided": (nn.Sequential(nn.Conv1d(1, 32, 5, 2, 2), nn.ReLU(), *head), "1", lambda a: a),
        "pooled": (
            nn.Sequential(nn.Conv1d(1, 32, 5, 1, 2), nn.ReLU(), nn.MaxPool1d(2), nn.Dropout(), *head), "3", lambda a: a
        ),
        "points": (Points(), "act", lambda a: a.mT),
    }[kind]  # fmt: skip
    net, x = net.double().eval(), torch.randn(3, 1, 32, dtype=torch.double)
    found, expected = (
        method(net, layer=layer, upsample=False, relu=False, reshape=r).attribute(x, TARGETS) for r in (None, reshape)
    )
    assert found.shape == (3, 1, 32 if kind == "points" else 16)
    torch.testing.assert_close(found, expected, **CLOSE)
    found = method(net, upsample=False, relu=False).explain(x, TARGETS)
    assert found.details["layer"] == layer
    torch.testing.assert_close(found.attributions, expected, **CLOSE)


# --- FinerCAM --------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighting", ["equal", "softmax"])
@pytest.mark.parametrize("of", [tw.ScoreCAM, tw.AblationCAM])
def test_finer_cam_compares_with_the_classes_that_are_like_it_at_the_input(of, weighting):
    net = pooled(nn.ReLU())
    with torch.no_grad():
        net[-1].weight *= 20  # so that another class is near when the picture changes
    options = {"of": of(net), "layer": "3", "upsample": False, "relu": False, "weighting": weighting}
    found = tw.FinerCAM(net, n_references=2, **options).attribute(X, TARGETS)
    for i, k in enumerate(TARGETS):
        near = slow.similar_classes(net(X[i : i + 1])[0], k, 2)
        expected = tw.FinerCAM(net, references=near, **options).attribute(X[i : i + 1], k)
        torch.testing.assert_close(found[i : i + 1], expected, **CLOSE)


def test_finer_cam_draws_from_the_seed_of_the_other_method():
    for of in (tw.SSCAM(NET, n_samples=2, generator=0), tw.SmoothGradCAMPlusPlus(NET, n_samples=2, generator=0)):
        once, again = (tw.FinerCAM(NET, layer="3", of=of, relu=False).attribute(X, TARGETS) for _ in range(2))
        assert torch.equal(once, again)


def test_finer_cam_refuses_methods_that_do_not_look_at_the_score():
    for of in (tw.CAM(NET), tw.EigenCAM(NET), tw.KPCACAM(NET), tw.FinerCAM(NET), tw.FullGrad(NET)):
        with pytest.raises(ValueError, match=f"of={type(of).__name__}: expected a class activation map"):
            tw.FinerCAM(NET, of=of).attribute(X, TARGETS)
    assert tw.FinerCAM(NET, of=tw.EigenGradCAM(NET)).attribute(X, TARGETS).any()


@pytest.mark.parametrize("target", [np.int64(1), (1,), [np.int64(1)] * 3, np.array([1, 1, 1])])
@pytest.mark.parametrize("method", [tw.CAM, tw.FinerCAM])
def test_classes_of_every_form(method, target):
    net = pooled()
    assert torch.equal(method(net).attribute(X, target), method(net).attribute(X, 1))
    for bad in ((1, 2), tw.Neuron("5", 0), lambda y: y[:, 0]):
        with pytest.raises(TypeError, match=f"{method.__name__} explains a class"):
            method(net, layer="2").attribute(X, bad)


# --- rows, and what stands beside the picture ------------------------------------------------------


@pytest.mark.parametrize("method", [tw.EigenCAM, tw.KPCACAM])
def test_components_are_found_in_batches(method, monkeypatch):
    sizes, project = [], method.project
    monkeypatch.setattr(method, "project", lambda self, a: (sizes.append(len(a)), project(self, a))[1])
    found = method(NET, layer="3", batch_size=2).attribute(X)
    assert sizes == [2, 1]
    torch.testing.assert_close(found, method(NET, layer="3", batch_size=1).attribute(X), **CLOSE)


def test_opti_cam_with_integers_beside_the_picture():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.words, self.head = nn.Conv2d(3, 5, 3), nn.Embedding(7, 5), nn.Linear(5, 3)

        def forward(self, x, ids):
            return self.head(self.conv(x).relu().mean((2, 3)) * self.words(ids).mean(1))

    torch.manual_seed(0)
    method, ids = tw.OptiCAM(Two().double().eval(), layer="conv", n_steps=3), torch.arange(6).view(3, 2)
    beside = method.attribute((X, ids), TARGETS)
    torch.testing.assert_close(beside, method.attribute(X, TARGETS, additional_forward_args=ids), **CLOSE)
    assert beside.any()


# --- FullGrad --------------------------------------------------------------------------------------


def test_full_grad_of_sequences_before_as_many_rows():
    net, x = tokens(first=False, rows_first=False), torch.randn(25, 3, 16, 24, dtype=torch.double)
    found = tw.FullGrad(net, batch_size=25).attribute(x, 1)  # 25 tokens
    torch.testing.assert_close(found, tw.FullGrad(net, batch_size=1).attribute(x, 1), **CLOSE)
    turned = tokens(first=False)
    turned.load_state_dict(net.state_dict())
    torch.testing.assert_close(found, tw.FullGrad(turned).attribute(x, 1), **CLOSE)


class NormAct(nn.BatchNorm2d):
    """A norm that applies an activation too, as timm has them."""

    def __init__(self, width):
        super().__init__(width)
        self.drop, self.act = nn.Identity(), nn.ReLU(inplace=True)

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


def test_full_grad_of_norms_that_apply_an_activation():
    torch.manual_seed(0)
    conv, norm, head = nn.Conv2d(3, 6, 3), NormAct(6), [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)]
    for t in (norm.running_mean, norm.weight.data, norm.bias.data):
        nn.init.normal_(t)
    plain = nn.BatchNorm2d(6)
    plain.load_state_dict(norm.state_dict())
    found, expected = (
        tw.FullGrad(nn.Sequential(conv, *norms, *head).double().eval()).explain(X, TARGETS)
        for norms in ([norm], [plain, nn.ReLU()])
    )
    torch.testing.assert_close(found.attributions, expected.attributions, **CLOSE)
    assert found.completeness_gap.max() < 1e-12


def test_full_grad_of_timm_adds_up():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    net = timm.create_model("densenet121", num_classes=3).double().eval()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.normal_(m.running_mean, std=0.1)
            nn.init.normal_(m.bias, std=0.1)
    e = tw.FullGrad(net).explain(torch.randn(1, 3, 64, 64, dtype=torch.double), 1)
    assert e.completeness_gap.item() < 1e-10
