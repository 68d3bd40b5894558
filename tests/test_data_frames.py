"""What is found of data frames speaks of their names, labels and types."""

import numpy as np
import pandas
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from torch import nn

import torchwhy as tw

RNG = np.random.default_rng(0)
FRAME = pandas.DataFrame(
    {
        "years": RNG.integers(0, 20, 300),
        "income": RNG.normal(10, 2, 300),
        "housing": RNG.choice(["own", "rent", "free"], 300),
        "married": RNG.choice([True, False], 300),
    },
    index=[f"customer {i}" for i in range(300)],
)


def fitted(y):
    pipeline = make_pipeline(
        ColumnTransformer([("labels", OneHotEncoder(), ["housing"])], remainder="passthrough"),
        LogisticRegression(max_iter=1000),
    )
    return pipeline.fit(FRAME, y)


def test_what_is_found_has_the_form_of_the_rows():
    model = fitted((FRAME.years + 3 * (FRAME.housing == "own") > 12).astype(int))
    rows = FRAME[model.predict(FRAME) == 0][:4]
    found = tw.Counterfactual(model, bounds=(FRAME.min(numeric_only=True), None), plausible=FRAME).generate(rows, 1)
    new = found.counterfactuals
    assert found.found.all()
    assert (model.predict(new) == 1).all()
    pandas.testing.assert_series_equal(new.dtypes, rows.dtypes)  # whole years stay whole
    assert new.index.tolist() == rows.index.tolist()
    assert set(new.housing) <= {"own", "rent", "free"}
    assert found.inputs is rows


def test_the_table_and_the_picture_name_what_changes():
    model = fitted((FRAME.housing == "own").astype(int))
    row = FRAME[FRAME.housing == "rent"][:1]
    found = tw.Counterfactual(model, changeable=["housing"], bounds=None, plausible=FRAME).generate(row, 1)
    assert found.counterfactuals.housing.tolist() == ["own"]
    assert found.to_dataframe().values.tolist() == [[0, "housing", "rent", "own", None]]
    drawn = [t.get_text() for t in found.plot().axes[0].texts]
    assert drawn[4:8] == ["housing", "rent", "own", ""]
    years = tw.Counterfactual(fitted((FRAME.years > 9).astype(int)), changeable=["years"], bounds=None)
    found = years.generate(FRAME[FRAME.years < 5][:2], 1)
    lines = found.to_dataframe()
    assert lines.feature.tolist() == ["years", "years"]
    assert (lines.before + lines.change == lines.after).all()
    assert (lines.after == lines.after.round()).all()


def test_labels_come_from_the_real_rows_or_the_type():
    model = fitted((FRAME.housing == "own").astype(int))
    row = FRAME[FRAME.housing == "rent"][:1]
    few = {"changeable": ["housing"], "bounds": None, "n_steps": 5}
    with pytest.warns(
        UserWarning, match="column 'housing' holds texts, and takes those of the given rows, 'rent', and no others"
    ):
        assert not tw.Counterfactual(model, **few).generate(row, 1).found.any()
    known = row.assign(housing=row.housing.astype(pandas.CategoricalDtype(["free", "own", "rent"])))
    found = tw.Counterfactual(model, **few).generate(known, 1)
    assert found.counterfactuals.housing.tolist() == ["own"]
    assert tw.Counterfactual(model, plausible=FRAME, **few).generate(row, 1).found.all()
    assert tw.Counterfactual(model, **{**few, "changeable": ["years"]}).generate(row, 1) is not None  # says nothing


def test_several_candidates_of_a_row_are_one_below_the_other():
    model = fitted((FRAME.years > 9).astype(int))
    rows = FRAME[FRAME.years < 5][:2]
    found = tw.Counterfactual(model, changeable=["years", "income"], bounds=None, n_diverse=3).generate(rows, 1)
    assert found.found.shape == (2, 3)
    assert found.counterfactuals.index.tolist() == [name for name in rows.index for _ in range(3)]
    nearest = found.distance.nan_to_num(torch.inf).argmin(1)
    lines = found.to_dataframe()
    for n in range(2):
        after = found.counterfactuals.iloc[3 * n + int(nearest[n])]
        (years,) = lines[(lines.row == n) & (lines.feature == "years")].after
        assert years == after.years


def test_bounds_are_series_by_name():
    model = fitted((FRAME.years > 9).astype(int))
    rows = FRAME[FRAME.years < 5][:2]
    low, high = FRAME.min(numeric_only=True), FRAME.max(numeric_only=True)
    high = high[::-1]  # the names count, not the order
    found = tw.Counterfactual(model, bounds=(low, high), changeable=["years", "income"]).generate(rows, 1)
    assert (found.counterfactuals.years <= FRAME.years.max()).all()
    high["years"] = 7
    assert (
        not tw.Counterfactual(model, bounds=(low, high), changeable=["years"], n_steps=20).generate(rows, 1).found.any()
    )


def test_a_network_gets_numbers_and_gives_a_frame():
    torch.manual_seed(0)
    frame = FRAME[["years", "income"]]
    net = nn.Linear(2, 2).double()
    rows = frame[:3]
    with torch.no_grad():
        wanted = 1 - net(torch.tensor(rows.to_numpy())).argmax(1)
    found = tw.Counterfactual(net, bounds=None, plausible=frame).generate(rows, wanted)
    assert list(found.counterfactuals.columns) == ["years", "income"]
    assert found.counterfactuals.years.dtype == frame.years.dtype
    after = net(torch.tensor(found.counterfactuals.to_numpy())).argmax(1)
    assert torch.equal(after[found.found], wanted[found.found])
    with pytest.raises(TypeError, match="plausible: a data frame, but the inputs are tensors"):
        tw.Counterfactual(net, bounds=None, plausible=frame).generate(torch.tensor(rows.to_numpy()), wanted)


def test_groups_are_called_by_their_labels():
    model = fitted((FRAME.housing == "own").astype(int))
    report = tw.BiasReport(model).measure(FRAME, 1, column="housing")
    assert report.names == ("free", "own", "rent")
    assert report.to_dataframe().group.tolist() == ["free", "own", "rent"]
    assert report.sizes == FRAME.housing.value_counts()[["free", "own", "rent"]].tolist()
    assert "own" in str(report)
    both = tw.BiasReport(model).measure(FRAME, 1, column=["housing", "married"])
    assert both.names[:2] == ("free, 0", "free, 1")
    hot = pandas.get_dummies(FRAME[["years", "housing"]], dtype=float)
    network = nn.Linear(4, 1).double()
    one_hot = tw.BiasReport(network).measure(hot, column=["housing_own", "housing_free", "housing_rent"])
    assert sorted(one_hot.names) == ["housing_free", "housing_own", "housing_rent"]
    for name, size in zip(one_hot.names, one_hot.sizes):
        assert size == hot[name].sum()
    assert tw.BiasReport(network).measure(hot, column="housing_own").names == ()


def test_a_waterfall_says_the_label(tmp_path):
    model = fitted((FRAME.housing == "own").astype(int))
    e = tw.KernelSHAP(model, n_samples=64, generator=0).explain(FRAME[:2], 1, baselines=tw.Distribution(FRAME[:30]))
    assert e.details["labels"] == {"housing": ["free", "own", "rent"]}
    e.save(tmp_path / "e.safetensors")
    for found in (e, e[0], tw.Explanation.load(tmp_path / "e.safetensors")):
        names = {t.get_text() for t in found.plot(kind="waterfall", row=0).axes[0].get_yticklabels()}
        assert f"housing = {FRAME.housing.iloc[0]}" in names
        assert f"years = {FRAME.years.iloc[0]}" in names
