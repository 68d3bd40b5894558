"""Shapley values and their relatives against enumeration in the manner of their papers."""

import itertools

import numpy as np
import pytest
import torch
from reference import perturbation as reference
from torch import nn

import torchwhy as tw
from torchwhy.shapley.exact_shapley import banzhaf_values, shapley_interactions, shapley_values
from torchwhy.shapley.paired_sampling import banzhaf_design, paired_regression, shapley_design, some_subsets


def network(d, rows=2, seed=0):
    """A network with interactions of every order on d inputs in float64, and some rows."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(d, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 1)).double()
    return model, 2 * torch.randn(rows, d, dtype=torch.double)


def games(model, x, b=None, mask=None):
    """The game of every row, for the references."""
    b = torch.zeros_like(x[:1]) if b is None else b
    mask = torch.arange(x.shape[1])[None] if mask is None else mask
    f = lambda x: model(x).item()  # noqa: E731
    return [reference.game(f, row[None], b, mask if len(mask) == 1 else mask[n : n + 1]) for n, row in enumerate(x)]


SUMS = [tw.ExactShapley, tw.KernelSHAP, tw.ShapleySampling]


def test_exact_values_are_the_mean_over_all_orders():
    model, x = network(5)
    found = tw.ExactShapley(model, interactions=True).explain(x)
    for v, values, pairs in zip(games(model, x), found.attributions, found.details["interactions"]):
        torch.testing.assert_close(values, reference.shapley(v, 5))
        torch.testing.assert_close(pairs, reference.shapley_interactions(v, 5))
    assert found.completeness_gap.max() < 1e-12


def test_every_coalition_makes_the_regression_exact():
    model, x = network(5)
    found = tw.KernelSHAP(model, n_samples=32).explain(x)
    for v, values in zip(games(model, x), found.attributions):
        torch.testing.assert_close(values, reference.shapley(v, 5))
        torch.testing.assert_close(values, reference.kernel_shap(v, 5), rtol=0, atol=1e-6)
    assert (found.standard_error == 0).all()
    assert found.evaluations == 64


def test_the_regression_over_all_pairs_is_exact_too():
    v = torch.randn(2**6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    everything = torch.tensor([list(z)[::-1] for z in itertools.product((False, True), repeat=6)])
    for design, exact, efficient in ((shapley_design, shapley_values, True), (banzhaf_design, banzhaf_values, False)):
        z, weight, left_out = design(6, [32], torch.Generator().manual_seed(0)).take(32)
        number = (z * 2 ** torch.arange(6)).sum(1)
        assert torch.equal(everything[number], z)
        odd = v[number] - v[63 - number]
        found, error = paired_regression(z, odd, weight, v[63] - v[0] if efficient else None, left_out)
        torch.testing.assert_close(found, exact(v))
        assert (error == 0).all()


def test_banzhaf_values_are_mean_gains():
    model, x = network(5)
    for v, values in zip(games(model, x), tw.Banzhaf(model, n_samples=32).attribute(x)):
        torch.testing.assert_close(values, reference.banzhaf(v, 5))


def test_owen_values_keep_groups_together():
    model, x = network(5)
    groups = [0, 1, 0, 2, 1]
    found = tw.OwenValues(model, groups=groups, n_samples=4000, generator=0).explain(x)
    for v, values, error in zip(games(model, x), found.attributions, found.standard_error):
        expected = reference.owen(v, groups)
        assert ((values - expected).abs() < 4 * error).all()
        assert (error < 0.02 * expected.abs().max()).all()
        assert ((expected - reference.shapley(v, 5)).abs() > 8 * error).any()  # and are not Shapley values


def test_sampled_orders_converge_to_shapley_values():
    model, x = network(6)
    exact = tw.ExactShapley(model).attribute(x)
    found = tw.ShapleySampling(model, n_samples=2000, generator=0).explain(x)
    assert ((found.attributions - exact).abs() < 4 * found.standard_error).all()
    assert found.completeness_gap.max() < 1e-12
    assert found.evaluations == 2 * (2000 * 5 + 2)


def test_all_orders_once_are_exact(monkeypatch):
    model, x = network(4)
    half = [p for p in itertools.permutations(range(4)) if p[0] < p[-1]]  # each with its reverse
    monkeypatch.setattr(tw.ShapleySampling, "random_ranks", lambda self, count, d, g: torch.tensor(half * 6)[:count])
    found = tw.ShapleySampling(model, n_samples=24).attribute(x)
    for v, values in zip(games(model, x), found):
        torch.testing.assert_close(values, reference.shapley(v, 4))


@pytest.mark.parametrize("method", SUMS)
def test_a_game_by_hand(method):
    """v = 3 a + b c: the product is shared equally; d has no part."""
    x = torch.ones(1, 4, dtype=torch.double)
    found = method(lambda x: 3 * x[:, 0] + x[:, 1] * x[:, 2]).attribute(x)
    torch.testing.assert_close(found, torch.tensor([[3, 0.5, 0.5, 0]], dtype=torch.double))


@pytest.mark.parametrize("method", [*SUMS, tw.LinearSHAP])
def test_linear_scores_and_a_distribution_of_baselines(method):
    torch.manual_seed(0)
    x, w, rows = torch.randn(2, 6).double(), torch.randn(6).double(), torch.randn(4, 6).double()
    found = method(lambda x: x @ w).explain(x, baselines=tw.Distribution(rows))
    torch.testing.assert_close(found.attributions, (x - rows.mean(0)) * w)
    assert found.completeness_gap.max() < 1e-12


@pytest.mark.parametrize("method", SUMS)
def test_groups_of_elements_and_rows_with_different_numbers_of_them(method):
    model, x = network(6)
    mask = torch.tensor([[0, 0, 1, 2, 2, 3], [1, 0, 0, 1, 2, 2]])
    found = method(model, **({"generator": 0, "n_samples": 400} if method is tw.ShapleySampling else {})).explain(
        x, feature_mask=mask
    )
    for n, (v, d) in enumerate(zip(games(model, x, mask=mask), (4, 3))):
        expected = reference.shapley(v, d)[mask[n]]
        error = 0 if found.standard_error is None else 4 * found.standard_error[n]
        assert ((found.attributions[n] - expected).abs() <= error + 1e-12).all()
    assert found.completeness_gap.max() < 1e-12


def pairs_of(model, x, method):
    """The interactions of every row by their definition, from all coalitions."""
    index = reference.shapley_interactions if method is tw.KernelSHAP else reference.banzhaf_interactions
    return torch.stack([index(v, x.shape[1]) for v in games(model, x)])


@pytest.mark.parametrize("method", [tw.KernelSHAP, pytest.param(tw.Banzhaf, marks=pytest.mark.slow)])
def test_sampled_interactions(method):
    model, x = network(8)
    expected = pairs_of(model, x, method)
    exact = method(model, n_samples=256, interactions=True).explain(x)
    torch.testing.assert_close(exact.details["interactions"], expected)
    assert (exact.details["interactions_error"] == 0).all()
    errors, inside = [], []
    for n in (80, 200):
        for seed in range(20):
            e = method(model, n_samples=n, interactions=True, generator=seed).explain(x)
            off = (e.details["interactions"] - expected).abs()
            assert torch.equal(e.details["interactions"].mT, e.details["interactions"])
            errors.append(float(off.mean()))
            inside.append(float((off <= 2 * e.details["interactions_error"] + 1e-12).double().mean()))
    few, many = sum(errors[:20]) / 20, sum(errors[20:]) / 20
    assert many < few < 0.5 * float(expected.abs().sum((1, 2)).mean()) / 56
    assert sum(inside) / len(inside) > 0.85


def test_sampled_interactions_of_a_game_of_second_order():
    weights = torch.randn(14, 14, generator=torch.Generator().manual_seed(0), dtype=torch.double).triu(1)
    game = lambda z: torch.einsum("ni,ij,nj->n", z, weights, z) + z @ weights[0]  # noqa: E731
    for method in (tw.KernelSHAP, tw.Banzhaf):
        e = method(game, n_samples=400, interactions=True, generator=0).explain(torch.ones(1, 14, dtype=torch.double))
        torch.testing.assert_close(e.details["interactions"][0], weights + weights.T, rtol=0, atol=1e-3)


def test_interactions_of_a_product():
    v = torch.tensor([float(bin(i).count("1") == 3) for i in range(8)])[:, None]  # a b c
    expected = torch.full((3, 3), 0.5).fill_diagonal_(0)
    torch.testing.assert_close(shapley_interactions(v)[0], expected)


def test_pairs_take_out_second_and_cubic_fit_third_order():
    """With so few samples a plain regression is far off; what is left of order three or less is found exactly."""
    torch.manual_seed(0)
    pair, triple = torch.randn(12, 12).double(), torch.randn(12, 12, 12).double()
    second = lambda x: torch.einsum("ni,nj,ij->n", x, x, pair.triu(1))  # noqa: E731
    third = lambda x: second(x) + torch.einsum("ni,nj,nk,ijk->n", x, x, x, triple * 0.1)  # noqa: E731
    x = torch.ones(1, 12, dtype=torch.double)
    exact = tw.ExactShapley(second).attribute(x)
    found = tw.KernelSHAP(second, n_samples=60, cubic=False, generator=0).attribute(x)
    torch.testing.assert_close(found, exact)
    exact = tw.ExactShapley(third).attribute(x)
    errors = [
        float((tw.KernelSHAP(third, n_samples=800, cubic=c, generator=0).attribute(x) - exact).abs().max())
        for c in (False, True)
    ]
    assert errors[1] < 1e-5 < 1e-3 < errors[0]


def test_subsets_are_different_and_of_their_size():
    for d, size, count in ((10, 3, 50), (40, 7, 200), (8, 4, 35), (30, 15, 100), (5, 0, 1)):
        z = some_subsets(d, size, count, torch.Generator().manual_seed(0))
        assert (z.sum(1) == size).all()
        assert len(z) == len(z.unique(dim=0)) == count
        if 2 * size == d:
            assert z[:, 0].all()


def test_few_pairs_leave_every_feature_out_once():
    z, _, left_out = shapley_design(30, [40], torch.Generator().manual_seed(0)).take(40)
    assert torch.equal(z[:30].sum(0), torch.ones(30, dtype=torch.long))
    assert (z[:30].sum(1) == 1).all()
    assert (left_out[:30] == 0).all()
    assert (left_out[30:] > 0.5).all()
    _, _, left_out = shapley_design(30, [30], torch.Generator().manual_seed(0)).take(30)
    assert (left_out == 1).all()  # nothing was drawn and most sizes have no pair: nothing counts as complete


@pytest.mark.parametrize("design", [shapley_design, banzhaf_design])
@pytest.mark.parametrize("d", [4, 5, 9, 12, 31])
def test_designs_spend_what_they_are_given_and_extend(design, d):
    spans = [d + 3, 2 * d, 3 * d + 1, 300]
    made = design(d, spans, torch.Generator().manual_seed(1))
    most = int(made.cap.sum())
    for pairs in spans:
        z, weight, left_out = made.take(pairs)
        assert len(z) == min(pairs, most)
        assert len(torch.cat([z, ~z]).unique(dim=0)) == 2 * len(z)
        assert ((left_out >= 0) & (left_out <= 1)).all()
        drawn = made.counts(pairs) > 0
        torch.testing.assert_close(weight.sum(), made.mass[drawn].sum())


def test_tolerance_goes_on_until_it_is_met_or_the_most_is_spent():
    model, x = network(12, rows=1)
    for method in (tw.KernelSHAP, tw.ShapleySampling):
        first = method(model, n_samples=50, generator=0).explain(x)
        found = method(model, n_samples=50, tolerance=0.05, max_evaluations=20000, generator=0).explain(x)
        assert first.evaluations < found.evaluations <= 20000
        assert found.standard_error.norm() <= 0.05 * found.attributions.norm() < first.standard_error.norm()
    stopped = tw.KernelSHAP(model, n_samples=50, tolerance=1e-9, max_evaluations=200, generator=0).explain(x)
    assert 100 < stopped.evaluations <= 200


def test_features_up_to_the_most_and_samples_down_to_the_least():
    model = lambda x: x.sum(1)  # noqa: E731
    with pytest.raises(ValueError, match=r"ExactShapley evaluates all 2.21 coalitions.*KernelSHAP"):
        tw.ExactShapley(model).attribute(torch.ones(1, 21))
    with pytest.raises(ValueError, match="n_samples=41: 20 features take at least 42"):
        tw.KernelSHAP(model, n_samples=41).attribute(torch.ones(1, 20))
    with pytest.raises(ValueError, match="n_samples=0"):
        tw.KernelSHAP(model, n_samples=0)
    with pytest.raises(ValueError, match="tolerance=0"):
        tw.KernelSHAP(model, tolerance=0)
    with pytest.raises(ValueError, match="max_evaluations: bounds"):
        tw.KernelSHAP(model, max_evaluations=10)
    with pytest.raises(ValueError, match="max_evaluations=10: the first samples alone take"):
        tw.KernelSHAP(model, n_samples=100, tolerance=0.1, max_evaluations=10).attribute(torch.ones(1, 20))
    with pytest.raises(ValueError, match="max_evaluations=100: the first samples alone take 512"):  # all coalitions
        tw.KernelSHAP(model, tolerance=0.1, max_evaluations=100).attribute(torch.ones(1, 9))
    assert tw.KernelSHAP(model, tolerance=0.1, max_evaluations=512).explain(torch.ones(1, 9)).evaluations == 512
    with pytest.raises(ValueError, match="feature_mask: Banzhaf solves for all 5001 features at once, at most 5000"):
        tw.Banzhaf(model).attribute(torch.ones(1, 5001))
    assert tw.KernelSHAP(model, n_samples=42, generator=0).explain(torch.ones(1, 20)).evaluations == 42


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1], "the group of each of 3 features, got 2"),
        ([0, 0, 2], "without gaps"),
        ([0.0] * 3, "the number or the name of its group"),
    ],
)
def test_bad_groups(groups, message):
    with pytest.raises(ValueError, match=f"groups.*{message}"):
        tw.OwenValues(lambda x: x.sum(1), groups=groups).attribute(torch.ones(1, 3))


@pytest.mark.parametrize(("more", "refused"), [(15.0, False), (25.0, True)])
def test_linear_shap_measures_the_gap_by_the_scores_and_the_values(more, refused):
    """From 1000 with nothing to 0 with the first feature: at a hundredth of 1000 + 1000 + 0 the sum may be off by 20."""
    model = lambda x: 1000 - 1000 * x[:, 0] + more * x[:, 0] * x[:, 1]  # noqa: E731
    method = tw.LinearSHAP(model, rtol=0.01)
    if not refused:
        assert method.attribute(torch.ones(1, 2)).tolist() == [[-1000, 0]]
        return
    with pytest.raises(ValueError, match="not linear"):
        method.attribute(torch.ones(1, 2))


def test_linear_shap_refuses_what_is_not_linear():
    with pytest.raises(ValueError, match="not linear; the features of row 1"):
        tw.LinearSHAP(lambda x: x[:, 0] * x[:, 1]).attribute(torch.tensor([[0.0, 1.0], [1.0, 1.0]]))


def test_scores_that_are_not_finite_are_refused():
    model = lambda x: torch.where(x[:, 0] == 0, torch.nan, x.sum(1))  # noqa: E731
    for method in (tw.ExactShapley(model), tw.KernelSHAP(model, n_samples=30), tw.ShapleySampling(model)):
        with pytest.raises(FloatingPointError, match="NaN or infinite"):
            method.attribute(torch.ones(1, 6))


@pytest.mark.parametrize(
    "method",
    [
        tw.ExactShapley(None),
        tw.KernelSHAP(None, n_samples=90, generator=0),
        tw.Banzhaf(None, n_samples=90, generator=0),
        tw.ShapleySampling(None, n_samples=9, generator=0),
        tw.OwenValues(None, groups=[0, 1, 2, 0, 1, 2, 0, 1], n_samples=9, generator=0),
        tw.LinearSHAP(None, rtol=1e9),
    ],
    ids=lambda m: type(m).__name__,
)
def test_batches_rows_memory_and_types(method):
    """The same numbers for every batch size, row by row, after running out of memory, and in the input's type."""
    model, x = network(8, rows=3)
    make = lambda model, **more: type(method)(model, **{**method.settings(), **more})  # noqa: E731
    whole = make(model).attribute(x)
    assert whole.dtype == torch.double
    for same in (make(model, batch_size=5).attribute(x), torch.cat([make(model).attribute(r) for r in x.split(1)])):
        torch.testing.assert_close(same, whole, rtol=0, atol=1e-12)

    def small(z):
        if len(z) > 6:
            raise MemoryError
        return model(z)

    torch.testing.assert_close(make(small).attribute(x), whole, rtol=0, atol=1e-12)
    single = make(network(8)[0].float()).attribute(x.float())
    assert single.dtype == torch.float
    torch.testing.assert_close(single.double(), whole, rtol=0, atol=1e-4)


def test_kernel_shap_explains_a_classifier_of_arrays():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(80, 5))
    model = LogisticRegression().fit(x, x[:, 0] - 2 * x[:, 3] > 0)
    rows = torch.from_numpy(x[:3])
    found = tw.KernelSHAP(model).explain(rows, 1, baselines=tw.Distribution(torch.from_numpy(x[:20])))
    change = model.predict_proba(x[:3])[:, 1] - model.predict_proba(x[:20])[:, 1].mean()
    torch.testing.assert_close(found.attributions.sum(1), torch.from_numpy(change))


def coverage(make, x, exact, seeds):
    """How often the exact value lies within two standard errors, over seeds."""
    inside = []
    for seed in range(seeds):
        found = make(seed).explain(x)
        inside.append((found.attributions - exact).abs() <= 2 * found.standard_error)
    return torch.stack(inside).double().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("n_samples", [60, 200, 1000])
@pytest.mark.parametrize("cubic", [True, False])
def test_standard_errors_of_kernel_shap_cover(n_samples, cubic):
    model, x = network(12, rows=1, seed=2)
    exact = tw.ExactShapley(model).attribute(x)
    make = lambda seed: tw.KernelSHAP(model, n_samples=n_samples, cubic=cubic, generator=seed)  # noqa: E731
    assert 0.90 <= coverage(make, x, exact, 200) <= 0.99


@pytest.mark.slow
def test_standard_errors_of_the_others_cover():
    model, x = network(12, rows=1, seed=2)
    exact, banzhaf = tw.ExactShapley(model).attribute(x), tw.Banzhaf(model, n_samples=4096).attribute(x)
    make = lambda seed: tw.ShapleySampling(model, n_samples=60, generator=seed)  # noqa: E731
    assert 0.90 <= coverage(make, x, exact, 200) <= 0.99
    make = lambda seed: tw.Banzhaf(model, n_samples=300, generator=seed)  # noqa: E731
    assert 0.90 <= coverage(make, x, banzhaf, 200) <= 0.99
    make = lambda seed: tw.LIME(model, n_samples=300, alpha=0, generator=seed)  # noqa: E731
    limit = sum(tw.LIME(model, n_samples=20000, alpha=0, generator=s).attribute(x) for s in range(5)) / 5
    assert 0.90 <= coverage(make, x, limit, 200) <= 0.99
