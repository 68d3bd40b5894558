"""The global view: equal to scikit-learn where it has the same thing, planted answers elsewhere."""

import nets
import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import RandomForestClassifier
from sklearn.inspection import partial_dependence, permutation_importance
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier
from torch import nn

import torchwhy as tw


@pytest.fixture(scope="module")
def cancer():
    data = load_breast_cancer()
    x = (data.data - data.data.mean(0)) / data.data.std(0)
    return x[:200, :8], data.target[:200]


@pytest.fixture(scope="module")
def net():
    return nets.of_table()


rows = nets.rows_of_table


class AsScikitLearn(tw.PermutationImportance):
    """With the permutations that ``permutation_importance(random_state=3)`` draws."""

    def permutations(self, n):
        seed = np.random.RandomState(3).randint(np.iinfo(np.int32).max + 1)
        state, order, total, found = np.random.RandomState(seed), np.arange(n), np.arange(n), []
        for _ in range(self.n_repeats):
            state.shuffle(order)
            total = total[order]  # it shuffles what it has shuffled
            found.append(total)
        return torch.tensor(np.array(found))


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(10, random_state=0)])
def test_permutation_importance_is_that_of_scikit_learn(cancer, model):
    x, y = cancer
    model.fit(x, y)
    got = AsScikitLearn(model, n_repeats=4).measure(torch.tensor(x), torch.tensor(y))
    expected = permutation_importance(model, x, y, n_repeats=4, random_state=3)
    assert np.allclose(got.each, expected.importances, atol=1e-12)
    assert np.allclose(got.mean, expected.importances_mean, atol=1e-12)
    assert np.allclose(got.std, expected.importances_std, atol=1e-12)
    assert got.mean.max() > 0
    assert got.score == pytest.approx(model.score(x, y))


def test_permutation_importance_of_a_regression_with_any_metric():
    data = load_diabetes()
    x, y = data.data[:100, :5], data.target[:100]
    model = LinearRegression().fit(x, y)
    got = AsScikitLearn(model, n_repeats=3).measure(torch.tensor(x), torch.tensor(y))
    assert np.allclose(got.each, permutation_importance(model, x, y, n_repeats=3, random_state=3).importances)
    got = AsScikitLearn(model, n_repeats=3, metric=lambda out, y: -(out - y).abs().mean())
    expected = permutation_importance(model, x, y, n_repeats=3, random_state=3, scoring="neg_mean_absolute_error")
    assert np.allclose(got.measure(torch.tensor(x), torch.tensor(y)).each, expected.importances)


def test_features_of_several_elements_are_permuted_together(net):
    x, mask = rows(), torch.tensor([0, 0, 1, 2])
    y = net(x).argmax(1)
    method = tw.PermutationImportance(net, n_repeats=2, generator=1)
    got = method.measure(x, y, feature_mask=mask)
    for r, order in enumerate(method.permutations(60)):
        for k in range(3):
            z = x.clone()
            for element in range(4):
                if mask[element] == k:
                    z[:, element] = x[order, element]
            assert got.each[k, r] == pytest.approx(1 - (net(z).argmax(1) == y).double().mean().item())
    again = tw.PermutationImportance(net, n_repeats=2, generator=1, batch_size=7).measure(x, y, feature_mask=mask)
    assert torch.equal(again.each, got.each)


def test_gradient_importance_row_by_row(net):
    x = rows(20)
    labels = torch.arange(20) % 3
    got = tw.GradientImportance(net).measure(x, labels)
    sizes = []
    for n in range(20):
        row = x[n : n + 1].clone().requires_grad_()
        sizes.append(torch.autograd.grad(nn.functional.cross_entropy(net(row), labels[n : n + 1]), row)[0].abs()[0])
    sizes = torch.stack(sizes)
    assert torch.allclose(got.mean, sizes.mean(0))
    assert torch.allclose(got.std, sizes.std(0, correction=0))
    assert got.score == pytest.approx(nn.functional.cross_entropy(net(x), labels).item())
    square = tw.GradientImportance(net, batch_size=6).measure(x, torch.zeros(20, 3).double())
    row = x.clone().requires_grad_()
    expected = torch.autograd.grad(net(row).square().sum(), row)[0].abs().mean(0)
    assert torch.allclose(square.mean, expected)


@pytest.mark.parametrize("feature", [0, 3, (1, 2)])
def test_partial_dependence_is_that_of_scikit_learn(cancer, feature):
    x, y = cancer
    x = x.copy()
    x[:, 3] = x[:, 3].round()  # few different values
    model = RandomForestClassifier(10, random_state=0).fit(x, y)
    got = tw.PartialDependence(model, grid_resolution=20).measure(torch.tensor(x), 1, feature=feature)
    expected = partial_dependence(model, x, [feature], kind="both", grid_resolution=20, method="brute")
    for axis, grid in zip(got.grid, expected["grid_values"], strict=True):
        assert np.allclose(axis, grid)
    assert np.allclose(got.values, expected["average"][0])
    assert np.allclose(got.ice, expected["individual"][0])


def test_partial_dependence_of_a_network_on_a_grid_of_ones_own(net):
    x = rows(10)
    grid = torch.tensor([-1.0, 0.5])
    got = tw.PartialDependence(net, batch_size=3).measure(x, 2, feature=1, grid=grid)
    for g, value in enumerate(grid):
        z = x.clone()
        z[:, 1] = value
        assert torch.allclose(got.ice[:, g], net(z)[:, 2])
    for feature, same in ((1, [-1.0, 0.5]), (np.array([1]), [grid])):
        assert torch.equal(
            tw.PartialDependence(net, batch_size=3).measure(x, 2, feature=feature, grid=same).ice, got.ice
        )
    images = tw.PartialDependence(nn.Sequential(nn.Flatten(), net)).measure(x.view(10, 2, 2), 2, feature=1, grid=grid)
    assert torch.allclose(images.ice, got.ice)


def test_surrogate_tree_finds_a_tree_again(net):
    x = rows(400)

    def steps(z):
        return torch.stack([(z[:, 0] > 0.2) & (z[:, 2] < 0.5), (z[:, 0] <= 0.2) | (z[:, 2] >= 0.5)], 1).double()

    found = tw.SurrogateTree(steps, max_depth=2).fit(x)
    assert found.fidelity > 0.98
    assert {f for f in found.tree.tree_.feature if f >= 0} == {0, 2}
    assert "age" in found.text(["age", "b", "c", "d"])
    assert len(found.plot().axes) == 1


def test_fidelity_is_measured_on_rows_held_out(net):
    x = rows(200)
    found = tw.SurrogateTree(net, max_depth=3, generator=4).fit(x)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(4))
    learn, test = order[50:], order[:50]
    classes = net(x).argmax(1)
    plain = DecisionTreeClassifier(max_depth=3, random_state=0).fit(x[learn].numpy(), classes[learn].numpy())
    assert found.fidelity == pytest.approx((plain.predict(x[test].numpy()) == classes[test].numpy()).mean())
    score = tw.SurrogateTree(net, max_depth=3, generator=4).fit(x, target=1)
    predicted, truth = score.tree.predict(x[test].numpy()), net(x)[test, 1].detach().numpy()
    r2 = 1 - ((predicted - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum()
    assert score.fidelity == pytest.approx(r2)


def test_surrogate_network_learns_the_model_and_leaves_both_as_they_were(net):
    x, small = rows(300), nn.Linear(4, 3).double()
    before = [p.clone() for p in (*net.parameters(), *small.parameters())]
    state = torch.get_rng_state()
    method = tw.SurrogateNetwork(net, network=small, generator=2).fit(x)
    assert method.fidelity > 0.8
    assert all(torch.equal(a, b) for a, b in zip(before, (*net.parameters(), *small.parameters())))
    assert torch.equal(state, torch.get_rng_state())
    again = tw.SurrogateNetwork(net, network=small, generator=2).fit(x)
    assert torch.equal(again.student.weight, method.student.weight)
    held = torch.randperm(300, generator=torch.Generator().manual_seed(2))[:75]
    same = (method.student(x[held]).argmax(1) == net(x[held]).argmax(1)).double().mean().item()
    assert method.fidelity == pytest.approx(same)
    line = nn.Linear(4, 1).double()
    assert tw.SurrogateNetwork(line, network=nn.Linear(4, 1).double(), n_epochs=60).fit(x).fidelity > 0.999


class Loan(nn.Module):
    """Column 0 is protected and adds ``bias``; column 1 goes with it in the data."""

    def __init__(self, bias):
        super().__init__()
        self.bias = bias

    def forward(self, x):
        return self.bias * x[:, 0] + x[:, 1]


def people(n=400):
    x = rows(n, 3)
    x[:, 0] = (torch.arange(n) % 2).double()
    x[:, 1] += x[:, 0]
    return x


def test_bias_report_tells_the_column_from_what_goes_with_it():
    x = people()
    fair = tw.BiasReport(Loan(0.0)).measure(x, column=0)
    assert fair.score[1].low > fair.score[0].high  # the groups differ
    assert fair.gap.mean == fair.permutation.mean == 0  # but not for the column
    unfair = Loan(0.7)
    report = tw.BiasReport(unfair, method=tw.IntegratedGradients(unfair)).measure(x, column=0)
    assert report.sizes == [200, 200]
    assert float(report.gap.mean) == pytest.approx(0.7)
    assert float(report.set_to[1].mean - report.set_to[0].mean) == pytest.approx(0.7)
    assert float(report.attribution[1].mean) == pytest.approx(0.7)
    assert float(report.attribution[0].mean) == pytest.approx(0.0)
    assert float(report.permutation.mean) == pytest.approx(0.35, abs=0.02)  # half of the rows get the other value
    low, high = stats.ttest_1samp(unfair(x[x[:, 0] == 1]).numpy(), 0).confidence_interval(0.95)
    assert (float(report.score[1].low), float(report.score[1].high)) == pytest.approx((low, high))
    assert "largest difference due to the column: 0.7" in str(report)


def test_bias_of_columns_that_belong_together():
    x = rows(90, 5)
    x[:, :3] = nn.functional.one_hot(torch.arange(90) % 3, 3).double()
    model = nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)).double()
    report = tw.BiasReport(model).measure(x, column=[0, 1, 2])
    w = model[0].weight[0, :3].detach()
    assert report.groups.shape == (3, 3)
    assert float(report.gap.mean) == pytest.approx(float(w.max() - w.min()))


def test_bad_questions_are_refused(net):
    x, y = rows(10), torch.zeros(10, dtype=torch.long)
    with pytest.raises(ValueError, match=r"labels: shape \(9,\) for 10 rows"):
        tw.PermutationImportance(net).measure(x, y[:9])
    with pytest.raises(ValueError, match="at least 2"):
        tw.PermutationImportance(net).measure(x[:1], y[:1])
    with pytest.raises(ValueError, match="does not broadcast"):
        tw.PermutationImportance(net).measure(x, y, feature_mask=torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="expected integers"):
        tw.PermutationImportance(net).measure(x, y, feature_mask=torch.zeros(4))
    gaps, none = (torch.tensor(m) for m in ([0, 0, 2, 2], [0, 0, 1, 1]))
    found = [tw.PermutationImportance(net).measure(x, y, feature_mask=m).each for m in (gaps, none)]
    assert torch.equal(*found)
    with pytest.raises(ValueError, match="reduction='none'"):
        tw.GradientImportance(net, loss=nn.functional.cross_entropy).measure(x, y)
    with pytest.raises(ValueError, match="labels: None"):
        tw.PermutationImportance(net).measure(x, None)
    with pytest.raises(ValueError, match="n_repeats=0"):
        tw.PermutationImportance(net, n_repeats=0).measure(x, y)
    for metric in ("accuracy", lambda out, y: out[:, 0], lambda out, y: None):
        with pytest.raises((ValueError, TypeError), match=r"^metric"):
            tw.PermutationImportance(net, metric=metric).measure(x, y)
    for method in (tw.PermutationImportance, tw.GradientImportance):
        with pytest.raises(ValueError, match=r"labels: \(10,\) of torch.float32 for outputs"):
            method(net).measure(x, y.float())
    for feature in (4, -1, 1.5, "age", (0, 1, 2)):
        with pytest.raises(ValueError, match="one or two of 0 to 3"):
            tw.PartialDependence(net).measure(x, 0, feature=feature)
    for setting in ({"percentiles": (0.9, 0.1)}, {"percentiles": (5, 95)}, {"grid_resolution": 1}):
        with pytest.raises(ValueError, match=f"^{next(iter(setting))}="):
            tw.PartialDependence(net, **setting).measure(x, 0, feature=1)
    for feature, grid in (((0, 1), torch.rand(3)), (0, torch.rand(3, 4)), (0, torch.rand(0)), (0, (x[0], x[1]))):
        with pytest.raises(ValueError, match="grid: expected values"):
            tw.PartialDependence(net).measure(x, 0, feature=feature, grid=grid)
    for measure in (
        lambda z: tw.PermutationImportance(net).measure(z, y),
        lambda z: tw.GradientImportance(net).measure(z, y),
        lambda z: tw.PartialDependence(net).measure(z, 0, feature=1),
        lambda z: tw.SurrogateTree(net).fit(z),
        lambda z: tw.SurrogateNetwork(net, network=nn.Linear(4, 3)).fit(z),
        lambda z: tw.BiasReport(net).measure(z, 0, column=0),
    ):
        for given in (x.tolist(), "rows", None):
            with pytest.raises(TypeError, match="inputs: expected a tensor"):
                measure(given)
    with pytest.raises(ValueError, match="held_out"):
        tw.SurrogateTree(net).fit(x[:1])
    with pytest.raises(RuntimeError, match="call fit"):
        tw.SurrogateTree(net).text()
    with pytest.raises(ValueError, match=r"network: gives outputs \(8, 2\) where the model gives \(8, 3\)"):
        tw.SurrogateNetwork(net, network=nn.Linear(4, 2).double()).fit(x)
    for setting in (
        {"network": None},
        {"network": nn.Identity()},
        {"n_epochs": 0},
        {"rows_per_step": 0},
        {"temperature": 0},
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(setting))}[=:]"):
            tw.SurrogateNetwork(net, **{"network": nn.Linear(4, 3).double()} | setting).fit(x)
    with pytest.raises(ValueError, match="max_depth=0"):
        tw.SurrogateTree(net, max_depth=0).fit(x)
    with pytest.raises(ValueError, match="feature_names: 1 given for 4"):
        tw.SurrogateTree(net).fit(x).plot(["age"])
    for setting in ({"confidence": 95}, {"n_repeats": 0}, {"method": "LIME"}):
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(setting))}="):
            tw.BiasReport(net, **setting).measure(x, 0, column=0)
    with pytest.raises(ValueError, match="columns of a table, 0 to 3, by number"):
        tw.BiasReport(net).measure(x, 0, column="sex")
    with pytest.raises(ValueError, match="10 different values"):
        tw.BiasReport(net, max_groups=5).measure(x, 0, column=0)
    with pytest.raises(ValueError, match="expected columns of a table, 0 to 3"):
        tw.BiasReport(net).measure(x, 0, column=9)


def test_whole_number_labels_need_classes():
    x, y = torch.randn(20, 4), torch.randint(0, 2, (20,))
    for model in (torch.nn.Linear(4, 1), lambda z: z.sum(1)):
        with pytest.raises(ValueError, match="labels: whole numbers, for outputs"):
            tw.PermutationImportance(model).measure(x, y)
    with pytest.raises(ValueError, match="labels: whole numbers, for outputs"):
        tw.GradientImportance(torch.nn.Linear(4, 1)).measure(x, y)


def test_the_gradient_of_the_loss_of_outputs_in_other_forms():
    net, x, y = torch.nn.Linear(4, 3), torch.randn(9, 4), torch.randint(0, 3, (9,))
    wrapped = torch.nn.Sequential(net)
    wrapped.forward = lambda z: (net(z),)
    torch.testing.assert_close(
        tw.GradientImportance(wrapped).measure(x, y).mean, tw.GradientImportance(net).measure(x, y).mean
    )


def test_permuted_rows_are_made_when_they_are_needed():
    seen = []
    net = torch.nn.Linear(6, 3)
    x, y = torch.randn(30, 6), torch.randint(0, 3, (30,))

    def model(z):
        seen.append(z.untyped_storage().nbytes())
        return net(z)

    one = tw.PermutationImportance(model, batch_size=7, n_repeats=4, generator=0).measure(x, y)
    assert max(seen) <= 7 * 6 * 4  # not a slice of all of them
    torch.testing.assert_close(one.each, tw.PermutationImportance(net, n_repeats=4, generator=0).measure(x, y).each)


def test_a_student_of_another_precision_and_in_inference_mode():
    x = torch.randn(40, 4)
    box = lambda z: np.asarray(z, dtype=np.float64).sum(1)  # noqa: E731
    tw.SurrogateNetwork(box, network=torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Flatten(0)), n_epochs=1).fit(x)
    learner = tw.SurrogateNetwork(torch.nn.Linear(4, 3), network=torch.nn.Linear(4, 3), n_epochs=1)
    with torch.inference_mode():
        learner.fit(x)
