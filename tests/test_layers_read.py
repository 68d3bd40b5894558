"""Layers that are read: behind one another in one pass, with baselines; tensors that a layer uses inside; layers of functions."""

import warnings

import pytest
import torch
from cases import in_turn
from nets import inputs, make
from nets import inputs as make_inputs
from torch import nn

import torchwhy as tw


def dense():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    generator = torch.Generator().manual_seed(1)
    return net, *torch.randn(2, 3, 6, dtype=torch.double, generator=generator)


def hooked(model, places, *args, **kwargs):
    """What passes modules, and the model's output, by hooks; of a tuple its first part."""
    seen = {}

    def keep(name):
        def hook(module, given, output):
            tensor = output[0] if isinstance(output, tuple) else output
            seen[name] = tensor if tensor.requires_grad else tensor.requires_grad_()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(keep(name)) for name in places]
    try:
        output = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return [seen[name] for name in places], output


def test_all_layers_in_one_pass():
    net, x, b = dense()
    layers = ["0", "1", "2", "3"]
    passed, output = hooked(net, layers, x)
    slopes = torch.autograd.grad(output[:, 1].sum(), passed)
    below, _ = hooked(net, layers, b)
    for name, expected in {
        "Saliency": [g.abs() for g in slopes],
        "InputXGradient": [a * g for a, g in zip(passed, slopes)],
        "LinearApproximation": [a * g for a, g in zip(passed, slopes)],
    }.items():
        e = getattr(tw, name)(net, layer=layers).explain(x, 1)
        assert e.evaluations == 3, "one pass"
        for found, by_hand in zip(e.attributions, expected):
            torch.testing.assert_close(found, by_hand)
    for method in (tw.InputXGradient, tw.LinearApproximation):
        e = method(net, layer=layers, check=False).explain(x, 1, baselines=b)
        assert e.evaluations == 6, "two passes forward"
        for found, a, p, g in zip(e.attributions, passed, below, slopes):
            torch.testing.assert_close(found, ((a - p) * g).detach())


@pytest.mark.parametrize("value", [0.5, torch.arange(5).double()], ids=["number", "tensor"])
def test_values_of_the_layer_as_baselines(value):
    net, x, _ = dense()
    (a,), output = hooked(net, ["0"], x)
    (g,) = torch.autograd.grad(output[:, 1].sum(), [a])
    by_hand = ((a - value) * g).detach()
    method = tw.LinearApproximation(net, layer="0")
    torch.testing.assert_close(method.attribute(x, 1, layer_baselines=value), by_hand)
    torch.testing.assert_close(method.attribute(x, 1, baselines=tw.AtLayer(value)), by_hand)
    torch.testing.assert_close(method.explain(x, 1, layer_baselines=value).attributions, by_hand)
    torch.testing.assert_close(method.attribute_each(x, [0, 1], layer_baselines=value)[1], by_hand)


def test_several_baselines_are_averaged_over():
    net, x, b = dense()
    many = tw.LinearApproximation(net, layer="2").attribute(x, 1, baselines=tw.Distribution(b))
    each = [tw.LinearApproximation(net, layer="2").attribute(x, 1, baselines=row[None]) for row in b]
    torch.testing.assert_close(many, torch.stack(each).mean(0))
    at_input = tw.InputXGradient(net).attribute(x, 1, baselines=b)
    torch.testing.assert_close(at_input, tw.Saliency(net, signed=True).attribute(x, 1) * (x - b))


def test_several_targets_and_other_methods_of_them():
    net, x, b = dense()
    method = tw.InputXGradient(net, layer=["0", "2"])
    for found, target in zip(method.attribute_each(x, [0, 1], baselines=b), [0, 1]):
        for one, other in zip(found, method.attribute(x, target, baselines=b)):
            torch.testing.assert_close(one, other)
    smooth = tw.SmoothGrad(net, of=tw.Saliency(net, layer=["0", "2"]), n_samples=3, generator=0)
    assert [tuple(t.shape) for t in smooth.attribute(x, 1)] == [(3, 5), (3, 4)]


def test_both_kinds_of_baselines():
    net, x, b = dense()
    with pytest.raises(TypeError, match="layer_baselines: they stand in the place of baselines="):
        tw.FeatureAblation(net, layer="0").attribute(x, 1, baselines=b, layer_baselines=0.0)
    with pytest.raises(TypeError, match="AtLayer is for methods that explain by a layer"):
        tw.FeatureAblation(net).attribute(x, 1, layer_baselines=0.0)
    with pytest.raises(TypeError, match="Saliency has no use for them"):
        tw.Saliency(net, layer="0").attribute(x, 1, baselines=b)


# ---- against Captum


def test_equal_to_captum():
    attr = pytest.importorskip("captum.attr")
    net, x, b = dense()
    layers = [net[0], net[2]]
    for found, theirs in zip(
        tw.InputXGradient(net, layer=layers).attribute(x, 1),
        attr.LayerGradientXActivation(net, layers).attribute(x, 1),
    ):
        torch.testing.assert_close(found, theirs, rtol=1e-6, atol=1e-9)
    for value in (None, 0.7, torch.randn(3, 5).double()):
        theirs = attr.LayerFeatureAblation(net, net[0]).attribute(x, value, 1)
        ours = tw.FeatureAblation(net, layer="0").attribute(x, 1, layer_baselines=0.0 if value is None else value)
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)
    for unit in (0, 3):
        for rule in ("gausslegendre", "riemann_right"):
            how = {"n_steps": 30, "method": rule}
            theirs = attr.NeuronConductance(net, net[2]).attribute(x, unit, b, 1, **how)
            ours = tw.NeuronConductance(net, neuron=tw.Neuron("2", unit), **how).attribute(x, 1, baselines=b)
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-9)


# ---- rows that do not come first


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.e, self.o = nn.Linear(4, 6), nn.Linear(6, 2)
        self.t = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0)
        self.double().eval()

    def forward(self, x):
        return self.o(self.t(self.e(x).transpose(0, 1)).mean(0))

    def above(self, passed):
        return self.o(passed.mean(1))


class Folded(nn.Module):
    """Frames folded into the batch: of one row after the other, or the first ones of all rows first."""

    def __init__(self, alternating):
        super().__init__()
        torch.manual_seed(0)
        self.c, self.o, self.alternating = nn.Linear(4, 6), nn.Linear(6, 2), alternating
        self.double().eval()

    def forward(self, x):
        x = x.transpose(0, 1) if self.alternating else x
        n, t = x.shape[:2]
        passed = self.c(x.flatten(0, 1)).unflatten(0, (n, t))
        return self.above(passed.transpose(0, 1) if self.alternating else passed)

    def above(self, passed):
        return self.o(torch.tanh(passed).mean(1))


class Recurrent(nn.Module):
    def __init__(self, cell=nn.LSTM):
        super().__init__()
        torch.manual_seed(0)
        self.r, self.o = cell(4, 6, num_layers=2, batch_first=True), nn.Linear(6, 2)
        self.double().eval()

    def forward(self, x):
        last = self.r(x)[1]
        return self.above((last[0] if isinstance(last, tuple) else last).transpose(0, 1))

    def above(self, passed):
        return self.o(torch.tanh(passed).sum(1))


STREAMS = {
    "sequence first": (SequenceFirst, "t", lambda net, x: net.t(net.e(x).transpose(0, 1)).transpose(0, 1)),
    "folded": (lambda: Folded(False), "c", lambda net, x: net.c(x)),
    "alternating": (lambda: Folded(True), "c", lambda net, x: net.c(x)),
    "last state": (Recurrent, tw.Layer("r", output=(1, 0)), lambda net, x: net.r(x)[1][0].transpose(0, 1)),
    "last state of a GRU": (
        lambda: Recurrent(nn.GRU),
        tw.Layer("r", output=1),
        lambda net, x: net.r(x)[1].transpose(0, 1),
    ),
}


SIZES = [(3, 5, 2), (1, 1, None), (5, 5, None), (2, 1, None), (1, 5, None)]  # rows, steps, rows at a time


@pytest.mark.parametrize("name, sizes", in_turn(STREAMS, SIZES, 2))
def test_rows_that_do_not_come_first(name, sizes):
    n, steps, batch_size = sizes
    if steps == 1 and name in ("folded", "alternating"):
        return  # nothing is folded
    make_net, layer, passes = STREAMS[name]
    net = make_net()
    x = torch.randn(n, steps, 4, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    a = passes(net, x).detach().requires_grad_()
    score = net.above(a)[:, 1]
    (g,) = torch.autograd.grad(score.sum(), a)
    how = {"layer": layer, "batch_size": batch_size}
    torch.testing.assert_close(tw.LayerActivation(net, **how).attribute(x), a.detach())
    torch.testing.assert_close(tw.Saliency(net, signed=True, **how).attribute(x, 1), g)
    torch.testing.assert_close(tw.InputXGradient(net, **how).attribute(x, 1), (a * g).detach())
    ig = tw.IntegratedGradients(net, **how).explain(x, 1)
    assert ig.attributions.shape == a.shape
    assert float(ig.completeness_gap.max()) < 1e-4
    through = tw.Conductance(net, n_steps=100, **how).explain(x, 1)
    assert through.attributions.shape == a.shape
    assert float(through.completeness_gap.max()) < 0.05 * float(score.detach().abs().max()) + 1e-3
    dropped = tw.FeatureAblation(net, **how).attribute(
        x, 1, layer_baselines=0.0, feature_mask=torch.arange(a.shape[1])[:, None]
    )
    by_hand = [net.above(a) - net.above(a * (torch.arange(a.shape[1]) != k)[:, None]) for k in range(a.shape[1])]
    torch.testing.assert_close(dropped[..., 0], torch.stack(by_hand, 1)[..., 1].detach())


def test_nested_outputs_that_are_not_there():
    net, x = Recurrent(), torch.randn(2, 3, 4).double()
    with pytest.raises(
        LookupError, match=r"output=\(1, 2\): there is no such tensor; there are \[0, \(1, 0\), \(1, 1\)\]"
    ):
        tw.InputXGradient(net, layer=tw.Layer("r", output=(1, 2))).attribute(x, 1)


def test_an_lstm_of_which_the_last_state_is_used_says_where_it_is():
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.r, self.o = nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.o(self.r(x)[1][0][-1])

    net, x = Last(), torch.randn(2, 3, 4)
    where = r"tw\.Layer\('r', output=\(1, 0\)\)"
    for method in (tw.InputXGradient, tw.IntegratedGradients, tw.DeepLIFT, tw.Conductance):
        with pytest.raises(ValueError, match=f"the last states of a recurrent layer, besides its steps, are {where}"):
            method(net, layer="r").attribute(x, 1)
    for method in (tw.FeatureAblation, tw.ExactShapley):
        steps = {"feature_mask": torch.arange(3)[:, None].expand(3, 6)}
        with pytest.warns(UserWarning, match=f"all attributions are zero there; its last states are {where}"):
            assert not method(net, layer="r").attribute(x, 1, **steps).any()
    for method in (tw.InputXGradient, tw.IntegratedGradients, tw.FeatureAblation):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert method(net, layer=tw.Layer("r", output=(1, 0))).attribute(x, 1).any()


def test_a_layer_without_rows():
    class Positions(nn.Module):
        def __init__(self):
            super().__init__()
            self.p, self.o = nn.Embedding(5, 4), nn.Linear(4, 2)

        def forward(self, x):
            return self.o((x + self.p(torch.arange(5))).mean(1))

    for method in (tw.InputXGradient, tw.IntegratedGradients, tw.FeatureAblation):
        with pytest.raises(ValueError, match="its first dimension must be the rows, or one that grows"):
            method(Positions(), layer="p").attribute(torch.randn(3, 5, 4), 1)


# ---- tensors that a layer hands back but uses inside


class Whole(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.m, self.o = nn.MultiheadAttention(6, 2, batch_first=True), nn.Linear(6, 2)
        self.double().eval()

    def forward(self, x):
        return self.o(self.m(x, x, x)[0].mean(1))


class Own(nn.Module):
    """Attention by hand, which hands its matrices back."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v, self.inner = (nn.Linear(6, 6) for _ in range(4))
        self.double()

    def forward(self, x):
        attention = (self.q(x) @ self.k(x).mT).softmax(-1)
        return self.inner(attention @ self.v(x)), attention


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.below, self.m, self.o = nn.Linear(6, 6).double(), Own(), nn.Linear(6, 2).double()

    def forward(self, x):
        return self.o(self.m(self.below(x))[0].mean(1))


def test_attention_matrices_as_a_layer():
    net, x = Attending(), torch.randn(3, 4, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    seen = []
    handle = net.m.register_forward_hook(lambda module, args, output: seen.append(output[1]))
    score = net(x)[:, 1].sum()
    handle.remove()
    by_hand = (seen[0] * torch.autograd.grad(score, seen[0])[0]).detach()
    layer = tw.Layer("m", output=1)
    torch.testing.assert_close(tw.InputXGradient(net, layer=layer).attribute(x, 1), by_hand)
    torch.testing.assert_close(tw.LinearApproximation(net, layer=["below", layer]).attribute(x, 1)[1], by_hand)
    flow = tw.Conductance(net, layer=layer, n_steps=50).attribute(x, 1)
    assert flow.shape == (3, 4, 4)
    assert bool(flow.any())
    assert bool(tw.InternalInfluence(net, layer=layer).attribute(x, 1).any())
    with pytest.raises(ValueError, match=r"uses inside, as attention matrices, can be read, not replaced"):
        tw.IntegratedGradients(net, layer=layer).attribute(x, 1)
    with pytest.warns(UserWarning, match="does not depend on what it hands back"):
        tw.FeatureAblation(net, layer=layer).attribute(x, 1)


# ---- functions as models


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = dense()[0]
        self.scale = nn.Parameter(torch.ones(1).double())

    def forward(self, x):
        raise NotImplementedError

    def probabilities(self, x):
        return self.net(x * self.scale).softmax(1)


def test_functions_as_models():
    net, x, b = dense()

    def function(z):
        return net(z).softmax(1)

    whole = nn.Sequential(*net, nn.Softmax(1))
    holder = Holder()
    for method, data in (
        (tw.IntegratedGradients, {"baselines": b}),
        (tw.InputXGradient, {"baselines": b}),
        (tw.Saliency, {}),
        (tw.Conductance, {}),
        (tw.FeatureAblation, {"layer_baselines": 0.0}),
        (tw.LRP, {}),
        (tw.LayerActivation, {}),
    ):
        expected = method(whole, layer="1").attribute(x, 1, **data)
        for model, layer in (
            (function, net[1]),
            (function, tw.Layer(net[1])),
            (holder.probabilities, "net.1"),
            (holder.probabilities, holder.net[1]),
        ):
            torch.testing.assert_close(method(model, layer=layer).attribute(x, 1, **data), expected)
    expected = tw.Saliency(whole).attribute(x, tw.Neuron("1", 2))
    torch.testing.assert_close(tw.Saliency(function).attribute(x, tw.Neuron(net[1], 2)), expected)
    torch.testing.assert_close(tw.Saliency(holder.probabilities).attribute(x, tw.Neuron("net.1", 2)), expected)
    through = tw.NeuronConductance(function, neuron=tw.Neuron(net[1], 2)).attribute(x, 1)
    torch.testing.assert_close(through, tw.NeuronConductance(whole, neuron=tw.Neuron("1", 2)).attribute(x, 1))
    each = tw.IntegratedGradients(function, layer=net[1]).attribute_each(x, [0, 1])
    torch.testing.assert_close(each[1], tw.IntegratedGradients(whole, layer="1").attribute(x, 1))
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    with pytest.raises(TypeError, match="is a plain callable and has no layers; give the module itself"):
        tw.Saliency(function, layer="1").attribute(x, 1)
    with pytest.raises(LookupError, match="did not run"):
        tw.Saliency(function, layer=nn.ReLU()).attribute(x, 1)


def test_the_model_of_the_table_behind_one_another():
    net, x = make("conv"), inputs("conv")
    layers = ["conv1", "norm", tw.Layer("conv2", input=True), "conv2"]
    together = tw.InputXGradient(net, layer=layers).attribute(x, 1)
    for found, layer in zip(together, layers):
        torch.testing.assert_close(found, tw.InputXGradient(net, layer=layer).attribute(x, 1))


class Question(nn.Module):
    """A picture and a question about it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.net = nn.Embedding(9, 6).double(), dense()[0]

    def forward(self, image, ids):
        return self.net(torch.sin(image) + self.table(ids).sum(1))


@pytest.mark.parametrize("named", [False, True])
def test_an_input_together_with_a_layer(named):
    net, (_, image, _) = Question(), dense()
    ids = torch.tensor([[1, 2], [3, 4], [5, 6]])
    inputs = {"ids": ids, "image": image} if named else (image, ids)
    zero = torch.zeros(1, 2, dtype=torch.long)
    baselines = {"ids": zero} if named else (0.0, zero)
    e = tw.IntegratedGradients(net, layer=[None, "table"]).explain(inputs, 1, baselines=baselines)
    assert [tuple(t.shape) for t in e.attributions] == [(3, 6), (3, 2, 6)]
    change = net(image, ids) - net(image * 0, zero.expand(3, 2))
    torch.testing.assert_close(
        sum(t.flatten(1).sum(1) for t in e.attributions), change[:, 1].detach(), rtol=1e-6, atol=1e-8
    )
    for method in (tw.InputXGradient, tw.Saliency):
        both = method(net, layer=[None, "table"]).attribute(inputs, 1)
        torch.testing.assert_close(both[1], method(net, layer="table").attribute(inputs, 1))
        torch.testing.assert_close(both[0], method(lambda x: net(x, ids), check=False).attribute(image, 1))
    with pytest.raises(ValueError, match="there are 2; name each as"):
        tw.Saliency(make("two"), layer=[None, "a"]).attribute(make_inputs("two"), 1)
