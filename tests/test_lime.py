"""LIME against its paper written out, and the features of images."""

import pytest
import torch
from reference import perturbation as reference

import torchwhy as tw
from torchwhy.perturbation.coin_flips import CoinFlips
from torchwhy.perturbation.segments import patches, superpixels


def row(d):
    return torch.tensor([[1.0, -2.0, 0.5, 3.0] + [0.3] * (d - 4)], dtype=torch.double)


def product(x):
    return (x.sum(1) + x[:, 0] * x[:, 1]).tanh() + x[:, 2] * x[:, 3]


def by_hand(z, x, weights, alpha):
    variance = (weights[:, None] * (z - weights @ z / weights.sum()) ** 2).sum(0).mean()
    return reference.lime(z, product(z * x), weights, alpha * float(variance))


def test_lime_is_weighted_ridge_regression():
    x = row(17)  # too many features to list
    found = tw.LIME(product, n_samples=80, alpha=0.1, generator=torch.Generator().manual_seed(3)).explain(x)
    again = torch.Generator().manual_seed(3)
    z = torch.cat([torch.ones(1, 17, dtype=torch.double), (torch.rand(79, 17, generator=again) < 0.5).double()])
    weights = (-((1 - z.mean(1).sqrt()) ** 2) / 0.25**2).exp()
    torch.testing.assert_close(found.attributions[0], by_hand(z, x, weights, 0.1))
    assert found.evaluations == 80


@pytest.mark.parametrize("keep", [0.5, 0.8])
@pytest.mark.parametrize("n_samples", [16, 100, None])
@pytest.mark.parametrize("alpha", [0.0, 0.1])
def test_of_few_features_all_coalitions_are_taken_once(keep, n_samples, alpha):
    x = row(4)
    found = tw.LIME(product, n_samples=n_samples, keep_probability=keep, alpha=alpha, generator=5).explain(x)
    z = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.double)] * 4)
    chance = keep ** z.sum(1) * (1 - keep) ** (4 - z.sum(1))
    weights = chance * (-((1 - z.mean(1).sqrt()) ** 2) / 0.25**2).exp()
    torch.testing.assert_close(found.attributions[0], by_hand(z, x, weights / weights.sum(), alpha))
    assert found.evaluations == 16
    assert (found.standard_error == 0).all()


@pytest.mark.parametrize(("d", "keep", "n"), [(4, 0.5, 9), (8, 0.5, 200), (8, 0.9, 100), (10, 0.7, 1000)])
def test_no_coalition_is_drawn_twice(d, keep, n):
    flips = CoinFlips(d, keep, torch.Generator().manual_seed(0))
    z = torch.cat([flips.take(0, n // 2), flips.take(n // 2, n)])
    assert len(z.unique(dim=0)) == n
    assert z[0].all()
    _, left_out = flips.weights(z)
    assert ((left_out >= 0) & (left_out < 1)).all()
    assert left_out.max() > 0


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize(
    ("keep", "n"), [(0.8, 40), *(pytest.param(*few, marks=pytest.mark.slow) for few in [(0.5, 40), (0.9, 30)])]
)
def test_few_different_coalitions_stand_for_all(keep, n):
    exact = tw.LIME(product, keep_probability=keep, alpha=0.0).attribute(row(6))
    found = [
        tw.LIME(product, keep_probability=keep, alpha=0.0, n_samples=n, generator=s).explain(row(6)) for s in range(120)
    ]
    values = torch.cat([e.attributions for e in found])
    off = (values.mean(0) - exact[0]).norm() / exact.norm()
    assert float(off) < 0.05  # the mean over draws is that over all coalitions
    reported = torch.cat([e.standard_error for e in found]).median(0).values.norm() / values.std(0).norm()
    assert 0.5 < float(reported) < 1.5


def test_samples_of_ones_own():
    x = row(5)
    z = torch.rand(30, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    z = torch.cat([z, z[:7]])
    found = tw.LIME(product, coalitions=z, alpha=0.1).explain(x)
    weights = (-((1 - z.double().mean(1).sqrt()) ** 2) / 0.25**2).exp()
    torch.testing.assert_close(found.attributions[0], by_hand(z.double(), x, weights, 0.1))
    assert found.evaluations == len(z.unique(dim=0))
    with pytest.raises(ValueError, match="coalitions: of 5 features, there are 6"):
        tw.LIME(product, coalitions=z).attribute(row(6))


def test_a_regressor_of_ones_own():
    x, z = row(5), torch.rand(30, 5, generator=torch.Generator().manual_seed(1)) < 0.6
    from sklearn.linear_model import HuberRegressor

    model = HuberRegressor(epsilon=1.1, max_iter=1000)
    found = tw.LIME(product, coalitions=z, regularizer=model).explain(x.expand(2, -1))
    weights = (-((1 - z.double().mean(1).sqrt()) ** 2) / 0.25**2).exp()
    expected = model.fit(z.numpy(), product(z * x).numpy(), sample_weight=weights.numpy()).coef_
    torch.testing.assert_close(found.attributions, torch.tensor(expected).expand(2, -1))
    assert found.standard_error.isnan().all()
    from sklearn.neighbors import KNeighborsRegressor

    with pytest.raises(TypeError):
        tw.LIME(product, coalitions=z, regularizer=KNeighborsRegressor()).attribute(x)


@pytest.mark.parametrize(
    "settings", [{"alpha": 0.0}, {"alpha": 0.0, "distance": "l2"}, {"n_features": 4, "alpha": 0.0}]
)
def test_lime_is_exact_on_a_linear_model(settings):
    x, w = torch.randn(3, 4, dtype=torch.double), torch.randn(4, dtype=torch.double)
    found = tw.LIME(lambda x: x @ w + 1, n_samples=60, generator=0, **settings).explain(x)
    torch.testing.assert_close(found.attributions, x * w)
    torch.testing.assert_close(found.details["r_squared"], torch.ones(3, dtype=torch.double))


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize("settings", [{"regularizer": "lasso", "alpha": 1.0}, {"n_features": 2}, {}], ids=str)
def test_where_nothing_is_to_be_explained_nothing_is(settings):
    x = torch.rand(2, 4, dtype=torch.double)
    flat = tw.LIME(lambda x: x.sum(1) * 0 + 2 / 3, n_samples=40, generator=0, **settings).explain(x)
    assert flat.attributions.abs().max() < 1e-12
    assert (flat.details["r_squared"] == 0).all()
    if settings.get("alpha") == 1.0:  # documented to leave no feature
        assert (tw.LIME(lambda x: x.sum(1), n_samples=40, generator=0, **settings).attribute(x) == 0).all()


def test_lime_is_not_all_zero_on_probabilities():
    model = lambda x: (x @ torch.tensor([1.0, 0.5, 0.0, -1.0]) * 0.1).sigmoid()  # noqa: E731
    for regularizer in ("ridge", "lasso"):
        found = tw.LIME(model, regularizer=regularizer, alpha=0.01, generator=0).attribute(torch.ones(1, 4))
        assert (found[0].abs() > 0.005).tolist() == [True, True, False, True]


def test_lime_keeps_the_k_best_features():
    w = torch.tensor([0.1, -3.0, 0.0, 2.0, 0.2], dtype=torch.double)
    found = tw.LIME(lambda x: x @ w, n_features=2, generator=0).attribute(torch.ones(2, 5, dtype=torch.double))
    assert (found != 0).tolist() == [[False, True, False, True, False]] * 2
    torch.testing.assert_close(found[0, [1, 3]], w[[1, 3]], rtol=0.05, atol=0)


@pytest.mark.filterwarnings("ignore:LIME")
@pytest.mark.parametrize("settings", [{"regularizer": "lasso", "alpha": 0.4}, {"n_features": 2, "alpha": 1.0}], ids=str)
def test_what_is_said_of_chosen_features_is_of_their_coefficients(settings):
    w = torch.tensor([0.1, -3.0, 0.0, 2.0, 0.2], dtype=torch.double)
    seen = []
    alike = lambda z: seen.append(z) or torch.ones_like(z[:, 0])  # noqa: E731
    x = torch.ones(1, 5, dtype=torch.double)
    found = tw.LIME(lambda x: x @ w, n_samples=400, generator=0, distance=alike, **settings).explain(x)
    (z,), beta = seen, found.attributions[0]
    assert len(z) == 32  # all there are: nothing to adjust
    left = (z @ w - z @ beta).var() / (z @ w).var()
    assert 0.1 < left < 0.6  # far from what least squares would leave
    torch.testing.assert_close(found.details["r_squared"], 1 - left[None])
    assert (beta != 0).tolist() == [False, True, False, True, False]
    assert torch.equal(found.standard_error[0].isnan(), beta == 0)
    assert found.plot() is not None  # errors that are not known are not drawn


@pytest.mark.filterwarnings("ignore:LIME")
def test_the_tolerance_of_lime_is_of_the_chosen_features():
    w = torch.tensor([0.1, -3.0, 0.0, 2.0, 0.2] + [0.0] * 12, dtype=torch.double)
    method = tw.LIME(
        lambda x: (x @ w).sin(), n_features=2, n_samples=50, tolerance=0.03, max_evaluations=20000, generator=0
    )
    found = method.explain(torch.ones(1, 17, dtype=torch.double))
    assert 50 < found.evaluations < 20000
    assert found.standard_error.nansum() > 0
    assert found.standard_error.nan_to_num(0.0).norm() <= 0.03 * found.attributions.norm()


def test_lime_says_when_it_explains_nothing():
    model = lambda x: (100 * x.sum(1)).sin()  # noqa: E731
    x = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match=r"explains less than 10% .* 2 of 2 rows"):
        found = tw.LIME(model, generator=0).explain(x)
    assert (found.details["r_squared"] < 0.1).all()


def test_lime_takes_superpixels_of_images():
    torch.manual_seed(0)
    x = torch.rand(2, 3, 24, 24)
    x[:, :, 4:14, 8:20] += 2
    mask = superpixels(x, 12)
    assert mask.shape == (2, 1, 24, 24)
    for row in mask:
        assert torch.equal(row.unique(), torch.arange(int(row.max()) + 1))
    model = lambda x: x[:, :, 4:14, 8:20].mean((1, 2, 3))  # noqa: E731
    found = tw.LIME(model, n_segments=12, n_samples=100, generator=0).attribute(x)
    given = tw.LIME(model, n_samples=100, generator=0).attribute(x, feature_mask=mask)
    assert torch.equal(found, given)
    inside, outside = found[:, 0, 6:12, 10:18], found[:, 0, 18:]
    assert inside.mean() > 10 * outside.abs().mean()


def test_segments_of_series_begin_and_end_where_they_change():
    g = torch.Generator().manual_seed(0)
    x = 0.05 * torch.rand(2, 2, 120, generator=g)
    x[0, :, 40:75] += 1
    x[1, 0, 30:60] -= 100  # of another unit than the other channel
    x[1, 1, 90:] += 2
    mask = superpixels(x, 8, sigma=0.0)
    assert mask.shape == (2, 1, 120)
    for row, changes in zip(mask[:, 0], ([40, 75], [30, 60, 90])):
        starts = row.diff().nonzero()[:, 0] + 1
        assert len(starts) + 1 == len(row.unique()), "each segment is in one piece"
        assert 5 <= len(starts) + 1 <= 12
        for change in changes:
            assert (starts - change).abs().min() <= 1
    moved = superpixels(x.mT, 8, sigma=0.0, axes="NTF")
    assert torch.equal(moved, mask.mT)
    line = superpixels(x[0, :1], 8, sigma=0.0, axes="NT")
    assert torch.equal(line[0], superpixels(x[:1, :1], 8, sigma=0.0)[0, 0])


def test_superpixels_of_a_video_keep_to_its_frames_and_edges():
    x = 0.05 * torch.rand(1, 3, 8, 20, 24, generator=torch.Generator().manual_seed(0))
    x[:, 0, 3:6, 5:12, 8:18] = 1  # a red patch that is there for three frames
    mask = superpixels(x, 100, sigma=(0.0, 1.0, 1.0))
    assert mask.shape == (1, 1, 8, 20, 24)
    on = x[0, 0] > 0.5
    mostly = [k for k in mask.unique().tolist() if on[mask[0, 0] == k].float().mean() > 0.5]
    found = torch.isin(mask[0, 0], torch.tensor(mostly))
    assert (found & on).sum() > 0.9 * (found | on).sum()
    assert torch.equal(superpixels(x.transpose(1, 2), 100, sigma=(0.0, 1.0, 1.0))[:, :, 0], mask[:, 0])
    assert superpixels(x[:, :1], 30).shape == superpixels(x[:, [0, 1, 2, 0, 1]], 30).shape == mask.shape
    for given, message in ((x[0, 0, 0], r"got \(20, 24\); use patches"), (x[None], "expected images")):
        with pytest.raises(ValueError, match=message):
            superpixels(given)
    with pytest.raises(ValueError, match=r"sigma=\(1.0, 1.0\): 2 numbers for the 3 axes of places"):
        superpixels(x, sigma=(1.0, 1.0))


def test_bad_settings_of_lime():
    for settings, message in (
        ({"n_samples": 2}, "n_samples=2"),
        ({"distance": "far"}, "distance='far'"),
        ({"distance": lambda z: z}, "distance: the callable"),
        ({"kernel_width": 0.0}, "kernel_width=0.0"),
        ({"regularizer": "none"}, "regularizer='none'"),
        ({"n_features": 0}, "n_features=0"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.LIME(lambda x: x.sum(1), **settings).attribute(torch.ones(1, 3))


def test_patches_number_a_grid():
    mask = patches(torch.zeros(2, 3, 7, 5), 3)[0, 0]
    assert mask[:, 0].tolist() == [0, 0, 0, 3, 3, 6, 6]
    assert mask[0].tolist() == [0, 0, 1, 1, 2]


def test_more_features_than_can_be_solved_for():
    with pytest.raises(ValueError, match="feature_mask: LIME solves for all 6000 features at once"):
        tw.LIME(lambda x: x.sum(1), generator=0).attribute(torch.ones(1, 6000))
