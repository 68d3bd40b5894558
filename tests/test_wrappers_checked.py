"""What holds for every method of methods: one model, checked whenever a setting changes; what the other finds out is kept."""

import copy
import pickle

import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy.result import Result


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 3)
    ).eval()


NET, OTHER, X = network(), network(1), torch.rand(2, 3, 8, 8)
WRAPPERS = {
    "SmoothGrad": (tw.SmoothGrad, tw.Saliency),
    "IDGI": (tw.IDGI, tw.BlurIG),
    "FinerCAM": (tw.FinerCAM, tw.GradCAM),
    "GuidedGradCAM": (tw.GuidedGradCAM, tw.GradCAM),
    "Processed": (tw.Processed, tw.Saliency),
}
each_wrapper = pytest.mark.parametrize("kind", WRAPPERS.values(), ids=WRAPPERS)


@each_wrapper
def test_both_models_are_one(kind):
    outer, inner = kind
    assert issubclass(outer, tw.Wrapper)
    with pytest.raises(
        ValueError, match=f"of: {inner.__name__} has another model than {outer.__name__}; give both the same"
    ):
        outer(NET, of=inner(OTHER))
    with pytest.raises(TypeError, match=r"of=.*expected a (method with its settings|class activation map)"):
        outer(NET, of=torch.relu)


@each_wrapper
def test_they_stay_one(kind):
    outer, inner = kind
    method = outer(NET, of=inner(NET))
    before, expected = method.of, method.attribute(X, 1) if outer is not tw.SmoothGrad else None
    with pytest.raises(ValueError, match="has another model"):
        method.of = inner(OTHER)
    with pytest.raises(ValueError, match="has another model"):
        method.model = OTHER
    assert method.of is before
    assert method.model is NET
    assert expected is None or torch.equal(method.attribute(X, 1), expected)
    method.of = inner(NET)
    assert copy.copy(method).of is method.of


class Owner:
    """A model that is no module, equal to another of the same network."""

    def __init__(self, net):
        self.net = net

    def __eq__(self, other):
        return isinstance(other, Owner) and self.net is other.net

    def __hash__(self):
        return id(self.net)

    def __call__(self, x):
        return self.net(x)


@pytest.mark.parametrize("model", [Owner, lambda net: net.forward], ids=["object", "method"])
def test_equal_callables_are_one_model(model):
    assert tw.Processed(model(NET), of=tw.FeatureAblation(model(NET))).of.model == model(NET)
    with pytest.raises(ValueError, match="has another model"):
        tw.Processed(model(NET), of=tw.FeatureAblation(model(OTHER)))


def test_what_does_not_fit_the_other_settings_is_refused_when_assigned():
    method = tw.SmoothGrad(NET, of=tw.Saliency(NET))
    with pytest.raises(ValueError, match="layer: give it to the method in of="):
        method.layer = "0"
    assert method.layer is None


def test_guided_grad_cam_takes_class_activation_maps():
    with pytest.raises(TypeError, match="expected a class activation map"):
        tw.GuidedGradCAM(NET, of=tw.Saliency(NET))
    for given in ({"layer": "0"}, {"reshape": lambda t: t}, {"attribute_to_layer_input": True}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}: give it to the method in of="):
            tw.GuidedGradCAM(NET, of=tw.GradCAM(NET, layer="1"), **given)


def test_a_report_has_one_model():
    with pytest.raises(ValueError, match="method: Saliency has another model than BiasReport"):
        tw.BiasReport(NET, method=tw.Saliency(OTHER))


class Told(tw.GradCAM):
    """A map with all that a method can find out."""

    def _attribute(self, problem):
        found = super()._attribute(problem)
        gap, error = torch.tensor([1.0, 2.0])[: problem.n], tuple(torch.full_like(a, 3.0) for a in found.attributions)
        return Result(found.attributions, gap, error, details=found.details | {"said": "so"})


def test_guided_grad_cam_keeps_what_the_map_says():
    e = tw.GuidedGradCAM(NET, of=Told(NET, layer="1")).explain(X, 1)
    assert e.details["layer"] == "1"
    assert e.details["of"]["said"] == "so"
    assert e.details["of"]["completeness_gap"].tolist() == [1, 2]
    assert e.details["of"]["standard_error"].eq(3).all()


def test_a_seed_is_told_only_if_it_repeats_the_draws():
    baselines, seeds = torch.rand(3, 3, 8, 8), {}
    for seed in (1, None):
        of = tw.ExpectedGradients(NET, n_samples=2, generator=seed)
        e = tw.SmoothGrad(NET, of=of, n_samples=2, generator=0).explain(X, 1, baselines=baselines)
        seeds[seed] = e.provenance["seed"]
    assert seeds == {1: 0, None: None}
    assert tw.SmoothGrad(NET, n_samples=2, generator=0).explain(X, 1).provenance["seed"] == 0


def test_a_composite_does_not_change():
    composite = tw.lrp.EPSILON.replace(by_name={"0": "zplus"})
    for change in (
        lambda rules: rules.__setitem__("4", "zplus"),
        lambda rules: rules.update({"4": "zplus"}),
        lambda rules: rules.clear(),
        lambda rules: rules.pop("0"),
    ):
        with pytest.raises(TypeError, match="a composite does not change: make another one"):
            change(composite.by_name)
    assert composite.by_name == {"0": "zplus"}
    for twin in (copy.deepcopy(composite), pickle.loads(pickle.dumps(composite))):
        assert twin == composite
        assert type(twin.by_name) is type(composite.by_name)
    with pytest.raises(TypeError, match="does not change"):
        tw.lrp.EPSILON.by_name["6"] = "zplus"
    assert repr(composite) == "Composite(convolution='epsilon', linear='epsilon', by_name={'0': 'zplus'})"


class Strong(tw.Attribution):
    """A method with an ``__init__`` of its own."""

    def __init__(self, model, strength):
        self.model, self.strength = model, strength

    def _attribute(self, problem):
        return tuple(self.strength * x for x in problem.x)


def test_methods_with_an_init_of_their_own_are_equal_where_all_they_hold_is():
    assert Strong(NET, 3) == Strong(NET, 3)
    assert Strong(NET, 3) != Strong(NET, 4)
    assert Strong(NET, 3) != Strong(OTHER, 3)
