"""Metrics of features: few of them, of their own for each row, with attributions that each element has whole."""

import functools

import pytest
import torch
from nets import inputs, make

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.engine.images.filters import inpaint_linearly


def linear(*w):
    """f(x) = w x + 1."""
    return lambda x: x.flatten(1) @ torch.tensor(w, dtype=x.dtype) + 1


ONE = torch.ones(1, 3, dtype=torch.double)
A = torch.tensor([[4.0, 1.0, -2.0]], dtype=torch.double)


def test_fewer_features_than_steps():
    f = linear(4.0, 1.0, -2.0)
    for metric in (M.deletion, M.insertion):
        few, many = metric(f, ONE, A, steps=3), metric(f, ONE, A)
        assert many.fractions.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
        torch.testing.assert_close(many.scores, few.scores)
        torch.testing.assert_close(many.auc, few.auc)
    # of three features, shares of 1, 5 and 10 % are none, 20 % is one, 50 % two: alone they score 1, 5, 6 of 4
    assert M.sufficiency(f, ONE, A).item() == pytest.approx((3 * 3 - 1 - 2) / 5)
    assert M.comprehensiveness(f, ONE, A).item() == pytest.approx((3 * 0 + 4 + 5) / 5)
    assert M.sufficiency(f, ONE, A, fractions=[1.0]).item() == 0
    assert M.comprehensiveness(f, ONE, A, fractions=[1.0]).item() == pytest.approx(3)


def test_shares_are_those_that_were_removed():
    x = torch.ones(1, 10, dtype=torch.double)
    curve = M.deletion(linear(*[1.0] * 10), x, x, steps=3)
    assert curve.fractions.tolist() == pytest.approx([0, 0.3, 0.7, 1])
    torch.testing.assert_close(curve.scores, 11 - 10 * curve.fractions[None])


def test_a_curve_of_one_point_has_its_height():
    assert M.Curve(torch.tensor([0.5]), torch.tensor([[3.0], [1.0]])).auc.tolist() == [3, 1]
    net, x = make("conv"), inputs("conv")
    curve = M.road(net, x, x.sum(1, keepdim=True), 1, fractions=[0.5])
    torch.testing.assert_close(curve.auc, curve.scores[:, 0])


@pytest.mark.parametrize(
    "metric",
    [
        M.irof,
        M.sufficiency,
        M.comprehensiveness,
        M.monotonicity,
        functools.partial(M.deletion, steps=3),
        M.deletion,
        M.insertion,
        M.non_sensitivity,
        M.infidelity,
    ],
    ids=lambda m: getattr(m, "__name__", "deletion in 3 steps"),
)
def test_rows_with_different_features_are_independent(metric):
    g = linear(4.0, -3.0, 2.0, 1.0)
    x, a = (torch.tensor([row] * 2, dtype=torch.double) for row in ([1.0, 2, 1, 1], [4.0, 1, 2, 1]))
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 2, 3]])
    number = lambda found: found.auc if isinstance(found, M.Curve) else found  # noqa: E731
    both = number(metric(g, x, a, feature_mask=mask))
    each = [number(metric(g, x[i : i + 1], a[i : i + 1], feature_mask=mask[i : i + 1])) for i in range(2)]
    torch.testing.assert_close(both, torch.cat(each))


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


def test_a_map_of_one_channel_with_a_feature_mask():
    net, x = make("conv"), inputs("conv")
    a = torch.randn(3, 1, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    pixels = torch.arange(64).view(1, 8, 8)
    for metric in (M.infidelity, M.faithfulness_correlation, M.faithfulness_estimate):
        torch.testing.assert_close(metric(net, x, a, 1), metric(net, x, a, 1, feature_mask=pixels))


def test_compare_tells_a_metric_what_the_attributions_are():
    f, x = linear(4.0, 1.0, -2.0), torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.double)
    methods = {"products": tw.InputXGradient(f), "slopes": tw.Saliency(f, signed=True)}
    table = tw.compare(f, x, None, methods, ["infidelity"])
    assert max(table.cell(m, "infidelity").mean for m in methods) < 1e-20
    explained = {name: method.explain(x) for name, method in methods.items()}
    assert tw.compare(f, x, None, explained, ["infidelity"]).values == table.values
    told = tw.compare(f, x, None, methods, [functools.partial(M.infidelity, multiplied_by_inputs=False)])
    assert told.cell("products", "infidelity").mean > 1e-3


def test_road_beside_metrics_with_baselines_and_the_other_way_round():
    net, x = make("conv"), inputs("conv")
    maps = {"a": x.sum(1, keepdim=True), "b": -x.sum(1, keepdim=True)}
    other = functools.partial(M.road, remove="bottom")
    table = tw.compare(net, x, 1, maps, {"deletion": M.deletion, "road": M.road, "bottom": other}, baselines="blur")
    torch.testing.assert_close(table.values["road"]["a"], M.road(net, x, maps["a"], 1).auc.double())
    assert table.better == {"deletion": False, "road": False, "bottom": True}


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    net, x = make("conv"), inputs("conv")
    table = tw.compare(net, x, 1, [tw.Saliency(net)], ["deletion"])
    frame = table.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["Saliency", "deletion"] == table.cell("Saliency", "deletion").mean


def test_nothing_relative_to_nothing():
    net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(50, 1))
    zero = torch.zeros(1, 50)
    assert M.sensitivity_max(tw.Saliency(net), zero, 0).isnan().all()
    assert M.sensitivity_avg(tw.Saliency(net), zero, 0).isnan().all()
    assert M.input_invariance(tw.InputXGradient(net), zero, 0).isnan().all()


def test_several_baselines_of_each_row_reach_the_method_that_is_asked_again():
    net, x = make("smooth"), inputs("smooth")
    x = x * torch.tensor([[1.0], [9.0], [3.0]], dtype=torch.double)
    for method, baselines in (
        (tw.IntegratedGradients(net, n_steps=4), tw.Uniform(k=2)),
        (tw.ExpectedGradients(net, n_samples=4, generator=0), tw.Mean()),
    ):
        whole = M.sensitivity_max(method, x, 1, baselines=baselines)
        torch.testing.assert_close(whole[1:2], M.sensitivity_max(method, x[1:2], 1, baselines=baselines))


@pytest.mark.parametrize(
    "metric",
    [
        functools.partial(M.irof, feature_mask=torch.arange(64).view(1, 8, 8) // 16, softmax=True),
        M.road,
        functools.partial(M.non_sensitivity, feature_mask=torch.arange(64).view(1, 8, 8) // 16),
        M.completeness_gap,
    ],
    ids=["irof", "road", "non_sensitivity", "completeness_gap"],
)
def test_degenerate_maps(metric):
    net, x = make("conv"), inputs("conv")
    number = lambda found: found.scores if isinstance(found, M.Curve) else found  # noqa: E731
    for fill in (0.0, 1.0):
        assert bool(number(metric(net, x, torch.full_like(x[:, :1], fill), 1)).isfinite().all())
    one, both = (number(metric(net, x[:n], x[:n].sum(1, keepdim=True), 1)) for n in (1, 2))
    torch.testing.assert_close(one, both[:1])
    bad = torch.zeros_like(x[:, :1]).index_fill_(3, torch.tensor([3]), float("nan"))
    with pytest.raises(ValueError, match="attributions: NaN or infinite in row 0"):
        metric(net, x, bad, 1)


def test_weights_that_are_all_alike_cannot_be_randomized():
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    net, x = net.double().eval(), inputs("smooth")
    with pytest.raises(ValueError, match=r"layers: 1: no weights that could be made random"):
        M.model_randomization(tw.InputXGradient(net), x, 1, layers=["1"])
    assert M.model_randomization(tw.InputXGradient(net), x, 1).scores.shape == (3, 3)  # before, the last, the first


def test_compare_with_features_of_single_channels_and_methods_of_one_name():
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2)).double()
    x, channels = inputs("conv"), torch.arange(3).view(1, 3, 1, 1)
    method, metric = tw.FeatureAblation(net), M.faithfulness_correlation
    table = tw.compare(net, x, 0, [method], [metric], feature_mask=channels)
    expected = metric(net, x, method.attribute(x, 0, feature_mask=channels), 0, feature_mask=channels)
    torch.testing.assert_close(table.values["faithfulness_correlation"]["FeatureAblation"], expected)
    with pytest.raises(ValueError, match="metrics: deletion, deletion: two of one name"):
        tw.compare(net, x, 0, [method], ["deletion", functools.partial(M.deletion, steps=3)])


def test_infidelity_is_told_of_products_only():
    f, x = linear(4.0, 1.0, -2.0), torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.double)
    methods = {
        "slopes": tw.IntegratedGradients(f, multiply_by_inputs=False),
        "from b": tw.IntegratedGradients(f),
        "from 0": tw.InputXGradient(f),
    }
    table = tw.compare(f, x, None, methods, ["infidelity"], baselines=0.5)
    assert max(table.cell(m, "infidelity").mean for m in methods) < 1e-20
    g, y = linear(1.0, 0.0, 0.0), torch.tensor([[1.0, 1e-3, 1.0]], dtype=torch.double)
    windows = tw.Occlusion(g, sliding_window_shapes=2)
    assert tw.compare(g, y, None, [windows], ["infidelity"]).cell("Occlusion", "infidelity").mean < 0.1


@pytest.mark.parametrize("metric", [M.sensitivity_max, M.random_logit, M.continuity], ids=lambda m: m.__name__)
@pytest.mark.parametrize("rows", [3, 5])
def test_rows_of_data_as_baselines_of_the_method_that_is_asked_again(metric, rows):
    net, x = make("conv"), inputs("conv")
    data = torch.randn(rows, *x.shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.double)
    method = tw.ExpectedGradients(net, n_samples=4, generator=0)
    found = metric(method, x, 1, baselines=data)
    torch.testing.assert_close(found, metric(method, x, 1, baselines=tw.Distribution(data)))
    smooth = tw.SmoothGrad(net, of=method, n_samples=2, generator=0)
    torch.testing.assert_close(
        smooth.attribute(x, 1, baselines=data), smooth.attribute(x, 1, baselines=tw.Distribution(data))
    )


def test_a_mask_of_one_row_is_not_taken_by_rows():
    net, x = torch.nn.Linear(4, 2).double(), torch.randn(4, 4, dtype=torch.double)
    mask = torch.tensor([0, 0, 1, 1])  # as many elements as there are rows
    found = M.sensitivity_max(tw.FeatureAblation(net), x, 0, feature_mask=mask)
    torch.testing.assert_close(found, M.sensitivity_max(tw.FeatureAblation(net), x, 0, feature_mask=mask[None]))


def test_named_attributions_are_matched_by_name():
    f = lambda a, b: (3 * a - 5 * b).sum(1)  # noqa: E731
    x = {"a": torch.ones(2, 3), "b": 2 * torch.ones(2, 3)}
    maps = {"b": -5 * x["b"], "a": 3 * x["a"]}
    torch.testing.assert_close(M.faithfulness_correlation(f, x, maps), torch.ones(2), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="the inputs are a, b"):
        M.faithfulness_correlation(f, x, {"a": maps["a"], "c": maps["b"]})


def test_road_in_half_precision():
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).half()
    keep = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) > 0.5
    found = inpaint_linearly(x, keep, most=200)
    torch.testing.assert_close(found.float(), inpaint_linearly(x.float(), keep), rtol=0, atol=1e-3)
    assert found.dtype == torch.half


def test_attributions_in_other_forms():
    net, x = make("conv"), inputs("conv")
    e = tw.RISE(net, n_samples=20, generator=0).explain(x, 1)  # its maps have a neutral value
    for metric in (M.deletion, M.faithfulness_correlation, M.completeness_gap):
        expected = metric(net, x, e.shown, 1)
        for form in (e, e.shown.numpy(), e.shown[:, 0]):
            found = metric(net, x, form, 1)
            torch.testing.assert_close(*(f.scores if isinstance(f, M.Curve) else f for f in (found, expected)))
    mask = torch.arange(64).view(1, 8, 8).expand(3, 8, 8) < 20
    torch.testing.assert_close(M.relevance_mass(e, mask), M.relevance_mass(e.shown.numpy(), mask))
    torch.testing.assert_close(M.sparseness(e), M.sparseness(e.shown))
    with pytest.raises(ValueError, match="attributions: shape"):
        M.deletion(net, x, e.shown[:, 0, :4], 1)
    table = tw.compare(net, x, 1, {"explained": e, "array": e.shown.numpy()}, ["deletion", "sparseness"])
    for name in table.metrics:
        torch.testing.assert_close(table.values[name]["explained"], table.values[name]["array"])
    assert table.evaluations["explained"] == e.evaluations / 3
    assert table.seconds["explained"] == e.seconds / 3
