"""What is found of data frames speaks of their names, labels and types."""

import importlib
from functools import cache

import numpy as np
import pandas
import pytest
import torch
from cases import in_turn
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


@cache
def owners():
    """A pipeline that asks only whether one owns."""
    return fitted((FRAME.housing == "own").astype(int))


@cache
def by_years_and_housing():
    return fitted((FRAME.years + 3 * (FRAME.housing == "own") > 12).astype(int))


@cache
def by_years():
    return fitted((FRAME.years > 9).astype(int))


@pytest.mark.usefixtures("few_steps_back")
def test_what_is_found_has_the_form_of_the_rows():
    model = by_years_and_housing()
    rows = FRAME[model.predict(FRAME) == 0][:4]
    found = tw.Counterfactual(model, bounds=(FRAME.min(numeric_only=True), None), plausible=FRAME).generate(rows, 1)
    new = found.counterfactuals
    assert found.found.all()
    assert (model.predict(new) == 1).all()
    pandas.testing.assert_series_equal(new.dtypes, rows.dtypes)  # whole years stay whole
    assert new.index.tolist() == rows.index.tolist()
    assert set(new.housing) <= {"own", "rent", "free"}
    assert found.inputs is rows


@pytest.mark.usefixtures("few_steps_back")
def test_the_table_and_the_picture_name_what_changes():
    model = owners()
    row = FRAME[FRAME.housing == "rent"][:1]
    found = tw.Counterfactual(model, changeable=["housing"], bounds=None, plausible=FRAME).generate(row, 1)
    assert found.counterfactuals.housing.tolist() == ["own"]
    assert found.to_dataframe().values.tolist() == [[0, "housing", "rent", "own", None]]
    drawn = [t.get_text() for t in found.plot().axes[0].texts]
    assert drawn[4:8] == ["housing", "rent", "own", ""]
    years = tw.Counterfactual(by_years(), changeable=["years"], bounds=None)
    found = years.generate(FRAME[FRAME.years < 5][:2], 1)
    lines = found.to_dataframe()
    assert lines.feature.tolist() == ["years", "years"]
    assert (lines.before + lines.change == lines.after).all()
    assert (lines.after == lines.after.round()).all()


@pytest.mark.usefixtures("few_steps_back")
def test_labels_come_from_the_real_rows_or_the_type():
    model = owners()
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


@pytest.mark.usefixtures("few_steps_back")
def test_several_candidates_of_a_row_are_one_below_the_other():
    model = by_years()
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


@pytest.mark.usefixtures("few_steps_back")
def test_bounds_are_series_by_name():
    model = by_years()
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
    found = tw.Counterfactual(net, bounds=None, plausible=frame, step_size=0.3).generate(rows, wanted)
    assert list(found.counterfactuals.columns) == ["years", "income"]
    assert found.counterfactuals.years.dtype == frame.years.dtype
    after = net(torch.tensor(found.counterfactuals.to_numpy())).argmax(1)
    assert found.found.any()
    assert torch.equal(after[found.found], wanted[found.found])
    with pytest.raises(TypeError, match="plausible: a data frame, but the inputs are tensors"):
        tw.Counterfactual(net, bounds=None, plausible=frame).generate(torch.tensor(rows.to_numpy()), wanted)


def test_groups_are_called_by_their_labels():
    model = owners()
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
    model = owners()
    e = tw.KernelSHAP(model, n_samples=64, generator=0).explain(FRAME[:2], 1, baselines=tw.Distribution(FRAME[:5]))
    assert e.details["labels"] == {"housing": ["free", "own", "rent"]}
    e.save(tmp_path / "e.safetensors")
    for found in (e, e[0], tw.Explanation.load(tmp_path / "e.safetensors")):
        names = {t.get_text() for t in found.plot(kind="waterfall", row=0).axes[0].get_yticklabels()}
        assert f"housing = {FRAME.housing.iloc[0]}" in names
        assert f"years = {FRAME.years.iloc[0]}" in names


@pytest.fixture(scope="module")
def explained():
    """Twelve rows of labels, numbers and values that are missing."""
    rows = FRAME[:12].copy()
    rows["income"] = rows.income.where(np.arange(12) % 5 != 0)
    rows["housing"] = rows.housing.where(np.arange(12) % 4 != 3)

    def worth(z):
        return (z.income.fillna(9) + 2 * (z.housing == "own") - 0.1 * z.years).to_numpy()

    return rows, tw.ExactShapley(worth).explain(rows, baselines=FRAME[:1])


def names_along(axis):
    return [t.get_text() for t in axis.get_ticklabels()]


def test_a_dependence_plot_has_a_place_for_each_label(explained):
    rows, e = explained
    values = e.attributions[:, 2]
    ax = e.plot(kind="scatter", feature="housing", color="married").axes[0]
    labels = ["missing", "free", "own", "rent"]
    assert names_along(ax.xaxis) == labels
    at = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(at[:, 1], values, atol=1e-6)
    places = dict(zip(ax.get_xticks(), labels))
    shown = [places[x] for x in at[:, 0].round()]
    assert shown == rows.housing.fillna("missing").tolist()
    assert (np.abs(at[:, 0] - at[:, 0].round()) <= 0.4).all()
    assert len({tuple(point) for point in at.round(6)}) == len(rows)  # no point hides another


def test_colours_of_labels_go_from_the_first_to_the_last(explained):
    from matplotlib import colormaps

    rows, e = explained
    ax, bar = e.plot(kind="scatter", feature="years", color="housing").axes
    assert names_along(bar.yaxis) == ["free", "own", "rent"]
    assert bar.get_yticks().tolist() == [0, 1, 2]
    shades = {"free": colormaps["viridis"](0.0), "own": colormaps["viridis"](0.5), "rent": colormaps["viridis"](1.0)}
    for label, shade in zip(rows.housing, ax.collections[0].get_facecolors()):
        wanted = shades.get(label, (0xA8 / 255,) * 3)  # grey where there is none
        np.testing.assert_allclose(shade[:3], wanted[:3], atol=0.02)


def test_numbers_that_are_missing_stand_by_themselves(explained):
    rows, e = explained
    ax = e.plot(kind="scatter", feature="income", color=None).axes[0]
    x = np.asarray(ax.collections[0].get_offsets())[:, 0]
    missing = rows.income.isna().to_numpy()
    np.testing.assert_allclose(x[~missing], rows.income[~missing])
    assert (x[missing] < x[~missing].min()).all()
    assert [t.get_text() for t in ax.texts] == ["missing"]
    for kind in ("beeswarm", "importance", "decision", "heatmap", "waterfall"):
        assert e.plot(kind=kind).axes
    names = names_along(e.plot(kind="waterfall", row=0).axes[0].yaxis)
    assert "income = missing" in names
    assert "housing = missing" in names_along(e.plot(kind="waterfall", row=3).axes[0].yaxis)


def test_a_swarm_names_its_labels_in_the_order_of_their_colours(explained):
    rows, e = explained
    ax = e.plot(kind="beeswarm").axes[0]
    lines = names_along(ax.yaxis)
    assert "housing: free, own, rent" in lines
    assert "years" in lines
    swarm = ax.collections[lines.index("housing: free, own, rent")]
    shade = dict(zip(rows.housing.fillna("missing"), map(tuple, swarm.get_facecolors()[:, :3])))
    assert len(set(shade.values())) == 4
    brightness = {label: sum(rgb) for label, rgb in shade.items()}
    assert brightness["free"] < brightness["own"] < brightness["rent"]
    np.testing.assert_allclose(np.asarray(swarm.get_offsets())[:, 0], e.attributions[:, 2], atol=1e-6)
    many = tw.visualize.beeswarm([[1.0], [2.0]], [[0.0], [5.0]], ["job"], labels={0: list("abcdef")}).axes[0]
    assert names_along(many.yaxis) == ["job: a … f (6)"]


def test_a_long_table_says_the_label(explained, tmp_path):
    rows, e = explained
    lines = e.to_dataframe(long=True)
    found = lines[lines.feature == "housing"].value.tolist()
    assert [f if isinstance(f, str) else "none" for f in found] == rows.housing.fillna("none").tolist()
    e.to_csv(tmp_path / "e.csv", long=True)
    assert pandas.read_csv(tmp_path / "e.csv").value.tolist()[2] == rows.housing.iloc[0]


def test_a_tree_asks_for_labels():
    frame = FRAME.assign(job=RNG.choice(["cook", "nurse", "pilot", "tailor"], 300))[["job", "housing", "years"]]

    def answer(z):  # of jobs, the second and the third
        good = z.job.isin(["nurse", "pilot"]) & (z.housing != "rent")
        return np.stack([1.0 - good, good], 1).astype(float)

    tree = tw.SurrogateTree(answer, max_depth=3).fit(frame)
    assert tree.fidelity == 1
    rules = tree.text()
    assert "<= 1.5" not in rules
    assert "housing: free, own" in rules
    assert "housing: rent" in rules
    drawn = "\n".join(t.get_text() for t in tree.plot().axes[0].texts)
    assert "job <=" not in drawn
    assert "housing: free, own" in drawn
    assert "node #" not in drawn
    assert "node #0\n" in "\n".join(t.get_text() for t in tree.plot(node_ids=True).axes[0].texts)
    table = tree.to_dataframe()
    assert set(table.feature.dropna()) == {"job", "housing"}
    assert table["at most"][table.feature == "housing"].tolist() == ["free, own"]

    def follow(row):
        """Read the drawn rules for a row: a line whose labels do not hold it leads past all that is deeper."""
        lines, depth = rules.split("\n"), 0
        for line in lines:
            bars, said = line.split("|--- ") if "|--- " in line else ("", "")
            if bars.count("|") != depth or not said:
                continue
            if said.startswith("class: "):
                return int(said.removeprefix("class: "))
            name, labels = said.split(": ")
            if row[name] in labels.split(", "):
                depth += 1
        raise AssertionError(rules)

    for _, row in frame[:40].iterrows():
        assert follow(row) == answer(frame[:1].assign(**row))[0].argmax()
    assert "job: nurse, pilot" in rules  # of those that come to the question, not "cook" too


def test_a_tree_of_named_classes_has_a_table():
    model = fitted((FRAME.housing == "own").map({True: "yes", False: "no"}))
    tree = tw.SurrogateTree(model, max_depth=1).fit(FRAME)
    assert set(tree.to_dataframe().answer) <= {"yes", "no"}
    assert "<table>" in tree._repr_html_()


def test_effects_of_labels_are_told_by_them():
    model = owners()
    found = tw.PartialDependence(model).measure(FRAME, 1, feature="housing")
    ax = found.plot().axes[0]
    assert (ax.get_xlabel(), names_along(ax.xaxis)) == ("housing", ["free", "own", "rent"])
    assert ax.get_xticks().tolist() == ax.lines[-1].get_xdata().tolist() == [0, 1, 2]
    assert found.to_dataframe().value.tolist() == ["free", "own", "rent"]
    both = tw.PartialDependence(model, grid_resolution=4).measure(FRAME, 1, feature=["years", "housing"])
    ax = both.plot().axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel(), names_along(ax.yaxis)) == ("years", "housing", ["free", "own", "rent"])
    assert both.to_dataframe()["second value"].tolist()[:3] == ["free", "own", "rent"]
    hot = pandas.get_dummies(FRAME[["years", "housing"]], dtype=float)
    found = tw.PartialDependence(nn.Linear(4, 1).double()).measure(
        hot, feature=[["housing_free", "housing_own", "housing_rent"]]
    )
    ax = found.plot().axes[0]
    assert (ax.get_xlabel(), names_along(ax.xaxis)) == ("housing", ["housing_free", "housing_own", "housing_rent"])
    pair = tw.AccumulatedLocalEffects(model).measure(FRAME, 1, feature=("housing", "years"))
    assert pair.labels[1] is None
    assert set(pair.to_dataframe()["first value"]) <= set(FRAME["housing"])
    assert names_along(pair.plot().axes[0].xaxis) == ["free", "own", "rent"]
    local = tw.AccumulatedLocalEffects(model).measure(FRAME, 1, feature="housing")
    assert names_along(local.plot().axes[0].xaxis) == ["free", "own", "rent"]
    assert local.to_dataframe().value.tolist() == ["free", "own", "rent"]


def cut_in_two():
    """Explanations of two frames, in whose texts the same label has another number."""
    parts = [pandas.DataFrame({"a": [1.0, 2.0], "b": b}) for b in (["own", "rent"], ["free", "own"])]
    method = tw.FeatureAblation(lambda z: (z.a + 2 * (z.b == "own")).to_numpy())
    return [method.explain(part, baselines=part[:1]) for part in parts]


def test_joined_rows_keep_their_labels():
    e = tw.concat(cut_in_two())
    table = e.to_dataframe(long=True)
    assert table[table.feature == "b"].value.tolist() == ["own", "rent", "free", "own"]
    for row, label in enumerate(["own", "rent", "free", "own"]):
        names = names_along(e.plot(kind="waterfall", row=row).axes[0].yaxis)
        assert f"b = {label}" in names
    assert e.details["labels"] == {"b": ["free", "own", "rent"]}
    again = tw.concat([e[:1], e[1:]])
    assert again.inputs.equal(e.inputs)


def test_a_summary_keeps_labels():
    found = tw.summarize(iter(cut_in_two()))
    ax = found.plot("dependence", feature="b").axes[0]
    at = np.asarray(ax.collections[0].get_offsets())
    places = dict(zip(ax.get_xticks(), names_along(ax.xaxis)))
    values = dict(zip([places[x] for x in at[:, 0].round()], at[:, 1]))
    assert values == pytest.approx({"own": 2.0, "rent": -2.0, "free": 0.0}) or set(values) == {"own", "rent", "free"}
    assert "b: own, rent, free" in names_along(found.plot("beeswarm").axes[0].yaxis)
    cohorts = tw.summarize(tw.concat(cut_in_two()), cohorts=["x", "x", "y", "y"])
    assert names_along(cohorts.plot("dependence", feature="b").axes[0].xaxis) == ["free", "own", "rent"]
    assert len(cohorts.plot("beeswarm").axes[0].get_yticklabels()) == 2


def by_arrays(model):
    """A pipeline of the frame as a function of arrays of its numbers, labels by their numbers, as the library tells them."""
    labels = sorted(set(FRAME.housing[:4]))

    def scores(a):
        columns = {"years": a[:, 0], "income": a[:, 1], "housing": [labels[round(i)] for i in a[:, 2]]}
        return model.predict_proba(pandas.DataFrame(columns | {"married": a[:, 3] == 1}))

    rows = FRAME[:4].assign(housing=FRAME.housing[:4].map(labels.index)).astype(float)
    return tw.NumPyModel(scores), torch.tensor(rows.to_numpy())


AROUND = {
    "sensitivity_max": lambda of, x, **o: tw.metrics.sensitivity_max(of, x, 1, radius=0.8, **o),
    "sensitivity_avg": lambda of, x, **o: tw.metrics.sensitivity_avg(of, x, 1, radius=0.8, **o),
    "local_lipschitz": lambda of, x, **o: tw.metrics.local_lipschitz(of, x, 1, radius=0.8, **o),
    "explanation_attack": lambda of, x, **o: tw.metrics.explanation_attack(of, x, 1, radius=0.8, steps=2, **o),
    "infidelity": lambda of, x: tw.metrics.infidelity(of.model, x, of.attribute(x, 1), 1, stdev=2),
    "SmoothGrad": lambda of, x: tw.SmoothGrad(of.model, of=of, stdevs=2.0, generator=0).attribute(x, 1),
    "Processed": lambda of, x: tw.Processed(of.model, of=of, after=torch.abs).attribute(x, 1),
    "each": lambda of, x: tw.SmoothGrad(of.model, of=of, stdevs=2.0, generator=0).attribute_each(x, [0, 1])[1],
    "nested": lambda of, x: tw.Processed(of.model, of=tw.VarGrad(of.model, of=of, generator=0)).attribute(x, 1),
}


@pytest.mark.filterwarnings("ignore:baselines. column")
@pytest.mark.parametrize("ask, method", in_turn(AROUND, [tw.FeatureAblation, tw.KernelSHAP, tw.Occlusion], 1))
def test_what_asks_a_method_again_keeps_names_and_labels(ask, method, monkeypatch):
    """Rows that are moved a little reach a pipeline by name; the numbers move, labels and true and false stay."""
    pipeline = by_years_and_housing()
    rows, seen = FRAME[:4], []
    predict = pipeline.predict_proba
    monkeypatch.setattr(pipeline, "predict_proba", lambda frame: (seen.append(frame), predict(frame))[1])
    options = {"sliding_window_shapes": 1} if method is tw.Occlusion else {}
    found = AROUND[ask](method(pipeline, **options), rows)
    assert all(list(frame.columns) == list(FRAME.columns) for frame in seen)
    together = pandas.concat(seen)
    assert set(together.housing) <= {"own", "rent", "free"}
    assert set(together.married) <= {True, False}
    arrays, x = by_arrays(pipeline)
    for name in ("metrics.reexplain", "metrics.agreement", "gradient.noisy_points"):
        module = importlib.import_module(f"torchwhy.{name}")
        monkeypatch.setattr(module, "movable_columns", lambda problem: torch.tensor([1.0, 1.0, 0.0, 0.0]))
    torch.testing.assert_close(found, AROUND[ask](method(arrays, **options), x))


@pytest.mark.filterwarnings("ignore:baselines. column")
def test_a_frame_of_labels_alone_cannot_be_moved_a_little():
    frame = FRAME[["housing", "married"]]
    model = make_pipeline(OneHotEncoder(), LogisticRegression()).fit(frame, FRAME.housing == "own")
    of = tw.FeatureAblation(model)
    for name in ("sensitivity_max", "explanation_attack", "infidelity", "SmoothGrad"):
        with pytest.raises(
            TypeError, match="inputs: every column holds labels, or true and false, which cannot be moved"
        ):
            AROUND[name](of, frame[:3])
    tw.Processed(model, of=of).attribute(frame[:3], 1)


def test_a_number_that_is_no_label_is_refused():
    model = owners()
    for number in (-1.0, 3.0, 7.0):
        baselines = torch.tensor([[0.0, 0.0, number, 0.0]])
        with pytest.raises(ValueError, match=f"column 'housing' holds labels, and none has the number {int(number)};"):
            tw.FeatureAblation(model).attribute(FRAME[:3], 1, baselines=baselines)
