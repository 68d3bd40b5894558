"""Modules with two names, tied weights, weights that are computed: right gradients, and a model that stays what it was."""

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from cases import in_turn
from reference import influence as slow
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from traces import of_model, same

import torchwhy as tw
from torchwhy.engine.run.autograd import freeze_parameters
from torchwhy.influence import influence_method
from torchwhy.influence.named_tensors import call_with_tensors, left_as_it_is, places_of_tensors
from torchwhy.influence.row_gradients import parameters_at

CLOSE = {"rtol": 1e-8, "atol": 1e-11}
X = torch.randn(7, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
Y = torch.tensor([0, 1, 2, 0, 1, 2, 1])


class Chain(nn.Module):
    """Rows ``(N, 4)`` → ``(N, 3)``, through two parts."""

    def __init__(self, a, b):
        super().__init__()
        self.a, self.b, self.head = a, b, nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(x)))))


class Scaled(nn.Module):
    """A buffer that may be another module's too, and a parameter and a buffer that are None."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_parameter("gain", None)
        self.register_buffer("shift", None)

    def forward(self, x):
        return x * self.scale


class Writes(nn.Module):
    """What it counts is in buffers, what passed it is an attribute."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        self.replaced, self.last = self.replaced + 1, x
        return x


class Recurrent(nn.Module):
    """A recurrent layer with two names, which keeps a list of its weights."""

    def __init__(self):
        super().__init__()
        self.steps = self.again = nn.GRU(1, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.steps(x[..., None])[0][:, -1])


class Twice(nn.Module):
    """One parameter by two names."""

    def __init__(self):
        super().__init__()
        self.gain = self.shift = nn.Parameter(torch.rand(4))

    def forward(self, x):
        return x * self.gain + self.shift


def linear():
    return nn.Linear(4, 4)


def with_two_names():
    part = linear()
    return Chain(part, part)


def child_of_two():
    part = linear()
    return Chain(nn.Sequential(linear(), part), nn.Sequential(part, linear()))


def held_in_lists():
    net = Chain(linear(), linear())
    net.parts, net.none = nn.ModuleList([net.b, net.a, net.b]), None
    return net


def tied():
    net = Chain(linear(), linear())
    net.b.weight = net.a.weight
    return net


def tied_with_two_names():
    net = tied()
    net.again, net.b.bias = net.b, net.a.bias
    return net


def norm_with_two_names():
    norm = nn.BatchNorm1d(4)
    norm.running_mean.normal_()
    return Chain(nn.Sequential(linear(), norm), nn.Sequential(linear(), norm))


def shared_buffer():
    scale = torch.rand(4) + 0.5
    return Chain(nn.Sequential(linear(), Scaled(scale)), nn.Sequential(Scaled(scale), linear()))


def weight_norm():
    net = with_two_names()
    parametrizations.weight_norm(net.a)
    return net


def weight_norm_tied():
    net = Chain(linear(), linear())
    parametrizations.weight_norm(net.a)
    net.b.weight = net.a.parametrizations.weight.original1
    return net


def weight_norm_by_hooks():
    net = with_two_names()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        nn.utils.weight_norm(net.a)
    return net


def pruned():
    net = with_two_names()
    prune.l1_unstructured(net.a, "weight", amount=0.3)
    return net


def writes():
    part = nn.Sequential(linear(), Writes())
    return Chain(part, part)


def tied_in_one_module():
    return Chain(linear(), Twice())


def parameter_as_a_buffer():
    part = linear().double()
    return Chain(part, Scaled(part.bias))


def scripted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return Chain(torch.jit.script(linear()), linear())


MODELS = {
    build.__name__: build
    for build in (
        with_two_names, child_of_two, held_in_lists, tied, tied_with_two_names, norm_with_two_names, shared_buffer, weight_norm,
        weight_norm_tied, weight_norm_by_hooks, pruned, writes, Recurrent,
    )
}  # fmt: skip
METHODS = {
    "TracIn": tw.TracIn,
    "TracIn at checkpoints": lambda model: tw.TracIn(model, checkpoints=[(state_of(model), 1.0)]),
    "TRAK": lambda model: tw.TRAK(model, dim=4),
    "exact": lambda model: tw.InfluenceFunction(model, layer="", damping=5.0),
    "last layer": tw.InfluenceFunction,
    "EK-FAC": lambda model: tw.InfluenceFunction(model, hessian="ekfac"),
    "EK-FAC, CG": lambda model: tw.InfluenceFunction(model, hessian="ekfac_cg", n_steps=2),
    "Arnoldi": lambda model: tw.InfluenceFunction(model, hessian="arnoldi", n_steps=4, rank=2),
    "KNNShapley": lambda model: tw.KNNShapley(model, layer="head"),
    "RepresenterPoints": tw.RepresenterPoints,
    "SimilarityInfluence": lambda model: tw.SimilarityInfluence(model, layer="head"),
}
each_model = pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
slow_rows = pytest.mark.filterwarnings("ignore:rows are taken one at a time")


def make(build):
    torch.manual_seed(0)
    with torch.no_grad():
        return build().double().eval()


def state_of(model):
    return {name: t.clone() for name, t in model.state_dict().items()}


def attributes_of(model):
    """What modules have besides parameters, buffers and modules: itself, so that nothing else can take its place."""
    parts = ("_parameters", "_buffers", "_modules")
    return [(m, {key: value for key, value in vars(m).items() if key not in parts}) for m in model.modules()]


def same_attributes(a, b):
    return all(x.keys() == y.keys() and all(x[key] is y[key] for key in x) for (_, x), (_, y) in zip(a, b))


def slow_gradients(model):
    return slow.gradients(model, F.cross_entropy, X, Y, list(model.parameters()))


@pytest.mark.parametrize("name, method", in_turn(MODELS, METHODS, 4))
@slow_rows
def test_a_model_stays_what_it_was(name, method):
    model, broken = make(MODELS[name]), []

    def fails(*_):
        if broken:
            raise KeyboardInterrupt

    model.head.register_forward_pre_hook(fails)
    with torch.no_grad():
        model(X)  # so that what the forward pass leaves in modules is there
    parameters = list(model.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    before, attributes = of_model(model), attributes_of(model)
    found = METHODS[method](model).fit(X, Y)
    found.explain(X[:3], Y[:3])
    broken.append(True)
    with pytest.raises(KeyboardInterrupt):
        found.fit(X, Y).explain(X[:3], Y[:3])
    assert same(before, of_model(model))
    assert same_attributes(attributes, attributes_of(model))
    assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
    broken.clear()
    model(X).sum().backward()
    assert all(p.grad is not None for p in parameters)


@pytest.mark.parametrize(
    "build",
    [*MODELS.values(), tied_in_one_module, parameter_as_a_buffer, scripted],
    ids=lambda build: build.__name__,
)
@slow_rows
def test_gradients_are_those_by_each_parameter_once(build):
    model = make(build)
    g = slow_gradients(model)
    for name in ("TracIn", "TracIn at checkpoints"):
        found = METHODS[name](model).fit(X, Y).explain(X[:3], Y[:3]).attributions
        torch.testing.assert_close(found, g[:3] @ g.T, **CLOSE)


def tensors_of(model):
    named = *model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)
    return [tensor for _, tensor in named]


@each_model
def test_a_call_with_other_tensors_puts_back_each_of_them(build):
    model = make(build)
    places, before = places_of_tensors(model), tensors_of(model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    call_with_tensors(model, {name: tensors[name].detach().clone() for name in places}, places, (X,), {})
    assert all(a is b for a, b in zip(tensors_of(model), before, strict=True))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m, "more", 1),
        lambda m: setattr(m, "in_features", 9),
        lambda m: delattr(m, "in_features"),
        lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(4, 4))),
        lambda m: delattr(m, "weight"),
        lambda m: m.register_buffer("seen", torch.zeros(())),
    ],
    ids=["attribute added", "attribute set", "attribute gone", "parameter set", "parameter gone", "buffer added"],
)
def test_what_is_replaced_inside_is_put_back(change):
    module = linear()
    attributes, tensors = dict(vars(module)), dict(module.named_parameters())
    with left_as_it_is(module):
        change(module)
    assert vars(module).keys() == attributes.keys()
    assert all(vars(module)[name] is value for name, value in attributes.items())
    assert {n: id(t) for n, t in module.state_dict(keep_vars=True).items()} == {n: id(t) for n, t in tensors.items()}


class NormByHand(nn.Module):
    """Weight norm in steps, whose derivatives of every order torch has."""

    def forward(self, gain, direction):
        return direction * (gain / direction.norm(dim=1, keepdim=True))


def in_steps(model):
    """The model with its weight norms in steps."""
    for module in model.modules():
        if parametrize.is_parametrized(module):
            module.parametrizations.weight[0] = NormByHand()
    return model


@each_model
@slow_rows
def test_the_exact_influence_is_that_by_each_parameter_once(build):
    model = in_steps(make(weight_norm if build is weight_norm_by_hooks else build))
    right = slow.influence(model, F.cross_entropy, (X[:3], Y[:3]), (X, Y), list(model.parameters()), 5.0)
    found = METHODS["exact"](make(build)).fit(X, Y).explain(X[:3], Y[:3]).attributions
    torch.testing.assert_close(found, right, **CLOSE)


@each_model
@slow_rows
def test_checkpoints_of_shared_tensors(build):
    """Other values than the model's own, under all names or under one, as files of safetensors have them."""
    model, other = make(build), make(build)
    with torch.no_grad():
        for p in other.parameters():
            p.mul_(1.5)
    g, state, kept = slow_gradients(other), state_of(other), other.state_dict(keep_vars=True)
    last = {id(t): name for name, t in kept.items()}
    for given in (state, {name: state[name] for name in last.values()}):
        found = tw.TracIn(model, checkpoints=[(given, 1.0)]).fit(X, Y).explain(X[:3], Y[:3]).attributions
        torch.testing.assert_close(found, g[:3] @ g.T, **CLOSE)


def test_checkpoints_that_do_not_share():
    state = state_of(make(tied))
    state["b.weight"] += 1
    with pytest.raises(ValueError, match=r"checkpoints\[0\].*two values of one tensor, a.weight and b.weight"):
        tw.TracIn(make(tied), checkpoints=[(state, 1.0)]).fit(X, Y)
    lacking = {name: t for name, t in state.items() if name not in ("a.weight", "b.weight")}
    with pytest.raises(ValueError, match=r"missing a\.weight, b\.weight"):
        tw.TracIn(make(tied), checkpoints=[(lacking, 1.0)]).fit(X, Y)


def test_ekfac_leaves_out_layers_that_share_their_bias():
    model = make(tied)
    model.b.weight, model.b.bias = nn.Parameter(model.b.weight.detach().clone()), model.a.bias
    assert tw.InfluenceFunction(model, hessian="ekfac").fit(X, Y).names == ["head.weight", "head.bias"]


class Remembers(Chain):
    """Has what is no tensor in its state dict."""

    def get_extra_state(self):
        return {"steps": 3}

    def set_extra_state(self, state):
        self.steps = state["steps"]


@pytest.mark.parametrize("mode", ["cascading", "independent"])
def test_a_state_dict_may_hold_what_is_no_tensor(mode):
    scores = [
        tw.metrics.model_randomization(tw.Saliency(make(build)), X[:3], 1, mode=mode).scores
        for build in (lambda: Chain(linear(), linear()), lambda: Remembers(linear(), linear()))
    ]
    assert torch.equal(*scores)


def test_a_rule_for_a_module_by_its_second_name():
    model = make(with_two_names)
    found = [tw.LRP(model, composite={name: tw.lrp.Epsilon(0.5)}).attribute(X, 1) for name in ("a", "b")]
    assert torch.equal(*found)
    assert not torch.equal(found[0], tw.LRP(model, composite="epsilon").attribute(X, 1))


def test_what_is_trainable_is_so_by_itself_while_another_thread_holds_the_model():
    """A run of the model switches the gradients of all its parameters off, and without any all would count."""
    model = make(tied)
    next(model.parameters()).requires_grad_(False)
    expected = parameters_at(model, None)
    with freeze_parameters(model):
        assert parameters_at(model, None) == expected
    assert 0 < len(expected) < len(parameters_at(model, model))


def test_a_model_is_looked_at_in_turn(monkeypatch):
    """While another thread has put other tensors in, a parameter is not what it is."""
    model, looked = make(tied), threading.Event()
    monkeypatch.setattr(influence_method, "parameters_at", lambda *a: looked.set() or parameters_at(*a))
    worker = threading.Thread(target=lambda: tw.TracIn(model).fit(X, Y))
    with left_as_it_is(model):
        worker.start()
        assert not looked.wait(0.2)
    worker.join()
    assert looked.is_set()


def test_threads_that_ask_about_one_model_take_turns():
    model, barrier, errors = make(tied), threading.Barrier(3), []
    before, right = of_model(model), tw.TracIn(model).fit(X, Y).explain(X, Y).attributions

    def work():
        try:
            barrier.wait()
            for _ in range(10):
                torch.testing.assert_close(tw.TracIn(model).fit(X, Y).explain(X, Y).attributions, right, **CLOSE)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    assert same(before, of_model(model))
