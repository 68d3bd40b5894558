"""What the caller switched on is for the model: no number that torchwhy computes itself depends on it."""

from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import torch
from cases import each_case
from metric_cases import METRIC_CASES, Scene
from nets import inputs, make

import torchwhy as tw
from torchwhy.engine.images.filters import inpaint_linearly
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.perturbation.smooth_masks import SmoothMasks


@contextmanager
def default_device():
    """The default device is one on which nothing can be computed."""
    torch.set_default_device("meta")
    try:
        yield
        assert torch.get_default_device().type == "meta"
    finally:
        torch.set_default_device(None)


@contextmanager
def default_type(dtype):
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


@contextmanager
def at_once(*states):
    with ExitStack() as contexts:
        for state in states:
            contexts.enter_context(state())
        yield


DOUBLE, BFLOAT16 = partial(default_type, torch.double), partial(default_type, torch.bfloat16)
TOGETHER = {  # in every run: none hides what another one changes
    "device and bfloat16": partial(at_once, default_device, BFLOAT16),
    "inference_mode, autocast and double": partial(at_once, torch.inference_mode, autocast, DOUBLE),
}
ONE_BY_ONE = {
    "device": default_device,
    "double": DOUBLE,
    "bfloat16": BFLOAT16,
    "autocast": autocast,
    "inference_mode": torch.inference_mode,
}
each_state = pytest.mark.parametrize(
    "states", [TOGETHER, pytest.param(ONE_BY_ONE, marks=pytest.mark.slow)], ids=["together", "one by one"]
)


def sheltered(net):
    """The network, computing in its own type whatever the caller's autocast."""
    forward = net.forward

    def in_its_type(*args, **kwargs):
        with torch.autocast("cpu", enabled=False):
            return forward(*args, **kwargs)

    net.forward = in_its_type
    return net


def check_in_all_states(measure, states=ONE_BY_ONE):
    """``measure()`` gives the same bits in all of them."""
    usual = measure()
    for name, state in states.items():
        with state():
            found = measure()
        torch.testing.assert_close(found, usual, rtol=0, atol=0, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}")


@each_state
@each_case
def test_methods(case, states):
    net, x = case.setup(torch.float)
    method = case.make(sheltered(net))

    def measure():
        e = method.explain(x, target=1, **case.data)
        return [t for t in (e.attributions, e.completeness_gap, e.standard_error) if t is not None]

    check_in_all_states(measure, states)


@each_state
@pytest.mark.parametrize("case", METRIC_CASES, ids=str)
def test_metrics(case, states):
    scene = Scene.make(torch.float)
    sheltered(scene.net)
    check_in_all_states(lambda: case.measure(scene), states)


@pytest.mark.parametrize("size", [(11,), (9, 10), (4, 5, 6)], ids=str)
def test_what_is_drawn_from_neighbours(size):
    """Imputed places, and discs on a grid whose size is no whole number of radii."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=g, dtype=torch.float)
    keep = torch.rand(2, 1, *size, generator=g, dtype=torch.float) < 0.3
    check_in_all_states(torch_defaults()(lambda: inpaint_linearly(x, keep)))
    masks = SmoothMasks(size, (2,) * len(size), (3.7,) * len(size), x)
    check_in_all_states(torch_defaults()(lambda: masks.discs(0.3)))


def test_the_model_has_the_callers():
    seen = []

    def model(x):
        seen.append(torch.zeros(1).device.type)
        return x.square().sum(1)

    images, rows = inputs("conv"), inputs("smooth")
    with default_device():
        tw.RISE(lambda x: model(x.flatten(1)), n_samples=8, generator=0).attribute(images)
        tw.IntegratedGradients(model).attribute(rows)
    assert set(seen) == {"meta"}


def test_others():
    with default_device():
        data = tw.models.shapes(2)
        assert data.images.device.type == tw.superpixels(data.images).device.type == "cpu"
        assert not tw.models.breast_cancer().x_train.is_meta
    net, x, conv = make("smooth"), inputs("smooth", 12), make("conv").float()
    with default_device():
        found = tw.Counterfactual(net, bounds=(-5.0, 5.0)).generate(x[:2])
        tw.PartialDependence(net).measure(x, 1, feature=0)
        tw.InputXGradient(net).attribute_each(x, [0, 1])
        tw.DeepDream(conv, layer="conv1", n_octaves=1, n_steps=1).generate(data.images[:, :, :8, :8])
    assert found.found.device == x.device
