"""Places inside a model: outputs and inputs, tuples, several layers, layers that run several times, other threads."""

import threading

import pytest
import torch
from nets import inputs, make
from torch import nn

import torchwhy as tw
from torchwhy.engine.layers.layer import record_activations, record_with_grad, replace_activations, resolve_layer


def test_by_name_by_module_and_by_object():
    net, x = make("conv"), inputs("conv")
    expected = tw.InputXGradient(net, layer="conv2").attribute(x, 1)
    for layer in (net.conv2, tw.Layer("conv2"), tw.Layer(net.conv2, call=0)):
        assert torch.equal(tw.InputXGradient(net, layer=layer).attribute(x, 1), expected)


def test_the_input_of_a_layer():
    net, x = make("conv"), inputs("conv")
    expected = tw.LayerActivation(net, layer="conv2").attribute(x)
    for options in ({"layer": "norm", "attribute_to_layer_input": True}, {"layer": tw.Layer("norm", input=True)}):
        torch.testing.assert_close(tw.LayerActivation(net, **options).attribute(x), expected)
    below = tw.IntegratedGradients(net, layer="norm", attribute_to_layer_input=True).explain(x, 1)
    assert below.completeness_gap.max() < 1e-3


def test_several_layers_together():
    net, x = make("two"), inputs("two")
    a, b = tw.IntegratedGradients(net, layer=["a", "b"]).attribute(x, 1)
    e = tw.IntegratedGradients(net, layer=["a", net.b]).explain(x, 1)
    assert a.shape == b.shape == (3, 3)
    assert (a[:, [0, 2]] == 0).all()
    assert e.completeness_gap.max() < 1e-6
    one = tw.Saliency(net, layer=["a"]).attribute(x, 1)
    assert isinstance(one, tuple)


def test_a_layer_that_runs_twice():
    net, x = make("twice"), inputs("twice")
    with pytest.raises(LookupError, match=r"layer 'step' runs more than once.*call=0"):
        tw.Saliency(net, layer="step").attribute(x, 1)
    with pytest.raises(LookupError, match="runs more than once"):
        tw.Saliency(net).attribute(x, tw.Neuron("step", 0))
    first, second = (tw.LayerActivation(net, layer=tw.Layer("step", call=i)).attribute(x) for i in (0, 1))
    torch.testing.assert_close(first, net.step(x))
    torch.testing.assert_close(second, net.step(torch.tanh(first)))
    ig = tw.IntegratedGradients(net, layer=tw.Layer("step", call=1)).explain(x, 1)
    assert ig.completeness_gap.max() < 1e-4
    with pytest.raises(LookupError, match=r"layer 'step' \(call 2\) did not run"):
        tw.Saliency(net, layer=tw.Layer("step", call=2)).attribute(x, 1)


class Whole(nn.Sequential):
    """Attention of a sequence to itself, its layer called with three arguments and giving two tensors."""

    def forward(self, y):
        return self[0](y, y, y)[0].mean(1)


def test_layers_that_pass_several_tensors():
    net, x = make("twice"), inputs("twice")
    attention = nn.MultiheadAttention(6, 2, batch_first=True).double()
    y = torch.randn(2, 4, 6, dtype=torch.double)
    with pytest.raises(LookupError, match=r"passes 2 tensors \(0, 1\): choose one with tw.Layer\('0', output="):
        tw.Saliency(Whole(attention), layer="0").attribute(y, 1)
    one, weights = (tw.LayerActivation(Whole(attention), layer=tw.Layer("0", output=i)).attribute(y) for i in (0, 1))
    assert one.shape == (2, 4, 6)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4).double())
    found = tw.InputXGradient(net, layer=tw.Layer("gru", output=0)).attribute(x, 1)
    assert found.shape == (3, 1, 4)
    with pytest.raises(LookupError, match="there is no such tensor"):
        tw.InputXGradient(net, layer=tw.Layer("gru", output=5)).attribute(x, 1)


def test_embeddings_of_integer_inputs():
    net, ids = make("tokens"), inputs("tokens")
    for method in (tw.IntegratedGradients(net, layer="embeddings"), tw.Saliency(net, layer="embeddings")):
        found = method.attribute(
            {"input_ids": ids}, target=1, additional_forward_args={"attention_mask": torch.ones_like(ids)}
        )
        assert found.shape == (3, 4, 6)
    e = tw.IntegratedGradients(net, layer="embeddings").explain(ids, target=1, baselines=torch.full((4,), 3))
    with torch.no_grad():
        change = net(ids).logits[:, 1] - net(torch.full_like(ids, 3)).logits[:, 1]
    torch.testing.assert_close(e.attributions.flatten(1).sum(1), change, rtol=1e-6, atol=1e-8)


def test_nothing_below_a_tapped_layer_is_differentiated():
    net, x = make("conv"), inputs("conv")
    for p in net.parameters():
        p.requires_grad_(False)
    places = [resolve_layer(net, "norm"), resolve_layer(net, "conv2")]
    with record_with_grad(places) as seen:
        out = net(x)
    assert seen[1].is_leaf  # the lower one
    assert not seen[0].is_leaf  # the upper one depends on it
    assert torch.autograd.grad(out.sum(), [seen[0], seen[1]])[1].abs().sum() > 0


def test_until_stops():
    net, x = make("conv"), inputs("conv")
    net.head.forward = None  # not reached
    assert record_activations(lambda: net(x), [resolve_layer(net, "norm")])[0].shape == (3, 6, 8, 8)


def test_since_replaces_for_this_thread_only():
    net, x = make("conv"), inputs("conv")
    place, plain, others = resolve_layer(net, "conv1"), net(x).detach(), []
    with replace_activations([place], [torch.zeros(3, 6, 8, 8).double()]):
        replaced = net(x)
        worker = threading.Thread(target=lambda: others.append(net(x).detach()))
        worker.start()
        worker.join()
    assert not torch.allclose(replaced, plain)
    assert torch.equal(others[0], plain)


def test_two_threads_give_what_each_gives_alone():
    net, x = make("conv"), inputs("conv")
    methods = [
        tw.IntegratedGradients(net, layer="conv1", n_steps=30),
        tw.Conductance(net, layer="conv1", n_steps=30),
        tw.SmoothGrad(net, layer="conv2", generator=0),
        tw.Saliency(net, layer="norm"),
    ]
    alone = [m.attribute(x, 1) for m in methods]
    found = [None] * len(methods)

    def work(i):
        for _ in range(5):
            found[i] = methods[i].attribute(x, 1)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(methods))]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    for a, b in zip(alone, found):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


def test_compiled_models():
    net, x = make("smooth"), inputs("smooth")
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(
        tw.IntegratedGradients(compiled).attribute(x, 1), tw.IntegratedGradients(net).attribute(x, 1)
    )


@pytest.mark.parametrize("layers", [["0", "1"], ["2", "0"], ["1", "1"]], ids=str)
@pytest.mark.parametrize("method", [tw.IntegratedGradients, tw.LRP, tw.DeepLIFT, tw.FeatureAblation])
def test_layers_behind_one_another_are_refused(method, layers):
    net, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 3)
    low, high = sorted(layers)
    with pytest.raises(ValueError, match=f"layer '{high}' lies behind layer '{low}'.*in its own call"):
        method(net, layer=layers).attribute(x, 0)
    net = make("conv")
    with pytest.raises(ValueError, match="layer 'conv2' lies behind layer 'conv1'"):
        method(net, layer=["conv1", "conv2"]).attribute(inputs("conv"), 0)


def test_layers_behind_one_another_can_be_read():
    net, x = make("conv"), inputs("conv")
    layers = ["conv1", "norm"]
    for method in (
        tw.LayerActivation(net, layer=layers),
        tw.Conductance(net, layer=layers, n_steps=8),
        tw.InternalInfluence(net, layer=layers, n_steps=8),
    ):
        e = method.explain(x, 1)
        assert e.completeness_gap is None
        for found, layer in zip(e.attributions, layers):
            method.layer = layer
            torch.testing.assert_close(found, method.attribute(x, 1))
    side_by_side = tw.Conductance(make("two"), layer=["a", "b"], n_steps=200).explain(inputs("two"), 1)
    assert side_by_side.completeness_gap.max() < 0.05
