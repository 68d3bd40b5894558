"""Every form of a target explains the same scalar."""

from types import SimpleNamespace

import pytest
import torch
from nets import inputs, make
from torch import nn

import torchwhy as tw


class Grid(nn.Module):
    """(N, 5) → (N, 3, 2)."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(5, 6).double()

    def forward(self, x):
        return torch.tanh(self.linear(x)).view(-1, 3, 2)


@pytest.mark.parametrize(
    "target",
    [
        1,
        [1, 1, 1],
        torch.tensor([1, 1, 1]),
        torch.tensor(1),
        (1,),
        lambda out: out[:, 1],
        __import__("numpy").int64(1),
        __import__("numpy").array([1, 1, 1]),
        [(1,), (1,), (1,)],
    ],
    ids=["int", "list", "tensor", "scalar tensor", "tuple", "callable", "numpy int", "numpy array", "list of tuples"],
)
def test_forms(target):
    net, x = make("smooth"), inputs("smooth")
    expected = torch.autograd.grad(net(x.requires_grad_())[:, 1].sum(), x)[0]
    torch.testing.assert_close(tw.Saliency(net, signed=True).attribute(x, target), expected)


def test_outputs_of_more_dimensions():
    net, x = Grid(), inputs("smooth").requires_grad_()
    expected = torch.stack([torch.autograd.grad(net(x)[i, i, 1], x)[0][i] for i in range(3)])
    found = tw.Saliency(net, signed=True, batch_size=2).attribute(x, [(0, 1), (1, 1), (2, 1)])
    torch.testing.assert_close(found, expected)
    same = tw.Saliency(net, signed=True).attribute(x, (2, 1))
    torch.testing.assert_close(same[2], expected[2])


def test_the_predicted_class():
    net, x = make("smooth"), inputs("smooth", 6)
    predicted = net(x).argmax(1)
    assert len(set(predicted.tolist())) > 1
    e = tw.IntegratedGradients(net, n_steps=3, batch_size=2).explain(x, "predicted")
    torch.testing.assert_close(e.attributions, tw.IntegratedGradients(net, n_steps=3).attribute(x, predicted))
    assert e.target == predicted.tolist()


def test_one_score_per_row_needs_no_target():
    x = inputs("linear")
    for model in (lambda t: t.sum(1), lambda t: t.sum(1, keepdim=True)):
        assert (tw.Saliency(model).attribute(x) == 1).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda out: {"logits": out, "loss": out.sum()},
        lambda out: {"out": out},
        lambda out: (out,),
        lambda out: SimpleNamespace(logits=out, hidden=out * 2),
        lambda out: SimpleNamespace(scores=out, name="x"),
    ],
    ids=["dict with logits", "dict", "tuple", "object with logits", "object"],
)
def test_models_that_return_more_than_a_tensor(wrap):
    net, x = make("smooth"), inputs("smooth")
    found = tw.Saliency(lambda t: wrap(net(t))).attribute(x, 2)
    torch.testing.assert_close(found, tw.Saliency(net).attribute(x, 2))


def test_a_mapping_may_hold_one_score_per_row():
    net, x = torch.nn.Linear(4, 1), torch.randn(3, 4)
    plain = tw.InputXGradient(lambda z: net(z)[:, 0]).attribute(x)
    torch.testing.assert_close(tw.InputXGradient(lambda z: {"logits": net(z)[:, 0]}).attribute(x), plain)
    with pytest.raises(ValueError, match=r"given 3 rows and returned an output of shape \(\)"):
        tw.InputXGradient(lambda z: {"logits": net(z).sum()}).attribute(x)


def test_a_callable_gets_the_whole_output():
    net, ids = make("tokens"), inputs("tokens")
    found = tw.InputXGradient(net, layer="embeddings").attribute(ids, lambda out: out.hidden[:, 0].sum(1))
    assert (found[:, 1:] == 0).all()
    assert (found[:, 0] != 0).any()


def test_neurons():
    net, x = make("conv"), inputs("conv")
    unit = tw.Saliency(net, signed=True).attribute(x, tw.Neuron("conv2", (1, 2, 3)))
    same = tw.Saliency(net, signed=True).attribute(x, tw.Neuron(net.conv2, lambda a: a[:, 1, 2, 3]))
    torch.testing.assert_close(unit, same)
    assert (unit[:, :, 5:] == 0).all()  # outside of the unit's field of view
    at_layer = tw.InputXGradient(net, layer="conv1").attribute(x, tw.Neuron("conv2", (1, 2, 3)))
    assert at_layer.shape == (3, 6, 8, 8)
    assert (at_layer[:, :, 4:] == 0).all()
    assert (at_layer[:, :, 2] != 0).any()


@pytest.mark.parametrize("method", [tw.Saliency, tw.InputXGradient])
@pytest.mark.parametrize("options", [{}, {"batch_size": 2}, {"layer": "conv1"}], ids=str)
def test_many_targets_share_a_forward_pass(method, options):
    net, x = make("conv"), inputs("conv")
    targets = [0, [1, 2, 3], "predicted", lambda out: out.sum(1)]
    rows = []
    net.head.register_forward_hook(lambda m, i, o: rows.append(len(o)))
    expected = [method(net, **options).attribute(x, t) for t in targets]
    rows.clear()
    found = method(net, **options).attribute_each(x, targets)
    for a, b in zip(found, expected):
        torch.testing.assert_close(a, b)
    assert sum(rows) == 3 * 2  # the largest outputs, the scores
