"""Concept vectors and network dissection: planted answers, slow references, bad input."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

import torchwhy as tw

D = 8


def rising(y):
    return 2 * y[:, 0] + y[:, 0].sin() + 0.5 * y[:, 1:].square().sum(1)


class Planted(nn.Module):
    """y = Q x; the score rises along the first axis of y and bends up and down along the others."""

    def __init__(self):
        super().__init__()
        self.turn = nn.Linear(D, D, bias=False)
        nn.init.orthogonal_(self.turn.weight, generator=torch.Generator().manual_seed(1))
        self.other = nn.Linear(D, 1)

    def forward(self, x):
        y = self.turn(x)
        score = rising(y)
        return torch.stack([score, self.other(y)[:, 0]], 1)


@pytest.fixture(scope="module")
def planted():
    torch.manual_seed(0)
    return Planted().double().eval()


def noise(n, seed):
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def concept(model, axis, seed, n=300):
    return noise(n, seed) + 4 * model.turn.weight.detach()[axis]


def randoms(count=19, n=300, seed=100):
    return [noise(n, seed + i) for i in range(count)]


@pytest.fixture(scope="module")
def fitted(planted):
    concepts = {"driving": concept(planted, 0, 1), "idle": concept(planted, 1, 2)}
    return tw.TCAV(planted, layer="turn").fit(concepts, randoms())


def test_planted_concept_is_found_and_the_idle_one_is_not(fitted):
    scores = fitted.score(noise(200, 3), target=0)
    assert scores["driving"].score > 0.95
    assert scores["driving"].p_value <= 0.05
    assert scores["driving"].magnitude > 0.95
    assert scores["driving"].accuracy > 0.9
    assert abs(scores["idle"].score - 0.5) < 0.1
    assert scores["idle"].p_value > 0.05
    assert scores["idle"].accuracy > 0.9  # a good classifier does not make a concept matter


def test_the_other_test_of_the_paper(planted, fitted):
    method = tw.TCAV(planted, layer="turn", test="t")
    method.concepts, method.cavs = fitted.concepts, fitted.cavs
    scores = method.score(noise(200, 3), target=0)
    assert scores["driving"].p_value < 1e-4 < 0.05 < scores["idle"].p_value


@pytest.mark.slow
def test_false_positives_stay_within_the_level(planted):
    false = {"exchange": 0, "t": 0}
    for run in range(50):
        seed = 10_000 + 100 * run
        method = tw.TCAV(planted, layer="turn").fit({"nothing": noise(40, seed)}, randoms(n=40, seed=seed + 1))
        for method.test in false:
            false[method.test] += method.score(noise(100, 7), target=0)["nothing"].p_value <= 0.05
    assert false["exchange"] <= 5  # of 50 at the level 0.05: 96 % of the binomial distribution
    assert false["t"] > 15  # its runs are not independent
    print(false)


def test_derivatives_equal_autograd_row_by_row(planted, fitted):
    x = noise(5, 4)
    got = fitted.attribute(x, target=0)
    vectors = fitted.cavs["turn"].vectors.mean(1)
    for n in range(5):
        y = planted.turn(x[n]).detach().requires_grad_()
        score = rising(y[None])[0]
        (gradient,) = torch.autograd.grad(score, y)
        for c in range(2):
            assert got[n, c].item() == pytest.approx(float(gradient @ vectors[c]), abs=1e-12)


def test_vectors_are_the_normals_that_scikit_learn_finds(planted):
    """On the training rows: a ridge classifier whose penalty is small enough for its own scale not to matter."""
    positive, negatives = concept(planted, 0, 1), randoms()
    method = tw.TCAV(planted, layer="turn", classifier=RidgeClassifier(alpha=1e-9), generator=5)
    method.fit({"driving": positive}, negatives)
    g = torch.Generator().manual_seed(5)
    sets = []
    for x in [positive, *negatives]:
        order, k = torch.randperm(len(x), generator=g), round(0.33 * len(x))
        y = planted.turn(x).detach().numpy()
        sets.append((y[order[k:]], y[order[:k]]))
    for r in range(19):
        (a, a_test), (b, b_test) = sets[0], sets[1 + r]
        plain = RidgeClassifier(alpha=1e-9).fit(np.concatenate([a, b]), [1] * len(a) + [0] * len(b))
        normal = plain.coef_.reshape(-1) / np.linalg.norm(plain.coef_)
        assert np.allclose(method.cavs["turn"].vectors[0, r], normal, atol=1e-6)
        accuracy = ((plain.predict(a_test) == 1).mean() + (plain.predict(b_test) == 0).mean()) / 2
        assert float(method.cavs["turn"].accuracy[0, r]) == pytest.approx(accuracy)


def test_exchange_p_value_by_enumeration(fitted, planted):
    """Every set against every other, the concept among them; rank of the concept's mean derivative."""
    x = noise(50, 6)
    y = planted.turn(x).detach().requires_grad_()
    score = rising(y)
    (g,) = torch.autograd.grad(score.sum(), y)
    cavs = fitted.cavs["turn"]
    for c, name in enumerate(fitted.concepts):
        between = {}
        pair = 0
        for i in range(19):
            between["concept", i] = float((g @ cavs.vectors[c, i]).mean())
            between[i, "concept"] = -between["concept", i]
            for j in range(i + 1, 19):
                between[i, j] = float((g @ cavs.null[pair]).mean())
                between[j, i] = -between[i, j]
                pair += 1
        sets = ["concept", *range(19)]
        means = {s: sum(between[s, o] for o in sets if o != s) / 19 for s in sets}
        rank = sum(abs(means[s]) >= abs(means["concept"]) for s in sets)
        assert fitted.score(x, target=0)[name].p_value == pytest.approx(rank / 20)


def test_relative_concepts_several_layers_and_files(planted, tmp_path):
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(32, 2)
    ).double()
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, 1, 6, 6, generator=g, dtype=torch.double) + s for s in (0.5, -0.5))
    method = tw.TCAV(net, layer=["0", "2"], pool=True).fit({"bright": a, "dark": b})
    scores = method.score(a, target=0)
    assert set(scores) == {"0", "2"}
    assert scores["0"]["bright"].p_value is None
    assert scores["0"]["bright"].derivative == pytest.approx(-scores["0"]["dark"].derivative)
    attributions = method.attribute(a, target=0)
    assert [t.shape for t in attributions] == [(12, 2), (12, 2)]
    alone = tw.TCAV(net, layer="2", pool=True).fit({"bright": a, "dark": b})
    assert torch.allclose(alone.attribute(a, target=0), attributions[1])
    method.save(tmp_path / "cavs.safetensors")
    again = tw.TCAV(net, layer=["0", "2"], pool=True).load(tmp_path / "cavs.safetensors")
    assert all(torch.equal(p, q) for p, q in zip(again.attribute(a, target=0), attributions))
    assert again == method
    with pytest.raises(ValueError, match="this method has the layers '0' with pool=True"):
        tw.TCAV(net, layer="0", pool=True).load(tmp_path / "cavs.safetensors")


def test_calls_of_one_layer_are_told_apart_and_other_files_refused(tmp_path):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.lin, self.head = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.lin(self.lin(x).tanh()).tanh())

    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(12, 3, generator=g) + s for s in (1, -1))
    method = tw.TCAV(Twice(), layer=[tw.Layer("lin", call=k) for k in (0, 1)] + [tw.Layer("head", input=True)])
    scores = method.fit({"a": a, "b": b}).score(a, target=0)
    assert list(scores) == ["lin (call=0)", "lin (call=1)", "head (input=True)"]
    assert len({s["a"].derivative for s in scores.values()}) == 3
    (tmp_path / "text").write_text("no vectors")
    with pytest.raises(ValueError, match=r"not a file written by TCAV.save\(\)"):
        method.load(tmp_path / "text")


def test_pooled_vector_is_a_move_of_the_mean_activation():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 1)).double()
    g = torch.Generator().manual_seed(0)
    x, other = (torch.randn(10, 1, 6, 6, generator=g, dtype=torch.double) for _ in range(2))
    method = tw.TCAV(net, layer="0", pool=True).fit({"a": x, "b": other})
    v = method.cavs["0"].vectors[0, 0]
    y, h = net[0](x).detach(), 1e-6
    rise = (net[1:](y + h * v[:, None, None]) - net[1:](y - h * v[:, None, None])).detach()[:, 0] / (2 * h)
    assert torch.allclose(method.attribute(x)[:, 0], rise, atol=1e-7)


def test_other_classifiers(planted):
    concepts = {"driving": concept(planted, 0, 1), "idle": concept(planted, 1, 2)}
    for classifier in (SGDClassifier(random_state=0), LogisticRegression(C=0.1)):
        score = tw.TCAV(planted, layer="turn", classifier=classifier).fit(concepts).score(noise(100, 3), target=0)
        assert score["driving"].score > 0.9


def test_bad_concepts_are_refused(planted):
    x = noise(10, 0)
    method = tw.TCAV(planted, layer="turn")
    with pytest.raises(ValueError, match="one class"):
        method.fit({"alone": x})
    with pytest.raises(ValueError, match=r"5 random sets .* 1/6, 19 sets are needed"):
        method.fit({"alone": x}, randoms(5))
    with pytest.raises(TypeError, match="dict of examples"):
        method.fit(x, randoms(n=40))
    with pytest.raises(ValueError, match="at least 2"):
        method.fit({"few": x[:1]}, randoms(n=40))
    with pytest.raises(RuntimeError, match="call fit"):
        method.score(x, target=0)
    with pytest.raises(ValueError, match="give layer="):
        tw.TCAV(planted).fit({"a": x, "b": x + 1})
    with pytest.raises(TypeError, match="no coef_"):
        tw.TCAV(planted, layer="turn", classifier=KNeighborsClassifier()).fit({"a": x, "b": x + 1})
    with pytest.raises(ValueError, match="'exchange' or 't'"):
        tw.TCAV(planted, layer="turn", test="z").fit({"a": x, "b": x + 1})
    for classifier in (KNeighborsClassifier, "svm"):
        with pytest.raises(TypeError, match=r"classifier=.*expected a linear scikit-learn classifier"):
            tw.TCAV(planted, layer="turn", classifier=classifier).fit({"a": x, "b": x + 1})
    with pytest.raises(TypeError, match="random: expected a list of sets"):
        method.fit({"a": x}, x)
    for setting in ({"level": 0}, {"level": 1}, {"held_out": 1.5}, {"held_out": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(setting))}=.*: expected a number in"):
            tw.TCAV(planted, layer="turn", **setting).fit({"a": x, "b": x + 1})
    with pytest.raises(LookupError, match="nearest"):
        tw.TCAV(planted, layer="trun").fit({"a": x, "b": x + 1})
    method.level = None
    assert method.fit({"alone": x}, randoms(1)).score(x, target=0)  # and it still works


def test_fit_leaves_the_model_as_it_was(planted):
    before = {k: v.clone() for k, v in planted.state_dict().items()}
    tw.TCAV(planted, layer="turn").fit({"a": noise(10, 0), "b": noise(10, 1) + 1}).score(noise(5, 2), target=1)
    assert all(torch.equal(v, before[k]) for k, v in planted.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in planted.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in planted.modules())


# ---- network dissection


class Units(nn.Module):
    """Unit 0 sees red, unit 1 sees nothing in particular, unit 2 sees the dark: at half the resolution."""

    def forward(self, x):
        small = nn.functional.avg_pool2d(x, 2)
        return torch.stack([small[:, 0], torch.sin(40 * small[:, 1] + 3 * small[:, 2]), -small.sum(1)], 1)


def scenes(batches=4, n=8, seed=0):
    g = torch.Generator().manual_seed(seed)
    for _ in range(batches):
        x = 0.3 * torch.rand(n, 3, 16, 16, generator=g)
        red = torch.zeros(n, 16, 16)
        for i in range(n):
            r, c = torch.randint(0, 12, (2,), generator=g).tolist()
            red[i, r : r + 4, c : c + 4] = 1
        x[:, 0] += 0.7 * red
        stripes = torch.zeros(n, 16, 16)
        stripes[:, ::4] = 1
        yield x, {"red": red, "stripes": stripes}


def slow_dissection(net, data, quantile):
    """Loops, float64, the exact quantile."""
    acts = torch.cat([net(x) for x, _ in data]).double()
    names = list(data[0][1])
    iou = torch.zeros(acts.shape[1], len(names), dtype=torch.double)
    for u in range(acts.shape[1]):
        values = acts[:, u].flatten().sort(descending=True).values
        threshold = values[math.ceil(quantile * len(values)) - 1]
        for c, name in enumerate(names):
            masks = torch.cat([m[name] for _, m in data]).bool()
            both = either = 0
            for i in range(len(acts)):
                up = nn.functional.interpolate(acts[i : i + 1, u : u + 1], size=(16, 16), mode="bilinear")[0, 0]
                both += int(((up > threshold) & masks[i]).sum())
                either += int(((up > threshold) | masks[i]).sum())
            iou[u, c] = both / either
    return iou


def test_dissection_finds_the_planted_unit():
    net = nn.Sequential(Units(), nn.Flatten(), nn.Linear(192, 2))
    data = list(scenes())
    found = tw.NetworkDissection(net, layer="0", quantile=0.06).measure(data)
    assert found.detectors(0.4) == [(0, "red", pytest.approx(float(found.iou[0, 0])))]
    assert found.iou[0, 0] > 0.6
    assert torch.allclose(found.iou, slow_dissection(net[0], data, 0.06), atol=0.01)
    small = tw.NetworkDissection(net, layer="0", quantile=0.06, batch_size=3).measure(data)
    assert torch.equal(small.iou, found.iou)


def test_thresholds_are_quantiles_also_of_negative_and_rectified_units():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(20, 3, 8, 8, generator=g)
    x[:, 1] = -x[:, 1].abs() - 1
    x[:, 2] = x[:, 2].clamp(min=0)
    for quantile in (0.005, 0.1, 0.7):
        found = tw.NetworkDissection(nn.Sequential(nn.Identity()), layer="0", quantile=quantile).measure(
            [(x, {"all": torch.ones(20, 8, 8)})]
        )
        exact = torch.quantile(x.movedim(1, 0).flatten(1), 1 - quantile, dim=1)
        assert torch.allclose(found.thresholds, exact, rtol=0.02, atol=1e-3)


def test_dissection_counts_a_concept_only_where_it_is_annotated():
    net = nn.Sequential(Units())
    data = list(scenes())
    partly = [(x, m if i == 0 else {"red": m["red"]}) for i, (x, m) in enumerate(data)]
    found = tw.NetworkDissection(net, layer="0", quantile=0.06).measure(partly)
    whole = tw.NetworkDissection(net, layer="0", quantile=0.06).measure(data)
    assert found.concepts == ("red", "stripes")
    assert torch.equal(found.iou[:, 0], whole.iou[:, 0])
    assert not torch.equal(found.iou[:, 1], whole.iou[:, 1])


def test_bad_dissections_are_refused():
    net = nn.Sequential(Units(), nn.Flatten())
    with pytest.raises(TypeError, match="only once"):
        tw.NetworkDissection(net, layer="0").measure(scenes())
    with pytest.raises(ValueError, match="no batches"):
        tw.NetworkDissection(net, layer="0").measure([])
    with pytest.raises(ValueError, match="expected maps"):
        tw.NetworkDissection(net, layer="1").measure(list(scenes()))
    with pytest.raises(ValueError, match="one for each image"):
        tw.NetworkDissection(net, layer="0").measure([(torch.rand(2, 3, 16, 16), {"a": torch.ones(16, 16)})])
    x, mask = torch.rand(2, 3, 16, 16), torch.ones(2, 16, 16)
    for batch in (x, (x, mask), (x,)):
        with pytest.raises(TypeError, match=r"data: expected pairs \(images, dict of masks"):
            tw.NetworkDissection(net, layer="0").measure([batch])
    with pytest.raises(ValueError, match="no concept in it"):
        tw.NetworkDissection(net, layer="0").measure([(x, {})])
    arrays, tensors = (tw.NetworkDissection(net, layer="0").measure([(x, {"a": m})]) for m in (mask.numpy(), mask))
    assert torch.equal(arrays.iou, tensors.iou)
    with pytest.raises(ValueError, match="quantile=2"):
        tw.NetworkDissection(net, layer="0", quantile=2).measure(list(scenes()))


def test_a_concept_that_is_nowhere_has_no_overlap():
    net, x = nn.Sequential(nn.Conv2d(3, 2, 1)), torch.rand(2, 3, 8, 8)
    masks = {"nowhere": torch.zeros(2, 8, 8), "all": torch.ones(2, 8, 8)}
    found = tw.NetworkDissection(net, layer="0", quantile=0.5).measure([(x, masks)])
    assert bool(found.iou[:, 0].isnan().all() and (found.iou[:, 1] > 0).all())


def test_dissection_in_parts(monkeypatch):
    net, data = nn.Sequential(Units()), list(scenes())
    whole = tw.NetworkDissection(net, layer="0", quantile=0.06).measure(data)
    monkeypatch.setattr("torchwhy.concept.dissection.MAX_COMPARED_ELEMENTS", 1)  # an image at a time
    assert torch.equal(tw.NetworkDissection(net, layer="0", quantile=0.06).measure(data).iou, whole.iou)


def test_scores_without_a_level(planted):
    good = {"good": concept(planted, 0, 1, n=40)}
    for count in (1, 2):
        method = tw.TCAV(planted, layer="turn", level=None).fit(good, randoms(count, n=40))
        found = method.score(noise(20, 9), 1)["good"]
        assert len(found.runs) == count
        assert found.p_value is None if count == 1 else found.p_value >= 1 / 3
    with pytest.raises(ValueError, match=r"19 sets are needed.*level=None"):
        tw.TCAV(planted, layer="turn").fit(good, randoms(2, n=40))
    with pytest.raises(ValueError, match="level=1"):
        tw.TCAV(planted, layer="turn", level=1).fit(good, randoms(2, n=40))


def test_examples_in_batches(planted):
    from torch.utils.data import DataLoader, TensorDataset

    x, others = concept(planted, 0, 1, n=40), randoms(1, n=40)[0]
    whole = tw.TCAV(planted, layer="turn", level=None).fit({"good": x}, [others])
    for batches in (DataLoader(x, 7), DataLoader(TensorDataset(x, torch.zeros(40)), 16)):
        found = tw.TCAV(planted, layer="turn", level=None).fit({"good": batches}, [DataLoader(others, 9)])
        torch.testing.assert_close(found.cavs["turn"].vectors, whole.cavs["turn"].vectors, rtol=1e-4, atol=1e-4)


def test_what_predicts_no_labels_is_no_classifier(planted):
    from sklearn.linear_model import Lasso, LinearRegression

    for model in (LinearRegression(), Lasso()):
        with pytest.raises(TypeError, match=f"classifier: {type(model).__name__} is no classifier"):
            tw.TCAV(planted, layer="turn", classifier=model, level=None).fit({"good": noise(9, 1)}, [noise(9, 2)])
