"""Repeated calls keep nothing: no Python object, no traced memory, no memory of the process."""

import gc
import tracemalloc
import warnings
import weakref
from pathlib import Path

import pytest
import torch
from cases import CASES, each_case
from nets import inputs, make
from torch.utils._python_dispatch import TorchDispatchMode

import torchwhy as tw

METHODS = (tw.GradCAM, tw.DeepLIFT, tw.FeatureAblation, tw.AttentionRollout)
SOME = [next(c for c in CASES if c.method is method) for method in METHODS]

FREE_LISTS = 100_000  # bytes of small tuples that Python keeps for later, however many calls there are


def resident():
    """The memory of this process, in KiB."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4


def growth(call, calls, warm):
    """Python objects, and bytes of traced memory, that so many calls add after a warm-up."""

    def repeat(n):
        for _ in range(n):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                call()

    def held():
        gc.collect()
        return torch.tensor([len(gc.get_objects()), tracemalloc.get_traced_memory()[0]])

    repeat(warm)
    tracemalloc.start()
    try:
        repeat(3)
        seen = [held()]
        repeat(calls)
        seen.append(held())
    finally:
        tracemalloc.stop()
    return (seen[1] - seen[0]).tolist()


def attributing(case):
    """A call of a case's method on a network of its own."""
    net, x = case.setup(torch.float, 2)
    return lambda: case.make(net).attribute(x, 1, **case.data)


class Empty(TorchDispatchMode):
    """See each operation, and do nothing about it: long work is counted in such a mode."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def kept_by_torch():
    """Bytes that torch itself keeps of a thousand plain gradients in such a mode."""
    net, x = make("conv").float().requires_grad_(False), inputs("conv", 2).float()

    def call():
        z = x.clone().requires_grad_()
        with Empty():
            torch.autograd.grad(net(z)[:, 1].sum(), z)

    return growth(call, 1000, 20)[1]


@pytest.mark.parametrize("case", SOME, ids=str)
def test_a_few_calls_keep_nothing(case):
    objects, traced = growth(attributing(case), 30, 5)
    assert objects < 15  # less than one for two calls
    assert traced < FREE_LISTS


@pytest.mark.slow
@each_case
def test_a_thousand_calls_keep_nothing(case, kept_by_torch):
    objects, traced = growth(attributing(case), 1000, 20)
    assert objects < 100
    assert traced < FREE_LISTS + kept_by_torch


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
@pytest.mark.parametrize("case", SOME, ids=str)
def test_the_process_does_not_grow(case):
    net, x = case.setup(torch.float, 2)
    seen = []
    for i in range(1000):
        case.make(net).attribute(x, 1, **case.data)
        if i % 20 == 0:
            gc.collect()
            seen.append(resident())
    late = torch.tensor(seen[10:], dtype=torch.double)
    steps = torch.arange(len(late), dtype=torch.double)
    steps = steps - steps.mean()
    slope = (steps * (late - late.mean())).sum() / steps.square().sum()
    rest = late - late.mean() - slope * steps
    error = (rest.square().sum() / (len(late) - 2) / steps.square().sum()).sqrt()
    assert slope < 3 * error + 20  # KiB in 20 calls


def made_here(uses):
    """Classes made in a function, used and dropped: weak references to them, and to a tensor that each closes over."""
    large, x = torch.zeros(1000), torch.randn(2, 3)

    class Doubled(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z):
            return z * 2 + large[0]

        @staticmethod
        def backward(ctx, g):
            return g * 2

    class Network(torch.nn.Linear):
        def forward(self, z):
            return Doubled.apply(super().forward(z)) + large[0]

    class Own(tw.Attribution):
        factor: float = 1.0

        def _attribute(self, problem):
            return tuple(self.factor * z + large[0] for z in problem.x)

    class OwnReport(tw.BiasReport):
        factor: float = 1.0

    net = Network(3, 2)
    if uses == "made":
        Own(net, factor=2.0)
        OwnReport(net)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for method in (Own, *METHODS_OF_ROWS):
                method(net).attribute(x, 1)
    return [weakref.ref(thing) for thing in (Own, OwnReport, Network, Doubled, large)]


METHODS_OF_ROWS = (tw.Saliency, tw.LRP, tw.DeepLIFT, tw.IntegratedGradients, tw.FeatureAblation, tw.KernelSHAP)


@pytest.mark.parametrize("uses", ["made", "called"])
def test_classes_of_the_callers_are_not_kept(uses):
    references = [reference for _ in range(3) for reference in made_here(uses)]
    gc.collect()
    assert [reference() for reference in references if reference() is not None] == []
