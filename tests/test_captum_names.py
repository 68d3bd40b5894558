"""torchwhy.captum: Captum's own table of configurations, with the import changed."""

import copy
import inspect

import captum.attr as theirs
import pytest
import torch
from captum.testing.attr.helpers.gen_test_utils import get_target_layer
from captum.testing.attr.helpers.test_config import config

import torchwhy.captum.attr as ours

RANDOM = {
    "ShapleyValueSampling", "FeaturePermutation", "Lime", "KernelShap", "GradientShap", "LayerGradientShap",
    "NeuronGradientShap",
}  # fmt: skip
CASES = [(case, kind.__name__) for case in config for kind in case["algorithms"]]
KNOWN = [(case, name) for case, name in CASES if name not in RANDOM]
DRAWN = [(case, name) for case, name in CASES if name in RANDOM]

# where the numbers differ: what says who is right
LRP_SCALES = ("basic_multi_input", "basic_multi_input_multi_target", "basic_multi_input_multi_target_nt",
              "basic_multiple_tuple_target_nt")  # fmt: skip
CONSTANT = {("conv_layer_single_target", "LayerIntegratedGradients"), ("conv_layer_single_target", "LayerDeepLift")}


def named(cases):
    return [pytest.param(*c, id=f"{c[0]['name']}-{c[1]}") for c in cases]


def precise(value):
    """Return an argument with its numbers in float64: gradients of a score of 1 - 1e-8 are rounding in float32."""
    if isinstance(value, dict):
        return {key: precise(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(precise, value))
    return value.double() if isinstance(value, torch.Tensor) and value.is_floating_point() else value


def attribute(face, case, name):
    """Return what a face of Captum's names gives for a case of the table."""
    net, layer = copy.deepcopy(case["model"]).double(), case.get("layer")
    method = getattr(face, name)(*([net] if layer is None else [net, get_target_layer(net, layer)]))
    if case.get("noise_tunnel"):
        method = face.NoiseTunnel(method)
    return method.attribute(**precise(case["attribute_args"]))


def tensors(value):
    """The tensors of a result, from left to right."""
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else [value]


def form(value):
    """How a result is put together."""
    return [type(value).__name__, *map(form, value)] if isinstance(value, (list, tuple)) else tuple(value.shape)


def errors(found, expected):
    """The largest difference of each tensor, relative to its largest number."""
    pairs = zip(tensors(found), tensors(expected))
    return [((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item() for a, b in pairs]


def differs(case, name):
    """Whether a case is one of those where Captum's numbers are not ours."""
    return (
        (name == "LRP" and case["name"] in LRP_SCALES)
        or name == "NeuronConductance"
        or (case["name"], name) in CONSTANT
    )


@pytest.mark.parametrize(("case", "name"), named(c for c in KNOWN if not differs(*c)))
def test_equals_captum(case, name):
    expected, found = attribute(theirs, case, name), attribute(ours, case, name)
    assert form(found) == form(expected)
    assert max(errors(found, expected)) < 1e-3


def test_nine_in_ten_are_equal():
    """The table's deterministic cases; the others are the deviations below."""
    equal = [c for c in KNOWN if not differs(*c)]
    assert len(equal) >= 0.9 * len(KNOWN)


@pytest.mark.parametrize(("case", "name"), named((c, n) for c, n in KNOWN if differs(c, n) and n == "LRP"))
def test_lrp_of_scaled_scores(case, name):
    """With ε → 0 the relevance of a piecewise linear network is input times gradient; Captum's is not, where plain operations
    scale the signal: its factor is counted twice."""
    found, expected = attribute(ours, case, name), attribute(theirs, case, name)
    given = {k: v for k, v in case["attribute_args"].items() if k not in ("nt_samples", "stdevs")}
    by_hand = theirs.InputXGradient(case["model"]).attribute(**given)
    assert form(found) == form(expected)
    assert max(errors(found, by_hand)) < 1e-3
    assert max(errors(expected, by_hand)) > 0.1


@pytest.mark.parametrize(("case", "name"), named((c, n) for c, n in KNOWN if n == "NeuronConductance"))
def test_neuron_conductance_of_the_trapezoid_rule(case, name):
    """Captum's weights of its default rule sum to 49/50, as of a constant integrand they must not; ours sum to 1."""
    found, expected = attribute(ours, case, name), attribute(theirs, case, name)
    assert form(found) == form(expected)
    assert max(errors(found, tuple(t * (50 / 49) for t in tensors(expected)))) < 1e-3
    even = {**case, "attribute_args": {**case["attribute_args"], "method": "riemann_middle"}}
    assert max(errors(attribute(ours, even, name), attribute(theirs, even, name))) < 1e-3  # of rules that sum to 1


def test_the_trapezoid_rule_is_exact_for_a_linear_unit():
    net, x = torch.nn.Sequential(torch.nn.Linear(2, 1, bias=False), torch.nn.Linear(1, 1, bias=False)), torch.ones(1, 2)
    by_hand = net[1].weight * net[0].weight * x
    assert ours.NeuronConductance(net, net[0]).attribute(x, 0).allclose(by_hand)
    assert theirs.NeuronConductance(net, net[0]).attribute(x, 0).allclose(by_hand * 49 / 50)


@pytest.mark.parametrize("name", [n for _, n in sorted(CONSTANT)])
def test_a_score_that_is_constant(name):
    """All ten logits of this network move alike, so its softmax does not move: the attributions are 0, and both give rounding."""
    (case,) = (c for c in config if c["name"] == "conv_layer_single_target")
    net, x = case["model"], case["attribute_args"]["inputs"]
    scores = copy.deepcopy(net).double()(torch.cat([x, x * 0]).double())[:, 1]
    assert (scores - scores[0]).abs().max() < 1e-12
    found, expected = attribute(ours, case, name), attribute(theirs, case, name)
    assert form(found) == form(expected)
    assert max(t.abs().max() for t in (found, expected)) < 1e-4 * scores[0]


@pytest.mark.parametrize(("case", "name"), named(DRAWN))
def test_drawn_methods_run(case, name):
    given = dict(case["attribute_args"])
    if given.get("n_samples", 0) > 50:
        given["n_samples"] = 50
    torch.manual_seed(0)
    found = attribute(ours, {**case, "attribute_args": given}, name)
    torch.manual_seed(0)
    again = attribute(ours, {**case, "attribute_args": given}, name)
    assert all(map(torch.equal, tensors(found), tensors(again)))  # torch.manual_seed holds
    if not name.startswith("Layer"):
        assert form(found) == form(given["inputs"])


NAMES = [n for n in theirs.__all__ if inspect.isclass(getattr(theirs, n)) and hasattr(getattr(theirs, n), "attribute")]
PRESENT = [n for n in NAMES if hasattr(getattr(ours, n, None), "row")]


def test_every_name_is_there():
    assert not [name for name in theirs.__all__ if not hasattr(ours, name)]
    assert set(NAMES) - set(PRESENT) == {
        "DataLoaderAttribution", "LimeBase", "LLMAttribution", "LLMGradientAttribution", "RemoteLLMAttribution",
    }  # fmt: skip


@pytest.mark.parametrize("name", PRESENT)
def test_signatures_are_captums(name):
    for of in ("__init__", "attribute"):
        expected = list(inspect.signature(getattr(getattr(theirs, name), of)).parameters.values())[1:]
        found = list(inspect.signature(getattr(ours, name)).parameters.values())
        if of == "attribute":
            found = list(inspect.signature(getattr(ours, name).attribute).parameters.values())[1:]
        assert [p.name for p in found] == [p.name for p in expected]
        for mine, its in zip(found, expected):
            assert mine.default == its.default or mine.name == "perm_func"  # a function of Captum's own
