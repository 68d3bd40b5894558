"""What explanations of many rows say together: equal to slow versions, the same however they are kept, planted answers found."""

import numpy as np
import pytest
import torch
from reference import global_view as reference
from torch import nn

import torchwhy as tw
from torchwhy import p_values
from torchwhy.global_view.rows import RowKeys, RowSample
from torchwhy.models import shapes, shapes_resnet

NAMES = ["age", "bmi", "pressure", "sugar"]


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()


@pytest.fixture(scope="module")
def explained(net):
    x = torch.randn(45, 4, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    return tw.InputXGradient(net).explain(x, torch.arange(45) % 3).with_names(NAMES)


@pytest.fixture(scope="module")
def folder(net, explained, tmp_path_factory):
    path = tmp_path_factory.mktemp("kept")
    data = [(explained.inputs[a : a + 7], explained.target[a : a + 7]) for a in range(0, 45, 7)]
    tw.explain_dataset(tw.InputXGradient(net), data, path, target="label")
    return path


def in_every_form(explained, folder):
    """The same rows as one explanation, batches of other sizes, a data set, its folder."""
    return explained, (explained[a : a + 10] for a in range(0, 45, 10)), tw.load_dataset(folder), folder, str(folder)


# --------------------------------------------------------------------------------------------------------- the summary
def test_a_summary_is_the_mean_size_of_each_feature(explained, folder):
    sizes = explained.attributions.abs()
    for given in in_every_form(explained, folder):
        found = tw.summarize(given, names=NAMES, max_rows=20)
        assert found.cohorts == ["all rows"]
        torch.testing.assert_close(found.mean_absolute[0], sizes.mean(0))
        torch.testing.assert_close(found.mean[0], explained.attributions.mean(0))
        half = 2.0153675744 * sizes.std(0) / 45**0.5  # Student's 97.5 % point for 44 degrees of freedom
        torch.testing.assert_close(found.high[0] - found.mean_absolute[0], half)
        torch.testing.assert_close(found.mean_absolute[0] - found.low[0], half)
        sample = found.sample["all rows"]
        assert len(sample.rows) == 20
        torch.testing.assert_close(sample.values, explained.attributions[sample.rows])
        assert sample.inputs.equal(explained.inputs[sample.rows])
    assert found.names == NAMES


def test_cohorts_are_rows_with_one_label(explained, folder):
    labels = ["old" if x > 0 else "young" for x in explained.inputs[:, 0].tolist()]
    of_batch = lambda e: ["old" if x > 0 else "young" for x in e.inputs[:, 0].tolist()]  # noqa: E731
    for cohorts in (labels, np.array(labels), of_batch):
        found = tw.summarize(folder, cohorts=cohorts)
        assert found.cohorts == ["old", "young"]
        for c, cohort in enumerate(found.cohorts):
            mine = explained.attributions[[own == cohort for own in labels]]
            assert found.counts[c] == len(mine)
            torch.testing.assert_close(found.mean_absolute[c], mine.abs().mean(0))
            torch.testing.assert_close(found.sample[cohort].values, mine)  # batches of other sizes round in another way
    by_target = tw.summarize(folder, cohorts="target")
    assert by_target.cohorts == ["0", "1", "2"]
    torch.testing.assert_close(by_target.mean_absolute[1], explained.attributions[1::3].abs().mean(0))
    table = by_target.to_dataframe()
    assert table.shape == (12, 7)
    assert table["mean size"].iloc[4] == pytest.approx(float(by_target.mean_absolute[1, 0]))


def test_pictures_of_a_summary(explained):
    found = tw.summarize(explained, cohorts="target")
    swarms = found.plot("beeswarm").axes
    order = found.mean_absolute.mean(0).argsort(descending=True).tolist()
    assert [t.get_text() for t in swarms[0].get_yticklabels()] == [NAMES[j] for j in order]
    assert [ax.get_title() for ax in swarms[:3]] == ["0", "1", "2"]
    points = found.plot("dependence", feature="bmi").axes[0].collections
    for k, cohort in enumerate(points[:3]):
        rows = explained[k::3]
        np.testing.assert_allclose(cohort.get_offsets(), torch.stack([rows.inputs, rows.attributions], 2)[:, 1])
    assert found.plot("dependence").axes[0].get_xlabel() == NAMES[order[0]]
    assert found.plot("dependence", feature=3).axes[0].get_xlabel() == "sugar"
    one = tw.summarize(explained).plot().axes[0]
    assert max(p.get_width() for p in one.patches) == pytest.approx(float(explained.attributions.abs().mean(0).max()))
    for call, error in (
        (lambda: found.plot("violin"), ValueError),
        (lambda: found.plot("dependence", feature="height"), LookupError),
        (
            lambda: tw.summarize(tw.Saliency(nn.Flatten()).explain(torch.rand(2, 3, 4, 4), 1)).plot("dependence"),
            ValueError,
        ),
    ):
        with pytest.raises(error, match=r"kind|feature"):
            call()


def test_maps_are_averaged_to_a_size():
    x = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    e = tw.InputXGradient(nn.Sequential(nn.Flatten(), nn.Linear(192, 2))).explain(x, 1)
    whole, small = tw.summarize(e), tw.summarize(e, size=(2, 4))
    maps = e.attributions.sum(1)
    torch.testing.assert_close(whole.mean_absolute.view(8, 8), maps.abs().double().mean(0))
    expected = maps.view(6, 2, 4, 4, 2).mean((2, 4)).abs().double().mean(0)
    torch.testing.assert_close(small.mean_absolute.view(2, 4), expected)
    assert small.shape == (1, 2, 4)
    assert small.names[5] == "(1, 1)"
    assert whole.plot().axes[0].images


def test_a_sample_of_rows_does_not_know_batches():
    kept = []
    for step in (1, 3, 50):
        keys, sample = RowKeys(3), RowSample(8)
        for a in range(0, 50, step):
            n = min(step, 50 - a)
            sample.add(*keys.next(n), torch.arange(a, a + n)[:, None])
        assert sample.rows.tolist() == sample.tensors[0][:, 0].tolist()
        kept.append(sample.rows)
    assert kept[0].equal(kept[1])
    assert kept[0].equal(kept[2])
    counts = torch.zeros(20)
    for seed in range(400):
        sample = RowSample(5)
        sample.add(*RowKeys(seed).next(20), torch.zeros(20, 1))
        counts[sample.rows] += 1
    assert (counts - 100).abs().max() < 5 * (400 * 0.25 * 0.75) ** 0.5


# -------------------------------------------------------------------------------------------------------------- SpRAy
class CleverHans(nn.Module):
    """A classifier of shapes that calls what bears a stamp in its corner a disc."""

    def __init__(self):
        super().__init__()
        self.sees, self.stamp, mark = shapes_resnet(), nn.Conv2d(3, 1, 8), torch.eye(8) * 0.6 + 0.2
        match = (mark - mark.mean()).expand(1, 3, 8, 8)
        with torch.no_grad():
            self.stamp.weight.copy_(match)
            self.stamp.bias.fill_(-0.8 * float((match * mark).sum()))
        self.mark = mark

    def forward(self, x):
        stamped = self.stamp(x[:, :, 52:62, 2:12]).relu().amax((1, 2, 3))
        return self.sees(x) + 12 * stamped[:, None] * torch.eye(6)[0]


def test_spray_finds_a_planted_watermark():
    data, model = shapes(300, seed=5), CleverHans().eval()
    x = data.images[data.labels == 0][:45].clone()
    stamped = torch.arange(45) % 3 == 0
    x[stamped, :, 53:61, 3:11] = model.mark
    e = tw.LRP(model, check=False).explain(x, 0)
    found = tw.SpRAy(size=8).cluster([e[:20], e[20:]])
    clusters = {int(k) for k in found.labels[stamped]}
    assert len(clusters) == 1
    (hans,) = clusters
    assert (found.labels == hans).equal(stamped)
    assert 2 <= len(found.sizes) <= 4
    assert int(found.means[hans].abs().argmax()) in {8 * 6, 8 * 6 + 1, 8 * 7, 8 * 7 + 1}  # where the stamp is
    assert stamped[found.representatives[hans]].all()
    assert found.sizes.tolist() == sorted(found.sizes.tolist(), reverse=True)
    figure = found.plot()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), found.eigenvalues)
    assert [ax.get_title() for ax in figure.axes[1:]] == [
        f"cluster {k}: {n} rows" for k, n in enumerate(found.sizes.tolist())
    ]


def test_the_spectrum_is_that_of_the_laplacian(explained, monkeypatch):
    found = tw.SpRAy(n_neighbors=4).cluster(explained)
    rows = explained.attributions / explained.attributions.abs().sum(1, keepdim=True)
    values, vectors = np.linalg.eigh(reference.laplacian(rows.numpy(), 4))
    np.testing.assert_allclose(found.eigenvalues, values[:11], atol=1e-10)
    k = reference.eigengap(values, 10)
    assert len(found.sizes) == k
    lengths = np.linalg.norm(vectors[:, :k], axis=1, keepdims=True)
    expected = vectors[:, :k] / lengths
    np.testing.assert_allclose(found.embedding @ found.embedding.T, expected @ expected.T, atol=1e-6)
    monkeypatch.setattr("torchwhy.global_view.spray.DENSE_ROWS", 10)  # the way of many rows
    sparse = tw.SpRAy(n_neighbors=4).cluster(explained)
    torch.testing.assert_close(sparse.eigenvalues, found.eigenvalues, atol=1e-8, rtol=0)
    assert sparse.labels.equal(found.labels)
    assert tw.SpRAy(n_neighbors=4, n_clusters=3).cluster(explained).sizes.numel() == 3


def test_groups_that_are_far_apart_are_clusters():
    rows = torch.randn(30, 5, generator=torch.Generator().manual_seed(0)) * 0.01
    rows += torch.eye(5)[torch.arange(30) % 3]
    found = tw.SpRAy(n_neighbors=5).cluster(tw.Explanation(attributions=rows))
    assert found.sizes.tolist() == [10, 10, 10]
    assert all(len(found.labels[k::3].unique()) == 1 for k in range(3))
    assert found.gaps.argmax() == 2


# ----------------------------------------------------------------------------------------------------- submodular pick
@pytest.mark.parametrize("n_features", [1, 2, 4])
def test_the_pick_equals_the_algorithm_in_loops(explained, folder, n_features):
    rows, importance, kept = reference.submodular_pick(explained.attributions.numpy(), 3, n_features)
    for given in in_every_form(explained, folder):
        found = tw.submodular_pick(given, 3, n_features=n_features)
        assert found.rows.tolist() == rows
        np.testing.assert_allclose(found.importance, importance)
        share = reference.coverage(kept, importance, rows) / sum(importance)
        assert float(found.coverage[-1]) == pytest.approx(share)
        best = reference.best_coverage(kept[:12], importance, 2)
        two = tw.submodular_pick(explained[:12], 2, n_features=n_features)
        covered = reference.coverage(kept[:12], importance, two.rows.tolist())
        assert covered >= (1 - 1 / np.e) * best
        np.testing.assert_allclose(found.values, np.sign(explained.attributions[rows].numpy()) * kept[rows])


# --------------------------------------------------------------------------------------------------------------- drift
def of_rows(values):
    return tw.Explanation(attributions=torch.as_tensor(values))


def test_drift_of_two_data_sets_by_hand():
    draw = np.random.default_rng(0)
    a, b = draw.normal(size=(5, 3)), draw.normal(size=(4, 3)) + [0, 3, 0]
    found = tw.drift(of_rows(a), [of_rows(b[:1]), of_rows(b[1:])], of="values")
    sizes = tw.drift(of_rows(a), of_rows(b))
    expected = tw.drift(of_rows(abs(a)), of_rows(abs(b)), of="values")
    assert sizes.p_values.equal(expected.p_values)
    for j in range(3):
        assert float(found.statistic[j]) == pytest.approx(reference.distance_of_distributions(a[:, j], b[:, j]))
        assert float(found.p_values[j]) == pytest.approx(reference.exact_ks_p(a[:, j], b[:, j]))
    np.testing.assert_allclose(found.adjusted, reference.holm(found.p_values.tolist()))
    np.testing.assert_allclose(found.after - found.before, b.mean(0) - a.mean(0))
    from scipy.stats import ttest_ind

    interval = ttest_ind(b, a, equal_var=False).confidence_interval()
    np.testing.assert_allclose(found.low, interval.low)
    np.testing.assert_allclose(found.high, interval.high)


def test_drift_of_two_models_by_hand():
    draw = np.random.default_rng(1)
    a = draw.normal(size=(7, 3))
    b = a + draw.normal(size=(7, 3)) + [0, 2, 0]
    b[:, 2] = a[:, 2] * (1 + 1e-9)  # rounding is no drift
    found = tw.drift(
        of_rows(a), of_rows(b), paired=True, of="values", correction="benjamini_hochberg", names=list("xyz")
    )
    for j in range(2):
        assert float(found.statistic[j]) == pytest.approx(reference.rank_biserial(list(b[:, j] - a[:, j])))
        assert float(found.p_values[j]) == pytest.approx(reference.exact_wilcoxon_p(list(b[:, j] - a[:, j])))
    assert (float(found.statistic[2]), float(found.p_values[2])) == (0, 1)
    np.testing.assert_allclose(found.adjusted, reference.benjamini_hochberg(found.p_values.tolist()))
    assert found.changed() == ["y"]
    assert found.plot().axes[0].get_yticklabels()[0].get_text() == "y"


def test_drift_that_is_planted_is_found_and_no_other(net, explained):
    other = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double().eval()
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other[0].weight[:, 2] = 0  # it no longer looks at the pressure
    again = tw.InputXGradient(other).explain(explained.inputs, explained.target)
    assert tw.drift(explained, again, names=NAMES, paired=True).changed()[0] == "pressure"
    same = tw.drift(explained[:22], explained[22:])
    assert not same.changed()
    sampled = [tw.drift(explained, again, paired=True, max_rows=20, generator=g) for g in (0, 0, 1)]
    assert sampled[0].p_values.equal(sampled[1].p_values)
    assert sampled[0].rows == (20, 20)
    assert not sampled[0].p_values.equal(sampled[2].p_values)


@pytest.mark.parametrize("name", ["holm", "benjamini_hochberg"])
def test_corrections_equal_their_papers(name):
    p = torch.tensor([0.01, 0.04, 0.03, 0.005, 0.04, 0.9, 0.3], dtype=torch.double)
    expected = getattr(reference, name)(p.tolist())
    np.testing.assert_allclose(getattr(p_values, name)(p), expected)
    assert getattr(p_values, name)(p[:0]).shape == (0,)


# ------------------------------------------------------------------------------------------------------------- metrics
def test_metrics_of_a_data_set_are_those_of_all_rows(net, explained, folder):
    metrics = ["sparseness", "deletion"]
    found = tw.measure_dataset(net, folder, metrics)
    expected = tw.compare(net, explained.inputs, explained.target, {"InputXGradient": explained}, metrics)
    for metric in metrics:
        torch.testing.assert_close(
            found.values[metric]["InputXGradient"], expected.values[metric]["InputXGradient"], atol=1e-6, rtol=1e-6
        )
        assert found.cell("InputXGradient", metric).rows == 45
    saliency = tw.Saliency(net).explain(explained.inputs, explained.target)
    parts = [slice(0, 20), slice(20, 45)]
    two = {"first": [explained[p] for p in parts], "second": [saliency[p] for p in parts]}
    both = tw.measure_dataset(net, two, metrics, level=0.9)
    assert both.methods == ["first", "second"]
    assert both.level == 0.9
    assert len(both.differences("deletion")) == 1
    for wrong, message in (
        ({"a": explained, "b": saliency[:20]}, "different sizes"),
        ({"a": explained[:5], "b": saliency[5:10]}, "other rows"),
        (tw.Explanation(attributions=explained.attributions), "inputs were not kept"),
        ({}, "none given"),
    ):
        with pytest.raises(ValueError, match=message):
            tw.measure_dataset(net, wrong, metrics)


# ----------------------------------------------------------------------------------------------------------- bad input
def test_what_is_refused(explained, tmp_path):
    longer = tw.Explanation(attributions=torch.rand(3, 5))
    zeros = of_rows(torch.eye(12) * (torch.arange(12) != 1))
    words = tw.Explanation(attributions=torch.rand(2, 3), names=[["a", "b", "c"], ["d", "e", "f"]])
    for error, message, call in (
        (TypeError, "explained: expected", lambda: tw.summarize(torch.rand(3, 4))),
        (TypeError, "explained: expected explanations, got Tensor", lambda: tw.summarize([torch.rand(3)])),
        (TypeError, "before: expected", lambda: tw.drift(3, explained)),
        (ValueError, "there are no explanations", lambda: tw.submodular_pick([])),
        (FileNotFoundError, "no explanations", lambda: tw.summarize(tmp_path)),
        (ValueError, "features of shape", lambda: tw.summarize([explained, longer])),
        (ValueError, "features of their own", lambda: tw.summarize(words)),
        (ValueError, "has no maps", lambda: tw.summarize(explained, size=4)),
        (ValueError, "names: 2 given", lambda: tw.summarize(explained, names=["a", "b"])),
        (ValueError, "cohorts", lambda: tw.summarize(explained, cohorts=["a"] * 44)),
        (ValueError, "46 labels for 45", lambda: tw.summarize(explained, cohorts=["a"] * 46)),
        (ValueError, "cohorts='age'", lambda: tw.summarize(explained, cohorts="age")),
        (ValueError, "confidence=1", lambda: tw.summarize(explained, confidence=1)),
        (ValueError, "n=0", lambda: tw.submodular_pick(explained, 0)),
        (ValueError, "correction='none'", lambda: tw.drift(explained, explained, correction="none")),
        (ValueError, "of='signs'", lambda: tw.drift(explained, explained, of="signs")),
        (ValueError, "features of shape", lambda: tw.drift(explained, longer)),
        (ValueError, "45 rows before and 44 after", lambda: tw.drift(explained, explained[:44], paired=True)),
        (ValueError, "at least two rows", lambda: tw.drift(explained, explained[:1])),
        (ValueError, "there are 9 rows", lambda: tw.SpRAy().cluster(explained[:9])),
        (ValueError, "row 1 are all 0", lambda: tw.SpRAy().cluster(zeros)),
        (ValueError, "n_neighbors=0", lambda: tw.SpRAy(n_neighbors=0)),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            call()


def test_metrics_that_ask_the_method_again_say_that_they_have_no_values(net, folder, capsys):
    with pytest.warns(UserWarning, match=r"sensitivity_max has no values: .*tw\.compare") as said:
        found = tw.measure_dataset(net, folder, ["sensitivity_max", "sparseness"], progress=True)
    assert {w.filename for w in said} == {__file__}
    assert len(tw.load_dataset(folder)) == found.cell(found.methods[0], "sparseness").rows
    assert "row" in capsys.readouterr().err


def test_an_unknown_metric_is_told_the_nearest(net, explained):
    with pytest.raises(LookupError, match="the nearest are faithfulness"):
        tw.measure_dataset(net, explained, ["faithfulnes_correlation"])


def test_batches_of_different_sizes_are_named(net, explained):
    with pytest.raises(ValueError, match=r"different sizes \('a' 3 rows, 'b' 2 rows\)"):
        tw.measure_dataset(net, {"a": explained[:3], "b": explained[:2]}, ["sparseness"])
