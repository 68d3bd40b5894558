"""What the metrics do not take for more than it is: rounding, ties, the company of other rows, features of different sizes."""

import math

import pytest
import torch
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M


def always_one(x):
    """A score that depends on nothing, but for its rounding."""
    return x.flatten(1).softmax(1).sum(1)


X = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) * 4
A = torch.randn(3, 40, generator=torch.Generator().manual_seed(1))


def test_a_score_that_never_changes_has_no_correlation_with_anything():
    scores = M.deletion(always_one, X, A, steps=40).scores
    assert 0 < float((scores - 1).abs().max()) < 1e-6  # there is rounding to be taken in
    assert M.faithfulness_correlation(always_one, X, A).isnan().all()
    assert M.faithfulness_estimate(always_one, X, A).isnan().all()
    assert M.sensitivity_n(always_one, X, A).scores.isnan().all()


def test_a_score_that_never_changes_never_falls_and_has_no_use_for_a_feature():
    assert M.monotonicity(always_one, X, A, steps=40).tolist() == [1, 1, 1]
    assert M.non_sensitivity(always_one, X, torch.zeros_like(X)).tolist() == [0, 0, 0]
    assert M.non_sensitivity(always_one, X, A).tolist() == [1, 1, 1]


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


def test_ties_are_broken_alike_in_any_company():
    f = lambda z: z @ torch.tensor([4.0, -3, 2, 1], dtype=torch.double)  # noqa: E731
    x, mask = torch.ones(2, 4, dtype=torch.double), torch.tensor([[0, 1, 1, 0], [0, 1, 2, 3]])
    for seed in range(8):
        options = {"steps": 4, "generator": seed}
        both = M.deletion(f, x, torch.zeros_like(x), feature_mask=mask, **options)
        alone = M.deletion(f, x[:1], torch.zeros_like(x[:1]), feature_mask=mask[:1], **options)
        torch.testing.assert_close(both.auc[:1], alone.auc)


def test_as_many_groups_as_were_asked_for():
    seen = []
    f = lambda z: (seen.append(z.clone()), z.sum(1))[1]  # noqa: E731
    M.faithfulness_estimate(f, torch.ones(1, 10), torch.arange(10.0)[None], steps=7)
    gone = (torch.cat(seen) == 0).sum(1).tolist()
    assert gone == [0, 2, 1, 2, 1, 2, 1, 1]


def test_compare_draws_baselines_once():
    net, x = make("smooth"), inputs("smooth")
    methods = {"ig": tw.IntegratedGradients(net, n_steps=60), "shapley": tw.ExactShapley(net)}
    table = tw.compare(net, x, 1, methods, ["completeness_gap"], baselines=tw.Noise(std=0.5))
    assert max(table.cell(m, "completeness_gap").mean for m in methods) < 1e-6
    two, pair = make("two"), inputs("two")
    table = tw.compare(two, pair, 1, [tw.ExactShapley(two)], ["completeness_gap"], baselines="noise")
    assert table.cell("ExactShapley", "completeness_gap").mean < 1e-6


def test_compare_sums_the_channels_of_images_in_a_tuple_or_dict():
    net, x = make("conv"), inputs("conv")
    alone = tw.compare(net, x, 1, {"a": x}, ["deletion", "complexity"])
    for form in (lambda t: (t,), lambda t: {"x": t}):
        found = tw.compare(lambda x: net(x), form(x), 1, {"a": form(x)}, ["deletion", "complexity"])
        for name in found.metrics:
            torch.testing.assert_close(found.values[name]["a"], alone.values[name]["a"])


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16], ids=str)
def test_the_rounding_is_that_of_the_models_answers(dtype):
    f = lambda z: (z.to(dtype).softmax(1) * 3.3).sum(1)  # noqa: E731
    for x in (X.to(dtype), X.double()):
        assert M.faithfulness_correlation(f, x, A).isnan().all()
        assert M.non_sensitivity(f, x, torch.zeros_like(A)).tolist() == [0, 0, 0]
        assert M.monotonicity(f, x, A, steps=40).tolist() == [1, 1, 1]


def test_nothing_changed_is_no_increase():
    net = torch.nn.Sequential(torch.nn.Linear(300, 200), torch.nn.ReLU(), torch.nn.Linear(200, 7))
    for seed in range(8):
        x = torch.randn(5, 300, generator=torch.Generator().manual_seed(seed))
        for size in (2, 3, 4):
            assert M.average_increase(net, x, torch.ones(5, 300), 1, batch_size=size).tolist() == [0] * 5


def test_large_numbers_do_not_overflow():
    a = torch.full((1, 4), 1e38)
    assert M.complexity(a).item() == pytest.approx(math.log(4))
    assert M.sparseness(a).item() == pytest.approx(0)
    assert M.complexity(torch.zeros(1, 4)).isnan().all()


def test_a_zero_map_foretells_nothing():
    f = lambda z: z.sum(1)  # noqa: E731
    zero = torch.zeros_like(X)
    torch.testing.assert_close(M.infidelity(f, X, zero, normalize=True), M.infidelity(f, X, zero))


def test_probabilities_in_low_precision():
    chances = (torch.randn(400, 5, generator=torch.Generator().manual_seed(0)).bfloat16() * 2).softmax(1)
    found = M.deletion(lambda z: z, chances, chances, 1, steps=1, softmax=True).scores[:, 0]
    torch.testing.assert_close(found, chances[:, 1].float())
    with pytest.raises(ValueError, match="1 everywhere"):
        M.average_drop(torch.nn.Linear(40, 1), X, A, 0)


def test_road_goes_by_the_share_and_leaves_something_to_fill_from():
    net, x = make("conv"), inputs("conv", 2)
    a = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    rows = torch.stack([torch.arange(64).view(1, 8, 8) // 16, torch.arange(64).view(1, 8, 8) // 4])
    both = M.road(net, x, a, 1, feature_mask=rows, noise=0.5)
    alone = M.road(net, x[:1], a[:1], 1, feature_mask=rows[:1], noise=0.5)
    torch.testing.assert_close(both.scores[:1], alone.scores)
    assert float(alone.fractions[-1]) == 0.75  # of four segments one stays
    with pytest.raises(ValueError, match="remove='tops'"):
        M.road(net, x, a, 1, remove="tops")
