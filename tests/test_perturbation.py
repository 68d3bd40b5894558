"""FeatureAblation, FeaturePermutation, Occlusion and RISE against their papers written out, and other libraries."""

import warnings

import captum.attr
import numpy as np
import pytest
import torch
from cases import in_turn
from reference import perturbation as reference
from torch import nn

import torchwhy as tw
from torchwhy.perturbation.feature_permutation import row_orders
from torchwhy.perturbation.rise_masks import RandomGridMasks, enlarge_grids, kronecker_product


def smooth(dim=3):
    """A small smooth network on images (N, 3, 8, 9) in float64, and three of these."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(dim, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 7, 2)).double().eval()
    return model, torch.randn(3, dim, 8, 9, dtype=torch.double)


def scalar(model, target=1):
    return lambda x: model(x)[0, target].item()


MASK = torch.arange(8 * 9).view(1, 1, 8, 9) % 5


def test_ablation_is_the_papers():
    model, x = smooth()
    b = torch.randn(1, 3, 8, 9, dtype=torch.double)
    found = tw.FeatureAblation(model).attribute(x, 1, baselines=b, feature_mask=MASK)
    expected = torch.cat([reference.feature_ablation(scalar(model), row[None], b, MASK) for row in x])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_ablation_of_a_linear_model_is_weight_times_input():
    x, w = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([4.0, -5.0, 6.0])
    found = tw.FeatureAblation(lambda x: x @ w).attribute(x, baselines=torch.tensor([0.0, 1.0, 0.0]))
    assert found.tolist() == [[4, -5, 18]]


def test_ablation_averages_over_a_distribution():
    model, x = smooth()
    rows = torch.randn(3, 3, 8, 9, dtype=torch.double)
    found = tw.FeatureAblation(model).attribute(x, 1, baselines=tw.Distribution(rows), feature_mask=MASK)
    each = [tw.FeatureAblation(model).attribute(x, 1, baselines=r, feature_mask=MASK) for r in rows]
    torch.testing.assert_close(found, sum(each) / 3)


def test_ablation_with_a_mask_for_each_row_and_two_inputs():
    torch.manual_seed(1)
    a, b = torch.randn(2, 3, dtype=torch.double), torch.randn(2, 2, dtype=torch.double)
    model = lambda a, b: (a.sum(1) * b.prod(1)).sin() + a[:, 0]  # noqa: E731
    masks = torch.tensor([[0, 1, 1], [1, 0, 2]]), torch.tensor([[0, 2], [2, 2]])
    found = tw.FeatureAblation(model).attribute((a, b), feature_mask=masks)
    for n in range(2):
        f = lambda z: model(z[:, :3], z[:, 3:]).item()  # noqa: E731
        x = torch.cat([a[n : n + 1], b[n : n + 1]], 1)
        expected = reference.feature_ablation(f, x, torch.zeros_like(x), torch.cat([m[n : n + 1] for m in masks], 1))
        torch.testing.assert_close(torch.cat([t[n] for t in found]), expected[0])


def test_ablation_equals_captum():
    model, x = smooth()
    found = tw.FeatureAblation(model).attribute(x, 1, feature_mask=MASK)
    expected = captum.attr.FeatureAblation(model).attribute(x, target=1, feature_mask=MASK)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=1e-12)


def test_ablation_of_integer_tokens():
    table = torch.randn(7, generator=torch.Generator().manual_seed(0))
    x = torch.tensor([[1, 2, 3], [4, 5, 6]])
    found = tw.FeatureAblation(lambda x: table[x].sum(1)).attribute(x, baselines=0)
    torch.testing.assert_close(found, table[x] - table[0])


@pytest.mark.parametrize(("size", "step"), [((3, 3, 4), (3, 2, 3)), ((2, 5, 3), (1, 4, 2)), ((3, 8, 9), None)])
def test_occlusion_is_the_papers_and_captums(size, step):
    model, x = smooth()
    found = tw.Occlusion(model, sliding_window_shapes=size, strides=step).attribute(x, 1, baselines=0.5)
    f, b = scalar(model), torch.full_like(x[:1], 0.5)
    expected = torch.cat([reference.occlusion(f, row[None], b, size, step or (1, 1, 1)) for row in x])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    theirs = captum.attr.Occlusion(model).attribute(x, size, strides=step, target=1, baselines=0.5)
    torch.testing.assert_close(found, theirs.detach().double(), rtol=0, atol=1e-6)  # theirs is computed in float32


def test_occlusion_of_series_and_volumes():
    for shape, size in (((2, 3, 11), (3, 4)), ((1, 2, 4, 5, 3), (1, 2, 2, 2))):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.double)
        model = lambda x: x.flatten(1).cumsum(1).sin().sum(1)  # noqa: E731
        found = tw.Occlusion(model, sliding_window_shapes=size, strides=2 if len(shape) == 3 else None).attribute(x)
        step = (3, 2) if len(shape) == 3 else (1,) * 4
        expected = [reference.occlusion(model, r[None], torch.zeros_like(r[None]), size, step) for r in x]
        torch.testing.assert_close(found, torch.cat(expected))


def test_short_windows_are_whole_along_the_channels():
    model, x = smooth()
    whole = tw.Occlusion(model, sliding_window_shapes=(3, 4, 4), strides=(3, 2, 2)).attribute(x, 1)
    assert torch.equal(tw.Occlusion(model, sliding_window_shapes=(4, 4), strides=(2, 2)).attribute(x, 1), whole)
    assert torch.equal(tw.Occlusion(model, sliding_window_shapes=4, strides=2).attribute(x, 1), whole)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8, torch.bool])
def test_values_of_integers_are_of_one_type(dtype):
    x = torch.tensor([[1, 0, 1]], dtype=dtype)
    for method in (
        tw.Occlusion(weighted_sum, sliding_window_shapes=1),
        tw.FeatureAblation(weighted_sum),
        tw.KernelSHAP(weighted_sum),
    ):
        found = method.attribute(x)
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.tensor([[1.0, 0.0, 3.0]]))


def weighted_sum(z):
    return (z.double() * torch.tensor([1.0, 2.0, 3.0], dtype=torch.double)).sum(1)


def test_occlusion_of_two_inputs_covers_one_at_a_time():
    a, b = torch.randn(2, 2, 4, dtype=torch.double), torch.randn(2, 3, dtype=torch.double)
    model = lambda a, b: a.flatten(1).sum(1) * b.sum(1)  # noqa: E731
    found = tw.Occlusion(model, sliding_window_shapes=((2, 2), (2,)), strides=((1, 1), (1,))).attribute((a, b))
    alone = tw.Occlusion(lambda b: a.flatten(1).sum(1)[:1] * b.sum(1), sliding_window_shapes=(2,)).attribute(b[:1])
    torch.testing.assert_close(found[1][:1], alone)
    assert [f.shape for f in found] == [a.shape, b.shape]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sliding_window_shapes": (3, 9, 4)}, "sliding_window_shapes.*dimension 1.*has 8 elements"),
        ({"sliding_window_shapes": (3, 2, 2), "strides": (1, 1, 3)}, "strides.*dimension 2"),
        ({"sliding_window_shapes": (1, 3, 2, 2)}, "expected an int or up to 3 ints"),
        ({"sliding_window_shapes": ((3, 2, 2), (2,))}, "2 given for 1 input"),
    ],
)
def test_bad_windows(settings, message):
    model, x = smooth()
    with pytest.raises(ValueError, match=message):
        tw.Occlusion(model, **settings).attribute(x, 1)


def test_permutation_is_breimans_and_captums():
    model, x = smooth()
    x = torch.cat([x, x.flip(2) + 1])
    found = tw.FeaturePermutation(model, n_repeats=2, generator=0).explain(x, 1, feature_mask=MASK)
    orders = row_orders(torch.Generator().manual_seed(0), 6)[torch.arange(11)]
    expected = reference.feature_permutation(scalar(model), x, MASK, [orders[1:6].tolist(), orders[6:].tolist()])
    torch.testing.assert_close(found.attributions, expected)

    given = iter(orders[1:])
    method = captum.attr.FeaturePermutation(model, perm_func=lambda t, m: torch.where(m.bool(), t[next(given)], t))
    once = tw.FeaturePermutation(model, generator=0).attribute(x, 1, feature_mask=MASK)
    torch.testing.assert_close(once, method.attribute(x, target=1, feature_mask=MASK).detach(), rtol=0, atol=1e-12)
    half = (once - found.attributions).abs()  # two repeats lie this far on either side of their mean
    torch.testing.assert_close(found.standard_error, half)


def test_permutation_needs_rows_that_share_their_features():
    model = lambda x: x.sum(1)  # noqa: E731
    with pytest.raises(ValueError, match="inputs: one row"):
        tw.FeaturePermutation(model).attribute(torch.ones(1, 3))
    with pytest.raises(ValueError, match="feature_mask: differs between rows"):
        tw.FeaturePermutation(model).attribute(torch.ones(2, 3), feature_mask=torch.tensor([[0, 1, 1], [0, 0, 1]]))
    with pytest.raises(ValueError, match="n_repeats=0"):
        tw.FeaturePermutation(model, n_repeats=0).attribute(torch.ones(2, 3))


def test_grids_are_enlarged_and_shifted_as_in_the_paper():
    torch.manual_seed(0)
    grids, shifts = (torch.rand(4, 7, 7) < 0.5).double(), torch.rand(4, 2)
    masks = enlarge_grids(grids, shifts, (50, 64))
    for mask, grid, shift in zip(masks, grids, shifts.tolist()):
        torch.testing.assert_close(mask, reference.rise_mask(grid, shift, (50, 64)), rtol=0, atol=1e-6)


def test_grids_come_with_their_opposites_and_a_known_covariance():
    seen = []

    class Spy(tw.RISE):
        def _attribute(self, problem):
            grids = RandomGridMasks(problem, (3, 3), 0.5, 2)
            index = torch.arange(20000)
            seen.append((grids.make(index, torch.device("cpu")).flatten(1).double(), grids.covariance(problem.x[0])))
            return problem.x

    Spy(lambda x: x.sum((1, 2, 3)), generator=0).attribute(torch.zeros(1, 1, 5, 7, dtype=torch.double))
    masks, (known, carry, missed) = seen[0]
    torch.testing.assert_close(masks[0::2] + masks[1::2], torch.ones(10000, 35, dtype=torch.double))
    assert not torch.equal(masks[0], masks[2])
    full = kronecker_product(known)  # every element is a knot
    torch.testing.assert_close((masks - 0.5).T @ (masks - 0.5) / len(masks), full, rtol=0, atol=0.012)
    torch.testing.assert_close(kronecker_product(carry) @ full, full)
    assert missed.max() < 1e-9


def test_rise_is_the_papers(monkeypatch):
    model, x = smooth()
    method = tw.RISE(model, n_samples=40, grid=3, variance_reduced=False, keep_probability=0.3, generator=0)
    seen, make = [], RandomGridMasks.make
    monkeypatch.setattr(RandomGridMasks, "make", lambda s, i, d: seen.append((i, make(s, i, d))) or seen[-1][1])
    found = method.attribute(x, 1, baselines=0.2)
    masks = {int(k): m for index, made in seen for k, m in zip(index, made)}
    assert len(masks) == 40
    b = torch.full_like(x[:1], 0.2)
    masks = [masks[k].double() for k in range(40)]
    expected = torch.stack([reference.rise(scalar(model), row[None], b, masks, 0.3)[None] for row in x])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert 0.25 < torch.stack(masks).mean() < 0.35


def test_rise_has_the_papers_limit_and_far_less_noise():
    model, x = smooth()
    shifted = lambda x: model(x)[:, 1] + 1  # noqa: E731
    plain = tw.RISE(shifted, n_samples=8000, grid=3, variance_reduced=False, generator=0).explain(x[:1])
    found = tw.RISE(shifted, n_samples=500, grid=3, generator=5).explain(x[:1])
    error = (found.standard_error**2 + plain.standard_error**2).sqrt()
    assert ((found.attributions - plain.attributions).abs() < 4 * error).all()
    assert found.standard_error.mean() < plain.standard_error.mean()  # from a sixteenth of the masks


SCORES = {"mostly odd": torch.tanh, "mostly even": lambda v: (v - 16).square()}


@pytest.mark.parametrize("kind, p", in_turn(SCORES, [0.5, 0.3], 1))
def test_standard_errors_of_rise_are_the_spread_of_its_maps(kind, p):
    """Over seeds, for scores whose noise is what no linear part of the masks takes away."""
    score = SCORES[kind]
    x = torch.ones(1, 1, 8, 9, dtype=torch.double)
    options = {"n_samples": 100, "grid": 3, "keep_probability": p}
    half = lambda x: score(x[:, 0, :4].sum((1, 2)))  # noqa: E731
    takes = [tw.RISE(half, generator=seed, **options).explain(x) for seed in range(40)]
    spread = torch.stack([e.attributions for e in takes]).var(0).mean()
    stated = torch.stack([e.standard_error for e in takes]).square().mean()
    assert 0.7 < spread / stated < 1.4


@pytest.mark.parametrize(("reduced", "taken"), [(True, 8), (False, 7)])
def test_masks_of_rise_come_in_pairs_where_their_variance_is_reduced(reduced, taken):
    x = torch.rand(1, 1, 8, 8)
    method = tw.RISE(lambda z: z.mean((1, 2, 3)), n_samples=7, grid=3, variance_reduced=reduced, generator=0)
    assert method.explain(x).evaluations == taken


def test_rise_of_every_output_in_one_run():
    model, x = smooth()
    every = tw.RISE(model, n_samples=30, grid=3, targets="all", generator=0).explain(x)
    assert every.attributions.shape == every.standard_error.shape == (3, 2, 8, 9)
    assert every.evaluations == 90
    for t in range(2):
        one = tw.RISE(model, n_samples=30, grid=3, generator=0).attribute(x, t)
        torch.testing.assert_close(every.attributions[:, t : t + 1], one)


@pytest.mark.parametrize("shape", [(11,), (5, 6, 4)], ids=str)
def test_rise_of_series_and_volumes(shape):
    x = torch.rand(2, 3, *shape, dtype=torch.double)
    score = lambda x: x.flatten(2)[:, :, :4].sum((1, 2))  # noqa: E731
    found = tw.RISE(score, n_samples=600, grid=3, generator=0).attribute(x)
    assert found.shape == (2, 1, *shape)
    assert (found.flatten(1)[:, 0] > found.flatten(1)[:, -1]).all()
    grid, shift = torch.rand(4, *[3] * len(shape)), torch.rand(4, len(shape))
    made = enlarge_grids(grid, shift, shape)
    assert made.shape == (4, *shape)
    if len(shape) == 1:  # a series is a picture of one column
        wide = enlarge_grids(grid[:, :, None].expand(4, 3, 3), shift.expand(4, 2), (11, 11))
        torch.testing.assert_close(made, wide[:, :, 5])


def test_the_tolerance_of_rise_is_of_the_differences_within_a_map():
    x = torch.rand(1, 1, 8, 8, dtype=torch.double)
    options = {"n_samples": 40, "grid": 3, "generator": 0, "tolerance": 0.1, "max_evaluations": 20000}
    takes = [tw.RISE(lambda x, c=c: x[:, 0, :4].sum((1, 2)).tanh() + c, **options).explain(x) for c in (0.0, 1000.0)]
    assert takes[0].evaluations == takes[1].evaluations > 40
    for e in takes:
        own = e.attributions - e.details["neutral"].view(1, 1, 1, 1)
        assert e.standard_error.norm() <= 0.1 * own.norm()


def test_bad_settings_of_rise():
    model, x = smooth()
    for settings, message in (
        ({"grid": 0}, "grid=0: expected an int of at least 1"),
        ({"grid": 9}, "grid=9"),
        ({"keep_probability": 1.0}, "keep_probability=1.0"),
        ({"targets": "some"}, "targets='some'"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.RISE(model, **settings).attribute(x, 1)
    with pytest.raises(ValueError, match="inputs: RISE masks one tensor"):
        tw.RISE(lambda x: x.sum(1)).attribute(torch.ones(2, 3))


def methods(model):
    """Every method of this file with few samples."""
    quiet = warnings.catch_warnings()
    with quiet:
        warnings.simplefilter("ignore")
        return [
            tw.FeatureAblation(model),
            tw.Occlusion(model, sliding_window_shapes=4, strides=2),
            tw.RISE(model, n_samples=21, grid=3, generator=0),
            tw.LIME(model, n_samples=80, generator=0, n_segments=9, kernel_width=1.0),
        ]


@pytest.mark.parametrize("method", methods(smooth()[0]), ids=lambda m: type(m).__name__)
@pytest.mark.filterwarnings("ignore:LIME")
def test_batches_rows_memory_and_types(method):
    """The same numbers for every batch size, row by row, after running out of memory, and in the input's type."""
    model, x = smooth()
    whole = method.attribute(x, 1)
    assert whole.dtype == torch.double
    settings = {**method.settings(), "batch_size": 5}
    torch.testing.assert_close(type(method)(model, **settings).attribute(x, 1), whole, rtol=0, atol=1e-12)
    for n in range(3):
        torch.testing.assert_close(method.attribute(x[n : n + 1], 1), whole[n : n + 1], rtol=0, atol=1e-12)

    class Small(nn.Module):
        largest = 0

        def forward(self, z):
            if len(z) > 6:
                raise RuntimeError("CUDA out of memory. Tried to allocate 1 EiB")
            self.largest = max(self.largest, len(z))
            return model(z)

    small = Small()
    torch.testing.assert_close(type(method)(small, **method.settings()).attribute(x, 1), whole, rtol=0, atol=1e-12)
    assert 3 <= small.largest <= 6
    single = type(method)(smooth()[0].float(), **method.settings()).attribute(x.float(), 1)
    assert single.dtype == torch.float
    torch.testing.assert_close(single.double(), whole, rtol=0, atol=1e-4)


def test_scores_that_are_not_finite_are_refused():
    model = lambda x: torch.where(x[:, 0] == 0, torch.nan, x.sum(1))  # noqa: E731
    for method in (
        tw.FeatureAblation(model),
        tw.LIME(model, generator=0),
        tw.Occlusion(model, sliding_window_shapes=(1,)),
    ):
        with pytest.raises(FloatingPointError, match="NaN or infinite"):
            method.attribute(torch.ones(1, 3))


def test_a_black_box_of_arrays():
    from sklearn.linear_model import LogisticRegression

    x = np.random.default_rng(0).normal(size=(60, 4))
    model = LogisticRegression().fit(x, x[:, 0] + x[:, 1] > 0)
    rows = torch.from_numpy(x[:2])
    found = tw.FeatureAblation(model).attribute(rows, 1)
    without = x[:2].copy()
    without[:, 0] = 0
    expected = model.predict_proba(x[:2])[:, 1] - model.predict_proba(without)[:, 1]
    torch.testing.assert_close(found[:, 0], torch.from_numpy(expected))


def test_wrong_number_of_rows():
    with pytest.raises(ValueError, match="rows"):
        tw.FeatureAblation(lambda x: x.sum(1)[:1]).attribute(torch.ones(2, 3))


@pytest.mark.slow
@pytest.mark.parametrize("reduced", [True, False])
@pytest.mark.parametrize("p", [0.5, 0.3])
def test_standard_errors_of_rise_cover(reduced, p):
    model, x = smooth()
    options = {"grid": 3, "keep_probability": p}
    limit = tw.RISE(model, n_samples=40000, generator=999, **options).attribute(x[:1], 1)
    inside = []
    for seed in range(200):
        method = tw.RISE(model, n_samples=300, variance_reduced=reduced, generator=seed, **options)
        found = method.explain(x[:1], 1)
        inside.append((found.attributions - limit).abs() <= 2 * found.standard_error)
    assert 0.90 <= torch.stack(inside).double().mean() <= 0.99
