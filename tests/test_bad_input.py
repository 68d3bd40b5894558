"""What makes no sense is refused with a message that names the argument, and the model stays as it was."""

import inspect
import re
import sys
import warnings

import cases
import nets
import numpy as np
import pytest
import torch
from cases import CASES
from nets import inputs, make
from torch import nn
from traces import of_input, of_model, same

import torchwhy as tw

GRADIENT = [c for c in CASES if c.method.needs_gradient]
SOME = [
    c for c in CASES if c.method in (tw.Saliency, tw.SmoothGrad, tw.IntegratedGradients, tw.GuidedIG, tw.Conductance)
]
each = pytest.mark.parametrize("case", SOME, ids=str)


@pytest.fixture(autouse=True)
def _untouched(monkeypatch):
    """Every network and every input of a test is afterwards what it was when it was made."""
    made = []

    def watched(build, trace):
        def built(*args, **kwargs):
            thing = build(*args, **kwargs)
            made.append((thing, trace, trace(thing)))
            return thing

        return built

    for module in (cases, sys.modules[__name__]):
        monkeypatch.setattr(module, "make", watched(nets.make, of_model))
        monkeypatch.setattr(module, "inputs", watched(nets.inputs, of_input))
    yield
    assert all(same(before, trace(thing)) for thing, trace, before in made)


@each
@pytest.mark.parametrize(
    "target, error, message",
    [
        (4, ValueError, r"target: index 4 is out of range, the output has 4 \(0 to 3\)"),
        ([0, 1, 9], ValueError, "index 9 is out of range"),
        (-1, ValueError, "cannot be negative"),
        ([0, 1], ValueError, "2 indices given for 3 rows"),
        (torch.zeros(3), TypeError, "1-D integer tensor"),
        (1.0, TypeError, "expected an int"),
        ("cat", ValueError, "'predicted'"),
        ((1, 2), ValueError, "2 indices given, but a row of the output has shape"),
        (None, ValueError, "more than one score per row"),
        (lambda out: out, ValueError, r"one score per row, shape \(\d+,\); it returned \(\d+, 4\)"),
        (lambda out: 3.0, ValueError, "it returned float"),
    ],
)
def test_targets(case, target, error, message):
    net, x = case.setup()
    with pytest.raises(error, match=message):
        case.make(net).attribute(x, target)


@pytest.mark.parametrize(
    "baselines, error, message",
    [
        (torch.zeros(2, 3, 8, 8), ValueError, "does not broadcast"),
        (torch.zeros(5), ValueError, "does not broadcast"),
        (torch.full((3, 8, 8), float("nan")), ValueError, "NaN"),
        ("black", ValueError, "the names are zero, mean, blur"),
        ((0, 0), ValueError, "2 given for 1 input"),
        ([0, 0], ValueError, "does not broadcast"),
        (object(), TypeError, "expected a number, a tensor"),
        (tw.Distribution([0.0, 1.0]), TypeError, "a distribution takes a tensor or an array of rows, got list"),
        (tw.Distribution(torch.zeros(4, 3, 8, 7)), ValueError, r"a distribution of rows has shape \(K, 3, 8, 8\)"),
    ],
)
def test_baselines(baselines, error, message):
    net, x = make("conv"), inputs("conv")
    with pytest.raises(error, match=message):
        tw.IntegratedGradients(net).attribute(x, 1, baselines=baselines)


def test_what_a_method_does_not_use():
    net, x = make("conv"), inputs("conv")
    with pytest.raises(TypeError, match="baselines: Saliency has no use for them"):
        tw.Saliency(net).attribute(x, 1, baselines=0)
    with pytest.raises(TypeError, match="feature_mask: IntegratedGradients"):
        tw.IntegratedGradients(net).attribute(x, 1, feature_mask=torch.zeros(8, 8))


@pytest.mark.parametrize(
    "x, error, message",
    [
        ([[0.0] * 5] * 2, TypeError, "got list"),
        (torch.zeros(0, 5), ValueError, "at least one"),
        (torch.tensor(1.0), ValueError, "at least one"),
        ((torch.zeros(2, 5), torch.zeros(3, 5)), ValueError, "the same number of rows"),
        (torch.tensor([[1.0, float("nan"), 0, 0, 0]]), ValueError, "NaN or infinite"),
        (torch.tensor([[1.0, float("inf"), 0, 0, 0]]), ValueError, "NaN or infinite"),
        ((), TypeError, "got nothing"),
    ],
    ids=["list", "empty batch", "scalar", "rows", "nan", "inf", "no tensors"],
)
def test_inputs(x, error, message):
    with pytest.raises(error, match=message):
        tw.Saliency(make("smooth", torch.float)).attribute(x, 1)


def test_integers_name_the_embedding():
    with pytest.raises(
        TypeError, match=r"integers have no gradient; explain by the embedding layer, layer='embeddings'"
    ):
        tw.IntegratedGradients(make("tokens")).attribute(inputs("tokens"), 1)


def test_integers_of_a_function():
    with pytest.raises(TypeError, match="inputs: integers have no gradient; pass their embeddings"):
        tw.Saliency(lambda x: x.float().sum(1)).attribute(torch.ones(2, 3, dtype=torch.long))


@pytest.mark.parametrize("method", [tw.Conductance, tw.InternalInfluence])
def test_integers_have_no_path(method):
    net, ids = make("tokens"), inputs("tokens")
    with pytest.raises(
        TypeError, match=r"inputs: there is no line .* whole numbers.* tw.IntegratedGradients\(model, layer="
    ):
        method(net, layer="embeddings").attribute(ids, 1)


@pytest.mark.parametrize("case", GRADIENT, ids=str)
@pytest.mark.parametrize(
    "model, message",
    [
        (lambda net: lambda x: net(x).detach(), "does not depend on the"),
        (lambda net: lambda x: net(x).argmax(1).double()[:, None].expand(-1, 4), "in a differentiable way"),
    ],
    ids=["detached", "argmax"],
)
def test_a_score_without_a_gradient(case, model, message):
    if (
        case.layer
        or case.shape
        or case.method.layer
        or case.method in (tw.FullGrad, tw.GuidedGradCAM, tw.NeuronConductance)
    ):
        pytest.skip("a callable has no layers")
    net, x = case.setup()
    function = model(net)
    with pytest.raises(ValueError, match=message):
        case.method(function, **{**case.options, **(case.wrap(function) if case.wrap else {})}).attribute(x, 1)


def test_a_target_that_does_not_depend_on_the_layer():
    net, x = make("conv"), inputs("conv")
    with pytest.raises(
        LookupError, match="layer 'norm' did not run before layer 'conv1': the target does not depend on it"
    ):
        tw.Saliency(net, layer="norm").attribute(x, tw.Neuron("conv1", (0, 0, 0)))


@pytest.mark.parametrize("model", [lambda x: x / 0, lambda x: torch.log(-x.abs())], ids=["inf", "nan"])
@pytest.mark.parametrize("method", [tw.Saliency, tw.SmoothGrad, tw.IntegratedGradients])
def test_a_model_that_gives_nan(model, method):
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        method(model).attribute(torch.ones(2, 3), 1)


def test_a_gradient_that_is_nan():
    with pytest.raises(FloatingPointError, match="the attributions are NaN"):
        tw.Saliency(lambda x: torch.sqrt(x * 0)).attribute(torch.ones(2, 3), 1)
    with pytest.raises(FloatingPointError, match="the attributions are NaN"):
        tw.Saliency(lambda x: torch.sqrt(x * 0)).attribute_each(torch.ones(2, 3), [1, 0])


def test_many_targets_of_which_one_is_nan():
    net = nn.Linear(2, 2)
    nn.init.constant_(net.bias[1:], float("nan"))
    with pytest.raises(FloatingPointError, match="the target is NaN"):
        tw.InputXGradient(net).attribute_each(torch.ones(1, 2), [0, 1])


@pytest.mark.parametrize("method", [tw.Saliency, tw.IntegratedGradients])
def test_training_mode_warns(method):
    net = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), nn.Linear(5, 2))
    with pytest.warns(UserWarning, match=r"training mode: 1 make.*model.eval\(\)") as caught:
        method(net).attribute(torch.ones(2, 5), 1)
    assert caught[0].filename == __file__
    assert net.training
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(net.eval()).attribute(torch.ones(2, 5), 1)
        method(nn.Sequential(nn.Linear(5, 2)).train()).attribute(torch.ones(2, 5), 1)


class Whole(nn.Sequential):
    """The first of the tensors that a layer gives for a sequence as its query, key and value, or as it is."""

    def forward(self, y):
        attends = isinstance(self[0], nn.MultiheadAttention)
        return (self[0](y, y, y) if attends else self[0](y))[0][:, -1]


def test_training_mode_of_modules_that_drop_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says so too
        layer = nn.LSTM(4, 4, 1, dropout=0.5, batch_first=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.Saliency(Whole(layer)).attribute(torch.ones(2, 3, 4), 1)


@pytest.mark.parametrize(
    "layer",
    [nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True), nn.LSTM(4, 4, 2, dropout=0.5, batch_first=True)],
)
def test_training_mode_of_modules_that_drop_out_by_themselves(layer):
    net = Whole(layer)
    with pytest.warns(UserWarning, match="training mode: 0 make"):
        tw.Saliency(net).attribute(torch.ones(2, 3, 4), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.Saliency(net.eval()).attribute(torch.ones(2, 3, 4), 1)


@pytest.mark.parametrize(
    "layer, message",
    [
        ("conv3", r"no such layer; the nearest names are conv\d, conv\d"),
        ("xyz", "no such layer; the nearest names are"),
        (nn.Linear(1, 1), "not part of the model"),
    ],
)
def test_layers(layer, message):
    with pytest.raises(LookupError, match=message):
        tw.Saliency(make("conv"), layer=layer).attribute(inputs("conv"), 1)


def test_layers_of_the_wrong_kind():
    with pytest.raises(TypeError, match="layer=3: expected a module"):
        tw.Saliency(make("conv"), layer=3).attribute(inputs("conv"), 1)
    with pytest.raises(TypeError, match="a plain callable"):
        tw.Saliency(lambda x: x, layer="conv1").attribute(inputs("conv"), 1)
    with pytest.raises(TypeError, match="a plain callable has no layers"):
        tw.FullGrad(lambda x: x.mean((2, 3))).attribute(inputs("conv"), 1)
    for method in (tw.Conductance, tw.InternalInfluence, tw.LayerActivation):
        with pytest.raises(ValueError, match="give layer="):
            method(make("conv")).attribute(inputs("conv"), 1)


@pytest.mark.parametrize(
    "make_it, message",
    [
        (lambda m: tw.IntegratedGradients(m, n_steps=0), "n_steps=0"),
        (lambda m: tw.IntegratedGradients(m, n_steps=1, method="riemann_trapezoid"), "at least 2"),
        (lambda m: tw.IntegratedGradients(m, method="simpson"), "method='simpson'"),
        (lambda m: tw.IntegratedGradients(m, tolerance=0.0), "tolerance=0.0"),
        (lambda m: tw.IntegratedGradients(m, tolerance=0.1, max_steps=1), "max_steps=1: expected an int of at least 2"),
        (lambda m: tw.SmoothGrad(m, n_samples=0), "n_samples=0"),
        (lambda m: tw.SmoothGrad(m, stdevs=-1.0), "cannot be negative"),
        (lambda m: tw.SmoothGrad(m, stdevs=(0.1, 0.2)), "2 given for 1"),
        (lambda m: tw.SmoothGrad(m, layer="conv1", of=tw.Saliency(m)), "give it to the method in of="),
        (lambda m: tw.ExpectedGradients(m, n_samples=0), "n_samples=0"),
        (lambda m: tw.GradientSHAP(m, stdevs=-0.1), "cannot be negative"),
        (lambda m: tw.GradientSHAP(m, stdevs=(0.1, 0.2)), "2 given for 1"),
        (lambda m: tw.BlurIG(m, max_sigma=0), "max_sigma=0"),
        (lambda m: tw.BlurIG(m, n_steps=0), "n_steps=0"),
        (lambda m: tw.GuidedIG(m, n_steps=7, anchors=2), "a multiple of anchors"),
        (lambda m: tw.GuidedIG(m, fraction=0.0), "fraction=0.0"),
        (lambda m: tw.IDGI(m, of=tw.Saliency(m)), "expected IntegratedGradients, BlurIG or GuidedIG"),
        (lambda m: tw.Saliency(m, channels="mean"), "channels='mean'"),
        (lambda m: tw.Saliency(m, batch_size=0), "batch_size=0"),
        (lambda m: tw.Saliency(m, batch_size="8"), "batch_size='8': expected an int"),
        (lambda m: tw.Saliency(m, layer=[]), "layer: an empty list"),
        (lambda m: tw.Saliency(m, precision="int8"), "precision='int8'"),
        (lambda m: tw.SmoothGrad(m, generator="x"), "generator='x'"),
    ],
)
def test_settings(make_it, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        make_it(make("conv")).attribute(inputs("conv"), 1)


def test_not_a_model():
    with pytest.raises(TypeError, match="model: expected a module or a callable, got int"):
        tw.Saliency(3).attribute(torch.ones(1, 2))


def test_a_model_that_changes_the_number_of_rows():
    with pytest.raises(ValueError, match="given 3 rows and returned an output of shape"):
        tw.Saliency(lambda x: x.mean(0, keepdim=True)).attribute(torch.ones(3, 2), 1)


def test_a_tolerance_out_of_reach_warns_and_says_by_how_much():
    net, x = make("conv"), inputs("conv")
    with pytest.warns(
        UserWarning, match=r"tolerance=1e-09: not reached with max_steps=20, for rows \[0, 1, 2\]"
    ) as caught:
        e = tw.IntegratedGradients(net, tolerance=1e-9, max_steps=20).explain(x, 1)
    assert caught[0].filename == __file__
    assert (e.completeness_gap > 0).all()


def test_arrays_have_no_gradient():
    with pytest.raises(TypeError, match="works on NumPy arrays, which have no gradient"):
        tw.Saliency(lambda x: np.tanh(x.numpy()).sum(1)).attribute(inputs("smooth"))


def test_a_black_box_that_gives_a_list_and_one_that_gives_words():
    x = inputs("smooth")
    found = tw.ExactShapley(lambda rows: [float(r.sum()) for r in rows]).attribute(x)
    torch.testing.assert_close(found, x)
    with pytest.raises(TypeError, match="model: it returned no numbers"):
        tw.FeatureAblation(lambda rows: np.array(["cat"] * len(rows))).attribute(x)


def test_baselines_of_several_inputs_are_taken_together():
    net, (a, b) = make("two"), inputs("two")
    method, rows = tw.FeatureAblation(net), torch.randn(4, 5, dtype=torch.double)
    found = method.attribute((a, b), 1, baselines=(tw.Distribution(rows), 0.0))
    each = [method.attribute((a, b), 1, baselines=(r, 0.0)) for r in rows]
    for i, t in enumerate(found):
        torch.testing.assert_close(t, sum(e[i] for e in each) / 4)
    with pytest.raises(ValueError, match="baselines: 4, 2 of them"):
        method.attribute((a, b), 1, baselines=(tw.Distribution(rows), tw.Distribution(b[:2])))


def test_a_feature_mask_at_a_layer_is_of_the_layer():
    net, (a, b) = make("two"), inputs("two")
    one = tw.FeatureAblation(net, layer="a").attribute((a, b), 1, feature_mask=torch.tensor([0, 0, 1]))
    assert one.shape == (3, 3)
    assert torch.equal(one[:, 0], one[:, 1])
    mask = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])
    both = tw.FeatureAblation(net, layer=["a", "b"]).attribute((a, b), 1, feature_mask=mask)
    assert torch.equal(both[0], both[1].flip(1))
    with pytest.raises(ValueError, match="feature_mask: 2 given for 1"):
        tw.FeatureAblation(net, layer="a").attribute((a, b), 1, feature_mask=mask)
    with pytest.raises(TypeError, match=r"feature_mask\[1\]: None; expected integers"):
        tw.FeatureAblation(net).attribute({"left": a, "right": b}, 1, feature_mask={"left": torch.arange(5)})


def test_the_predicted_class_is_asked_for_in_batches():
    net, x = make("smooth"), inputs("smooth", 6)
    sizes = []
    handle = net.register_forward_pre_hook(lambda m, args: sizes.append(len(args[0])))
    tw.FeatureAblation(net, batch_size=4).attribute(x, "predicted")
    handle.remove()
    assert max(sizes) <= 4


@pytest.mark.parametrize(
    "target", [tw.Neuron("0", 1), tw.Neuron(tw.Layer("0", input=True), 1)], ids=["output", "input"]
)
def test_a_neuron_of_a_function(target):
    with pytest.raises(TypeError, match="the model is a plain callable and has no layers; give the module"):
        tw.Saliency(lambda x: x.sum(1)).attribute(torch.ones(2, 3), target)


CALLS = {"attribute": "target", "explain": "target", "attribute_each": "targets", "explain_each": "targets"}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("like", [torch.zeros_like, torch.Tensor.int, lambda x: None, lambda x: (x,), lambda x: 3])
def test_the_second_argument_is_the_target_and_baselines_go_by_name(call, like):
    """Captum's calls have baselines there, or a window: said in words of this library, not of Python's binding."""
    x = torch.randn(2, 4, generator=torch.Generator().manual_seed(0))
    name = CALLS[call]
    said = rf"IntegratedGradients.{call}: the second argument is {name}, .*{call}\(inputs, {name}, baselines=...\)"
    ask = getattr(tw.IntegratedGradients(nn.Linear(4, 3)), call)
    with pytest.raises(TypeError, match=said):
        ask(x, like(x), **{name: 1})
    with pytest.raises(TypeError, match=said):
        ask(x, like(x), baselines=0, **{name: [1, 2]})
    with pytest.raises(TypeError, match=rf"{call}: after inputs and {name} everything is given by name"):
        ask(x, [0, 1], like(x))


@pytest.mark.parametrize("call", CALLS)
def test_a_name_that_a_call_has_not_is_told_where_it_belongs(call):
    x, ig = torch.ones(2, 4), tw.IntegratedGradients(nn.Linear(4, 3))
    other = {"target": "targets", "targets": "target"}[CALLS[call]]
    for name, said in [
        ("n_steps", rf"it is a setting: IntegratedGradients\(model, n_steps=...\).{call}"),
        ("return_convergence_delta", r"explain\(...\).completeness_gap is"),
        (other, f"it is {CALLS[call]}= here"),
        ("strides", f"there are inputs, {CALLS[call]}, baselines"),
    ]:
        with pytest.raises(TypeError, match=f"IntegratedGradients.{call}: no argument '{name}'; {said}"):
            getattr(ig, call)(x, [0, 1], **{name: 1})


@pytest.mark.parametrize(
    "given",
    [
        torch.zeros(2, 4),
        torch.zeros(2, 4, dtype=torch.long),
        torch.zeros(4),
        np.zeros((2, 4)),
        (torch.zeros(2, 4),),
        0.0,
        [0.5, 0.5],
        np.float32(1),
        tw.Mean(),
        tw.AtLayer(torch.zeros(2, 4)),
        "blur",
    ],
    ids=lambda given: type(given).__name__,
)
def test_what_may_be_meant_as_baselines_is_told_to_go_by_name(given):
    x, net = torch.ones(2, 4), nn.Linear(4, 3)
    said = "target.*; (baselines are given|a baseline goes) by name, baselines="
    for ask in (
        tw.Saliency(net).attribute,
        tw.KernelSHAP(net).explain,
        tw.Occlusion(net, sliding_window_shapes=1).attribute,
        lambda x, target: tw.metrics.deletion(net, x, x, target),
    ):
        with pytest.raises((TypeError, ValueError), match=said):
            ask(x, given)


def test_other_mistakes_of_a_target_say_nothing_of_baselines():
    x, net = torch.ones(2, 4), nn.Linear(4, 3)
    for given in (True, "cat", object(), slice(2), [None, 1], -1):
        with pytest.raises((TypeError, ValueError)) as error:
            tw.Saliency(net).attribute(x, given)
        assert "baseline" not in str(error.value)


def test_what_is_shown_of_the_calls_has_the_target_in_the_second_place():
    for call, name in CALLS.items():
        shown = inspect.signature(getattr(tw.Saliency, call)).parameters
        assert list(shown)[:3] == ["self", "inputs", name]
        assert shown[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in list(shown.values())[3:])
