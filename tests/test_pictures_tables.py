"""Pictures of tabular explanations: from base to score, one row or many; read back from the figure."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import torchwhy as tw
from torchwhy import visualize as v

NAMES = ["age", "income", "hours", "debt", "children"]
X = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))


def model(x):
    return 3 + 2 * x[:, 0] + x[:, 1] * (0.5 + x[:, 2]) - x[:, 3].clamp(min=0) + 0.1 * x[:, 4]


@pytest.fixture(scope="module")
def e():
    return tw.ExactShapley(model).explain(X, names=NAMES)


def names_of(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def spans(ax):
    return [(float(p.get_x()), float(p.get_x() + p.get_width())) for p in ax.patches]


def segments_meet(found):
    """Whether each bar begins where the one below it ends."""
    return all(a[0] == pytest.approx(b[1], abs=1e-9) for a, b in pairwise(found))


def test_a_waterfall_goes_from_the_base_score_to_the_score(e):
    ax = e.plot(kind="waterfall", row=7).axes[0]
    found = spans(ax)
    assert segments_meet(found)
    assert found[-1][0] == pytest.approx(float(e.base_scores[7]))
    assert found[0][1] == pytest.approx(float(e.scores[7]), abs=1e-5)
    values = e.attributions[7]
    order = values.abs().argsort(descending=True).tolist()
    numbers = [f"{v:.4g}".replace("-", "−") for v in X[7].tolist()]
    assert names_of(ax) == [f"{NAMES[i]} = {numbers[i]}" for i in order]
    below = int((X < 0).any(1).nonzero()[0])
    assert any("= −" in name for name in names_of(v.waterfall(e[below]).axes[0]))
    own = v.waterfall(e[7], names=list("abcde")).axes[0]  # names that the caller gives stay as they are
    assert names_of(own) == ["abcde"[i] for i in order]
    np.testing.assert_allclose([b - a for a, b in found], sorted(values, key=lambda a: -abs(a)), atol=1e-6)
    texts = [t.get_text() for t in ax.texts]
    assert f"f(x) = {found[0][1]:.4g}".replace("-", "−") in texts
    assert f"base = {found[-1][0]:.4g}" in texts
    low, high = ax.get_xlim()
    assert low < min(map(min, found)) <= max(map(max, found)) < high
    assert ax.get_title() == "ExactShapley · row 7 of 40"


def test_a_waterfall_names_what_is_not_attributed():
    ax = v.waterfall([1.0, -3.0], 5.0, ["a", "b"], score=4.0).axes[0]
    assert names_of(ax) == ["b", "a", "not attributed"]
    assert spans(ax) == [(7.0, 4.0), (6.0, 7.0), (5.0, 6.0)]
    ablation = tw.FeatureAblation(model).explain(X[:1] + 1)
    ax = ablation.plot(kind="waterfall").axes[0]
    lost = float(ablation.scores - ablation.base_scores - ablation.attributions.sum())
    assert abs(lost) > 0.01
    assert names_of(ax)[-1] == "not attributed"
    assert spans(ax)[-1][1] - spans(ax)[-1][0] == pytest.approx(lost, abs=1e-5)
    assert spans(ax)[0][1] == pytest.approx(float(ablation.scores), abs=1e-5)


def test_the_others_of_a_waterfall_are_one_bar():
    ax = v.waterfall([4.0, -3.0, 1.0, 0.5], names=list("abcd"), top=2).axes[0]
    assert names_of(ax) == ["a", "b", "the other 2"]
    assert spans(ax) == [(-1.5, 2.5), (1.5, -1.5), (0.0, 1.5)]


def test_without_a_base_score_the_bars_begin_where_the_sum_is_missing():
    net = nn.Linear(5, 1)
    g = tw.InputXGradient(net).explain(X[:1])
    assert g.base_scores is None
    ax = g.plot(kind="waterfall").axes[0]
    assert spans(ax)[-1][0] == pytest.approx(net.bias.item(), abs=1e-5)
    assert spans(ax)[0][1] == pytest.approx(net(X[:1]).item(), abs=1e-5)


def test_forces_meet_at_the_score(e):
    ax = e.plot(kind="force", row=7).axes[0]
    values, end = e.attributions[7].tolist(), float(e.base_scores[7] + e.attributions[7].sum())
    found = [tuple(sorted(s)) for s in spans(ax)]
    left, right = [s for s in found if s[1] <= end + 1e-5], [s for s in found if s[0] >= end - 1e-5]
    assert sum(b - a for a, b in left) == pytest.approx(sum(a for a in values if a > 0), abs=1e-5)
    assert sum(b - a for a, b in right) == pytest.approx(-sum(a for a in values if a < 0), abs=1e-5)
    texts = [t.get_text() for t in ax.texts]
    assert f"f(x) = {end:.4g}" in texts
    assert f"base = {float(e.base_scores[7]):.4g}" in texts
    top = int(e.attributions[7].abs().argmax())
    assert f"{NAMES[top]} = {X[7, top]:.4g}".replace("-", "−") in texts
    some = v.force([4.0, 1.0, 1.0, -2.0], top=1).axes[0]
    assert sorted(round(abs(b - a), 6) for a, b in spans(some)) == [2, 2, 4]


def test_decisions_go_from_base_to_score(e):
    ax = e.plot(kind="decision", highlight=[3]).axes[0]
    lines = [line for line in ax.lines if len(line.get_xdata()) == 6]
    assert len(lines) == 40
    order = e.attributions.abs().mean(0).argsort()
    assert names_of(ax) == [NAMES[i] for i in order]
    ways = np.column_stack([np.full(40, float(e.base_scores[0])), e.attributions[:, order]]).cumsum(1)
    np.testing.assert_allclose(np.stack([line.get_xdata() for line in lines]), ways, atol=1e-5)
    np.testing.assert_allclose(ways[:, -1], e.scores, atol=1e-4)
    assert [i for i, line in enumerate(lines) if line.get_linestyle() == "--"] == [3]
    few = v.decision(e, top=2).axes[0]
    assert names_of(few)[0] == "the other 3"
    np.testing.assert_allclose([line.get_xdata()[-1] for line in few.lines[:40]], e.scores, atol=1e-4)
    with pytest.raises(IndexError, match="highlight"):
        v.decision(e, highlight=[40])


def test_importance_is_the_mean_of_the_absolute_values(e):
    ax = e.plot(kind="importance", top=3).axes[0]
    means = e.attributions.abs().mean(0)
    order = means.argsort(descending=True)
    assert names_of(ax) == [*(NAMES[i] for i in order[:3]), "the other 2"]
    widths = [p.get_width() for p in ax.patches]
    np.testing.assert_allclose(widths, [*means[order[:3]], means[order[3:]].sum()], rtol=1e-5)
    assert ax.get_xlabel() == "mean |attribution|"


def test_cohorts_have_a_bar_each(e):
    groups = {"young": e[X[:, 0] < 0], "old": e[X[:, 0] >= 0]}
    ax = v.cohorts(groups).axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["young", "old"]
    order = [NAMES.index(n) for n in names_of(ax)]
    for container, part in zip(ax.containers, groups.values(), strict=True):
        np.testing.assert_allclose(
            [p.get_width() for p in container], part.attributions.abs().mean(0)[order], rtol=1e-5
        )
    with pytest.raises(ValueError, match="'a' has 2, 'b' has 3 features"):
        v.cohorts({"a": np.ones((1, 2)), "b": np.ones((1, 3))})
    with pytest.raises(ValueError, match="none given"):
        v.cohorts({})


def test_swarms_leave_nothing_out(e):
    ax = e.plot(kind="beeswarm", top=2).axes[0]
    assert names_of(ax)[-1] == "the other 3"
    drawn = sum(np.asarray(c.get_offsets())[:, 0] for c in ax.collections)
    np.testing.assert_allclose(drawn, e.attributions.sum(1), atol=1e-5)
    assert ax.get_title() == "ExactShapley · 40 rows"


def test_a_dependence_plot_has_the_values_of_both_features(e):
    figure = e.plot(kind="scatter", feature="income", color="hours")
    ax, bar = figure.axes
    at = np.asarray(ax.collections[0].get_offsets())
    np.testing.assert_allclose(at, np.column_stack([X[:, 1], e.attributions[:, 1]]), rtol=1e-6)
    assert (ax.get_xlabel(), bar.get_ylabel()) == ("income", "hours")
    ends = [f"{q:.3g}".replace("-", "−") for q in np.percentile(X[:, 2], [5, 95])]
    assert [t.get_text() for t in bar.get_yticklabels()] == ends
    shades = ax.collections[0].get_facecolors()
    assert np.linalg.norm(shades[X[:, 2].argmin()] - shades[X[:, 2].argmax()]) > 0.5
    assert v.scatter(e, "income", "auto").axes[1].get_ylabel() == "hours"  # income × hours
    assert v.scatter(e).axes[0].get_xlabel() == "age"  # the largest
    for wrong in ("incme", 7, 1.5):
        with pytest.raises(LookupError, match="feature="):
            v.scatter(e, wrong)
    with pytest.raises(ValueError, match="one value for each of the 2"):
        v.scatter([1.0, 2.0], [1.0])


def test_the_interaction_is_found():
    x = np.random.default_rng(0).standard_normal((300, 4))
    assert v.strongest_interaction(x[:, 1] * x[:, 3], x, 1) == 3
    with pytest.raises(ValueError, match="no other"):
        v.strongest_interaction([1.0, 2.0], [[1.0], [2.0]], 0)


def test_a_matrix_of_rows_is_sorted_by_score(e):
    figure = e.plot(kind="heatmap", top=3)
    above, below = figure.axes[:2]
    np.testing.assert_allclose(above.lines[0].get_ydata(), np.sort(e.scores))
    rows = e.scores.argsort(stable=True)
    means = e.attributions.abs().mean(0).argsort(descending=True)
    expected = np.column_stack([e.attributions[:, means[:3]], e.attributions[:, means[3:]].sum(1)])[rows].T
    np.testing.assert_allclose(np.asarray(below.images[0].get_array()), expected, atol=1e-6)
    assert names_of(below) == [*(NAMES[i] for i in means[:3]), "the other 2"]
    unsorted = v.row_matrix(e, sort=False, top=5).axes[1].images[0].get_array()
    np.testing.assert_allclose(np.asarray(unsorted), e.attributions[:, means].T, atol=1e-6)
    with pytest.raises(ValueError, match="scores has 2 numbers, but there are 3 rows"):
        v.row_matrix(np.ones((3, 2)), scores=[1, 2])


def test_groups_of_columns_are_one_feature_in_every_picture():
    g = tw.KernelSHAP(model).explain(X[:6], feature_mask=torch.tensor([0, 1, 1, 2, 2]), names=["age", "work", "home"])
    total = g.scores - g.base_scores
    for kind in ("waterfall", "bars"):
        ax = g.plot(kind=kind, row=2).axes[0]
        assert set(names_of(ax)) == {"age", "work", "home"}
        assert sum(p.get_width() for p in ax.patches) == pytest.approx(float(total[2]), abs=1e-5)
    swarm = g.plot(kind="beeswarm").axes[0]
    np.testing.assert_allclose(sum(np.asarray(c.get_offsets())[:, 0] for c in swarm.collections), total, atol=1e-5)
    assert len(g.plot(kind="importance").axes[0].patches) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "waterfal"}, "there is no such picture; they are bars, waterfall, force, beeswarm"),
        ({"kind": "beeswarm", "row": 1}, "draws all rows"),
    ],
)
def test_kinds_that_there_are_not(e, options, said):
    with pytest.raises(ValueError, match=said):
        e.plot(**options)


def test_rows_of_different_features_are_drawn_one_by_one():
    masks = torch.tensor([[0, 0, 0, 1, 1], [0, 1, 2, 3, 4]])
    g = tw.KernelSHAP(model).explain(X[:2], feature_mask=masks)
    assert len(g.plot(kind="waterfall", row=1).axes[0].patches) == 5
    with pytest.raises(ValueError, match="rows with different numbers of features"):
        g.plot(kind="beeswarm")


# ---- numbers with intervals, and what changed


def test_sizes_have_no_signs():
    ax = v.bars([0.5, 0.25], ["a", "b"], signed=False).axes[0]
    assert [t.get_text() for t in ax.texts] == ["0.500", "0.250"]
    assert len({p.get_facecolor() for p in ax.patches}) == 1


def test_intervals_have_their_ends():
    ax = v.intervals([0.5, 0.2], [0.4, 0.2], [0.7, 0.2], ["a", "b"], reference=0.5, notes=["p = 0.1", "n = 3"]).axes[0]
    np.testing.assert_allclose([s[:, 0] for s in ax.collections[0].get_segments()], [[0.4, 0.7], [0.2, 0.2]])
    assert [t.get_text() for t in ax.texts] == ["p = 0.1", "n = 3"]
    with pytest.raises(ValueError, match="around the numbers"):
        v.intervals([1.0], [2.0], [3.0], ["a"])
    with pytest.raises(ValueError, match="an entry for each of the 1"):
        v.intervals([1.0], [1.0], [1.0], ["a", "b"])


def test_what_changed_is_written_the_largest_first():
    ax = v.before_after([1.0, 5.0, -2.0], [1.0, 7.5, -2.25], ["sex", "age", "x"]).axes[0]
    assert [t.get_text() for t in ax.texts][4:] == [
        *("age", "5", "7.5", "+2.5"), *("x", "−2", "−2.25", "−0.25"), "1 of 3 features did not change",
    ]  # fmt: skip
    many = v.before_after(np.zeros(30), np.arange(30.0), top=2).axes[0]
    assert many.texts[-1].get_text() == "1 of 30 features did not change; 27 smaller changes are left out"
    with pytest.raises(ValueError, match="entry for each of the 2 values"):
        v.before_after([1.0, 2.0], [1.0, 2.0], ["a"])


def test_dependence_that_does_not_fit():
    with pytest.raises(ValueError, match="grid must be ascending values"):
        v.partial_dependence([1.0, 0.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"ice must be \(N, 2\)"):
        v.partial_dependence([0.0, 1.0], [1.0, 2.0], [[1.0]])
    with pytest.raises(ValueError, match="names has 2 strings"):
        v.partial_dependence([0.0, 1.0], [1.0, 2.0], names=["a", "b"])
    figure = v.partial_dependence([0.0, 1.0], [1.0, 2.0], np.zeros((450, 2)))
    assert len(figure.axes[0].lines) == 151
    assert "150 of 450 rows" in figure.axes[0].get_ylabel()


def test_galleries_that_do_not_fit():
    with pytest.raises(ValueError, match="titles has 1 texts, but there are 2 images"):
        v.gallery(np.zeros((2, 3, 4, 4)), ["a"])
    with pytest.raises(ValueError, match="none given"):
        v.gallery([])


def test_hyphens_of_labels_are_no_minus_signs():
    figure = v.before_after([0.0, 3.0], [1.0, -2.0], ["kind", "level"], labels={0: ["non-smoker", "ex-smoker"]})
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert {"non-smoker", "ex-smoker", "−2", "−5"} <= set(texts)
