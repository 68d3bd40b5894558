"""The model, its parameters, the inputs and torch itself are as before: after success, an error, an interruption."""

import copy
import gc
import weakref
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from cases import each_case
from nets import inputs, make
from torch import nn
from torch._subclasses import FakeTensorMode
from traces import of_input, of_model, of_torch, same

import torchwhy as tw
from torchwhy.engine.run import held_buffers
from torchwhy.engine.run.autograd import freeze_parameters


def state(net, x):
    return of_model(net), of_input(x), of_torch()


class Broken(Exception):
    pass


@each_case
@pytest.mark.parametrize(
    "error, at",
    [
        pytest.param(None, None, id="success"),
        pytest.param(Broken, 1, id="error 1", marks=pytest.mark.slow),
        pytest.param(Broken, 2, id="error 2"),
        pytest.param(KeyboardInterrupt, 1, id="interrupt 1"),
        pytest.param(KeyboardInterrupt, 2, id="interrupt 2", marks=pytest.mark.slow),
    ],
)
def test_nothing_is_left(case, error, at):
    net, x = case.setup()
    net.conv2.weight.requires_grad_(False)  # one that was frozen stays so, the others do not become so
    calls = []
    forward = net.norm.forward

    def fails(*args):
        calls.append(1)
        if len(calls) == at:
            raise error
        return forward(*args)

    net.norm.forward = fails
    before = state(net, x)
    method = case.make(net, batch_size=2)
    if error is None:
        method.attribute(x, target=1, **case.data)
    else:
        with pytest.raises(error):
            method.attribute(x, target=1, **case.data)
    assert same(before, state(net, x))


@each_case
def test_an_input_that_wants_a_gradient_and_no_grad_are_left_alone(case):
    net, x = case.setup()
    x.requires_grad_(True)
    with torch.no_grad():
        first = case.make(net).attribute(x, target=1, **case.data)
    with torch.inference_mode():
        second = case.make(net).attribute(x, target=1, **case.data)
        assert torch.is_inference_mode_enabled()
    assert x.grad is None
    assert x.requires_grad
    assert torch.equal(first, second)


@each_case
def test_a_copy_of_the_model_and_the_method_gives_the_same(case):
    net, x = case.setup()
    method = case.make(net)
    again = copy.deepcopy(method)
    assert torch.equal(method.attribute(x, target=1, **case.data), again.attribute(x, target=1, **case.data))


@each_case
def test_no_memory_is_held(case):
    net, x = case.setup()
    method = case.make(net)
    seen = []
    handle = net.conv1.register_forward_hook(lambda m, i, o: seen.append(weakref.ref(o)))
    gc.disable()  # it is gone by itself: a GPU runs out of memory long before the collector looks for cycles
    try:
        e = method.explain(x, target=1, **case.data)
        held = {t.data_ptr() for t in (e.attributions, x)}
        assert not [r for r in seen if r() is not None and r().data_ptr() not in held]
    finally:
        gc.enable()
        handle.remove()


class InPlace(nn.Module):
    """Images (N, 3, 8, 8) → (N, 2), the input written to."""

    def __init__(self):
        super().__init__()
        self.conv, self.head, self.writes = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), True

    def forward(self, x):
        x = x.mul_(2) if self.writes else x * 2
        return self.head(self.conv(x).relu().mean((2, 3)))


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize(
    "method, target",
    [
        (tw.Saliency, tw.Neuron("conv", (0, 0, 0))),
        (tw.IntegratedGradients, 1),
        (lambda net: tw.IntegratedGradients(net, layer="conv"), 1),
        (lambda net: tw.AblationCAM(net, layer="conv"), 1),  # runs the model below the layer on one row
        (lambda net: tw.Saliency(net, layer="conv"), "predicted"),
        (lambda net: tw.NeuronConductance(net, n_steps=4, neuron=tw.Neuron("head", 1)), 1),
        (lambda net: tw.ExtremalPerturbation(net, areas=(0.2,), n_steps=3), 1),
    ],
)
def test_a_model_that_writes_to_its_input(method, target, n):
    net, x, black = InPlace(), torch.randn(n, 3, 8, 8), torch.randn(1, 3, 8, 8)
    before = of_input((x, black))
    method = method(net)
    data = {"baselines": black} if method.uses_baselines else {}
    found = method.explain(x, target, **data).attributions
    assert same(before, of_input((x, black)))
    net.writes = False
    torch.testing.assert_close(found, method.attribute(x, target, **data))


class Asked(nn.Module):
    """Sums of rows; the last tensor that it was given is kept."""

    def forward(self, x):
        self.given = x
        return x.sum(1)


def test_a_model_gets_what_nobody_else_holds_without_a_copy_and_rows_of_their_own():
    class Asks(tw.Attribution):
        def _attribute(self, problem):
            own, net = torch.rand(3, 4), problem.model
            problem.run.scores([own], problem.rows)
            assert net.given is own
            for held in (problem.x[0], own[:1].expand(3, 4)):
                problem.run.scores([held], problem.rows)
                assert net.given.data_ptr() != held.data_ptr()
                assert net.given.is_contiguous()
            return problem.x

    Asks(Asked()).attribute(torch.rand(3, 4))


@pytest.mark.parametrize("error", [None, Broken])
@pytest.mark.parametrize("target", [1, "predicted", tw.Neuron("norm", (0, 0, 0))], ids=str)
@pytest.mark.parametrize(
    "method, layer", [(tw.Saliency, None), (tw.IntegratedGradients, "conv2"), (tw.GradCAM, "conv1")]
)
def test_statistics_of_batch_norms_in_training_mode(method, layer, target, error):
    net, x = make("conv").train(), inputs("conv")
    forward = net.norm.forward

    def fails(y):
        y = forward(y)
        if error is not None:
            raise error
        return y

    net.norm.forward = fails
    before = state(net, x)
    method = method(net, layer=layer)
    raised = nullcontext() if error is None else pytest.raises(error)
    with pytest.warns(UserWarning, match="training mode: norm make"), raised:
        method.attribute(x, target)
    assert same(before, state(net, x))


class Counts(nn.Module):
    """Puts a new tensor in the place of a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen = self.seen + len(x)
        return x


def test_the_last_run_restores_the_buffers():
    net = Counts()
    seen = net.seen
    with freeze_parameters(net):
        net(torch.ones(2))
        with freeze_parameters(net):
            net(torch.ones(3))
        assert net.seen == 5
    assert net.seen is seen
    assert seen == 0


class WritesInPlace(nn.Module):
    """A counter and a running mean, in eval mode too, on which its output depends."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.double))
        self.register_buffer("mean", torch.zeros(5, dtype=torch.double), persistent=False)
        self.head = nn.Linear(5, 2).double()

    def forward(self, x):
        self.seen += 1
        self.mean.mul_(0.9).add_(1)
        return self.head(torch.tanh(x - self.mean) * self.seen)


class PutsNewOnes(WritesInPlace):
    def forward(self, x):
        self.seen = self.seen + 1
        self.mean = 0.9 * self.mean + 1
        return self.head(torch.tanh(x - self.mean) * self.seen)


class MakesOnes(WritesInPlace):
    """A cache that is not there before the first call."""

    def __init__(self):
        super().__init__()
        self.register_buffer("first", None)

    def forward(self, x):
        if self.first is None:
            self.first = x.detach().mean(0)
            self.register_buffer("count", torch.zeros(()))
        self.count += 1
        return self.head(torch.tanh(x - self.first) * self.count)


class BatchStatistics(WritesInPlace):
    """Batch norm as a function, which counts in eval mode: torch writes without a new version of the tensor."""

    def forward(self, x):
        torch.nn.functional.batch_norm(x.detach(), self.mean, torch.ones_like(self.mean), training=True)
        return self.head(torch.tanh(x))


def nested(net):
    return nn.Sequential(nn.Identity(), nn.Sequential(net))


WRITERS = [WritesInPlace, PutsNewOnes, MakesOnes, BatchStatistics, lambda: nested(WritesInPlace()),
           lambda: torch.jit.script(WritesInPlace()), lambda: torch.jit.script(PutsNewOnes())]  # fmt: skip


def values_of_buffers(net):
    return {name: b.clone() for name, b in net.named_buffers()}


@pytest.mark.filterwarnings("ignore:.*jit:FutureWarning")
@pytest.mark.parametrize("make_net", WRITERS)
@pytest.mark.parametrize(
    "method",
    [tw.Saliency, partial(tw.IntegratedGradients, batch_size=2), partial(tw.KernelSHAP, n_samples=30, generator=0)],
)
def test_buffers_written_in_eval_mode(method, make_net):
    net, x = make_net().eval(), inputs("smooth")
    before = values_of_buffers(net)
    there = dict(net.named_buffers()) if not isinstance(net, torch.jit.ScriptModule) else {}
    found = method(net).attribute(x, 1)
    assert same(before, values_of_buffers(net))
    assert all(there[name] is b for name, b in net.named_buffers() if there)
    torch.testing.assert_close(method(net).attribute(x, 1), found)  # nothing was left that would change it


@pytest.mark.parametrize("make_net", [WritesInPlace, PutsNewOnes, lambda: nested(WritesInPlace())])
def test_no_call_of_the_model_depends_on_those_before(make_net):
    net, x = make_net().eval(), inputs("smooth")
    one, many = (tw.KernelSHAP(net, n_samples=30, generator=0, batch_size=b).attribute(x, 1) for b in (1, 1000))
    torch.testing.assert_close(one, many)
    z = (x - 1).requires_grad_()
    (right,) = torch.autograd.grad(net.head(torch.tanh(z))[:, 1].sum(), z) if hasattr(net, "head") else (None,)
    if right is not None:
        torch.testing.assert_close(tw.Saliency(net, signed=True, batch_size=1).attribute(x, 1), right)


def test_a_large_buffer_that_is_written_to_is_said(monkeypatch):
    monkeypatch.setattr(held_buffers, "LARGE_BUFFER", 16)
    net = WritesInPlace().eval()
    with pytest.warns(
        UserWarning, match="the model writes to its buffer 'mean' of '', which is too large to be put back"
    ):
        tw.Saliency(net).attribute(inputs("smooth"), 1)
    assert net.seen == 0


def test_several_targets_of_a_model_in_training_mode():
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3))
    before = of_model(net)
    with pytest.warns(UserWarning, match="training"):
        tw.Saliency(net).attribute_each(torch.rand(4, 3, 2, 2), [0, "predicted"])
    assert same(of_model(net), before)


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        net = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    x = torch.rand(2, 4)
    found = tw.FeatureAblation(net.eval()).attribute(x, 0)
    with torch.inference_mode():
        assert found[0, 1] == pytest.approx(float(net(x)[0, 0] - net(x * torch.tensor([1, 0, 1, 1]))[0, 0]), abs=1e-6)


def test_what_a_model_does_to_a_further_argument_stays_with_the_call():
    def model(x, mask):
        return (x * mask.add_(1).view(-1, 3)).sum(1)

    x, mask = torch.rand(1, 3), torch.zeros(1, 3)
    for method in (tw.Saliency(model), tw.IntegratedGradients(model, n_steps=4)):
        torch.testing.assert_close(
            method.attribute(x, additional_forward_args=mask).abs() > 0, torch.ones(1, 3, dtype=torch.bool)
        )
        assert not mask.any()


def test_a_held_model_names_its_modules_as_torch_does():
    shared = nn.ReLU()
    inner = nn.Sequential(nn.Linear(4, 4), shared)
    net = nn.Sequential(inner, shared, nn.ModuleDict({"a": nn.Linear(4, 4), "b": inner}))
    with freeze_parameters(net) as held:
        assert [(name, module) for module, name in held.modules.items()] == list(net.named_modules())


HELD = {
    "torch's own": (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()).eval(), set()),
    "itself in training": (lambda: nn.Sequential(nn.Linear(2, 2).eval()), {"may_draw"}),
    "recurrent": (lambda: nn.Sequential(nn.Linear(2, 2), nn.GRU(2, 2)).eval(), {"recurrent"}),
    "an encoder": (
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(2, 2, 2, batch_first=True), 1).eval(),
        {"nests"},
    ),
    "of somebody else": (lambda: make("conv"), {"may_draw"}),
    "compiled": (
        lambda: torch.compile(nn.Linear(2, 2).eval(), backend="eager"),
        {"compiled", "opaque", "may_draw"},
    ),
    "scripted": (lambda: torch.jit.script(nn.Linear(2, 2)).eval(), {"opaque", "may_draw"}),
    "on several GPUs": (lambda: nn.DataParallel(nn.Linear(2, 2)).eval(), {"opaque"}),
    "a function": (lambda: torch.relu, {"may_draw"}),
}


@pytest.mark.parametrize("build, facts", HELD.values(), ids=HELD)
def test_a_held_model_knows_of_what_it_is_made(build, facts):
    with freeze_parameters(build()) as held:
        names = ["recurrent", "nests", "compiled", "opaque", "may_draw"]
        assert {name for name in names if getattr(held, name)} == facts


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_a_question_asked_of_tensors_without_values_leaves_none_for_the_next_one():
    net = nn.Sequential(nn.EmbeddingBag(9, 3), nn.Linear(3, 2)).eval()
    x, method = torch.randint(9, (5, 4)), tw.FeatureAblation(net)
    expected = method.attribute(x, target=1)
    other = torch.randint(9, (6, 4))
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, pytest.raises(RuntimeError):  # nothing can be compared
        method.attribute(fake.from_tensor(other), target=1)
    assert torch.equal(method.attribute(torch.cat([x, x[:1]]), target=1)[:5], expected)
