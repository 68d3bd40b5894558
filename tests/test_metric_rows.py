"""Rows are independent: what a metric says of a row does not depend on its company."""

import pytest
import torch
from metric_cases import Scene, each_metric, each_metric_of_numbers
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M

CLOSE = {"rtol": 1e-9, "atol": 1e-11, "equal_nan": True}


def number(found):
    return found.auc if isinstance(found, M.Curve) else found


@each_metric
def test_a_batch_gives_what_its_rows_give(case):
    scene = Scene.make()
    if case.metric is M.random_logit:
        scene.target = [1, 1, 1]  # the offset is drawn once for all rows
    together = case.measure(scene)
    alone = torch.cat([case.measure(scene.row(i)) for i in range(3)])
    torch.testing.assert_close(together, alone, **CLOSE)


@each_metric_of_numbers
def test_rows_of_numbers_too(case):
    scene = Scene.make(kind="smooth")
    torch.testing.assert_close(case.measure(scene), torch.cat([case.measure(scene.row(i)) for i in range(3)]), **CLOSE)


@each_metric
def test_equal_calls_give_equal_bits(case):
    scene = Scene.make()
    first, second = case.measure(scene), case.measure(scene)
    assert torch.equal(first, second)
    torch.rand(3)  # whatever else is drawn
    assert torch.equal(first, case.measure(scene))


def linear(*w):
    """f(x) = w x + 1."""
    return lambda x: x.flatten(1) @ torch.tensor(w, dtype=x.dtype) + 1


@pytest.mark.parametrize(
    "metric,settings",
    [
        (M.irof, {}),
        (M.sufficiency, {}),
        (M.comprehensiveness, {}),
        (M.monotonicity, {}),
        (M.deletion, {"steps": 3}),
        (M.deletion, {}),
        (M.insertion, {}),
        (M.non_sensitivity, {}),
        (M.infidelity, {}),
    ],
    ids=lambda v: v.name if isinstance(v, M.Metric) else "-".join(map(str, v.values())),
)
def test_rows_with_different_features_are_independent(metric, settings):
    g = linear(4.0, -3.0, 2.0, 1.0)
    x, a = (torch.tensor([row] * 2, dtype=torch.double) for row in ([1.0, 2, 1, 1], [4.0, 1, 2, 1]))
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]])
    both = number(metric(g, x, a, feature_mask=mask, **settings))
    each = [number(metric(g, x[i : i + 1], a[i : i + 1], feature_mask=mask[i : i + 1], **settings)) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(each))


def test_ties_are_broken_alike_in_any_company():
    f = linear(4.0, -3.0, 2.0, 1.0)
    x, mask = torch.ones(2, 4, dtype=torch.double), torch.tensor([[0, 1, 1, 0], [0, 1, 2, 3]])
    for seed in range(8):
        options = {"steps": 4, "generator": seed}
        both = M.deletion(f, x, torch.zeros_like(x), feature_mask=mask, **options)
        alone = M.deletion(f, x[:1], torch.zeros_like(x[:1]), feature_mask=mask[:1], **options)
        torch.testing.assert_close(both.auc[:1], alone.auc)


def test_road_of_rows_with_different_features():
    net, x = make("conv"), inputs("conv", 2)
    a = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.double)
    rows = torch.stack([torch.arange(64).view(1, 8, 8) // 16, torch.arange(64).view(1, 8, 8) // 4])
    both = M.road(net, x, a, 1, feature_mask=rows, noise=0.5)
    alone = M.road(net, x[:1], a[:1], 1, feature_mask=rows[:1], noise=0.5)
    torch.testing.assert_close(both.scores[:1], alone.scores)
    assert float(alone.fractions[-1]) == 0.75  # of four segments one stays, to impute from


def test_several_baselines_of_each_row_reach_the_method_that_is_asked_again():
    net, x = make("smooth"), inputs("smooth")
    x = x * torch.tensor([[1.0], [9.0], [3.0]], dtype=torch.double)
    for method, baselines in (
        (tw.IntegratedGradients(net, n_steps=4), tw.Uniform(k=2)),
        (tw.ExpectedGradients(net, n_samples=4, generator=0), tw.Mean()),
    ):
        whole = M.sensitivity_max(method, x, 1, baselines=baselines)
        torch.testing.assert_close(whole[1:2], M.sensitivity_max(method, x[1:2], 1, baselines=baselines))
