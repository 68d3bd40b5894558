"""Shapley and Banzhaf values of many features: right for any number of samples, with standard errors that are the spread."""

import pytest
import torch

import torchwhy as tw
from torchwhy.shapley import paired_sampling
from torchwhy.shapley.paired_sampling import banzhaf_design, paired_regression, shapley_design


def game(kind, d):
    """Return a score of d features that is far from linear."""
    a = torch.randn(d, 16, generator=torch.Generator().manual_seed(1)).double() / d**0.5
    if kind == "smooth":
        return lambda z: torch.tanh(2 * z @ a).sum(1)
    if kind == "steps":
        return lambda z: (z @ a > 0.3).double().sum(1)
    b = torch.randn(16, 16, generator=torch.Generator().manual_seed(2)).double()
    return lambda z: torch.relu(torch.relu(3 * z @ a) @ b).sum(1)


def row(d):
    return torch.rand(1, d, generator=torch.Generator().manual_seed(0)).double() + 0.5


@pytest.mark.parametrize("method", ["KernelSHAP", "Banzhaf"])
@pytest.mark.parametrize(
    ("d", "n_samples"),
    [(30, None), (60, 122), (60, 124), (60, 154), (60, 190), (300, None)]
    + [
        pytest.param(d, n, marks=pytest.mark.slow)
        for d, n in ((784, 1602), (784, None), (1000, None), (1300, None), (850, 8200), (3072, None))
    ],
)
def test_additive_games_have_exact_values(method, d, n_samples):
    x, w = row(d), torch.randn(d, generator=torch.Generator().manual_seed(3)).double()
    found = getattr(tw, method)(lambda z: z @ w, n_samples=n_samples, generator=0).explain(x)
    torch.testing.assert_close(found.attributions, x * w, rtol=1e-7, atol=1e-7)
    error = found.standard_error
    assert bool((error < 1e-5).all()) or bool(
        (error == torch.inf).all()
    )  # unknown where every pair is needed for the fit


@pytest.mark.parametrize(
    ("d", "kind"),
    [(50, "smooth"), (50, "kinks"), (150, "steps"), (260, "smooth")]
    + [pytest.param(300, "kinks", marks=pytest.mark.slow)]
    + [pytest.param(d, k, marks=pytest.mark.slow) for d in (400, 784, 1300, 3072) for k in ("smooth", "steps")],
)
def test_standard_errors_are_the_spread_over_seeds(d, kind):
    model, x = game(kind, d), row(d)
    found = [tw.KernelSHAP(model, generator=seed).explain(x) for seed in range(4)]
    spread = torch.cat([e.attributions for e in found]).var(0).mean().sqrt()
    reported = torch.cat([e.standard_error for e in found]).square().mean().sqrt()
    assert 1 / 1.5 < float(reported / spread) < 1.5


@pytest.mark.parametrize("cubic", [True, False])
@pytest.mark.parametrize("complete", [True, False])
def test_the_variance_is_that_of_leaving_out_each_pair(cubic, complete, monkeypatch):
    # the penalty stays what it is: a fit without the pair would choose another one
    monkeypatch.setattr(paired_sampling, "penalty_by_cross_validation", lambda s, y, rest, n: torch.tensor([0.5, 3.0]))
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(40, 9, generator=generator) < 0.5
    odd, weight = torch.randn(40, 2, generator=generator).double(), torch.rand(40, generator=generator).double() + 0.1
    total = torch.randn(2, generator=generator).double() if complete else None
    values, error = paired_regression(z, odd, weight, total, None, cubic)
    changes = []
    for p in range(40):
        kept = torch.arange(40) != p
        changes.append(paired_regression(z[kept], odd[kept], weight[kept], total, None, cubic)[0] - values)
    expected = torch.stack(changes).square().sum(0) * (1 - 9 / 40)
    torch.testing.assert_close(error.square(), expected, rtol=1e-8, atol=1e-12)


def test_pairs_that_are_always_there_do_not_vary():
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(40, 9, generator=generator) < 0.5
    odd, weight = torch.randn(40, 1, generator=generator).double(), torch.ones(40)
    left_out = torch.zeros(40)
    assert (paired_regression(z, odd, weight, odd[0], left_out)[1] == 0).all()
    left_out[7] = 1.0
    values, error = paired_regression(z, odd, weight, None, left_out, cubic=False)
    kept = torch.arange(40) != 7
    change = paired_regression(z[kept], odd[kept], weight[kept], None, None, cubic=False)[0] - values
    torch.testing.assert_close(error, change.abs() * (1 - 1 / 9) ** 0.25)


def test_more_pairs_than_the_third_order_fit_takes_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(paired_sampling, "MOST_CUBIC", 30)
    x, odd = torch.randn(100, 5).sign().double(), torch.randn(100, 1).double()
    use = paired_sampling.fit_cubic(x, odd, None).use
    assert len(use) == 30
    assert set(use.diff().tolist()) == {3, 4}


def test_pairs_without_weight_are_not_asked_for():
    z, weight, _ = banzhaf_design(60, [90], torch.Generator().manual_seed(0)).take(90)
    assert (z.sum(1) > 1).all()
    assert (weight / weight.max() > 1e-6).all()
    z, _, _ = shapley_design(60, [90], torch.Generator().manual_seed(0)).take(90)
    assert (z.sum(1) == 1).sum() == 60
