"""Backgrounds whose rows count unlike much; groups of columns by their names; labels of tables in counterfactuals."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

import torchwhy as tw

ROWS = torch.tensor([[0.0, 0.5, 1.0], [1.0, -1.0, 2.0], [0.3, 0.2, 0.1]], dtype=torch.double)
COUNTS = [1, 3, 2]
X = torch.tensor([[2.0, 1.0, -1.0], [0.5, 2.0, 1.0]], dtype=torch.double)


@pytest.fixture
def net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double().eval()


def repeated():
    return tw.Distribution(ROWS.repeat_interleave(torch.tensor(COUNTS), 0))


def weighted(weights=COUNTS):
    return tw.Distribution(ROWS, weights=weights)


EXACT = {
    "ExactShapley": {},
    "KernelSHAP": {},
    "Banzhaf": {},
    "FeatureAblation": {},
    "Occlusion": {"sliding_window_shapes": 1},
    "LIME": {"generator": 0},
    "ShapleySampling": {"generator": 0},
    "OwenValues": {"generator": 0, "groups": [0, 0, 1]},
    "DeepSHAP": {},
}


@pytest.mark.parametrize("name", EXACT)
def test_weights_are_as_if_rows_came_so_often(net, name):
    method = getattr(tw, name)(net, **EXACT[name])
    found, expected = (method.explain(X, 1, baselines=b) for b in (weighted(), repeated()))
    torch.testing.assert_close(found.attributions, expected.attributions)
    torch.testing.assert_close(found.base_scores, expected.base_scores)
    if expected.completeness_gap is not None:
        torch.testing.assert_close(found.completeness_gap, expected.completeness_gap, atol=1e-12, rtol=0)
    again = method.attribute(X, 1, baselines=weighted(torch.tensor([0.5, 1.5, 1.0])))  # only ratios matter
    torch.testing.assert_close(again, found.attributions)
    assert not torch.allclose(found.attributions, method.attribute(X, 1, baselines=tw.Distribution(ROWS)))


@pytest.mark.parametrize("name", ["ExpectedGradients", "GradientSHAP"])
def test_methods_that_draw_draw_by_weight(net, name):
    settings = {"stdevs": 0.0} if name == "GradientSHAP" else {}
    method = getattr(tw, name)(net, n_samples=20_000, generator=0, **settings)
    found, expected = method.attribute(X, 1, baselines=weighted()), method.attribute(X, 1, baselines=repeated())
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0.02)
    assert (found - method.attribute(X, 1, baselines=tw.Distribution(ROWS))).abs().max() > 0.05
    alone = method.attribute(X, 1, baselines=weighted([0, 1, 0]))
    torch.testing.assert_close(alone, method.attribute(X, 1, baselines=ROWS[1:2]), atol=0.02, rtol=0.02)


def test_weights_of_linear_models():
    linear = nn.Linear(3, 2).double()
    found = tw.LinearSHAP(linear).attribute(X, 1, baselines=weighted())
    torch.testing.assert_close(found, tw.LinearSHAP(linear).attribute(X, 1, baselines=repeated()))


def test_weights_of_several_inputs(net):
    model = lambda a, b: net(torch.cat([a, b], 1))  # noqa: E731
    x = X[:, :1], X[:, 1:]
    both = tw.Distribution(ROWS[:, :1], weights=COUNTS), tw.Distribution(ROWS[:, 1:], weights=COUNTS)
    expected = tw.ExactShapley(net).attribute(X, 1, baselines=repeated())
    for given in (both, (both[0], tw.Distribution(ROWS[:, 1:]))):
        found = tw.ExactShapley(model).attribute(x, 1, baselines=given)
        torch.testing.assert_close(torch.cat(found, 1), expected)
    with pytest.raises(ValueError, match="taken together, so their weights must be the same"):
        tw.ExactShapley(model).attribute(x, 1, baselines=(both[0], tw.Distribution(ROWS[:, 1:], weights=[1, 1, 1])))


@pytest.mark.parametrize("weights", [[1, 2], [1, -1, 2], [0, 0, 0], [1, 2, float("nan")], [1, 2, float("inf")]])
def test_weights_that_do_not_fit(net, weights):
    with pytest.raises(ValueError, match="baselines: weights of shape"):
        tw.KernelSHAP(net).attribute(X, 1, baselines=weighted(weights))


def test_who_counts_all_rows_alike_says_so(net):
    for method in (tw.IntegratedGradients(net), tw.GuidedIG(net), tw.SmoothGrad(net, of=tw.ExpectedGradients(net))):
        with pytest.raises(TypeError, match="counts all rows alike; leave their weights out"):
            method.attribute(X, 1, baselines=weighted())
    with pytest.raises(TypeError, match="counts all rows alike"):
        tw.metrics.deletion(net, X, X, 1, baselines=weighted())


# ---- names


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"age": rng.normal(size=60), "job": rng.choice(["cook", "smith", "clerk"], 60)})
    frame["red"] = (rng.random(60) > 0.5).astype(float)
    frame["pay"] = rng.normal(size=60)
    answer = np.where((frame.age > 0) & (frame.job != "cook"), "yes", "no")
    columns = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["job"]), remainder="passthrough")
    return frame, make_pipeline(columns, RandomForestClassifier(10, random_state=0)).fit(frame, answer)


def test_groups_of_columns_by_name(table):
    frame, model = table
    expected = tw.OwenValues(model, groups=[0, 1, 0, 1], generator=0).attribute(frame[:2], "yes")
    for groups in (
        [["age", "red"], ["job", "pay"]],
        {"person": ["red", "age"], "work": ["job", "pay"]},
        {"person": [0, 2], "work": [1, 3]},
    ):
        found = tw.OwenValues(model, groups=groups, generator=0).explain(frame[:2], "yes")
        torch.testing.assert_close(found.attributions, expected)
        assert list(found.to_dataframe().columns) == ["age", "job", "red", "pay"]


def test_lists_of_numbers_or_names_stand_for_tensors(net):
    """Baselines and masks of one input, as a list or one in a list for each row."""
    ig, ablation = tw.IntegratedGradients(net), tw.FeatureAblation(net)
    for given in ([0.5, 1, -1.0], [[0.5, 1.0, -1.0], [2, 0, 1]]):
        expected = ig.attribute(X, 1, baselines=torch.tensor(given, dtype=torch.double))
        torch.testing.assert_close(ig.attribute(X, 1, baselines=given), expected, rtol=0, atol=0)
    expected = ablation.attribute(X, 1, feature_mask=torch.tensor([0, 0, 1]))
    for mask in ([0, 0, 1], [[0, 0, 1]], ["age", "age", "income"]):
        torch.testing.assert_close(ablation.attribute(X, 1, feature_mask=mask), expected, rtol=0, atol=0)


def test_groups_that_do_not_fit(table):
    frame, model = table
    for groups, message in (
        ([["age", "rad"], ["job", "pay"]], "groups: there is no column 'rad'; did you mean 'red'"),
        ([["age", "red"], ["job"]], "expected every feature"),
        ([["age", "age"], ["job", "pay"]], "expected every feature"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.OwenValues(model, groups=groups).attribute(frame[:2], "yes")
    with pytest.raises(ValueError, match="names are those of a data frame's columns"):
        tw.OwenValues(lambda z: z.sum(1), groups=[["age"], ["job"]]).attribute(torch.rand(2, 2))
    with pytest.raises(ValueError, match="expected for each feature"):
        tw.OwenValues(lambda z: z.sum(1), groups={"a": 1})


def test_masks_of_columns_by_name(table):
    frame, model = table
    for method in (tw.ExactShapley, tw.KernelSHAP, tw.FeatureAblation):
        found = method(model).explain(frame[:2], "yes", feature_mask={"person": ["red", "age"]})
        expected = method(model).attribute(frame[:2], "yes", feature_mask=torch.tensor([0, 1, 0, 2]))
        torch.testing.assert_close(found.attributions, expected)
        assert found.names == ["person", "job", "pay"]
        assert list(found.to_dataframe().columns) == found.names
    for groups, message in (({"a": ["rent"]}, "no column 'rent'"), ({"a": ["age"], "b": ["age"]}, "is in two groups")):
        with pytest.raises(ValueError, match=message):
            tw.KernelSHAP(model).attribute(frame[:2], "yes", feature_mask=groups)


@pytest.mark.usefixtures("few_steps_back")
def test_counterfactuals_keep_to_the_labels_of_a_column(table):
    frame, model = table
    rows = frame[model.predict(frame) == "no"][:4]
    found = tw.Counterfactual(model, bounds=None).generate(rows, "yes")
    assert found.found.all()
    assert set(found.counterfactuals.job) <= set(frame.job)
    assert (model.predict(found.counterfactuals) == "yes").all()
    only = tw.Counterfactual(model, bounds=None, changeable=["job"], n_steps=20).generate(rows, "yes")
    assert only.found.any()
    changed = rows.assign(job=only.counterfactuals.job)
    assert (model.predict(changed)[only.found.numpy()] == "yes").all()


@pytest.mark.parametrize("tool", [tw.PermutationImportance, tw.SAGE], ids=lambda t: t.__name__)
def test_importances_by_name(table, tool):
    frame, model = table
    answer = model.predict(frame)
    settings = {"n_samples": 8, "n_background": 8} if tool is tw.SAGE else {}
    each = tool(model, **settings).measure(frame, answer)
    assert each.to_dataframe().feature.tolist() == each.names == ["age", "job", "red", "pay"]
    found = tool(model, **settings).measure(frame, answer, feature_mask={"person": ["red", "age"]})
    by_number = tool(model, **settings).measure(frame, answer, feature_mask=torch.tensor([0, 1, 0, 2]))
    for field in ("mean", "each") if tool is tw.PermutationImportance else ("values", "standard_error"):
        torch.testing.assert_close(getattr(found, field), getattr(by_number, field))
    assert found.to_dataframe().feature.tolist() == ["person", "job", "pay"]
    drawn = {text.get_text() for text in found.plot().axes[0].get_yticklabels()}
    assert drawn == {"person", "job", "pay"}
    with pytest.raises(ValueError, match="feature_mask: no column 'rent'"):
        tool(model, **settings).measure(frame, answer, feature_mask={"a": ["rent"]})


def test_the_grid_of_a_column_of_labels_is_labels(table):
    frame, model = table
    labels = ["cook", "clerk"]
    by_hand = [model.predict_proba(frame.assign(job=label))[:, 1].mean() for label in labels]
    measure = tw.PartialDependence(model).measure
    for grid in (labels, np.array(labels), (labels,)):
        found = measure(frame, "yes", feature="job", grid=grid)
        assert found.values.tolist() == pytest.approx(by_hand)
        assert found.to_dataframe()["value"].tolist() == labels
    pair = measure(frame, "yes", feature=("red", "job"), grid=[[1.0], labels]).values
    assert pair[0].tolist() == pytest.approx(
        [model.predict_proba(frame.assign(job=label, red=1.0))[:, 1].mean() for label in labels]
    )
    for wrong in (["cook", "baker"], [7]):
        with pytest.raises(ValueError, match=r"grid: .* is none of the column's labels, 'clerk', 'cook', 'smith'"):
            measure(frame, "yes", feature="job", grid=wrong)


def test_labels_have_no_absence_of_their_own(table):
    frame, model = table
    with pytest.warns(UserWarning, match=r"column 'job' holds labels, .* the first of them, 'clerk'; give rows"):
        tw.FeatureAblation(model).attribute(frame[:9], "yes")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tw.FeatureAblation(model).attribute(frame[:9], "yes", baselines=frame[9:10])
        tw.FeaturePermutation(model).attribute(frame[:9], "yes")
        tw.PermutationImportance(model).measure(frame, model.predict(frame))


def test_types_of_pandas_that_hold_missing_values(table):
    frame, _ = table
    frame = frame.assign(red=frame.red.astype(int))
    score = lambda f: f.age.to_numpy() * 2 + f.red.to_numpy(dtype=float, na_value=5.0)  # noqa: E731
    expected = tw.FeatureAblation(score).attribute(frame[:4], baselines=frame[5:6])
    for kind in ("Int64", "UInt8", "boolean", "Float64"):
        seen = []
        f = lambda f: (seen.append(f.red.dtype), score(f))[1]  # noqa: B023, E731
        rows = frame.astype({"red": kind})
        found = tw.FeatureAblation(f).attribute(rows[:4], baselines=rows[5:6])
        torch.testing.assert_close(found, expected)
        assert kind == "Float64" or {str(d) for d in seen} == {kind}
        rows.loc[rows.index[1], "red"] = pandas.NA
        missing = tw.FeatureAblation(f).attribute(rows[:4], baselines=rows[5:6])
        assert missing[1, 2] == 5.0 - float(frame.red.iloc[5])
        torch.testing.assert_close(missing[[0, 2, 3]], expected[[0, 2, 3]])


def test_frames_that_do_not_fit(table):
    frame, model = table
    for rows in (frame[["age"]], frame[frame.columns[::-1]]):
        with pytest.raises(ValueError, match=r"baselines: the columns are .*, those of the inputs"):
            tw.KernelSHAP(model).attribute(frame[:2], "yes", baselines=tw.Distribution(rows))
    twice = pandas.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(ValueError, match="inputs: column 'a' twice"):
        tw.FeatureAblation(lambda f: f.to_numpy().sum(1)).attribute(twice)


def test_weights_are_a_series(table):
    frame, model = table
    sizes = np.arange(20) + 1.0
    found, expected = (
        tw.ExactShapley(model).attribute(frame[:1], "yes", baselines=tw.Distribution(frame[40:], weights=w))
        for w in (pandas.Series(sizes, index=frame.index[40:]), sizes.tolist())
    )
    torch.testing.assert_close(found, expected)
