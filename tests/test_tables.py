"""Tables in every form: types that cannot hold a value, labels, regressions, missing values, data frames, several tensors."""

import numpy as np
import pytest
import torch
from cases import in_turn
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

import torchwhy as tw


def total(z):
    return z.double().sum(1)


# ---- what a type cannot hold

X = torch.tensor([[3, 5, 7]])
WITH_BASELINES = ["FeatureAblation", "KernelSHAP", "ExactShapley", "ShapleySampling", "Banzhaf", "LIME", "LinearSHAP"]


@pytest.mark.parametrize("method", WITH_BASELINES)
@pytest.mark.parametrize(
    ("kind", "baselines", "first"),
    [
        (torch.int64, 0.9, "0.9"),
        (torch.int64, torch.tensor([[3.0, 2.7, 1.0]]), "2.7"),
        (torch.int64, tw.Distribution(torch.tensor([[1.0, 1.0, 0.5]])), "0.5"),
        (torch.int64, tw.Constant(0.25), "0.25"),
        (torch.uint8, -1, "-1"),
        (torch.uint8, 300, "300"),
        (torch.bool, 0.5, "0.5"),
        (torch.int64, tw.Distribution(torch.full((1, 3), torch.nan)), "nan"),
        (torch.half, 1e6, "1e"),
    ],
)
def test_baselines_that_the_inputs_cannot_hold_are_refused(method, kind, baselines, first):
    with pytest.raises(ValueError, match=f"^baselines: {first}.* is no {str(kind).removeprefix('torch.')}"):
        getattr(tw, method)(total).attribute(X.to(kind), baselines=baselines)


@pytest.mark.parametrize("method", WITH_BASELINES[:5])
@pytest.mark.parametrize("kind", [torch.int64, torch.uint8, torch.int16])
def test_baselines_that_they_hold_are_taken(method, kind):
    for b in (2.0, torch.tensor([[2.0, 2.0, 2.0]]), tw.Distribution(torch.full((2, 3), 2.0)), tw.Constant(2)):
        found = getattr(tw, method)(total).attribute(X.to(kind), baselines=b)
        torch.testing.assert_close(found.double(), X.double() - 2)


def test_grids_and_metrics_and_layers_refuse_likewise():
    with pytest.raises(ValueError, match=r"^grid: 0.5 is no int64"):
        tw.PartialDependence(total).measure(torch.arange(10)[:, None], feature=0, grid=[0.5, 1.7])
    with pytest.raises(ValueError, match=r"^grid: .* is no int64"):
        tw.PartialDependence(total, grid_resolution=4).measure(torch.arange(100)[:, None], feature=0)
    with pytest.raises(ValueError, match=r"^baselines: 0.9 is no int64"):
        tw.metrics.deletion(total, X, X.double(), steps=3, baselines=0.9)
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(ValueError, match=r"^baselines: 1.5 is no int64"):
        tw.IntegratedGradients(net, layer="0").attribute(X, 1, baselines=1.5)
    found = tw.PartialDependence(total).measure(torch.arange(10)[:, None], feature=0, grid=np.float32([2, 7]))
    assert found.values.tolist() == [2, 7]


@pytest.mark.parametrize("dtype", [torch.half, torch.bfloat16])
def test_a_table_in_half_precision(dtype):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).eval()
    x = torch.rand(60, 3)
    whole = tw.PartialDependence(net, grid_resolution=4).measure(x, 1, feature=0).values
    half = tw.PartialDependence(net.to(dtype), grid_resolution=4).measure(x.to(dtype), 1, feature=0).values
    torch.testing.assert_close(half.float(), whole, rtol=0.05, atol=0.05)
    assert 0 <= tw.SurrogateTree(net).fit(x.to(dtype)).fidelity <= 1
    assert tw.SurrogateTree(net).fit(x.to(dtype), 1).fidelity == pytest.approx(
        tw.SurrogateTree(net.float()).fit(x, 1).fidelity, abs=0.2
    )


# ---- labels


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    return x, (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int)


LABELS = {"1, 2": [1, 2], "-1, 1": [-1, 1], "10, 20": [10, 20], "words": ["no", "yes"], "bools": [False, True]}


CLASSIFIERS = {"logistic": LogisticRegression(), "forest": RandomForestClassifier(10, random_state=0)}


@pytest.mark.parametrize("kind, name", in_turn(CLASSIFIERS, LABELS, 3))
def test_permutation_importance_does_not_depend_on_what_classes_are_called(rows, kind, name):
    model, (x, y) = CLASSIFIERS[kind], rows
    plain = tw.PermutationImportance(model.fit(x, y)).measure(torch.tensor(x), torch.tensor(y))
    named = np.array(LABELS[name])[y]
    found = tw.PermutationImportance(model.fit(x, named)).measure(torch.tensor(x), named)
    assert found.score == pytest.approx(model.score(x, named))
    torch.testing.assert_close(found.each, plain.each)
    expected = permutation_importance(model, x, named, n_repeats=30, random_state=0).importances_mean
    assert np.abs(found.mean.numpy() - expected).max() < 0.06
    with pytest.raises(ValueError, match=r"labels: 'other' in row 3; the model's classes are"):
        tw.PermutationImportance(model).measure(torch.tensor(x), [*named[:3].tolist(), "other", *named[4:].tolist()])


@pytest.mark.parametrize("name", ["1, 2", "-1, 1", "words"])
def test_the_target_of_a_classifier_is_a_label(rows, name):
    x, y = rows
    low, high = LABELS[name]
    model = RandomForestClassifier(10, random_state=0).fit(x, np.array([low, high])[y])
    z = torch.tensor(x[:3])
    proba = lambda z: model.predict_proba(z)  # noqa: E731 (by number)
    for k, label in enumerate((low, high)):
        expected = tw.FeatureAblation(proba).attribute(z, k)
        torch.testing.assert_close(tw.FeatureAblation(model).attribute(z, label), expected)
        torch.testing.assert_close(tw.FeatureAblation(model.predict_proba).attribute(z, [label] * 3), expected)
        torch.testing.assert_close(tw.FeatureAblation(model).attribute(z, np.array([label] * 3)), expected)
        again = tw.metrics.sensitivity_max(tw.FeatureAblation(model), z, label, n_samples=2)
        torch.testing.assert_close(again, tw.metrics.sensitivity_max(tw.FeatureAblation(proba), z, k, n_samples=2))
    with pytest.raises(ValueError, match=r"^target=0: the model's classes are"):
        tw.FeatureAblation(model).attribute(z, 0)
    assert tw.FeatureAblation(model).attribute(z, "predicted").shape == (3, 3)


def test_labels_that_no_output_has_are_refused(rows):
    x, y = torch.tensor(rows[0]), torch.tensor(rows[1])
    net = nn.Linear(3, 2).double()
    for analysis in (tw.PermutationImportance(net), tw.GradientImportance(net)):
        with pytest.raises(ValueError, match=r"labels: 6 in row 0, but the outputs \(\d+, 2\) have the classes 0 to 1"):
            analysis.measure(x, y * 0 + 6)
        with pytest.raises(ValueError, match="labels: -1 in row 0"):
            analysis.measure(x, y * 0 - 1)
        with pytest.raises(ValueError, match=r"labels: .*'a' and others that are no numbers"):
            analysis.measure(x, np.array(["a"] * 200))


def test_a_tree_learns_the_labels(rows):
    x, y = rows
    model = LogisticRegression().fit(x, np.array(["no", "yes"])[y])
    tree = tw.SurrogateTree(model).fit(torch.tensor(x))
    assert "class: yes" in tree.text()
    assert set(tree.tree.classes_) == {"no", "yes"}
    plain = tw.SurrogateTree(LogisticRegression().fit(x, y)).fit(torch.tensor(x))
    assert tree.fidelity == plain.fidelity > 0.6


# ---- regressions


def test_regressions_of_several_outputs():
    x = np.random.default_rng(0).normal(size=(400, 3))
    y = np.stack([x[:, 0], 100 * x[:, 1]], 1)
    model = LinearRegression().fit(x, y)
    found = tw.PermutationImportance(model).measure(torch.tensor(x), torch.tensor(y))
    expected = permutation_importance(model, x, y, n_repeats=30, random_state=0).importances_mean
    assert (
        np.abs(found.mean.numpy() - expected).max() < 0.1
    )  # not (0, 2, 0): the mean over outputs, whatever their units
    assert found.score == pytest.approx(1)
    model = LinearRegression().fit(x, np.stack([3 * x[:, 0] + 5, 100 * x[:, 1]], 1))
    student = tw.SurrogateNetwork(model, network=nn.Linear(3, 2).double(), n_epochs=120, learning_rate=0.3).fit(
        torch.tensor(x)
    )
    off = student.student(torch.tensor(x)).detach().numpy() - model.predict(x)
    r2 = 1 - (off**2).sum(0) / ((model.predict(x) - model.predict(x).mean(0)) ** 2).sum(0)
    assert r2.min() > 0.98
    assert student.fidelity == pytest.approx(r2.mean(), abs=0.01)
    tree = tw.SurrogateTree(model, max_depth=6).fit(torch.tensor(x))
    assert type(tree.tree).__name__ == "DecisionTreeRegressor"
    assert tree.tree.predict(x).shape == (400, 2)
    assert 0.7 < tree.fidelity < 1


def test_the_task_can_be_said():
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    net = nn.Linear(3, 2)
    assert type(tw.SurrogateTree(net).fit(x).tree).__name__ == "DecisionTreeClassifier"
    assert type(tw.SurrogateTree(net, task="regression").fit(x).tree).__name__ == "DecisionTreeRegressor"
    student = tw.SurrogateNetwork(net, network=nn.Linear(3, 2), task="regression", n_epochs=60, learning_rate=0.1).fit(
        x
    )
    torch.testing.assert_close(
        student.student(x), net(x), atol=0.1, rtol=0.1
    )  # logits are the same up to a shift otherwise
    with pytest.raises(ValueError, match="task='rank'"):
        tw.SurrogateTree(net, task="rank")


# ---- missing values


@pytest.fixture(scope="module")
def gaps():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    x[rng.random(x.shape) < 0.2] = np.nan
    return HistGradientBoostingClassifier(max_iter=20).fit(x, y), torch.tensor(x), torch.tensor(y)


@pytest.mark.parametrize(
    "method", ["FeatureAblation", "KernelSHAP", "ExactShapley", "LIME", "Occlusion", "FeaturePermutation"]
)
def test_rows_with_gaps_are_explained_for_models_that_take_them(gaps, method):
    model, x, _ = gaps
    settings = {"Occlusion": {"sliding_window_shapes": (1,)}, "LIME": {"generator": 0}}.get(method, {})
    explain = getattr(tw, method)(model, **settings)
    background = {} if method == "FeaturePermutation" else {"baselines": tw.Distribution(x[10:20])}
    found = explain.attribute(x[:3], 1, **background)
    assert found.isfinite().all()
    if method in ("KernelSHAP", "ExactShapley"):
        proba = lambda z: torch.tensor(model.predict_proba(z.numpy())[:, 1])  # noqa: E731
        torch.testing.assert_close(found.sum(1), proba(x[:3]) - proba(x[10:20]).mean())


def test_absence_can_be_a_missing_value(gaps):
    model, x, _ = gaps
    row = x[~x.isnan().any(1)][:1]
    by_hand = []
    for j in range(4):
        z = row.clone()
        z[0, j] = torch.nan
        by_hand.append(model.predict_proba(row.numpy())[0, 1] - model.predict_proba(z.numpy())[0, 1])
    for absent in (float("nan"), torch.full((4,), torch.nan), tw.Distribution(torch.full((1, 4), torch.nan))):
        found = tw.FeatureAblation(model).attribute(row, 1, baselines=absent)
        torch.testing.assert_close(found, torch.tensor([by_hand]))


def test_tables_with_gaps(gaps):
    model, x, y = gaps
    found = tw.PermutationImportance(model).measure(x, y)
    expected = permutation_importance(model, x.numpy(), y.numpy(), n_repeats=30, random_state=0).importances_mean
    assert np.abs(found.mean.numpy() - expected).max() < 0.04
    dependence = tw.PartialDependence(model, grid_resolution=7).measure(x, 1, feature=0)
    assert dependence.grid[0].isfinite().all()
    assert tw.SurrogateTree(model).fit(x).fidelity > 0.6


def test_models_that_do_not_take_gaps_are_not_given_them(gaps):
    _, x, y = gaps
    row = int(x.isnan().any(1).nonzero()[0])
    logistic = LogisticRegression().fit(x.nan_to_num().numpy(), y.numpy())
    for model in (nn.Linear(4, 2).double(), logistic, lambda z: z.sum(1)):
        target = None if callable(model) and not isinstance(model, nn.Module) else 1
        with pytest.raises(ValueError, match=f"^inputs: row {row} holds NaN or infinite values"):
            tw.FeatureAblation(model).attribute(x, target)
        with pytest.raises(ValueError, match=r"^baselines: NaN or infinite values"):
            tw.KernelSHAP(model).attribute(x[:1].nan_to_num(), target, baselines=float("nan"))
    with pytest.raises(ValueError, match=f"^inputs: row {row} holds NaN or infinite values"):
        tw.Saliency(lambda z: z.nan_to_num().sum(1)).attribute(x)


# ---- arrays, data frames, several tensors


def test_arrays_are_tensors(rows):
    x, y = rows
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    torch.testing.assert_close(
        tw.FeatureAblation(model).attribute(x[:3], 1), tw.FeatureAblation(model).attribute(torch.tensor(x[:3]), 1)
    )
    net = nn.Linear(3, 2)  # float32: so are its inputs
    found = tw.IntegratedGradients(net).explain(x[:3], 1, baselines=x[3:4])
    assert found.attributions.dtype == torch.float32
    torch.testing.assert_close(found.attributions, net.weight[1].detach() * torch.tensor(x[:3] - x[3:4]).float())
    assert isinstance(found.inputs, torch.Tensor)
    assert tw.PermutationImportance(model).measure(x, y).mean.shape == (3,)
    both = tw.FeatureAblation(lambda a, b: a.sum(1) + b.sum(1)).attribute((x[:3], x[:3]))
    torch.testing.assert_close(both, (torch.tensor(x[:3]),) * 2)


@pytest.fixture(scope="module")
def credit():
    pandas = pytest.importorskip("pandas")
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "income": rng.normal(3, 1, 200),
            "job": rng.choice(["clerk", "cook", "none"], 200),
            "children": rng.integers(0, 4, 200),
        }
    )
    label = np.where(frame["income"] + 2.0 * (frame["job"] == "cook") - 0.5 * frame["children"] > 3, "good", "bad")
    encode = ColumnTransformer([("job", OneHotEncoder(), ["job"])], remainder="passthrough")
    return make_pipeline(encode, LogisticRegression()).fit(frame, label), frame, label


def test_a_pipeline_by_column_names_is_explained(credit):
    model, frame, label = credit
    found = tw.KernelSHAP(model).explain(frame[:4], "good", baselines=tw.Distribution(frame[50:60]))
    change = model.predict_proba(frame[:4])[:, 1] - model.predict_proba(frame[50:60])[:, 1].mean()
    torch.testing.assert_close(found.attributions.sum(1), torch.tensor(change))
    assert list(found.names) == ["income", "job", "children"]
    assert list(found.to_dataframe().columns)[-3:] == ["income", "job", "children"] or "income" in found.to_dataframe()
    cook = tw.FeatureAblation(model).attribute(frame[:4], "good", baselines=frame[9:10])[:, 1]
    changed = frame[:4].copy()
    changed["job"] = frame["job"].iloc[9]
    expected = model.predict_proba(frame[:4])[:, 1] - model.predict_proba(changed)[:, 1]
    torch.testing.assert_close(cook, torch.tensor(expected))
    importance = tw.PermutationImportance(model, n_repeats=10).measure(frame, label)
    assert importance.names == ["income", "job", "children"]
    sklearn = permutation_importance(model, frame, label, n_repeats=10, random_state=0).importances_mean
    assert np.abs(importance.mean.numpy() - sklearn).max() < 0.05
    dependence = tw.PartialDependence(model).measure(frame, "good", feature="children")
    expected = partial_dependence(
        model, frame.astype({"children": float}), ["children"], kind="average", method="brute"
    )
    assert np.allclose(dependence.values, expected["average"][0])
    assert "income" in tw.SurrogateTree(model).fit(frame).text()
    report = tw.BiasReport(model).measure(frame, "good", column="job", labels=label)
    assert len(report.sizes) == 3
    with pytest.raises(ValueError, match="pilot"):
        tw.KernelSHAP(model).attribute(frame[:4], "good", baselines=frame[:1].assign(job="pilot"))
    with pytest.raises(
        ValueError, match=r"column='sex': expected columns of a table, 0 to 2, by number or by name: 'income'"
    ):
        tw.BiasReport(model).measure(frame, "good", column="sex")


def test_a_data_frame_for_a_network(credit):
    _, frame, _ = credit
    frame = frame[["income", "children"]]
    net = nn.Linear(2, 2)
    found = tw.InputXGradient(net).explain(frame[:5], 1)
    x = torch.tensor(frame[:5].to_numpy(), dtype=torch.float32)
    torch.testing.assert_close(found.attributions, x * net.weight[1].detach())
    assert list(found.names) == ["income", "children"]


class Both(nn.Module):
    """Numbers, and the indices of categories."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(4, 5), nn.Linear(7, 2)

    def forward(self, num, cat):
        return self.head(torch.cat([num, self.table(cat[:, 0])], 1)).tanh()


@pytest.mark.parametrize("form", ["tuple", "dict"])
def test_numbers_and_categories_side_by_side(form):
    net = Both().eval()
    g = torch.Generator().manual_seed(1)
    num, cat = torch.randn(80, 2, generator=g), torch.randint(0, 4, (80, 1), generator=g)
    given = (num, cat) if form == "tuple" else {"num": num, "cat": cat}
    y = net(num, cat).argmax(1)
    with torch.no_grad():
        dependence = tw.PartialDependence(net).measure(given, 1, feature=2)
        assert dependence.grid[0].tolist() == [0, 1, 2, 3]
        by_hand = torch.stack([net(num, torch.full_like(cat, v))[:, 1].mean() for v in range(4)])
        torch.testing.assert_close(dependence.values, by_hand)
        pair = tw.PartialDependence(net, grid_resolution=5).measure(given, 1, feature=(2, 0))
        moved = num.clone()
        moved[:, 0] = pair.grid[1][1]
        torch.testing.assert_close(pair.values[3, 1], net(moved, torch.full_like(cat, 3))[:, 1].mean())
        method = tw.PermutationImportance(net, n_repeats=3)
        importance = method.measure(given, y)
        shuffled = [float((net(num, cat[o]).argmax(1) == y).float().mean()) for o in method.permutations(80)]
        torch.testing.assert_close(importance.each[2], 1 - torch.tensor(shuffled, dtype=torch.double))
        masks = (
            (torch.tensor([0, 1]), torch.tensor([0]))
            if form == "tuple"
            else {"num": torch.tensor([0, 1]), "cat": torch.tensor([0])}
        )
        assert method.measure(given, y, feature_mask=masks).mean.shape == (2,)
        report = tw.BiasReport(net, method=tw.FeatureAblation(net)).measure(given, 1, column=2)
        assert report.groups.flatten().tolist() == [0, 1, 2, 3]
        torch.testing.assert_close(torch.stack([e.mean for e in report.set_to]).float(), by_hand)
    assert tw.SurrogateTree(net, max_depth=5).fit(given, 1).tree.n_features_in_ == 3
    student = tw.SurrogateNetwork(net, network=Both(), n_epochs=2).fit(given)
    assert student.student(num, cat).shape == (80, 2)


# ---- one-hot columns


def test_one_hot_columns_are_one_feature_of_a_dependence():
    g = torch.Generator().manual_seed(0)
    job = torch.randint(0, 3, (50,), generator=g)
    x = torch.cat([torch.randn(50, 2, generator=g), nn.functional.one_hot(job, 3).float()], 1)
    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    with torch.no_grad():
        by_hand = []
        for v in range(3):
            z = x.clone()
            z[:, 2:] = torch.eye(3)[v]
            by_hand.append(net(z)[:, 1])
        for feature in ([[2, 3, 4]], (2, 3, 4)):
            found = tw.PartialDependence(net).measure(x, 1, feature=feature)
            torch.testing.assert_close(found.ice, torch.stack(by_hand, 1))
            assert found.grid[0].tolist() == [0, 1, 2]
        pair = tw.PartialDependence(net, grid_resolution=4).measure(x, 1, feature=(0, [2, 3, 4]))
        assert pair.values.shape == (4, 3)
        z = x.clone()
        z[:, 2:], z[:, 0] = torch.eye(3)[1], pair.grid[0][2]
        torch.testing.assert_close(pair.values[2, 1], net(z)[:, 1].mean())
        some = tw.PartialDependence(net).measure(x, 1, feature=[[2, 3, 4]], grid=[2, 0])
        torch.testing.assert_close(some.ice, torch.stack([by_hand[2], by_hand[0]], 1))
    for feature in ([[0, 1]], (1, 2, 3), (2, 2), ([2, 3, 4], 3)):
        with pytest.raises(ValueError, match=r"^feature="):
            tw.PartialDependence(net).measure(x, 1, feature=feature)
    with pytest.raises(ValueError, match=r"grid: .*of 3 one-hot columns give numbers from 0 to 2"):
        tw.PartialDependence(net).measure(x, 1, feature=[[2, 3, 4]], grid=[3])


# ---- fairness


def test_rates_of_decisions_by_group():
    g = torch.Generator().manual_seed(0)
    x = torch.cat([torch.randint(0, 2, (400, 1), generator=g).float(), torch.randn(400, 2, generator=g)], 1)
    model = lambda z: torch.stack([0 * z[:, 0], z[:, 1] + z[:, 0]], 1)  # noqa: E731
    labels = (x[:, 1] + x[:, 2] > 0).long()
    report = tw.BiasReport(model).measure(x, 1, column=0, labels=labels)
    yes, group = model(x).argmax(1) == 1, x[:, 0] == 1
    share = lambda among: float(yes[among].double().mean())  # noqa: E731
    rates = report.rates
    assert [float(r.mean) for r in rates.selection] == pytest.approx([share(~group), share(group)])
    good = labels == 1
    tpr, fpr = [share(good & g) for g in (~group, group)], [share(~good & g) for g in (~group, group)]
    assert [float(r.mean) for r in rates.true_positive] == pytest.approx(tpr)
    assert [float(r.mean) for r in rates.false_positive] == pytest.approx(fpr)
    assert float(rates.demographic_parity.mean) == pytest.approx(share(group) - share(~group))
    assert float(rates.disparate_impact.mean) == pytest.approx(share(~group) / share(group))
    assert float(rates.equal_opportunity.mean) == pytest.approx(tpr[1] - tpr[0])
    assert float(rates.equalized_odds.mean) == pytest.approx(max(tpr[1] - tpr[0], fpr[1] - fpr[0]))
    assert "demographic parity" in str(report)
    score = lambda z: z[:, 1] + z[:, 0]  # noqa: E731
    same = tw.BiasReport(score, threshold=0.0).measure(x, column=0, labels=labels).rates
    assert same == rates or float(same.equal_opportunity.low) == float(rates.equal_opportunity.low)
    assert tw.BiasReport(score).measure(x, column=0).rates is None
    with pytest.raises(ValueError, match="labels: there is no decision"):
        tw.BiasReport(score).measure(x, column=0, labels=labels)
    with pytest.raises(ValueError, match="labels: with a threshold give 1"):
        tw.BiasReport(score, threshold=0.0).measure(x, column=0, labels=labels + 1)
    with pytest.raises(ValueError, match=r"labels: 2 in row \d+, but the outputs .* have the classes 0 to 1"):
        tw.BiasReport(model).measure(x, 1, column=0, labels=labels + 1)


def test_intervals_of_rates_are_those_of_the_literature():
    from torchwhy.surrogate.fairness import newcombe, ratio, wilson

    z = 1.959964
    assert [round(float(v), 4) for v in wilson(81, 263, z)] == [0.308, 0.2553, 0.3662]  # Newcombe 1998a, table I
    assert [round(float(v), 4) for v in newcombe((56, 70), (48, 80), z)] == [
        0.2,
        0.0524,
        0.3339,
    ]  # Newcombe 1998b, table II
    assert all(v.isnan() for v in wilson(0, 0, z))
    low = ratio((50, 100), (30, 100), z)
    assert float(low.mean) == pytest.approx(0.6)
    assert float(low.low) == pytest.approx(0.6 * np.exp(-z * np.sqrt(1 / 30 - 1 / 100 + 1 / 50 - 1 / 100)))


def test_intervals_of_rates_cover():
    from torchwhy.surrogate.fairness import newcombe, wilson

    rng = np.random.default_rng(0)
    hits = [0, 0]
    for _ in range(2000):
        a, b = rng.binomial(60, 0.8), rng.binomial(50, 0.55)
        one, two = wilson(a, 60, 1.96), newcombe((a, 60), (b, 50), 1.96)
        hits[0] += float(one.low) <= 0.8 <= float(one.high)
        hits[1] += float(two.low) <= 0.25 <= float(two.high)
    assert all(0.93 < h / 2000 < 0.975 for h in hits)
