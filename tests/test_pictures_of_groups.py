"""Pictures of several groups beside one another, of clusters, and of images before and after: read back from the figure."""

import numpy as np
import pytest
import torch

from torchwhy import visualize as v

RNG = np.random.default_rng(0)
GROUPS = {"men": RNG.normal(size=(5, 3)), "women": RNG.normal(size=(4, 3)) * 3}
VALUES = {name: RNG.normal(size=a.shape) for name, a in GROUPS.items()}
NAMES = ["age", "pay", "debt"]


def names_of(ax):
    return [t.get_text() for t in ax.get_yticklabels()]


def test_swarms_of_groups_have_one_order_and_one_scale():
    figure = v.panels_of_swarms(GROUPS, VALUES, NAMES)
    left, right = (ax for ax in figure.axes if ax.get_title())
    sizes = np.mean([np.abs(a).mean(0) for a in GROUPS.values()], 0)
    order = np.argsort(-sizes).tolist()
    for ax, name in ((left, "men"), (right, "women")):
        assert ax.get_title() == name
        assert names_of(ax) == [NAMES[j] for j in order]
        drawn = [np.asarray(c.get_offsets())[:, 0] for c in ax.collections]
        np.testing.assert_allclose(drawn, GROUPS[name][:, order].T)
    assert left.get_xlim() == right.get_xlim()
    some = v.panels_of_swarms(GROUPS, names=NAMES, top=1).axes
    assert [names_of(ax) for ax in some] == [[NAMES[order[0]], "the other 2"]] * 2
    for ax, a in zip(some, GROUPS.values()):
        np.testing.assert_allclose(np.asarray(ax.collections[1].get_offsets())[:, 0], np.delete(a, order[0], 1).sum(1))
    with pytest.raises(ValueError, match="none given"):
        v.panels_of_swarms({})
    with pytest.raises(ValueError, match="give the same ones"):
        v.panels_of_swarms({"a": np.ones((1, 2)), "b": np.ones((1, 3))})


def test_points_of_groups_have_their_values():
    pairs = {name: (VALUES[name][:, 0], GROUPS[name][:, 0]) for name in GROUPS}
    ax = v.scatter_of_cohorts(pairs, "age").axes[0]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == list(GROUPS)
    assert ax.get_xlabel() == "age"
    for points, pair in zip(ax.collections, pairs.values()):
        np.testing.assert_allclose(np.asarray(points.get_offsets()).T, pair)
    assert len({tuple(c.get_facecolor()[0]) for c in ax.collections}) == 2
    gone = {"a": ([np.nan, 2.0, 3.0], [1.0, 2.0, 3.0])}
    ax = v.scatter_of_cohorts(gone).axes[0]
    at = np.asarray(ax.collections[0].get_offsets())
    assert at[0, 0] < 2
    assert at[1:, 0].tolist() == [2.0, 3.0]
    assert [t.get_text() for t in ax.texts] == ["missing"]
    with pytest.raises(ValueError, match="2 values for 1 attributions"):
        v.scatter_of_cohorts({"a": ([1.0, 2.0], [1.0])})
    with pytest.raises(ValueError, match="NaN"):
        v.scatter_of_cohorts({"a": ([1.0], [np.nan])})


def test_intervals_of_panels_are_on_one_scale():
    panels = {"score": ([1.0, 2.0], [0.5, 1.5], [2.0, 2.5]), "set to": ([5.0, 0.0], [4.0, -1.0], [6.0, 1.0])}
    figure = v.panels_of_intervals(panels, ["a", "b"], notes=["n = 3", "n = 4"])
    left, right = figure.axes
    for ax, (mean, low, high) in zip((left, right), panels.values()):
        assert ax.lines[0].get_xdata().tolist() == mean
        ends = [segment[:, 0].tolist() for segment in ax.collections[0].get_segments()]
        assert ends == [list(pair) for pair in zip(low, high)]
    assert left.get_xlim() == right.get_xlim()
    assert names_of(left) == ["a", "b"]
    assert [t.get_text() for t in right.texts] == ["n = 3", "n = 4"]


def test_clusters_show_eigenvalues_and_means():
    eigenvalues, means = [0.0, 0.1, 0.8, 0.9], RNG.normal(size=(2, 3))
    left, right = v.clusters(eigenvalues, means, ["4 rows", "5 rows"], NAMES).axes[:2]
    assert left.lines[0].get_ydata().tolist() == eigenvalues
    assert left.lines[1].get_xdata()[0] == 2.5  # the gap behind the second
    order = np.argsort(-np.abs(means).mean(0))
    np.testing.assert_allclose(right.images[0].get_array(), means[:, order])
    maps = RNG.normal(size=(2, 1, 4, 4))
    figure = v.clusters(eigenvalues, maps, ["4 rows", "5 rows"])
    for ax, caption in zip(figure.axes[1:3], ["4 rows", "5 rows"]):
        assert ax.get_title() == caption
        assert ax.images
    with pytest.raises(ValueError, match="captions has 1 texts, but there are 2 clusters"):
        v.clusters(eigenvalues, means, ["4 rows"])


def test_images_before_and_after_and_their_change():
    before = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    after = before.clone()
    after[:, :, 1, 2] += 0.5
    maps = {"counterfactual": after, "change": after - before}
    figure = v.before_after_images(maps, before, ["row 0", "row 1"], {"counterfactual": ["now 3", "now 5"]})
    axes = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in axes[:2]] == ["row 0", "counterfactual"]
    low, high = float(min(before.min(), after.min())), float(max(before.max(), after.max()))
    for ax, values in zip(axes[:2], (before[0], after[0])):
        shown = np.asarray(ax.images[0].get_array(), dtype=float)[..., 0]
        np.testing.assert_allclose(shown, ((values[0] - low) / (high - low)).numpy(), atol=0.01)
    change = np.asarray(axes[2].images[0].get_array(), dtype=float)
    moved = np.abs(change - change[0, 0]).reshape(4, 4, -1).max(2) > 1e-3
    assert moved.nonzero()[0].tolist() == [1]
    assert moved.nonzero()[1].tolist() == [2]


def test_images_before_and_after_that_do_not_fit():
    x = torch.rand(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"maps: 'counterfactual' and 'change', expected; got \['after'\]"):
        v.before_after_images({"after": x}, x, ["a", "b"])
    maps = {"counterfactual": x, "change": x}
    for titles, captions, words in ((["a"], None, "titles: 1"), (["a", "b"], {"counterfactual": ["x"]}, "captions: 1")):
        with pytest.raises(ValueError, match=f"{words} given for 2 images"):
            v.before_after_images(maps, x, titles, captions)


def test_every_picture_is_called_by_a_test():
    from pathlib import Path

    written = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert not [name for name in v.__all__ if f"{name}(" not in written]
