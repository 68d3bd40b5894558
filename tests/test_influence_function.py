"""Influence functions: equal to retraining where that is a formula, to their slow versions elsewhere."""

import pytest
import torch
import torch.nn.functional as F
from reference import influence as slow
from test_influence import CLOSE, TEST, TRAIN, net
from torch import nn

import torchwhy as tw
from torchwhy.influence.ekfac import draw_labels


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def linear(weights):
    """A linear model with these weights, the last one its bias."""
    model = nn.Linear(len(weights) - 1, 1).double()
    with torch.no_grad():
        model.weight[0], model.bias[0] = weights[:-1], weights[-1]
    return model


def test_exact_influence_equals_retraining_a_ridge():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(80, 5, generator=g, dtype=torch.double)
    y = x @ torch.arange(5.0).double() + 1 + torch.randn(80, generator=g, dtype=torch.double)
    (x, x_test), (y, y_test), penalty = x.split(70), y.split(70), 0.3
    ones = torch.cat([x, torch.ones(70, 1)], 1), torch.cat([x_test, torch.ones(10, 1)], 1)

    def losses(weights):
        return (ones[1] @ slow.ridge_of_rows(ones[0], y, weights, penalty) - y_test).square()

    all_rows = torch.ones(70, dtype=torch.double)
    model = linear(slow.ridge_of_rows(ones[0], y, all_rows, penalty))
    method = tw.InfluenceFunction(model, damping=penalty).fit(x, y[:, None])
    found = method.explain(x_test, y_test[:, None]).attributions
    one = torch.eye(70, dtype=torch.double)
    slopes = torch.stack([(losses(all_rows - 1e-4 * e) - losses(all_rows + 1e-4 * e)) / 2e-4 for e in one], 1)
    torch.testing.assert_close(found, slopes, rtol=1e-6, atol=1e-8)
    left_out = torch.stack([losses(all_rows - e) for e in one], 1) - losses(all_rows)[:, None]
    assert correlation(found, left_out) > 0.99
    assert (found - left_out).norm() < 0.15 * left_out.norm()


@pytest.mark.parametrize("layer", [None, "4", ["0", "4"]])
def test_exact_influence_equals_its_slow_version(layer):
    model = net()
    chosen = [*(model[0].parameters() if isinstance(layer, list) else ()), *model[4].parameters()]
    method = tw.InfluenceFunction(model, layer=layer, damping=1.0, batch_size=4).fit(*TRAIN)
    found = method.explain(*TEST).attributions
    torch.testing.assert_close(
        found, slow.influence(model, F.cross_entropy, TEST, TRAIN, chosen, 1.0), rtol=1e-6, atol=1e-9
    )
    torch.testing.assert_close(method.self_influence(), method.explain(*TRAIN).attributions.diag(), **CLOSE)
    method.damping = None
    if layer != ["0", "4"]:
        matrix = slow.hessian(model, F.cross_entropy, *TRAIN, chosen)
        expected = slow.influence(model, F.cross_entropy, TEST, TRAIN, chosen, 0.1 * matrix.diag().mean())
        torch.testing.assert_close(method.explain(*TEST).attributions, expected, **CLOSE)


@pytest.mark.parametrize("hessian", ["ekfac_cg", "arnoldi"])
def test_of_a_convex_layer_all_are_the_exact_one(hessian):
    model = net()
    expected = tw.InfluenceFunction(model, damping=0.01).fit(*TRAIN).explain(*TEST).attributions
    method = tw.InfluenceFunction(model, layer="4", hessian=hessian, damping=0.01, n_steps=100, rank=100).fit(*TRAIN)
    torch.testing.assert_close(method.explain(*TEST).attributions, expected, rtol=1e-3, atol=1e-5)
    if hessian == "ekfac_cg":
        assert method.curvature.residual <= 1e-5
        few = tw.InfluenceFunction(model, layer="4", hessian=hessian, damping=0.01, n_steps=5).fit(*TRAIN)
        few.explain(*TEST)
        assert 1e-5 < few.curvature.residual < 3e-4  # steps straight down leave 1e-3


def free_loss(output, labels):
    """The cross-entropy, under a name that says nothing: labels are not drawn."""
    return F.cross_entropy(output, labels)


class Layers(nn.Module):
    """Convolutions of both kinds and linear layers, over places and not."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(1, 2, 2, stride=2, padding=1, bias=False)
        self.b = nn.Conv1d(3, 3, 3, padding="same")
        self.c, self.d = nn.Linear(6, 3), nn.Linear(9, 4)
        self.double().eval()

    def forward(self, x):
        y = torch.tanh(self.a(x)).transpose(1, 2).flatten(2)  # three places of 2 x 3
        return self.d(torch.tanh(self.b(torch.tanh(self.c(y)))).flatten(1))


@pytest.mark.parametrize("damping", [None, 0.02])
def test_ekfac_equals_its_slow_version(damping):
    model = Layers()
    method = tw.InfluenceFunction(model, loss=free_loss, hessian="ekfac", damping=damping).fit(*TRAIN)
    assert method.names == ["a.weight", "c.weight", "c.bias", "b.weight", "b.bias", "d.weight", "d.bias"]
    parts = [(model.a, False), (model.c, True), (model.b, True), (model.d, True)]
    passed = {module: [] for module, _ in parts}
    for x, y in zip(*TRAIN):
        seen = {}
        handles = [m.register_forward_hook(lambda m, a, o, seen=seen: seen.update({m: (a[0], o)})) for m, _ in parts]
        loss = free_loss(model(x[None]), y[None])
        for handle in handles:
            handle.remove()
        for module, bias in parts:
            given, out = seen[module]
            (d,) = torch.autograd.grad(loss, out, retain_graph=True)
            if module is model.a:
                a, d = F.unfold(given, 2, 1, 1, 2)[0].T, d[0].flatten(1).T
            elif module is model.b:
                wide = F.pad(given, (1, 1))[0]
                a, d = torch.stack([wide[:, t : t + 3].flatten() for t in range(3)]), d[0].T
            else:
                a, d = given[0].reshape(-1, given.shape[-1]), d[0].reshape(-1, out.shape[-1])
            passed[module].append((torch.cat([a, torch.ones(len(a), 1)], 1) if bias else a, d))
    expected = 0
    for module, bias in parts:
        own = [module.weight, *([module.bias] if bias else [])]
        a, b = (slow.gradients(model, free_loss, *data, own) for data in (TEST, TRAIN))
        if bias:  # each output's weights, and its bias behind them
            size = len(module.bias)
            a, b = (
                torch.cat([t[:, :-size].reshape(len(t), size, -1), t[:, -size:, None]], 2).flatten(1) for t in (a, b)
            )
        expected = expected + a @ slow.ekfac_inverse(passed[module], damping) @ b.T / 17
    torch.testing.assert_close(method.explain(*TEST).attributions, expected, **CLOSE)


def test_ekfac_is_near_the_exact_one():
    data = pytest.importorskip("sklearn.datasets").load_digits()
    x = F.avg_pool2d(torch.tensor(data.images / 16)[:, None], 2).flatten(1)
    y, penalty = torch.tensor(data.target), 0.03
    model = nn.Sequential(nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 10)).double()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        value = F.cross_entropy(model(x[:200]), y[:200])
        value = value + penalty / 2 * sum(p.square().sum() for p in model.parameters())
        value.backward()
        return value

    optimizer.step(loss)
    found = []
    for how in ({"layer": ["0", "2"]}, {"hessian": "ekfac"}):
        method = tw.InfluenceFunction(model, damping=penalty, **how).fit(x[:200], y[:200])
        found.append(method.explain(x[-20:], y[-20:]).attributions)
    assert correlation(*found) > 0.9


def test_ekfac_of_transformers_and_of_tied_weights():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=11, n_embd=8, n_layer=1, n_head=2, n_positions=8, bos_token_id=0, eos_token_id=0
    )
    model, ids = transformers.GPT2LMHeadModel(config).eval(), torch.randint(11, (6, 5))
    method = tw.InfluenceFunction(model, hessian="ekfac").fit(ids)
    assert [n.split("h.0.")[1] for n in method.names] == [
        f"{p}.{kind}" for p in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj") for kind in ("weight", "bias")
    ]
    found = method.explain(ids[:2]).attributions
    assert found.shape == (2, 6)
    assert (found.argmax(1) == torch.arange(2)).all()
    torch.testing.assert_close(method.self_influence()[:2], found.diag(), rtol=1e-4, atol=1e-7)


def test_labels_are_drawn_from_the_answers():
    g = torch.Generator().manual_seed(0)
    logits = torch.tensor([[0.0, 1.0, -1.0]]).expand(20000, 3)
    drawn = draw_labels(logits, torch.zeros(20000, dtype=torch.long), g)
    torch.testing.assert_close(drawn.bincount() / 20000, logits[0].softmax(0), atol=0.02, rtol=0)
    values = draw_labels(torch.full((20000, 2), 3.0), torch.zeros(20000, 2), g)
    torch.testing.assert_close(values.mean(0), torch.full((2,), 3.0), atol=0.03, rtol=0)
    torch.testing.assert_close(values.var(0), torch.ones(2), atol=0.05, rtol=0)  # k / 2 of two numbers
    told = torch.full((1, 4, 7), -50.0)
    told[0, torch.arange(4), torch.tensor([3, 1, 4, 1])] = 50.0
    labels = torch.tensor([[6, 6, -100, 6]])
    assert draw_labels(told, labels, g).tolist() == [[6, 3, -100, 4]]  # position t speaks of t + 1
    places = torch.full((1, 3, 2), -50.0)
    places[0, [2, 0], [0, 1]] = 50.0
    assert draw_labels(places, torch.zeros(1, 2, dtype=torch.long), g).tolist() == [[2, 0]]


def test_what_influence_functions_refuse(monkeypatch):
    twice = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Tanh())
    twice.append(twice[1]).double()
    grouped = nn.Sequential(nn.Conv2d(2, 2, 3, groups=2), nn.Flatten())
    for make, error, message in (
        (lambda: tw.InfluenceFunction(net(), layer=["0", "4"], damping=0.5).fit(*TRAIN).explain(*TEST), ValueError, "least eig"),
        (lambda: tw.InfluenceFunction(net(), hessian="kfac"), ValueError, "hessian='kfac'"),
        (lambda: tw.InfluenceFunction(net(), damping=-1.0), ValueError, "damping=-1.0"),
        (lambda: tw.InfluenceFunction(net(), hessian="ekfac", layer="1").fit(*TRAIN), ValueError, "there are none"),
        (lambda: tw.InfluenceFunction(grouped, hessian="ekfac").fit(torch.rand(2, 2, 4, 4)), ValueError, "one group"),
        (lambda: tw.InfluenceFunction(twice, hessian="ekfac", layer="1").fit(*TRAIN), ValueError, "'1' runs 2 times"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            make()
    monkeypatch.setitem(tw.memory_budget, "cpu", 20000)
    with pytest.raises(ValueError, match=r"52 parameters, and the exact Hessian has room for 35"):
        tw.InfluenceFunction(net()).fit(*TRAIN)
