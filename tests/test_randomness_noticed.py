"""A model that draws at random in eval mode is noticed by trying: one row, twice."""

import random
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from nets import inputs, make
from torch import nn
from torchvision.ops import stochastic_depth

import torchwhy as tw
from torchwhy.engine import state


class Net(nn.Module):
    """Images (N, 3, 8, 8) → (N, 3), with something done to its channels."""

    def __init__(self, change=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.change = nn.Conv2d(3, 4, 3), nn.Linear(4, 3), change
        self.own = torch.Generator().manual_seed(0)
        self.drop = DropPath()

    def forward(self, x):
        x = self.conv(x).relu()
        return self.head((x if self.change is None else self.change(self, x)).mean((2, 3)))


class DropPath(nn.Module):
    """Drops rows at random in training mode; no class that torch or anybody else knows."""

    def forward(self, x):
        return x * (torch.rand(len(x), 1, 1, 1, dtype=x.dtype) < 0.5) if self.training else x


OWN = np.random.default_rng(0)
RANDOM = {
    "dropout": lambda net, x: F.dropout(x, 0.5, True),
    "rrelu": lambda net, x: F.rrelu(x - 0.1, training=True),
    "numpy": lambda net, x: x * np.random.rand(),
    "python": lambda net, x: x * random.random(),
    "its own generator": lambda net, x: x + torch.rand(x.shape, generator=net.own, dtype=x.dtype),
    "drop path": lambda net, x: net.drop.train()(x),
    "stochastic depth": lambda net, x: stochastic_depth(x, 0.5, "row", True),
    "an own generator in NumPy": lambda net, x: x * OWN.random(),
}
METHODS = {
    "Saliency": tw.Saliency,
    "RISE": lambda m, **o: tw.RISE(m, n_samples=4, grid=3, generator=0, **o),
    "GradCAM": lambda m, **o: tw.GradCAM(m, layer="conv", **o),
    "LRP": lambda m, **o: tw.LRP(m, composite="epsilon", **o),
    "DeepSHAP": tw.DeepSHAP,
    "wrapped": lambda m, **o: tw.SmoothGrad(m, of=tw.Saliency(m), n_samples=2, generator=0, **o),
}


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("change", RANDOM.values(), ids=RANDOM)
def test_it_is_said(change, method, n):
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    net, x = Net(change).double().eval(), inputs("conv", n)
    with pytest.warns(UserWarning, match=r"the model draws at random: the same row scored .* and then"):
        method(net).attribute(x, 1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the model draws at random")
        method(net, check=False).attribute(x, 1)
        method(Net().double().eval()).attribute(x, 1)


@pytest.mark.parametrize("name", ["dropout", "numpy", "drop path", "its own generator"])
def test_a_first_row_in_which_all_is_dead_hides_nothing(name):
    """Neither in its own call nor in later ones."""
    net, x = Net(RANDOM[name]).double().eval(), inputs("conv", 2)
    if name == "its own generator":
        net.change = lambda net, x: x * (1 + torch.rand(x.shape, generator=net.own, dtype=x.dtype))
    net.conv.bias = None
    dark = torch.zeros_like(x[:1])
    torch.manual_seed(1)
    for rows in (dark, x, torch.cat([dark, x])):
        with pytest.warns(UserWarning, match="the model draws at random"):
            tw.Saliency(net).attribute(rows, 1)


def test_a_function_is_tried_too():
    with pytest.warns(UserWarning, match="draws at random"):
        tw.FeatureAblation(lambda x: x.sum(1) + random.random()).attribute(torch.rand(1, 4))


@pytest.mark.parametrize(
    "ask",
    [
        lambda f, x: tw.PermutationImportance(f).measure(x, torch.arange(9) % 3),
        lambda f, x: tw.SAGE(f, n_samples=4).measure(x, torch.arange(9) % 3),
        lambda f, x: tw.SurrogateTree(f).fit(x),
    ],
    ids=["permutations", "SAGE", "tree"],
)
def test_what_looks_at_all_outputs_says_it_too(ask):
    x = torch.rand(9, 3)
    with pytest.warns(UserWarning, match="draws at random"):
        ask(lambda z: z + torch.rand_like(z), x)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "the model draws at random")
        ask(lambda z: 2 * z, x)


def test_the_callers_random_numbers_are_as_before():
    net, x = Net(), inputs("conv", 1, torch.float)
    before = torch.get_rng_state()
    tw.Saliency(net).attribute(x, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_is_tried_once_in_each_mode():
    net, x, rows = Net(lambda net, x: net.drop(x)).double().eval(), inputs("conv", 1), []
    net.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    for _ in range(3):
        tw.Saliency(net).attribute(x, 1)
    assert rows == [1, 1, 1, 1, 1]  # two of them for the trial
    net.drop.train()  # of a kind that is on no list
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match="draws at random"):
        [tw.Saliency(net).attribute(x, 1) for _ in range(8)]  # by chance a row may fare alike twice


def test_a_model_that_takes_no_single_row_is_left_alone():
    def pairs(x):
        if len(x) % 2:
            raise ValueError("an even number of rows")
        return x.sum(1)

    assert tw.Saliency(pairs).attribute(torch.rand(2, 3)).eq(1).all()


def test_rounding_is_no_randomness():
    calls = []

    def model(x):
        calls.append(1)
        return x.sum(1) * (1 + 1e-6 * (len(calls) % 2))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.Saliency(model).attribute(torch.rand(1, 3))


def test_nothing_keeps_a_model_alive():
    net = make("smooth")
    tw.Saliency(net).attribute(inputs("smooth", 1), 1)
    assert net in state.repeating
    count = len(state.repeating)
    del net
    assert len(state.repeating) < count
