"""Accumulated local effects and SAGE: equal to slow versions from the papers, and to values worked by hand."""

import nets
import numpy as np
import pandas
import pytest
import torch
from reference import whole_model as reference
from sklearn.ensemble import RandomForestClassifier
from torch import nn

import torchwhy as tw


@pytest.fixture(scope="module")
def net():
    return nets.of_table()


rows = nets.rows_of_table


# ------------------------------------------------------------------------------------------- accumulated local effects
def test_effects_of_a_quadratic_by_hand():
    x = torch.tensor([[0.0, 5.0], [1.0, 7.0], [2.0, -1.0], [3.0, 2.0]], dtype=torch.double)
    found = tw.AccumulatedLocalEffects(lambda z: z[:, 0] ** 2 + 10 * z[:, 1]).measure(x, feature=0)
    assert found.grid.tolist() == [0, 1, 2, 3]
    assert found.counts.tolist() == [2, 1, 1]
    # the changes are 1, 3, 5, added up 0, 1, 4, 9; their mean over the rows (2 · 0.5 + 2.5 + 6.5) / 4 = 2.5
    torch.testing.assert_close(found.values, torch.tensor([-2.5, -1.5, 1.5, 6.5], dtype=torch.double))
    assert found.changes.tolist() == [1, 3, 5]
    assert found.standard_error[0] == 0
    assert found.standard_error[1:].isnan().all()


@pytest.mark.parametrize("feature", range(4))
def test_effects_equal_the_equation_in_loops(net, feature):
    x = rows()
    x[:, 3] = x[:, 3].round()  # few different values
    found = tw.AccumulatedLocalEffects(net, n_intervals=7, batch_size=11).measure(x, 2, feature=feature)
    expected = reference.accumulated_local_effects(lambda z: net(z)[:, 2], x, feature, found.grid)
    torch.testing.assert_close(found.values, expected)
    assert int(found.counts.sum()) == 60
    assert found.counts.min() >= 1
    if feature < 3:
        assert found.counts.max() <= 60 // 7 + 2
        assert (found.grid[0], found.grid[-1]) == (x[:, feature].min(), x[:, feature].max())


def test_effects_of_features_that_go_together_are_their_own():
    x = rows(400)[:, :2]
    x[:, 1] = x[:, 0] + 0.05 * x[:, 1]
    found = tw.AccumulatedLocalEffects(lambda z: z[:, 0] ** 2 + z[:, 1]).measure(x, feature=1)
    slope = found.changes / found.grid.diff()
    torch.testing.assert_close(slope, torch.ones_like(slope))


def test_effects_of_a_data_frame_by_name():
    table = pandas.DataFrame(rows(30).numpy(), columns=list("abcd"))
    forest = RandomForestClassifier(5, random_state=0).fit(table, table.a > table.b)
    found = tw.AccumulatedLocalEffects(forest, n_intervals=5).measure(table, 1, feature="b")
    plain = tw.AccumulatedLocalEffects(forest, n_intervals=5).measure(table, 1, feature=1)
    assert found.values.equal(plain.values)
    assert found.values[0] > found.values[-1]
    assert found.plot().axes[0].get_xlabel() == "b"
    np.testing.assert_allclose(found.to_dataframe()["effect"], found.values)


def test_effects_of_two_on_a_product_by_hand():
    """Independent features: the product of both, each less the middle of its range, and nothing of what each does."""
    x = torch.cartesian_prod(torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0]), torch.tensor([7.0])).double()
    found = tw.AccumulatedLocalEffects(lambda z: z[:, 0] * z[:, 1] + z[:, 0] ** 2 + 5 * z[:, 1] + z[:, 2]).measure(
        x, feature=(0, 1)
    )
    assert [g.tolist() for g in found.grid] == [[0, 1, 3], [0, 2]]
    assert found.counts.tolist() == [[4], [2]]
    assert found.changes.tolist() == [[2], [4]]  # of each cell, the product of its sides
    # added up 0 0 / 0 2 / 0 6; in it the first feature rises by 1 and 2 (the mean of both ends), the second by
    # (4 · 1 + 2 · 4) / 6 = 2: 0 -2 / -1 -1 / -3 1, of which cells have the mean -1, and so have the rows
    expected = torch.tensor([[1.0, -1.0], [0.0, 0.0], [-2.0, 2.0]], dtype=torch.double)
    torch.testing.assert_close(found.values, expected)


@pytest.mark.parametrize("features", [(0, 1), (2, 0), (1, 3)])
def test_effects_of_two_equal_the_equations_in_loops(net, features):
    x = rows(200)
    x[:, 3] = x[:, 3].round()
    x[:, 1] = x[:, 1] + 0.3 * x[:, 0]
    found = tw.AccumulatedLocalEffects(net, n_intervals=3, batch_size=11).measure(x, 2, feature=features)
    assert bool((found.counts > 0).all())
    expected = reference.accumulated_local_effects_of_two(lambda z: net(z)[:, 2], x, features, found.grid)
    torch.testing.assert_close(found.values, expected)
    assert int(found.counts.sum()) == 200


def test_effects_of_two_are_nothing_where_each_adds_its_own():
    x = rows(300)
    x[:, 1] = x[:, 0] + 0.2 * x[:, 1]  # cells without rows, too
    found = tw.AccumulatedLocalEffects(lambda z: z[:, 0].exp() + z[:, 1] ** 3).measure(x, feature=(0, 1))
    assert not bool((found.counts > 0).all())
    assert float(found.values.abs().max()) < 1e-9


def test_a_cell_without_rows_has_what_its_neighbour_has():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0], [1.0, 3.0], [2.0, 9.0]], dtype=torch.double)
    found = tw.AccumulatedLocalEffects(lambda z: z[:, 0] ** 2 * z[:, 1]).measure(x, feature=(0, 1))
    assert found.counts.tolist() == [[2, 1, 0], [1, 0, 1]]
    # of cells (k, l): the rise of the square times the rise of the other: 1·1, 1·2, 3·1, 3·6; the two without rows have
    # that of the nearest middle, in shares of the ranges 2 and 9: (0, 2) that of (0, 1), (1, 1) that of (1, 0)
    assert found.changes.tolist() == [[1, 2, 2], [3, 3, 18]]


def test_effects_of_two_by_name_and_their_picture():
    table = pandas.DataFrame(rows(60).numpy(), columns=list("abcd"))
    forest = RandomForestClassifier(5, random_state=0).fit(table, table.a > table.b)
    found = tw.AccumulatedLocalEffects(forest, n_intervals=4).measure(table, 1, feature=("a", "b"))
    plain = tw.AccumulatedLocalEffects(forest, n_intervals=4).measure(table, 1, feature=(0, 1))
    assert found.values.equal(plain.values)
    figure = found.plot()
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("a", "b")
    np.testing.assert_allclose(found.to_dataframe()["effect"], found.values.flatten())
    for feature in ((0, 0), ("a", 0), (0, 1, 2), ()):
        with pytest.raises(ValueError, match="two different ones"):
            tw.AccumulatedLocalEffects(forest).measure(table, 1, feature=feature)
    with pytest.raises(ValueError, match="expected one of 0 to 3"):
        tw.AccumulatedLocalEffects(forest).measure(table, 1, feature=(0, 4))


def test_what_effects_refuse(net):
    x = rows()
    x[:, 1], x[7, 2] = 1, torch.nan
    for feature, message in ((4, "expected one of 0 to 3"), ("a", "expected one of"), (1, "is 1 in every row")):
        with pytest.raises(ValueError, match=message):
            tw.AccumulatedLocalEffects(net).measure(x.nan_to_num(), 0, feature=feature)
    with pytest.raises(ValueError, match="NaN"):
        tw.AccumulatedLocalEffects(net).measure(x, 0, feature=2)


# ------------------------------------------------------------------------------------------------------------------ SAGE
def cross_entropy(p, label):
    return -p[int(label)].log()


def squares(prediction, label):
    return (prediction - label).square().sum()


def test_sage_equals_the_algorithm_in_loops(net):
    x, labels = rows(12), torch.arange(12) % 3
    method = tw.SAGE(net, n_samples=20, n_background=5, batch_size=9)
    found, background = method.measure(x, labels), x[method.background(12)]
    expected = reference.sage(lambda z: net(z).softmax(1), cross_entropy, x, labels, background, *method.draws(12, 4))
    torch.testing.assert_close(found.values, expected)
    regression = method.measure(x, net(x)[:, :1].sin().expand(-1, 3))
    wanted = reference.sage(net, squares, x, net(x)[:, :1].sin().expand(-1, 3), background, *method.draws(12, 4))
    torch.testing.assert_close(regression.values, wanted)
    own = tw.SAGE(net, n_samples=20, n_background=5, loss=lambda p, y: (p - y).square().sum(1))
    torch.testing.assert_close(own.measure(x, net(x)[:, :1].sin().expand(-1, 3)).values, wanted)


def test_sage_comes_near_the_shapley_values_of_the_loss_and_sums_to_its_drop(net):
    x, labels = rows(40), torch.arange(40) % 3
    labels[:30] = net(x[:30]).argmax(1)  # so that the model knows something
    found = tw.SAGE(net, n_samples=400, n_background=40).measure(x, labels)
    p = net(x).detach().softmax(1)
    drop = sum(float(cross_entropy(p.mean(0), y) - cross_entropy(q, y)) for q, y in zip(p, labels)) / 40
    assert found.drop == pytest.approx(drop)
    assert float(found.values.sum()) == pytest.approx(found.total)
    assert abs(found.total - drop) <= 1e-9  # 400 draws go through the 40 rows ten times each
    exact = reference.exact_sage(lambda z: net(z).softmax(1), cross_entropy, x[:20], labels[:20], x[:20])
    near = tw.SAGE(net, n_samples=600, n_background=20).measure(x[:20], labels[:20])
    assert ((near.values - exact).abs() <= 4 * near.standard_error).all()
    assert (near.standard_error < 0.2 * exact.abs().max()).all()
    some = tw.SAGE(net, n_samples=25, n_background=40).measure(x, labels)
    assert abs(some.total - drop) <= 3 * some.total_error


def test_sage_of_probabilities_of_estimators_and_of_groups(net):
    x, labels = rows(16), torch.arange(16) % 3
    logits, shares = (tw.SAGE(m, n_samples=8).measure(x, labels) for m in (net, nn.Sequential(net, nn.Softmax(1))))
    torch.testing.assert_close(logits.values, shares.values)
    table = pandas.DataFrame(x.numpy(), columns=list("abcd"))
    answer = np.where(table.a > 0, "yes", "no")
    forest = RandomForestClassifier(20, random_state=0).fit(table, answer)
    found = tw.SAGE(forest, n_samples=32).measure(table, answer)
    assert found.names == list("abcd")
    assert int(found.values.argmax()) == 0
    grouped = tw.SAGE(net, n_samples=8).measure(x, labels, feature_mask=torch.tensor([0, 0, 1, 1]))
    assert grouped.values.shape == (2,)
    assert grouped.total == pytest.approx(logits.total)


def test_what_sage_refuses(net):
    x, labels = rows(6), torch.arange(6) % 3
    for message, call in (
        ("at least 2", lambda: tw.SAGE(net).measure(x[:1], labels[:1])),
        ("one feature", lambda: tw.SAGE(net).measure(x, labels, feature_mask=torch.zeros(4, dtype=torch.long))),
        ("one loss per row", lambda: tw.SAGE(net, loss=lambda p, y: p.sum()).measure(x, labels)),
        ("the outputs .* have the classes 0 to 2", lambda: tw.SAGE(net).measure(x, labels + 1)),
        ("n_samples=0", lambda: tw.SAGE(net, n_samples=0)),
        ("generator: None", lambda: tw.SAGE(net, generator=None).measure(x, labels)),
    ):
        with pytest.raises(ValueError, match=message):
            call()
