"""The rules engine: every spelling of an operation, in-place work, threads, nesting, and what it refuses."""

import threading

import pytest
import torch
from cases import in_turn
from torch import nn
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.backprop.deeplift_rules import APART, RULES
from torchwhy.backprop.propagation import Propagation, rule_table
from torchwhy.engine.rules.mode import RuleMode, custom_backward
from torchwhy.engine.rules.operations import operation
from torchwhy.lrp import AlphaBeta, Epsilon, Flat, Gamma, Pass, ZBox

RELUS = {
    "F": lambda x: F.relu(x),
    "F_in_place": lambda x: F.relu(x, inplace=True),
    "F_": lambda x: F.relu_(x),
    "torch": torch.relu,
    "torch_": torch.relu_,
    "method": lambda x: x.relu(),
    "method_": lambda x: x.relu_(),
    "module": nn.ReLU(),
    "module_in_place": nn.ReLU(inplace=True),
    "statement": lambda x: (x.relu_(), x)[1],
    "statement_F": lambda x: (F.relu(x, inplace=True), x)[1],
}
METHODS = {
    "guided": lambda m: tw.GuidedBackprop(m),
    "deconv": lambda m: tw.DeconvNet(m),
    "deeplift": lambda m: tw.DeepLIFT(m),
    "reveal_cancel": lambda m: tw.DeepLIFT(m, rule="reveal_cancel"),
    "epsilon": lambda m: tw.LRP(m, composite="epsilon"),
    "alpha_beta": lambda m: tw.LRP(m, composite="epsilon_alpha2_beta1"),
    "flat": lambda m: tw.LRP(m),
    "excitation": lambda m: tw.ExcitationBackprop(m),
}
each_method = pytest.mark.parametrize("method", METHODS)


class Net(nn.Module):
    """A skip connection, one layer used three times, batch norm, and any spelling of relu and of addition."""

    def __init__(self, relu=torch.relu, in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.again = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)
        nn.init.normal_(self.norm.running_mean)
        nn.init.normal_(self.norm.weight)
        self.relu, self.in_place = relu, in_place
        self.double().eval()

    def forward(self, x):
        x = self.relu(self.norm(self.conv(x)))
        for _ in range(3):
            y = self.again(x)
            if self.in_place:
                y += x
                y *= 0.5
            else:
                y = (y + x) * 0.5
            x = self.relu(y)
        return self.head(x.mean((2, 3)))


X = torch.randn(2, 2, 6, 6, dtype=torch.double, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("spelling, method", in_turn(RELUS, METHODS, 3))
@pytest.mark.parametrize("in_place", [False, True], ids=["", "in_place"])
def test_spelling_makes_no_difference(method, spelling, in_place):
    expected = METHODS[method](Net()).attribute(X, 1)
    found = METHODS[method](Net(RELUS[spelling], in_place)).attribute(X, 1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    plain = tw.InputXGradient(Net()).attribute(X, 1)
    if method != "epsilon":  # which is the same on such a network
        assert not torch.allclose(found, plain, rtol=0.1)


def test_epsilon_is_input_times_gradient_on_a_piecewise_linear_network():
    net = Net(RELUS["statement"], True)
    found = tw.LRP(net, composite="epsilon", epsilon=1e-12).attribute(X, 1)
    torch.testing.assert_close(found, tw.InputXGradient(net).attribute(X, 1), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("function", "name", "in_place", "reversed_"),
    [
        (torch.relu_, "relu", True, False),
        (torch.Tensor.__radd__, "add", False, True),
        (torch.Tensor.__rsub__, "sub", False, True),
        (torch.Tensor.__imul__, "mul", True, False),
        (torch.Tensor.__rpow__, "pow", False, True),
        (torch.Tensor.__matmul__, "matmul", False, False),
        (torch.special.expit, "sigmoid", False, False),
        (torch._C._nn.gelu, "gelu", False, False),
        (torch.Tensor.__setitem__, "setitem", True, False),
        (torch.Tensor.__getitem__, "getitem", False, False),
        (F.relu6, "relu6", False, False),
        (torch.multiply, "mul", False, False),
    ],
)
def test_operations_have_one_name(function, name, in_place, reversed_):
    op = operation(function)
    assert (op.name, op.in_place, op.reversed) == (name, in_place, reversed_)


@pytest.mark.parametrize("overwrite", [torch.zero_, lambda a: a.gt_(2)], ids=["zeros", "comparison"])
def test_what_a_rule_keeps_survives_the_models_own_writes(overwrite):
    """The input and output of a layer are overwritten after it ran; plain autograd allows that with frozen weights."""
    conv = nn.Conv1d(1, 2, 3, padding=1).double().requires_grad_(False)

    def f(x, write):
        a = x * 1.0
        y = conv(a)
        z = y * 1.0
        if write:
            overwrite(a)
            y[:, :1] = 5.0
        return z

    found = []
    for write in (False, True):
        x = torch.ones(1, 1, 5, dtype=torch.double).requires_grad_()
        with Propagation(rule_table(AlphaBeta(2, 1), Epsilon())):
            out = f(x, write).sum()
        found.append(torch.autograd.grad(out, x)[0])
    torch.testing.assert_close(*found)


def test_a_rule_for_what_gives_a_tensor_another_shape_in_place():
    def twice(call):
        return custom_backward(call.value(), lambda m: (2 * m.squeeze(0),), call.x)

    x = torch.rand(3, 4, requires_grad=True)
    with RuleMode({"unsqueeze": twice}) as rules:
        y = x * 1
        z = y.unsqueeze_(0)
    assert z is y
    assert rules.applied["unsqueeze"] == 1
    assert torch.equal(y, x[None])
    assert torch.autograd.grad(y.sum(), x)[0].eq(2).all()


@each_method
def test_two_threads_with_other_methods_on_the_same_model(method):
    net, others = Net(), [m for m in METHODS if m != method][:2]
    names = [method, *others]
    alone = {n: METHODS[n](net).attribute(X, 1) for n in names}
    found = {n: [] for n in names}
    barrier = threading.Barrier(len(names))

    def work(name):
        barrier.wait()
        for _ in range(3):
            found[name].append(METHODS[name](net).attribute(X, 1))

    threads = [threading.Thread(target=work, args=(n,)) for n in names]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for name in names:
        assert len(found[name]) == 3
        for value in found[name]:
            torch.testing.assert_close(value, alone[name], rtol=0, atol=0)


def test_two_threads_with_rules_chosen_by_module():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(3, 4, dtype=torch.double)
    composites = [{"0": Gamma(0.5)}, {"0": AlphaBeta(2, 1)}, {"2": Gamma(2.0)}]
    alone = [tw.LRP(net, composite=c).attribute(x, 0) for c in composites]
    barrier, found = threading.Barrier(3), [[] for _ in composites]

    def work(i):
        def together(module, inputs):  # all threads are inside the model when any of them enters the first layer
            if threading.get_ident() == threads[i].ident:
                barrier.wait()

        with net.register_forward_pre_hook(together):
            barrier.wait()
            for _ in range(5):
                found[i].append(tw.LRP(net, composite=composites[i], check=False).attribute(x, 0))
            barrier.wait()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i in range(3):
        assert len(found[i]) == 5
        for value in found[i]:
            torch.testing.assert_close(value, alone[i], rtol=0, atol=0)


def test_nesting_is_refused_and_leaves_the_outer_rules_at_work():
    x = torch.tensor([-1.0, 1.0], requires_grad=True)
    with tw.GuidedBackprop.rules(), pytest.raises(RuntimeError, match="do not nest"):
        tw.LRP(nn.Linear(2, 1)).attribute(x.detach()[None])
    with tw.GuidedBackprop.rules():
        with pytest.raises(RuntimeError, match="do not nest"), tw.DeconvNet.rules():
            pass
        y = (-x.relu()).sum()
    assert torch.autograd.grad(y, x)[0].tolist() == [0, 0]
    y = (-x.relu()).sum()
    assert torch.autograd.grad(y, x)[0].tolist() == [0, -1]


def test_rules_end_when_the_model_raises():
    def broken(x):
        raise KeyError("inside")

    with pytest.raises(KeyError):
        tw.DeepLIFT(broken).attribute(torch.ones(1, 2))
    tw.DeepLIFT(lambda x: x.relu().sum(1)).attribute(torch.ones(1, 2))


def test_by_hand():
    net, x = Net(), X.clone().requires_grad_()
    with tw.GuidedBackprop.rules():
        y = net(x)
        y[:, 1].sum().backward()
    torch.testing.assert_close(x.grad, tw.GuidedBackprop(net).attribute(X, 1))


def test_second_derivatives_are_refused():
    x = torch.randn(3, requires_grad=True)
    with tw.DeconvNet.rules():
        y = x.relu().sum()
    (g,) = torch.autograd.grad(y * y, x, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(g.sum(), x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", ["guided", "deeplift", "flat", "excitation"])
def test_a_compiled_function_runs_as_it_was_written_under_rules(method):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    compiled = torch.compile(lambda x: net(x), backend="eager")  # torch warns where it goes through the rules
    assert torch.equal(METHODS[method](compiled).attribute(X, 1), METHODS[method](net).attribute(X, 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit", "ignore::FutureWarning")
@pytest.mark.parametrize("method", ["guided", "deeplift", "flat", "excitation"])
def test_models_that_python_does_not_see_are_refused(method):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    with pytest.raises(TypeError, match="TorchScript"):
        METHODS[method](torch.jit.trace(net, X)).attribute(X, 1)
    with pytest.raises(TypeError, match="compiled"):
        METHODS[method](torch.compile(net, backend="eager")).attribute(X, 1)
    with pytest.raises(TypeError, match="DataParallel"):
        METHODS[method](nn.DataParallel(net)).attribute(X, 1)


def test_no_rule_no_silence():
    net = lambda x: torch.cumprod(x, 1).sum(1)  # noqa: E731
    x = torch.rand(1, 3) + 1
    with pytest.warns(UserWarning, match=r"cumprod \(1 times\)"):
        tw.DeepLIFT(net).attribute(x)
    assert tw.LRP(net).explain(x).details["plain_operations"] == {"cumprod": 1}
    for method in (tw.DeepLIFT, tw.LRP):
        with pytest.raises(NotImplementedError, match="cumprod"):
            method(net, strict=True).attribute(x)
    for method in (tw.GuidedBackprop, tw.DeconvNet):
        with pytest.warns(UserWarning, match="plain gradient"):
            method(lambda x: x.sigmoid().sum(1)).attribute(x)


def test_fast_paths_of_attention_modules_are_not_taken():
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval().requires_grad_(False)
    with RuleMode({}) as rules, torch.no_grad():
        layer(torch.randn(2, 3, 4))
        nn.MultiheadAttention(4, 2, batch_first=True).eval()(*[torch.randn(2, 3, 4)] * 3)
    seen = []
    kept = dict.fromkeys(RULES.keys() - APART, lambda call: (seen.append(call.name), call())[1])
    with RuleMode({**RULES, **kept}) as rules:
        layer(torch.randn(2, 3, 4).requires_grad_())
    assert {"scaled_dot_product_attention", "layer_norm", "relu"} <= set(seen)
    assert not rules.without_rule


# ---------------------------------------------------------------------------------------------------- composites
def test_rules_by_operation_type_and_name():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = torch.randn(3, 4, dtype=torch.double)
    gamma = tw.LRP(net, composite={nn.Linear: Gamma(0.5)}).attribute(x, 0)
    for same in (
        {F.linear: Gamma(0.5)},
        {("0", "2", "4"): Gamma(0.5)},
        {nn.Linear: "flat", "0": Gamma(0.5), ("2", "4"): Gamma(0.5)},
    ):
        torch.testing.assert_close(tw.LRP(net, composite=same).attribute(x, 0), gamma)
    mixed = tw.LRP(net, composite={"2": Gamma(0.5)}).attribute(x, 0)
    assert not torch.allclose(mixed, gamma)
    assert not torch.allclose(mixed, tw.LRP(net, composite="epsilon").attribute(x, 0))
    passed = tw.LRP(net, composite={"2": Pass()}).attribute(x, 0)  # R_in = R_out: as if the layer were not there
    assert passed.isfinite().all()
    first = tw.LRP(net, composite={"0": ZBox(-3.0, 3.0)}).attribute(x, 0)
    torch.testing.assert_close(first, tw.LRP(net, composite="epsilon", first=ZBox(-3.0, 3.0)).attribute(x, 0))
    torch.testing.assert_close(
        first, tw.LRP(net, composite="epsilon", first="zbox", low=-3.0, high=torch.full((4,), 3.0)).attribute(x, 0)
    )


def test_relevance_from_one_and_at_layers():
    net = Net()
    for layer in (None, "conv", "norm"):
        method = tw.LRP(net, composite="epsilon", layer=layer)
        at = method.attribute(X, 1)
        score = net(X)[:, 1].detach()
        one = tw.LRP(net, composite="epsilon", layer=layer, unit=True).attribute(X, 1)
        torch.testing.assert_close(one * score.view(-1, 1, 1, 1), at)


def test_rows_with_targets_of_their_own():
    net = Net()
    for make in METHODS.values():
        both = make(net).attribute(X, [0, 2])
        for i, t in enumerate((0, 2)):
            torch.testing.assert_close(both[i : i + 1], make(net).attribute(X[i : i + 1], t))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"composite": "epsilon_plsu"}, ValueError, "epsilon_plus"),
        ({"composite": {nn.Conv2d: "gama"}}, ValueError, "gamma"),
        ({"composite": {"cnov": "gamma"}}, ValueError, "conv"),
        ({"composite": {"": "gamma"}}, ValueError, r"the nearest are \w"),
        ({"composite": {nn.Conv2d: 3}}, ValueError, "expected a rule"),
        ({"composite": {F.relu: Gamma()}}, ValueError, "no linear layer"),
        ({"composite": {3: Gamma()}}, ValueError, "no operation"),
        ({"composite": "epsilon_gamma_box"}, ValueError, "low="),
        ({"composite": "epsilon_gamma_box", "low": 1.0, "high": 0.0}, ValueError, "above"),
        ({"composite": "epsilon_gamma_box", "low": torch.zeros(7), "high": 1.0}, ValueError, "broadcast"),
        ({"composite": {"again": Flat()}}, ValueError, "first="),
        ({"first": "flatt"}, ValueError, "flat"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, match):
    with pytest.raises(error, match=match):
        tw.LRP(Net(), **options).attribute(X, 1)


def test_alpha_minus_beta_is_one():
    with pytest.raises(ValueError, match="alpha - beta must be 1"):
        AlphaBeta(2, 2)


# ------------------------------------------------------------------------------------------------------- DeepSHAP
def test_deepshap_is_the_mean_of_deeplift_over_the_baselines():
    net, baselines = Net(), torch.randn(3, 2, 6, 6, dtype=torch.double)
    each = torch.stack([tw.DeepLIFT(net).attribute(X, 1, baselines=b[None]) for b in baselines])
    for size in (None, 1, 4):
        found = tw.DeepSHAP(net, batch_size=size).explain(X, 1, baselines=baselines)
        torch.testing.assert_close(found.attributions, each.mean(0))
        assert found.completeness_gap.max() < 1e-12
    m = tw.DeepLIFT(net, multiply_by_inputs=False).attribute(X, 1, baselines=baselines[:1])
    torch.testing.assert_close(m * (X - baselines[:1]), each[0])


def test_excitation_is_a_probability_and_its_contrast_is_signed():
    net = nn.Sequential(nn.Linear(8, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 4)).double()
    x = torch.rand(3, 8, dtype=torch.double)
    p = tw.ExcitationBackprop(net).attribute(x, 2)
    assert (p >= 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(3, dtype=torch.double), rtol=1e-6, atol=1e-6)
    w, h = net[4].weight[2].detach(), net[:4](x).detach()
    up, down = (h * s for s in (w.clamp(min=0), (-w).clamp(min=0)))
    expected = up / up.sum(1, keepdim=True) - down / down.sum(1, keepdim=True)
    found = tw.ExcitationBackprop(net, contrastive=True, layer="3").attribute(x, 2)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


# ----------------------------------------------------------------------------------------------------- half, CUDA
@each_method
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_types(method, dtype):
    found = METHODS[method](Net().to(dtype)).attribute(X.to(dtype), 1)
    assert found.dtype == dtype
    expected = METHODS[method](Net()).attribute(X, 1)
    error = (found.double() - expected).norm() / expected.norm()
    assert error < (0.3 if dtype == torch.bfloat16 else 1e-3)


@each_method
def test_autocast(method):
    found = METHODS[method](Net().float())
    found.precision = "bf16"
    expected = METHODS[method](Net()).attribute(X, 1)
    assert (found.attribute(X.float(), 1).double() - expected).norm() / expected.norm() < 0.3
