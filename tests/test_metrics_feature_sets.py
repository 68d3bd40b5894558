"""Sets of features: their size, all of them where they are few, extreme ones; features of several elements."""

import functools
import itertools

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref

import torchwhy as tw
from torchwhy import metrics as M


def rows_of(kind, target):
    """A network, inputs, baselines, untied attributions, and the network as a function of one row."""
    net, x = make(kind), inputs(kind)
    g = torch.Generator().manual_seed(7)
    a, b = (torch.randn(x.shape, generator=g, dtype=torch.double) for _ in range(2))
    return net, x, b, a, lambda z: net(z[None])[0, target]


def watched(net, call):
    """What the call gives, and the inputs that it evaluates."""
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, z):
            seen.append(z.clone())
            return net(z)

    model = Watched().eval()
    call(model)  # trials of the model run the first time, and are remembered
    seen.clear()
    found = call(model)
    return found, torch.cat(seen)


def test_random_sets_are_of_the_size_and_the_reference_agrees():
    net, x, b, a, f = rows_of("conv", 1)
    ask = lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, baselines=b[:1], subset_size=30, n_samples=20)  # noqa: E731
    found, seen = watched(net, ask)
    sets = [(z != x[0]).flatten().nonzero()[:, 0].tolist() for z in seen]
    assert [len(s) for s in sets] == [0] + 20 * [30]
    assert len({tuple(s) for s in sets}) == 21
    assert found.item() == pytest.approx(ref.faithfulness_correlation(f, x[0], b[0], a[0], sets[1:]))


def test_where_there_are_few_sets_each_is_evaluated_once():
    net, x, b, a, f = rows_of("smooth", 1)
    ask = lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, baselines=b[:1], subset_size=2, n_samples=20)  # noqa: E731
    found, seen = watched(net, ask)
    assert len(seen) == 1 + 10
    every = list(itertools.combinations(range(5), 2))
    assert found.item() == pytest.approx(ref.faithfulness_correlation(f, x[0], b[0], a[0], every))
    curve = M.sensitivity_n(net, x[:1], a[:1], 1, baselines=b[:1], sizes=[2, 3], n_samples=20)
    assert curve.fractions.tolist() == pytest.approx([0.4, 0.6])
    assert curve.scores[0, 0].item() == pytest.approx(found.item())


def test_extreme_sets_are_corrected_for_their_range():
    net, x, b, a, f = rows_of("conv", 1)
    options = {"baselines": b[:1], "subset_size": 30, "n_samples": 9, "oversample": 10}
    found, seen = watched(net, lambda net: M.faithfulness_correlation(net, x[:1], a[:1], 1, **options))
    assert len(seen) == 10
    sets = [(z != x[0]).flatten().nonzero()[:, 0].tolist() for z in seen[1:]]
    assert {len(s) for s in sets} == {30}
    said = sorted(ref.set_sums(a[0], sets))
    mean, spread = ref.moments_of_sets(a[0], 30)
    assert said[3] < mean - spread < mean + spread < said[4]
    assert found.item() == pytest.approx(ref.corrected_correlation(f, x[0], b[0], a[0], sets))
    rows = [
        M.faithfulness_correlation(net, x[i], a[i], 1, **{**options, "baselines": b[i]})
        for i in map(slice, range(3), (1, 2, 3))
    ]
    torch.testing.assert_close(torch.cat(rows), M.faithfulness_correlation(net, x, a, 1, **{**options, "baselines": b}))


def linear(*w):
    """f(x) = w x + 1."""
    return lambda x: x.flatten(1) @ torch.tensor(w, dtype=x.dtype) + 1


def test_extreme_sets_are_worth_four_times_the_random_ones():
    g = torch.Generator().manual_seed(0)
    w, other = torch.randn(2, 1, 400, generator=g, dtype=torch.double)
    x, a = torch.ones_like(w), 0.3 * w + other
    truth = float(torch.corrcoef(torch.cat([w, a]))[0, 1])
    ask = lambda seed, **o: M.faithfulness_correlation(linear(*w[0].tolist()), x, a, generator=seed, **o).item() - truth  # noqa: E731
    few = torch.tensor([ask(s, n_samples=25, oversample=10) for s in range(150)])
    many = torch.tensor([ask(s, n_samples=100) for s in range(150)])
    assert few.square().mean() < 1.25 * many.square().mean()
    assert few.mean().abs() < 0.03


def test_as_many_groups_as_were_asked_for():
    x, a = torch.ones(1, 10), torch.arange(10.0)[None]
    ask = lambda net: M.faithfulness_estimate(net, x, a, steps=7)  # noqa: E731
    gone = (watched(lambda z: z.sum(1), ask)[1] == 0).sum(1).tolist()
    assert gone == [0, 2, 1, 2, 1, 2, 1, 1]


def test_features_of_different_sizes_go_by_their_sums():
    w = torch.tensor([0.5, 0.5, 0.5, 1.0], dtype=torch.double)
    f, x = (lambda z: z @ w + 1), torch.ones(1, 4, dtype=torch.double)
    a, mask = w[None], torch.tensor([[0, 0, 0, 1]])  # feature 0 has 1.5 in all, feature 1 has 1
    for metric in (M.deletion, M.insertion):
        by_sum = metric(f, x, a, feature_mask=mask).scores[0].tolist()
        assert by_sum == pytest.approx([3.5, 2, 1] if metric is M.deletion else [1, 2.5, 3.5])
    whole = {"feature_mask": mask, "whole_features": True}  # each element says what its feature has
    assert M.deletion(f, x, a, **whole).scores[0].tolist() == pytest.approx([3.5, 2.5, 1])
    assert M.comprehensiveness(f, x, a, feature_mask=mask, fractions=[0.5]).item() == pytest.approx(1.5)
    assert M.sufficiency(f, x, a, feature_mask=mask, fractions=[0.5]).item() == pytest.approx(1)
    assert M.irof(f, x, a, feature_mask=mask).item() == pytest.approx(1 - (3.5 / 2 + 2.5 + 0.5) / 2 / 3.5)  # by means


def test_attributions_that_each_element_has_whole():
    h = linear(1.0, 2.0, 1.0, 5.0, 2.0, -1.0)
    x, mask = torch.ones(1, 6, dtype=torch.double), torch.tensor([[0, 0, 0, 1, 2, 3]])
    a = tw.ExactShapley(h).attribute(x, feature_mask=mask)
    assert a[0].tolist() == pytest.approx([4, 4, 4, 5, 2, -1])
    whole = {"feature_mask": mask, "whole_features": True}
    assert M.faithfulness_correlation(h, x, a, **whole).item() == pytest.approx(1)
    assert M.faithfulness_correlation(h, x, a, feature_mask=mask).item() < 0.9
    assert M.faithfulness_estimate(h, x, a, **whole).item() == pytest.approx(1)
    assert M.completeness_gap(h, x, a, **whole).item() < 1e-12
    assert M.completeness_gap(h, x, a, feature_mask=mask).item() == pytest.approx(8)
    moved = mask[0] == torch.arange(4)[:, None]  # one feature at a time, as a whole
    perturb = {"perturb": lambda n, g: moved.double(), "n_samples": 4}
    assert M.infidelity(h, x, a, **whole, **perturb).item() < 1e-20
    methods = {"shapley": tw.ExactShapley(h), "slopes": tw.InputXGradient(h)}
    metrics = [M.faithfulness_correlation, M.completeness_gap, functools.partial(M.infidelity, **perturb)]
    table = tw.compare(h, x, None, methods, metrics, feature_mask=mask)
    assert table.cell("shapley", "faithfulness_correlation").mean == pytest.approx(1)
    assert table.cell("slopes", "faithfulness_correlation").mean == pytest.approx(1)
    for metric in ("completeness_gap", "infidelity"):
        assert max(table.cell(m, metric).mean for m in methods) < 1e-12
