"""Rows that depend on one another are noticed, once for a model, and nothing else is."""

import gc
import warnings

import pytest
import torch
from cases import CASES, each_case
from nets import inputs, make
from torch import nn
from traces import of_input, of_model, of_torch, same

import torchwhy as tw
from torchwhy.engine import state
from torchwhy.engine.run.fingerprint import fingerprint

DEPEND = "rows depend on one another"


class Graph(nn.Module):
    """Nodes as rows (N, 3) → (N, 2), by the edges."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.l, self.o = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x, edges):
        h = torch.relu(self.l(x))
        return self.o(h.index_add(0, edges[1], h[edges[0]]))


class Contrast(nn.Module):
    """Each row against the others of the batch: (N, 3) → (N, 2)."""

    def __init__(self, share=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.l, self.share = nn.Linear(3, 2), share

    def forward(self, x):
        y = torch.tanh(self.l(x))
        return y - self.share * y.mean(0)


class Pairwise(nn.Module):
    """Attention between rows: (N, 3) → (N, 3)."""

    def forward(self, x):
        return (x @ x.T).softmax(1) @ x


def batch_norm():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8, track_running_stats=False), nn.ReLU(), nn.Linear(8, 3))


EDGES = torch.tensor([[0, 1, 2, 3, 1], [1, 2, 3, 0, 3]])
ADJACENCY = torch.zeros(5, 5).index_put((EDGES[1], EDGES[0]), torch.tensor(1.0))
NETS = {
    "graph": (Graph, (EDGES,)),
    "shared graph": (Graph, (tw.Shared(EDGES),)),
    "adjacency": (lambda: lambda x, a: (x + a @ x).tanh(), (ADJACENCY,)),
    "contrast": (Contrast, None),
    "contrast of a function": (lambda: lambda x: x - x.mean(0), None),
    "weak contrast": (lambda: Contrast(0.05), None),
    "batch norm": (batch_norm, None),
    "attention": (Pairwise, None),
}
METHODS = [
    lambda net, **o: tw.Saliency(net, **o),
    lambda net, **o: tw.SmoothGrad(net, of=tw.Saliency(net), n_samples=3, generator=0, batch_size=5, **o),
    lambda net, **o: tw.IntegratedGradients(net, n_steps=4, batch_size=5, **o),
    lambda net, **o: tw.FeatureAblation(net, batch_size=5, **o),
]


@pytest.mark.parametrize("method", METHODS, ids=["Saliency", "SmoothGrad", "IG", "FeatureAblation"])
@pytest.mark.parametrize("net", NETS)
def test_rows_that_depend_on_one_another_are_noticed(net, method):
    make_net, further = NETS[net]
    net = make_net()
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    if isinstance(net, nn.Module):
        net.eval()
    for _ in range(2):  # remembered or not
        with pytest.warns(UserWarning, match=DEPEND + r".*one row, \(1, nodes, features\).*batch_size=1.*check=False"):
            told = method(net).attribute(x, 1, additional_forward_args=further)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent = method(net, check=False).attribute(x, 1, additional_forward_args=further)
    assert torch.equal(told, silent)


def test_a_target_that_mixes_rows_is_noticed():
    net, x = make("smooth"), inputs("smooth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.Saliency(net).attribute(x, lambda out: out[:, 1])
    with pytest.warns(UserWarning, match=DEPEND):
        tw.Saliency(net).attribute(x, lambda out: out[:, 1] - out[:, 1].mean())
    with pytest.warns(UserWarning, match=DEPEND):
        tw.Saliency(Contrast().double()).attribute(torch.randn(3, 3).double(), "predicted")


@each_case
def test_nothing_is_said_of_rows_that_are_independent(case):
    net, x = case.setup(torch.float)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", DEPEND)
        told = case.make(net).attribute(x, 1, **case.data)
        again = case.make(net).attribute(x, 1, **case.data)
        silent = case.make(net, check=False).attribute(x, 1, **case.data)
    assert torch.equal(told, silent)
    assert torch.equal(told, again)


@pytest.mark.parametrize("dtype", [torch.float, torch.bfloat16], ids=str)
def test_rounding_is_no_company(dtype):
    class Routed(nn.Module):
        """A mixture of experts, whose routes rounding may switch."""

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.route = nn.Linear(64, 64), nn.Linear(64, 4)
            self.experts = nn.ModuleList(nn.Linear(64, 3) for _ in range(4))

        def forward(self, x):
            h = torch.tanh(self.first(x))
            chosen = self.route(h).argmax(1)
            return torch.stack([e(h) for e in self.experts], 1)[torch.arange(len(x)), chosen]

    net = Routed().to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(5):
            x = torch.randn(8, 64, generator=torch.Generator().manual_seed(seed)).to(dtype)
            state.trials.pop(net, None)
            tw.Saliency(net).attribute(x, 1)
            state.trials.pop(net, None)
            tw.Saliency(net.float(), precision="bf16").attribute(x.float(), 1)
            net.to(dtype)


def counted(net):
    """The rows of each call of a network, which is known to draw nothing at random: another trial."""
    rows = []
    net.register_forward_pre_hook(lambda m, args: rows.append(len(args[0])))
    state.repeating[net] = fingerprint(net)
    return rows


def test_a_model_is_tried_once():
    net, x = make("smooth"), inputs("smooth")
    rows = counted(net)
    tw.Saliency(net).attribute(x, 1)
    assert rows == [1, 2, 3]
    rows.clear()
    tw.Saliency(net).attribute(x, 2)
    tw.IntegratedGradients(net, n_steps=3).attribute(x, [0, 1, 2])
    assert rows == [3, 9]
    counts = [tw.IDGI(make("smooth")).explain(x, 1).evaluations, tw.IDGI(net).explain(x, 1).evaluations]
    assert counts[0] == counts[1]
    rows.clear()
    tw.Saliency(net).attribute(x, lambda out: out[:, 1])  # another target may mix rows
    assert rows == [1, 2, 3]
    for c in (0, 1):
        rows.clear()
        tw.Saliency(net).attribute(x, lambda out, c=c: out[:, c])
        assert rows == ([1, 2, 3] if c == 0 else [3])


@pytest.mark.parametrize("n, options", [(1, {}), (3, {"batch_size": 1}), (3, {"check": False})], ids=str)
def test_no_trial_where_none_is_needed(n, options):
    net, x = make("smooth"), inputs("smooth", n)
    rows = counted(net)
    tw.Saliency(net, **options).attribute(x, 1)
    scale = torch.ones(n, 7, dtype=torch.double)
    tw.Saliency(net, **options).attribute(x, 1, additional_forward_args=tw.PerRow(scale))
    assert sum(rows) == 2 * n


def test_a_compiled_model_is_not_compiled_again_for_a_trial():
    net, x = make("smooth"), inputs("smooth")
    rows = counted(net)
    tw.FeatureAblation(torch.compile(net, backend="eager")).attribute(x, 1)
    assert 1 not in rows
    assert 2 not in rows


def test_what_an_argument_does_is_tried_once():
    net, x = make("smooth"), inputs("smooth")
    rows = counted(net)
    scale = torch.rand(3, 7, dtype=torch.double)
    tw.Saliency(net).attribute(x, 1, additional_forward_args=scale)
    assert rows == [1, 1, 1, 2, 3]  # with its own part, with all (which fails), alone, beside another, all
    rows.clear()
    tw.Saliency(net).attribute(x, 1, additional_forward_args=scale * 2)
    assert rows == [3]
    rows.clear()
    tw.Saliency(net).attribute(x, 1, additional_forward_args=tw.PerRow(scale))
    assert rows == [1, 2, 3]


def test_no_trial_without_which_it_was_asked_is_left_unmarked():
    net, x = make("smooth"), inputs("smooth")
    scale = torch.rand(3, 7, dtype=torch.double)
    told = tw.SmoothGrad(net, of=tw.Saliency(net), n_samples=3, generator=0, check=False)
    asked = tw.SmoothGrad(net, of=tw.Saliency(net), n_samples=3, generator=0)
    found = [m.attribute(x, 1, additional_forward_args=scale) for m in (told, asked)]
    assert torch.equal(*found)


def test_outcomes_keep_no_model_alive_and_are_few(monkeypatch):
    monkeypatch.setattr("torchwhy.engine.trials.REMEMBERED", 50)
    gc.collect()
    before = len(state.trials)
    net, x = make("smooth"), inputs("smooth")
    for width in range(120):
        tw.Saliency(net, check=True).attribute(x, eval(f"lambda out: out[:, 1] * {width}", {}))
    models, outcomes = len(state.trials), len(state.trials[net][1])
    assert models == before + 1
    assert 0 < outcomes <= 50
    del net
    gc.collect()
    assert len(state.trials) == before


def test_a_model_that_draws_at_random_is_no_matter_of_company():
    net, x = make("smooth"), inputs("smooth")

    def drawn(x):
        return net(x) + torch.randn(len(x), 3)

    trace = of_torch()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "the model draws at random")
        with torch.random.fork_rng():
            torch.manual_seed(0)
            told = tw.FeatureAblation(drawn).attribute(x, 1)
            torch.manual_seed(0)
            silent = tw.FeatureAblation(drawn, check=False).attribute(x, 1)
            labels = tw.Shared(torch.tensor([0, 2]))  # could be numbers of rows
            tw.FeatureAblation(lambda x, labels: drawn(x)).attribute(x, 1, additional_forward_args=labels)
    assert torch.equal(told, silent)  # a trial draws from a state of its own
    assert same(trace, of_torch())


def test_a_model_in_training_mode_is_warned_of_once():
    net, x = make("conv"), inputs("conv")
    net.train()
    before = of_model(net), of_input(x)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        tw.Saliency(net).attribute(x, 1)
    assert len(said) == 1
    assert same(before, (of_model(net), of_input(x)))


@pytest.mark.parametrize("error", [RuntimeError, IndexError, KeyError, ZeroDivisionError])
def test_an_error_of_the_model_is_the_models(error):
    def fails(x):
        raise error("mine")

    with pytest.raises(error, match="mine"):
        tw.Saliency(fails).attribute(torch.randn(3, 2))
    with pytest.raises(error, match="mine"):
        tw.Saliency(lambda x, a: fails(x)).attribute(torch.randn(3, 2), additional_forward_args=torch.randn(3, 2))


def test_every_method_has_the_setting():
    assert all(case.make(make(case.net), check=False).settings()["check"] is False for case in CASES)
    with pytest.raises(ValueError, match="check='no': expected True or False"):
        tw.Saliency(nn.Linear(2, 2), check="no")


class Mixes(nn.Linear):
    """Compares the rows of a call where it is told to."""

    mixes = False

    def forward(self, x):
        y = super().forward(x)
        return y - y.mean(0) if self.mixes else y


def test_a_model_that_changed_is_tried_again():
    net, x = Mixes(4, 3), torch.randn(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.Saliency(net).attribute(x, 1)
    net.mixes = True
    with pytest.warns(UserWarning, match=DEPEND):
        tw.Saliency(net).attribute(x, 1)


CHANGES = {
    "a parameter is written to": lambda net: nn.init.zeros_(net[0].weight),
    "a parameter is another": lambda net: setattr(net[0], "weight", nn.Parameter(torch.zeros(3, 3))),
    "a buffer is written to": lambda net: net[1].running_mean.add_(1),
    "a state is loaded": lambda net: net.load_state_dict(net.state_dict()),
    "a module is another": lambda net: net.__setitem__(0, nn.Linear(3, 3)),
    "a module is gone": lambda net: net.__delitem__(1),
    "the mode": lambda net: net.train(),
    "an attribute": lambda net: setattr(net[0], "scale", 2),
    "compiled": lambda net: net.compile(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(change):
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).eval()
    before = fingerprint(net)
    net(torch.rand(2, 3)).sum().backward()
    net.requires_grad_(False)
    assert fingerprint(net) == before
    change(net)
    assert fingerprint(net) != before
    assert hash(fingerprint(net)) is not None


def test_tensors_of_inference_mode_have_no_version():
    with torch.inference_mode():
        net = nn.BatchNorm1d(3)
    assert fingerprint(net) == fingerprint(net)


class Owner:
    """What calls a network, itself and by its method; no module."""

    def __init__(self):
        self.calls, self.net = [], make("smooth")

    def __call__(self, x):
        self.calls.append(len(x))
        return self.net(x)

    def score(self, x):
        return self(x)


def test_what_is_known_of_an_object_is_known_of_its_method():
    owner, x = Owner(), inputs("smooth")
    tw.Saliency(owner.score).attribute(x, 1)
    tried = len(owner.calls)
    tw.Saliency(owner.score).attribute(x, 1)
    assert len(owner.calls) < 2 * tried
