"""Settings that make no sense are refused when a method is made, before any data is there; the message names the setting."""

import contextlib
import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from bad_values import BAD_VALUES
from torch import nn

import torchwhy as tw
from torchwhy.settings import Settings

NET = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())

REFUSED = [
    # gradient
    (tw.Saliency, {"channels": "mean"}, "channels='mean'"),
    (tw.Saliency, {"signed": "false"}, "signed='false'"),
    (tw.SmoothGrad, {"n_samples": 0}, "n_samples=0"),
    (tw.SmoothGrad, {"noise_level": -0.1}, "noise_level=-0.1"),
    (tw.SmoothGrad, {"stdevs": -1.0}, "stdevs=-1.0: a standard deviation cannot be negative"),
    (tw.SmoothGrad, {"stdevs": (0.1, -1.0)}, "stdevs=(0.1, -1.0)"),
    (tw.SmoothGrad, {"of": tw.Saliency(NET), "layer": "0"}, "layer: give it to the method in of="),
    (tw.IntegratedGradients, {"method": "simpson"}, "method='simpson'"),
    (tw.IntegratedGradients, {"method": "riemann_trapezoid", "n_steps": 1}, "n_steps=1: expected an int of at least 2"),
    (tw.IntegratedGradients, {"tolerance": 0.0}, "tolerance=0.0"),
    (tw.IntegratedGradients, {"max_steps": 1}, "max_steps=1: expected an int of at least 2"),
    (tw.InternalInfluence, {"layer": "0", "method": "riemann_trapezoid", "n_steps": 1}, "n_steps=1"),
    (tw.GradientSHAP, {"stdevs": -0.1}, "stdevs=-0.1"),
    (tw.BlurIG, {"max_sigma": 0}, "max_sigma=0"),
    (tw.BlurIG, {"spacing": "log"}, "spacing='log'"),
    (tw.GuidedIG, {"n_steps": 7, "anchors": 2}, "n_steps=7: expected a multiple of anchors + 1 = 3"),
    (tw.GuidedIG, {"anchors": -1}, "anchors=-1"),
    (tw.GuidedIG, {"fraction": 0.0}, "fraction=0.0"),
    (tw.GuidedIG, {"max_dist": 1.5}, "max_dist=1.5"),
    (tw.IDGI, {"of": tw.Saliency(NET)}, "of="),
    (tw.LayerActivation, {}, "give layer="),
    # cam
    (tw.GradCAM, {"layer": ["0", "1"], "upsample": False}, "upsample=False"),
    (tw.GradCAM, {"reshape": 3}, "reshape=3"),
    (tw.SmoothGradCAMPlusPlus, {"numerator": "third"}, "numerator='third'"),
    (tw.SmoothGradCAMPlusPlus, {"noise_level": -1.0}, "noise_level=-1.0"),
    (tw.SmoothGradCAMPlusPlus, {"stdevs": -1.0}, "stdevs=-1.0"),
    (tw.KPCACAM, {"kernel": "cosine"}, "kernel='cosine'"),
    (tw.KPCACAM, {"gamma": 0.0}, "gamma=0.0"),
    (tw.KPCACAM, {"degree": -1.0}, "degree=-1.0"),
    (tw.ScoreCAM, {"max_channels": 0}, "max_channels=0"),
    (tw.AblationCAM, {"max_channels": 0}, "max_channels=0"),
    (tw.SSCAM, {"where": "both"}, "where='both'"),
    (tw.SSCAM, {"stdev": -1.0}, "stdev=-1.0"),
    (tw.ISCAM, {"n_steps": 0}, "n_steps=0"),
    (tw.OptiCAM, {"lr": 0.0}, "lr=0.0"),
    (tw.FinerCAM, {"of": tw.EigenCAM(NET)}, "of=EigenCAM"),
    (tw.FinerCAM, {"references": []}, "references=[]"),
    (tw.FinerCAM, {"references": [1, -1]}, "references=[1, -1]"),
    (tw.FinerCAM, {"weighting": "none"}, "weighting='none'"),
    (tw.FullGrad, {"layer": "0"}, "layer: FullGrad adds up all layers"),
    # perturbation
    (tw.Occlusion, {"sliding_window_shapes": 2.5}, "sliding_window_shapes=2.5"),
    (tw.Occlusion, {"sliding_window_shapes": (3, 0, 4)}, "sliding_window_shapes=(3, 0, 4)"),
    (tw.Occlusion, {"sliding_window_shapes": None}, "sliding_window_shapes=None"),
    (tw.Occlusion, {"sliding_window_shapes": 2, "strides": 0}, "strides=0"),
    (
        tw.Occlusion,
        {"sliding_window_shapes": ((2,), (2,)), "strides": ((1,), (True,))},
        "strides=((1,), (True,)): expected an int",
    ),
    (tw.RISE, {"grid": 0}, "grid=0"),
    (tw.RISE, {"keep_probability": 1.0}, "keep_probability=1.0"),
    (tw.RISE, {"targets": "some"}, "targets='some'"),
    (tw.RISE, {"max_evaluations": 10}, "max_evaluations: bounds"),
    (tw.LIME, {"n_samples": 2}, "n_samples=2: expected an int of at least 3"),
    (tw.LIME, {"distance": "far"}, "distance='far'"),
    (tw.LIME, {"kernel_width": 0.0}, "kernel_width=0.0"),
    (tw.LIME, {"keep_probability": 0.0}, "keep_probability=0.0"),
    (tw.LIME, {"regularizer": "none"}, "regularizer='none'"),
    (tw.LIME, {"alpha": -1.0}, "alpha=-1.0"),
    (tw.LIME, {"n_features": 0}, "n_features=0"),
    (tw.LIME, {"n_segments": 0}, "n_segments=0"),
    (tw.LIME, {"regularizer": 3}, "regularizer=3: expected 'ridge', 'lasso' or a linear scikit-learn regressor"),
    (tw.LIME, {"coalitions": torch.ones(5, 2), "n_samples": 9}, "coalitions: they are the samples"),
    (tw.LIME, {"coalitions": torch.ones(5)}, "coalitions: expected a tensor"),
    (tw.LIME, {"coalitions": torch.full((5, 2), 0.5)}, "coalitions: expected true and false"),
    (tw.FeaturePermutation, {"n_repeats": 0}, "n_repeats=0"),
    (tw.ExtremalPerturbation, {"areas": ()}, "areas=()"),
    (tw.ExtremalPerturbation, {"areas": (0.1, 1.0)}, "areas=(0.1, 1.0)"),
    (tw.ExtremalPerturbation, {"reward": "keep"}, "reward='keep'"),
    (tw.ExtremalPerturbation, {"step": 0}, "step=0"),
    (tw.ExtremalPerturbation, {"sigma": 0.0}, "sigma=0.0"),
    (tw.ExtremalPerturbation, {"area_weight": 0.0}, "area_weight=0.0"),
    (tw.ExtremalPerturbation, {"max_blur": 0.0}, "max_blur=0.0"),
    # shapley
    (tw.KernelSHAP, {"tolerance": 0}, "tolerance=0"),
    (tw.LinearSHAP, {"rtol": -1.0}, "rtol=-1.0"),
    (tw.OwenValues, {"groups": [0, 0, 2]}, "groups: number them 0, 1, 2, ... without gaps"),
    (
        tw.OwenValues,
        {"groups": [0.0, 1.0]},
        "groups=[0.0, 1.0]: expected for each feature the number or the name of its group",
    ),
    (tw.OwenValues, {"groups": torch.zeros(2, 2, dtype=torch.long)}, "groups="),
    (tw.OwenValues, {"groups": []}, "groups=[]"),
    # attention
    (tw.AttentionRollout, {"head_fusion": "sum"}, "head_fusion='sum'"),
    (tw.AttentionFlow, {"head_fusion": "sum"}, "head_fusion='sum'"),
    (tw.AttentionRollout, {"discard_ratio": 1}, "discard_ratio=1"),
    (tw.AttentionRollout, {"layer": "0"}, "layer: attention methods choose"),
    (tw.AttentionRollout, {"layers": []}, "layers=[]"),
    (tw.RawAttention, {"heads": ["a"]}, "heads=['a']"),
    (tw.RawAttention, {"layers": iter([0])}, "layers="),
    (tw.AttentionRelevance, {"token": 1.5}, "token=1.5"),
    (tw.AttentionRelevance, {"grid": (0, 4)}, "grid=(0, 4)"),
    (tw.AttentionRollout, {"layers": True}, "layers=True"),
    (tw.ALTI, {"heads": 0}, "heads: the heads of ALTI are one vector"),
    # lists, bounds and words that several settings make together
    (tw.LRP, {"low": 3, "high": -3}, "low, high"),
    (tw.LRP, {"low": torch.tensor([0.0, math.nan]), "high": 1}, "low="),
    (tw.LRP, {"composite": [1]}, "composite=[1]"),
    (tw.DeepLIFT, {"rule": "rescal"}, "rule='rescal': expected 'rescale' or 'reveal_cancel'"),
    (tw.SmoothGrad, {"stdevs": (0.1, math.inf)}, "stdevs=inf"),
    (tw.ExtremalPerturbation, {"areas": 0.1}, "areas=0.1"),
    (tw.ExtremalPerturbation, {"areas": (0.1, math.nan)}, "areas=(0.1, nan)"),
    (tw.Counterfactual, {"bounds": (0, "x")}, "bounds=(0, 'x')"),
    (tw.Counterfactual, {"bounds": (1, 0)}, "bounds=(1, 0)"),
    (tw.Counterfactual, {"bounds": (0, 1, 2)}, "bounds=(0, 1, 2)"),
    (tw.Counterfactual, {"changeable": 3}, "changeable=3"),
    (tw.Counterfactual, {"integers": "age"}, "integers='age'"),
    (tw.Counterfactual, {"one_hot": [1, 2]}, "one_hot=[1, 2]"),
    (
        tw.Counterfactual,
        {"distance_weight": 0.8, "n_diverse": 2, "diversity_weight": 0.4},
        "distance_weight=0.8, diversity",
    ),
    (tw.FeatureVisualization, {"size": (64, 0)}, "size=(64, 0)"),
    (tw.FeatureVisualization, {"size": (64,)}, "size=(64,)"),
    (tw.FeatureVisualization, {"normalize": ([0.5], [0.0])}, "normalize="),
    (tw.FeatureVisualization, {"transforms": [3]}, "transforms=[3]"),
    (tw.PartialDependence, {"percentiles": (0.9, 0.1)}, "percentiles=(0.9, 0.1)"),
    (tw.PartialDependence, {"percentiles": (5, 95)}, "percentiles=(5, 95)"),
    (tw.TCAV, {"layer": "auto"}, "layer='auto'"),
    (tw.TRAK, {"checkpoints": [3]}, "checkpoints[0]"),
    (tw.TracIn, {"checkpoints": [("file", math.nan)]}, "checkpoints[0][1]=nan"),
]


NAMES = [f"{method.__name__}-{'-'.join(settings) or 'none'}" for method, settings, _ in REFUSED]


@pytest.mark.parametrize(("method", "settings", "message"), REFUSED, ids=NAMES)
def test_a_method_is_not_made_with_it(method, settings, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        method(NET, **settings)


# ------------------------------------------------------------------------------------------- every setting of every method
BAD = BAD_VALUES | {
    "word": "nonsense",
    "tensor of NaN": torch.tensor([math.nan, 0.5]),
    "NaN tensor": torch.tensor(math.nan),
    "True tensor": torch.tensor(True),
    "list of lists": [[[]]],
}

# setting, value: what it means
ACCEPTED = {
    ("generator", "negative int"): "a seed is any int",
    ("layers", "negative int"): "counted from the last one",
    ("heads", "negative int"): "counted from the last one",
    ("token", "negative int"): "counted from the last one",
    ("key", "negative int"): "counted from the last one",
    ("layer", "word"): "a name, looked up in the model as it is when it is called",
    ("changeable", "word"): "the name of a column",
    ("changeable", "True"): "every value may change",
    ("changeable", "bool of NumPy"): "every value may change",
    ("changeable", "True tensor"): "every value may change",
    ("composite", "mapping"): "no rule is changed",
    ("DeepLIFT.tolerance", "inf"): "never warn",
    ("DeepSHAP.tolerance", "inf"): "never warn",
    ("LinearSHAP.rtol", "inf"): "give the values, however far from linear the model is",
    ("LIME.kernel_width", "inf"): "all samples weigh the same",
    **{
        (name, value): "a number on either side of zero"
        for name in ("threshold", "strength", "coef0", "low", "high")
        for value in ("negative int", "negative")
    },
}

PUBLIC = {
    name: method for name in dir(tw) if isinstance(method := getattr(tw, name), type) and issubclass(method, Settings)
}
READ = tw.GradCAM(NET, layer="0")
NEEDED = {
    "FinerCAM": {"of": READ},
    "GuidedGradCAM": {"of": READ},
    "IDGI": {"of": tw.IntegratedGradients(NET)},
    "Processed": {"of": tw.Saliency(NET)},
    "NeuronConductance": {"neuron": tw.Neuron("0", 0)},
    "Occlusion": {"sliding_window_shapes": 2},
    "OwenValues": {"groups": [0, 1]},
    "SurrogateNetwork": {"network": NET},
}
NO_LAYER = ("NeuronConductance", "FullGrad", "DirectLogitAttribution", "EdgeAttribution", "SmoothGrad", "VarGrad")


def made(name, **settings):
    """Return a method with what it needs."""
    needs_layer = getattr(PUBLIC[name], "layer_role", "") == "read" or name in ("DeepDream", "NetworkDissection")
    layer = {"layer": "0"} if needs_layer or name == "LayerActivation" else {}
    return PUBLIC[name](NET, **{**layer, **NEEDED.get(name, {}), **settings})


def is_its_kind(field, value):
    """Whether a value is no bad one for a setting: flags where there are flags."""
    return value == "True" and field.type in ("bool", bool)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_setting_is_refused_in_the_constructor_where_it_makes_no_sense(name):
    method, wrong = made(name), []
    for field in dataclasses.fields(method):
        if not field.init or field.name == "model":
            continue
        for label, value in BAD.items():
            if is_its_kind(field, label) or {(field.name, label), (f"{name}.{field.name}", label)} & ACCEPTED.keys():
                continue
            try:
                made(name, **{field.name: value})
            except (ValueError, TypeError) as error:
                if not re.match(rf"{field.name}\b", str(error)):
                    wrong.append(f"{field.name}={value!r}: its error does not begin with its name: {error}")
            else:
                wrong.append(f"{field.name}={value!r} is accepted")
        with pytest.raises(TypeError, match=f"{name} has no setting '{field.name}z'; the nearest are .*{field.name}"):
            made(name, **{f"{field.name}z": None})
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("setting", "value"), ACCEPTED, ids=lambda part: part)
def test_what_means_something_is_accepted(setting, value):
    of, _, field = setting.rpartition(".")
    having = [name for name, method in PUBLIC.items() if field in {f.name for f in dataclasses.fields(method)}]
    having = [name for name in having if of in ("", name) and not (field == "layer" and name in NO_LAYER)]
    taken = []
    for name in having:
        with contextlib.suppress(ValueError, TypeError):
            taken.append(made(name, **{field: BAD[value]}))
    assert taken


def test_all_public_methods_are_there():
    assert len(PUBLIC) > 80


def test_infinity_means_something_where_it_is_accepted():
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    same = lambda z: torch.ones(len(z))  # noqa: E731
    flat = [tw.LIME(net, n_samples=40, generator=0, **how) for how in ({"kernel_width": math.inf}, {"distance": same})]
    first, second = (m.attribute(x) for m in flat)
    assert torch.allclose(first, second)
    assert torch.equal(tw.DeepLIFT(net, tolerance=math.inf).attribute(x), tw.DeepLIFT(net).attribute(x))
    assert tw.LinearSHAP(net, rtol=math.inf).attribute(x).isfinite().all()


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (tw.lrp.Epsilon, {"epsilon": -3.0}),
        (tw.lrp.Epsilon, {"epsilon": math.inf}),
        (tw.lrp.Gamma, {"gamma": -3.0}),
        (tw.lrp.Gamma, {"gamma": "large"}),
        (tw.lrp.Gamma, {"epsilon": math.nan}),
        (tw.lrp.AlphaBeta, {"alpha": math.nan}),
        (tw.lrp.AlphaBeta, {"epsilon": -1.0}),
        (tw.lrp.ZPlus, {"epsilon": -1.0}),
        (tw.lrp.Flat, {"epsilon": -1.0}),
        (tw.lrp.WSquare, {"epsilon": -1.0}),
        (tw.lrp.ZBox, {"low": 0.0, "high": 1.0, "epsilon": -1.0}),
        (tw.lrp.ZBox, {"low": "x", "high": 1.0}),
        (tw.lrp.ZBox, {"low": 0.0, "high": math.inf}),
        (tw.lrp.ZBox, {"low": torch.tensor([0.0, 2.0]), "high": 1.0}),
    ],
)
def test_a_rule_is_not_made_with_it(rule, settings):
    with pytest.raises(ValueError, match="|".join(settings)):
        rule(**settings)


# ------------------------------------------------------------------------------------------------- models, layers, targets
@pytest.mark.parametrize(
    "model", ["resnet", b"x", 3, 0.5, [NET], {}, torch.ones(2)], ids=lambda model: type(model).__name__
)
def test_what_is_no_model_is_refused(model):
    for kind in (tw.Saliency, tw.TCAV, tw.PartialDependence):
        with pytest.raises(TypeError, match=rf"^model: expected a module or a callable, got {type(model).__name__}"):
            kind(model, **({"layer": "0"} if kind is tw.TCAV else {}))


def test_what_may_be_a_model_is_taken():
    class Estimator:
        def predict(self, x):
            return x

    for model in (NET, lambda x: x, Estimator(), None):  # None: there is none yet, as of rules by hand
        assert tw.Saliency(model).model is model


@pytest.mark.parametrize("layer", [(), []], ids=str)
@pytest.mark.parametrize("method", [tw.Saliency, tw.GradCAM, tw.IntegratedGradients])
def test_no_layer_in_a_list_is_refused(method, layer):
    with pytest.raises(ValueError, match=r"^layer: an empty list"):
        method(NET, layer=layer)


@pytest.mark.parametrize(
    ("layer", "index", "error", "message"),
    [
        ("0", -1, ValueError, "index=-1: an index counts from 0"),
        ("0", "x", TypeError, "index='x'"),
        ("0", 1.5, TypeError, "index=1.5"),
        ("0", True, TypeError, "index=True"),
        ("0", None, TypeError, "index=None"),
        ("0", (0, 1.5), TypeError, "index=1.5"),
        ("0", np.bool_(True), TypeError, "index: an index must be an int"),
        (3, 0, TypeError, "layer=3: expected a layer's name"),
        (None, 0, TypeError, "layer=None"),
    ],
)
def test_a_neuron_is_checked_when_it_is_made(layer, index, error, message):
    with pytest.raises(error, match=rf"^{re.escape(message)}"):
        tw.Neuron(layer, index)


def test_places_of_a_neuron_are_counted_from_the_end_as_those_of_an_output():
    x = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    ends, starts = (tw.Saliency(NET).attribute(x, tw.Neuron("0", place)) for place in ((-1, 0, 0), (1, 0, 0)))
    assert torch.equal(ends, starts)
    ends, starts = (tw.Saliency(NET[0]).attribute(x, place) for place in ((-1, 0, 0), (1, 0, 0)))
    assert torch.equal(ends, starts)


# --------------------------------------------------------------------------------------------------- several that belong together
@pytest.mark.parametrize(
    ("window", "step"), [(3, 5), ((1, 3, 3), (1, 4, 3)), ([2, 2], [1, 3]), (((1, 3), (2,)), ((1, 3), (3,)))], ids=str
)
def test_steps_larger_than_the_window_are_refused(window, step):
    with pytest.raises(ValueError, match=r"^strides=.* has a window of |^strides=5: a window of 3 has"):
        tw.Occlusion(NET, sliding_window_shapes=window, strides=step)


@pytest.mark.parametrize(("window", "step"), [(3, 3), ((1, 3), (1, 2)), (3, (1, 5)), ((2, 2), 2), (3, None)], ids=str)
def test_other_steps_are_taken(window, step):
    tw.Occlusion(NET, sliding_window_shapes=window, strides=step)


def test_standard_deviations_in_a_tensor_are_one_for_each_input():
    x, y = torch.randn(2, 3), torch.randn(2, 3)
    both = lambda a, b: a**2 + b**3  # noqa: E731
    for method in (tw.SmoothGrad, tw.GradientSHAP):
        how = {"n_samples": 4, "generator": 0}
        listed = method(both, stdevs=[0.5, 0.25], **how).attribute((x, y), 1)
        for given in (torch.tensor([0.5, 0.25]), np.array([0.5, 0.25])):
            found = method(both, stdevs=given, **how).attribute((x, y), 1)
            assert all(map(torch.equal, found, listed))
            with pytest.raises(ValueError, match=r"^stdevs: 2 given for 1 input tensors"):
                method(lambda a: a**2, stdevs=given, **how).attribute(x, 1)
        single = method(both, stdevs=0.5, **how).attribute((x, y), 1)
        found = method(both, stdevs=torch.tensor([0.5]), **how).attribute((x, y), 1)
        assert all(map(torch.equal, found, single))
        for given in (torch.ones(1, 2), [torch.ones(2)], []):
            with pytest.raises(ValueError, match=r"^stdevs=.*expected a number, or one for each input tensor"):
                method(both, stdevs=given)


def test_a_number_in_a_tensor_names_a_head_or_a_layer():
    for name in ("heads", "layers"):
        for value in (torch.tensor(1), np.int64(1), [torch.tensor(1)], np.array([1]), torch.tensor([1])):
            tw.AttentionRollout(NET, **{name: value})
        with pytest.raises(ValueError, match=rf"^{name}=tensor\(1.5"):
            tw.AttentionRollout(NET, **{name: torch.tensor(1.5)})


def test_a_budget_of_memory_is_a_number_of_bytes():
    before = dict(tw.memory_budget)
    try:
        for value in (True, 0, -1, 2.0**30, "1G", None):
            tw.memory_budget["cpu"] = value
            with pytest.raises(ValueError, match=rf"^memory_budget\['cpu'\]={re.escape(repr(value))}: expected an int"):
                tw.FeatureAblation(nn.Linear(40, 1)).attribute(torch.ones(2, 40), 0)
    finally:
        tw.memory_budget.update(before)
