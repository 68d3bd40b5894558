"""Methods are values: equal settings make them equal, also where the settings are tensors or arrays."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
import torch
from nets import inputs
from nets import make as network

import torchwhy as tw


def model(x):
    return x.sum(1)


@pytest.mark.parametrize("of", [torch.tensor, np.array, list], ids=["tensor", "array", "list"])
def test_methods_with_numbers_in_tensors_compare(of):
    made = lambda *groups: tw.OwenValues(model, groups=of(list(groups)))  # noqa: E731
    assert made(0, 1) == made(0, 1)
    assert made(0, 1) != made(1, 0)
    assert made(0, 1) != made(0, 1, 1)
    assert made(0, 1) != tw.OwenValues(model, groups=(0, 1))
    assert made(0, 1) != tw.ShapleySampling(model)
    assert tw.SmoothGrad(model, of=made(0, 1)) == tw.SmoothGrad(model, of=made(0, 1))
    assert tw.SmoothGrad(model, of=made(0, 1)) != tw.SmoothGrad(model, of=made(0, 0))


def test_methods_with_tensors_in_tuples_compare():
    between = lambda low, high: tw.Counterfactual(model, bounds=(torch.tensor(low), torch.tensor(high)))  # noqa: E731
    assert between([0.1, 0.2], 1.0) == between([0.1, 0.2], 1.0)
    assert between([0.1, 0.2], 1.0) != between([0.1, 0.3], 1.0)
    assert between([0.1, 0.2], 1.0) != between([0.1, 0.2], [1.0, 1.0])
    made = lambda *numbers: tw.SmoothGrad(model, stdevs=tuple(map(torch.tensor, numbers)))  # noqa: E731
    assert made(0.1) == made(0.1)
    assert made(0.1) != made(0.1, 1.0)
    assert made(1.0).settings() == {"stdevs": (torch.tensor(1.0),)}


def test_equal_numbers_of_two_types_are_equal_settings():
    assert tw.SmoothGrad(model, stdevs=1) == tw.SmoothGrad(model, stdevs=1.0)
    assert tw.SmoothGrad(model) != tw.SmoothGrad(lambda x: model(x))
    assert tw.SmoothGrad(model) != model


def test_a_seed_that_is_not_given_is_zero_or_drawn():
    """What is repeated without naming a seed stays the same from one version to the next."""
    found = {}
    names = [m.name for m in pkgutil.walk_packages(tw.__path__, "torchwhy.") if not m.name.endswith("__main__")]
    for module in map(importlib.import_module, names):
        for name, made in vars(module).items():
            called = made.__init__ if inspect.isclass(made) else made
            if inspect.isfunction(called) and (seed := inspect.signature(called).parameters.get("generator")):
                found[f"{module.__name__}.{name}"] = seed.default
    assert {name: seed for name, seed in found.items() if isinstance(seed, int) and seed != 0} == {}
    assert found["torchwhy.influence.tracin.TracIn"] == 0
    x, y = torch.randn(5, 2), torch.tensor([0, 1, 2, 1, 0])
    projected = lambda **o: tw.TracIn(torch.nn.Linear(2, 3), dim=4, **o).fit(x, y).projections[0].seeds  # noqa: E731
    assert projected() == projected(generator=0) != projected(generator=1)


def test_scalars_of_numpy_and_a_class_with_an_equality_of_its_own():
    net = torch.nn.Linear(2, 1)
    assert tw.SmoothGrad(net, stdevs=np.float64(0.1)) == tw.SmoothGrad(net, stdevs=0.1)
    assert tw.IntegratedGradients(net, n_steps=np.int64(8)) == tw.IntegratedGradients(net, n_steps=8)

    class Same(tw.Saliency):
        def __eq__(self, other):
            return True

    assert Same(net) == Same(torch.nn.Linear(3, 1))


@pytest.mark.parametrize(
    "make,name",
    [
        (lambda m: tw.IntegratedGradients(m, n_steps="abc"), "n_steps='abc'"),
        (lambda m: tw.IntegratedGradients(m, n_steps=None), "n_steps=None"),
        (lambda m: tw.IntegratedGradients(m, batch_size=[1]), r"batch_size=\[1\]"),
        (lambda m: tw.ExpectedGradients(m, n_samples="a"), "n_samples='a'"),
        (lambda m: tw.BlurIG(m, n_steps=float("inf")), "n_steps=inf"),
        (lambda m: tw.GuidedIG(m, n_steps=50.0), r"n_steps=50\.0"),
        (lambda m: tw.ExtremalPerturbation(m, n_steps=2.5), r"n_steps=2\.5"),
        (lambda m: tw.LIME(m, n_features=2.5, n_samples=9), r"n_features=2\.5"),
        (lambda m: tw.RISE(m, grid=1.5, n_samples=9), r"grid=1\.5"),
        (lambda m: tw.FeaturePermutation(m, n_repeats=0.5), r"n_repeats=0\.5"),
        (lambda m: tw.Counterfactual(m, n_steps=2.5), r"n_steps=2\.5"),
    ],
)
def test_what_counts_is_an_int(make, name):
    with pytest.raises(ValueError, match=f"{name}: expected an int of at least 1"):
        make(network("conv")).attribute(inputs("conv"), 1)


def test_a_setting_is_checked_when_it_is_assigned_too():
    method = tw.IntegratedGradients(torch.nn.Linear(2, 1))
    with pytest.raises(ValueError, match="n_steps=-3"):
        method.n_steps = -3
    assert method.n_steps == tw.IntegratedGradients(method.model).n_steps
    method.n_steps = 7
    assert method.n_steps == 7


@pytest.mark.parametrize("name", ["Conductance", "InternalInfluence", "GradCAM", "LayerActivation"])
def test_methods_that_read_a_layer_are_not_made_without_one(name):
    with pytest.raises(ValueError, match=r"give layer="):
        getattr(tw, name)(torch.nn.Linear(2, 1), layer=None)
