"""What rules do not reach, autograd Functions and transforms of torch.func, is counted, said, and refused in strict mode."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import torchwhy as tw


class Swish(torch.autograd.Function):
    """As in code that saves memory: the inside is not recomputed, but written by hand."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return g * s * (1 + x * (1 - s))


class Kernel(torch.autograd.Function):
    """No function of torch runs on a tensor with a graph, as where a kernel is launched."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)

    @staticmethod
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0] ** 2


class Net(nn.Module):
    def __init__(self, f):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.f = nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False), f

    def forward(self, x):
        return self.b(self.f(self.a(x)))


W = torch.linspace(-1, 1, 64).view(8, 8)
X = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
HIDDEN = {  # a model's middle: (function, what the details name)
    "function": (Swish.apply, {"Swish": 1}),
    "function_twice": (lambda h: Swish.apply(Swish.apply(h)), {"Swish": 2}),
    "function_beside_relu": (lambda h: Swish.apply(h).relu() + h, {"Swish": 1}),
    "kernel": (Kernel.apply, {"Kernel": 1}),
    "vmap": (lambda h: torch.func.vmap(F.silu)(h), {"silu": 1}),
    "vmap_of_a_layer": (lambda h: torch.func.vmap(lambda row: F.silu(F.linear(row, W)))(h), {"silu": 1, "linear": 1}),
    "vmap_in_place": (lambda h: torch.func.vmap(lambda row: (row * 1).sigmoid_())(h), {"sigmoid": 1}),
    "grad": (lambda h: torch.func.grad(lambda z: z.pow(3).sum())(h), {"pow": 1}),
}


def _written(h):
    h = h * 2
    part = h[:, 2:5]
    part.mul_(3)
    h.select(1, 7).zero_()
    return h.view(len(h), 2, 4).flatten(1)


SEEN = {  # which change nothing, or are seen
    "plain": F.silu,
    "vmap_of_what_is_linear": lambda h: F.silu(torch.func.vmap(lambda row: row.flip(0) * 2 + 1)(h)),
    "checkpoint": lambda h: checkpoint(F.silu, h, use_reentrant=False),
    "written_into_a_view": lambda h: F.silu(_written(h)),
    "rows_one_by_one": lambda h: F.silu(torch.stack(list(h)) * 2),
    "parts": lambda h: F.silu(torch.cat([*h.chunk(2, 1), h.split(4, 1)[0]], 1)[:, :8]),
    "beside_the_signal": lambda h: F.silu(h) + Swish.apply(torch.ones(8)),
}
METHODS = {
    "LRP": lambda m, **k: tw.LRP(m, composite="epsilon", **k),
    "DeepLIFT": lambda m, **k: tw.DeepLIFT(m, **k),
    "reveal_cancel": lambda m, **k: tw.DeepLIFT(m, rule="reveal_cancel", **k),
}
each_method = pytest.mark.parametrize("method", METHODS)


def linear(h):
    return F.linear(h, W)


@each_method
@pytest.mark.parametrize("name", HIDDEN)
def test_what_rules_do_not_reach_is_counted_said_and_refused(method, name):
    f, plain = HIDDEN[name]
    if method == "DeepLIFT":
        plain = {k: v for k, v in plain.items() if k != "linear"}  # which keeps its gradient there
    with pytest.warns(UserWarning, match=next(iter(plain))):
        found = METHODS[method](Net(f)).explain(X, 1, **({} if method == "LRP" else {"baselines": 0.3}))
    assert found.details["plain_operations"] == plain
    assert not set(plain) & set(found.details["operations_with_rule"]) - {"linear"}
    with pytest.raises(NotImplementedError, match="strict=True, and rules do not reach what is inside"):
        METHODS[method](Net(f), strict=True).attribute(X, 1)


@each_method
@pytest.mark.parametrize("name", SEEN)
def test_what_they_reach_is_not(method, name):
    found = METHODS[method](Net(SEEN[name]), strict=True).explain(X, 1)
    assert found.details["plain_operations"] == {}
    assert method == "LRP" or float(found.completeness_gap.max()) < 1e-5


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)

    @torch.jit.script
    def scripted(h):
        return h * torch.sigmoid(h)

    SCRIPTS = {
        "script": scripted,
        "trace": torch.jit.trace(lambda h: F.relu(h).square(), torch.zeros(2, 8)),
        "in the middle": lambda h: scripted(h.flip(1)).flip(1) + h,
        "at the end": lambda h: scripted(h).view(len(h), 2, 4).mT.flatten(1),
    }


@each_method
@pytest.mark.parametrize("warm", [False, True])  # torch makes one node of a function that ran before
@pytest.mark.parametrize("name", SCRIPTS)
def test_functions_of_torchscript_are_not_reached(method, warm, name):
    net = Net(SCRIPTS[name])
    with torch.jit.optimized_execution(warm):
        for _ in range(3 * warm):
            net(X).sum().backward()
        with pytest.warns(UserWarning, match="kept the(ir|) plain gradient"):
            found = METHODS[method](net).explain(X, 1)
        assert found.details["plain_operations"]
        with pytest.raises(NotImplementedError, match="TorchScript"):
            METHODS[method](net, strict=True).attribute(X, 1)


@pytest.mark.parametrize("method", [tw.GuidedBackprop, tw.ExcitationBackprop])
def test_a_script_beside_a_rectifier_is_said(method):
    with pytest.warns(UserWarning, match="kept the plain gradient, as rules do not reach"):
        method(Net(lambda h: scripted(h).relu())).attribute(X, 1)


def test_what_was_computed_before_is_not_the_models():
    h = F.silu(X.clone().requires_grad_()).sin()
    with tw.GuidedBackprop.rules() as rules:
        Net(F.relu)(h).sum().backward()
    assert not rules.unreached


def test_hooks_of_modules_are_no_functions_of_the_model():
    net = Net(nn.SiLU())
    expected = tw.DeepLIFT(net, strict=True).attribute(X, 1)
    for module in (net.a, net.f, net):
        module.register_full_backward_hook(lambda *_: None)
    found = tw.DeepLIFT(net, strict=True).explain(X, 1)
    assert found.details["plain_operations"] == {}
    torch.testing.assert_close(found.attributions, expected)


@pytest.mark.parametrize("method", [tw.GuidedBackprop, tw.DeconvNet, tw.ExcitationBackprop])
def test_methods_without_a_strict_mode_say_it(method):
    with pytest.warns(UserWarning, match=f"{method.__name__}: Swish kept the plain gradient, as rules do not reach"):
        found = method(Net(lambda h: Swish.apply(h).relu())).explain(X, 1)
    assert found.details["plain_operations"] == {"Swish": 1}


@pytest.mark.parametrize("method", [lambda m: tw.LRP(m, composite="epsilon"), tw.ExcitationBackprop])
def test_a_model_without_any_operation_that_has_a_rule_is_said(method):
    net = Net(F.silu)
    with pytest.warns(UserWarning, match=r"no operation of the model has a rule.*cumprod \(1 times\), renorm"):
        method(lambda x: x.cumprod(1).renorm(2, 0, 1.0)[:, 0]).attribute(X)
    with pytest.warns(UserWarning, match="linear, silu kept the plain gradient") as said:
        method(lambda x: torch.func.vmap(lambda row: net(row))(x)).attribute(X, 1)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method(net).attribute(X, 1)
        method(lambda x: x.sum(1)).attribute(X)  # nothing needs a rule
