"""A default device is the model's: what torchwhy makes for itself does not go there."""

from contextlib import contextmanager

import pytest
import torch
from cases import each_case
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M


@contextmanager
def meta():
    """The default device is one on which nothing can be computed."""
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


@each_case
def test_methods(case):
    net, x = case.setup()
    method = case.make(net)
    usual = method.attribute(x, target=1, **case.data)
    with meta():
        found = method.attribute(x, target=1, **case.data)
    assert torch.equal(found, usual)


@pytest.mark.parametrize("name", [n for n in M.__all__ if getattr(getattr(M, n), "needs", "") in ("model", "method")])
def test_metrics(name):
    net, x = make("conv"), inputs("conv")
    function, segments = getattr(M, name), (torch.arange(64, device=x.device) // 12).view(8, 8)
    of = (tw.Saliency(net), x, 1) if function.needs == "method" else (net, x, x.sum(1, keepdim=True), 1)
    options = {"feature_mask": segments} if name == "irof" else {}
    options |= {"shift": torch.ones(3, 1, 1).to(x)} if name == "input_invariance" else {}
    usual = function(*of, **options)
    with meta():
        found = function(*of, **options)
    for a, b in ((found.scores, usual.scores),) if isinstance(usual, M.Curve) else ((found, usual),):
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


def test_the_model_has_the_callers():
    seen = []

    def model(x):
        seen.append(torch.zeros(1).device.type)
        return x.square().sum(1)

    images, rows = inputs("conv"), inputs("smooth")
    with meta():
        tw.RISE(lambda x: model(x.flatten(1)), n_samples=8, generator=0).attribute(images)
        tw.IntegratedGradients(model).attribute(rows)
    assert set(seen) == {"meta"}


def test_others():
    with meta():
        data = tw.models.shapes(2)
        assert data.images.device.type == tw.superpixels(data.images).device.type == "cpu"
        assert not tw.models.digits().x_train.is_meta
    net, x, conv = make("smooth"), inputs("smooth", 12), make("conv").float()
    with meta():
        found = tw.Counterfactual(net, bounds=(-5.0, 5.0)).generate(x[:2])
        tw.PartialDependence(net).measure(x, 1, feature=0)
        tw.InputXGradient(net).attribute_each(x, [0, 1])
        tw.DeepDream(conv, layer="conv1", n_octaves=1, n_steps=1).generate(data.images[:, :, :8, :8])
    assert found.found.device == x.device
