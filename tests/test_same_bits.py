"""Two equal calls give equal bits: the first time and later, after other methods, and while others keep the machine busy."""

import subprocess
import sys
from functools import cache

import pytest
import torch
from cases import CASES, each_case
from nets import inputs, make
from torch import nn

import torchwhy as tw

ROWS = 17  # so many that calls are counted, cut and optimized


@cache
def worn(kind):
    """A network that methods of each family have run on, and then all tests: one for them."""
    net, x = make(kind, torch.float), inputs(kind, ROWS, torch.float)
    for method in (
        tw.IntegratedGradients(net, n_steps=20),
        tw.FeatureAblation(net),
        tw.LRP(net),
        tw.KernelSHAP(net, n_samples=400, generator=1),
        tw.SmoothGrad(net, n_samples=5, batch_size=4, generator=1),
    ):
        method.attribute(x[:2], target=0)
    return net


@each_case
def test_first_and_later_calls(case, optimized):
    x = inputs(case.net, ROWS, torch.float)
    fresh = make(case.net, torch.float)
    with optimized():
        first = case.make(fresh).attribute(x, target=1, **case.data)
        second = case.make(fresh).attribute(x, target=1, **case.data)
        after_others = case.make(worn(case.net)).attribute(x, target=1, **case.data)
    assert torch.equal(second, first)
    assert torch.equal(after_others, first)


class Skip(nn.Module):
    """Images (N, 3, 8, 8) → (N, 5), with a layer beside a path that leaves it out, or without that layer."""

    deep = True

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        h = torch.relu(self.first(x))
        return self.head((h + torch.relu(self.second(h)) if self.deep else h).mean((2, 3)))


def test_a_model_that_changed_is_as_one_that_nothing_ran_on():
    x, net, fresh = torch.rand(2, 3, 8, 8), Skip().eval(), Skip().eval()
    trained = net.state_dict() | {"second.bias": net.second.bias.clone()}
    with torch.no_grad():
        net.second.bias.fill_(-100.0)  # nothing passes it, as early in training
    assert tw.GradCAM(net).explain(x, 1).details["layer"] == "first"
    net.load_state_dict(trained)
    found, expected = tw.GradCAM(net).explain(x, 1), tw.GradCAM(fresh).explain(x, 1)
    assert found.details["layer"] == expected.details["layer"] == "second"
    assert torch.equal(found.attributions, expected.attributions)
    net.deep = fresh.deep = False
    assert torch.equal(tw.GradCAM(net).attribute(x, 1), tw.GradCAM(fresh).attribute(x, 1))


def test_the_table_knows_its_seeds():
    """A method that draws is given a seed, or the test above would say nothing of it."""
    drawing = [c for c in CASES if hasattr(c.make(make(c.net)), "generator")]
    assert len(drawing) > 10
    assert not [str(c) for c in drawing if c.options.get("generator") is None]


class Blocks(nn.Module):
    """Images (N, 3, 64, 64) → (N, 10): as much work that it pays to optimize it."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.Conv2d(c, 32, 3), nn.BatchNorm2d(32), nn.ReLU()) for c in (3, 32, 32, 32, 32))
        )
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.blocks(x).mean((2, 3)))


LONG = [
    lambda net: tw.IntegratedGradients(net, n_steps=32),
    lambda net: tw.SmoothGrad(net, n_samples=32, generator=7),
    lambda net: tw.RISE(net, n_samples=64, generator=7),
    lambda net: tw.KernelSHAP(net, n_samples=64, generator=7),
    lambda net: tw.LRP(net),
    lambda net: tw.SmoothGrad(net, of=tw.IntegratedGradients(net, n_steps=3), n_samples=16, generator=7),
]
NAMES = ["IntegratedGradients", "SmoothGrad", "RISE", "KernelSHAP", "LRP", "SmoothGrad-of"]


def problem():
    torch.manual_seed(0)
    return Blocks().eval(), torch.randn(1, 3, 64, 64)


def attribution(method, net, x):
    """What a method says; LRP, of one call a row, of many rows."""
    data = {"feature_mask": torch.arange(64 * 64).view(64, 64) // 512} if isinstance(method, tw.KernelSHAP) else {}
    x = x * torch.linspace(0.5, 1, 32)[:, None, None, None] if isinstance(method, tw.LRP) else x
    return method.attribute(x, target=1, **data)


@cache
def on_a_fresh_model(make_method):
    """What is said of a network that nothing ran on; and the network."""
    net, x = problem()
    return attribution(make_method(net), net, x), net


@pytest.mark.parametrize("make_method", LONG, ids=NAMES)
def test_of_work_that_is_optimized(make_method):
    first, net = on_a_fresh_model(make_method)
    assert torch.equal(attribution(make_method(net), net, problem()[1]), first)


def test_of_work_after_other_work_on_the_same_model():
    net, x = problem()
    attribution(LONG[0](net), net, x)
    after_others = [attribution(make_method(net), net, x) for make_method in reversed(LONG)][::-1]
    first = [on_a_fresh_model(make_method)[0] for make_method in LONG]
    assert [torch.equal(a, b) for a, b in zip(first, after_others)] == [True] * len(LONG)


BUSY = "import torch\ntorch.set_num_threads(1)\nx = torch.randn(1000, 1000)\nwhile True: x = (x @ x).div_(1000).tanh_()"


def all_results():
    """What each of the table's methods gives, and each piece of long work."""
    net, x = problem()
    found = [attribution(make_method(net), net, x) for make_method in LONG]
    for case in CASES:
        rows = inputs(case.net, ROWS, torch.float)
        found.append(case.make(make(case.net, torch.float)).attribute(rows, target=1, **case.data))
    return found


@pytest.mark.slow
def test_while_another_process_keeps_the_cores_busy(optimized):
    with optimized():
        idle = all_results()
        others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(4)]
        try:
            loaded = all_results()
        finally:
            for other in others:
                other.kill()
                other.wait()
    names = [*NAMES, *map(str, CASES)]
    assert [name for name, a, b in zip(names, idle, loaded) if not torch.equal(a, b)] == []
    assert len(idle) == len(names)
