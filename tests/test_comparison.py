"""tw.compare: the table of methods and metrics, and what is known of it on images whose evidence is known."""

import csv
import functools
import io
import math

import pytest
import torch
from nets import inputs, make
from scipy import stats

import torchwhy as tw
from torchwhy import metrics as M
from torchwhy.models import shapes, shapes_resnet


@pytest.fixture(scope="module")
def scene():
    net, batch = shapes_resnet().eval(), shapes(16, seed=9)
    right = net(batch.images).argmax(1) == batch.labels
    return net, batch.images[right][:8], batch.labels[right][:8], batch.mask[right][:8]


def edges(x):
    grey = x.mean(1, keepdim=True)
    return (grey - grey.roll(1, 3)).abs() + (grey - grey.roll(1, 2)).abs()


@pytest.fixture(scope="module")
def table(scene):
    net, x, y, mask = scene
    methods = {
        "random": torch.rand(len(x), 1, 64, 64, generator=torch.Generator().manual_seed(0)),
        "gradient": tw.Saliency(net),
        "integrated gradients": tw.IntegratedGradients(net, n_steps=8),
        "truth": mask.float(),
    }
    absolute = functools.partial(M.relevance_mass, sign="absolute")
    metrics = {
        "mass": absolute,
        "auc": functools.partial(M.auc, sign="absolute"),
        "deletion": functools.partial(M.deletion, steps=10, softmax=True),
        "sparseness": M.sparseness,
        "random logit": M.random_logit,
    }
    return tw.compare(net, x, y, methods, metrics, mask=mask)


def test_maps_with_a_neutral_value_count_from_there(scene):
    net, x, y, mask = scene
    rise = tw.RISE(lambda z: net(z) + 100, n_samples=40, generator=0)
    moved = tw.compare(
        rise.model, x, y, {"rise": rise}, {"mass": functools.partial(M.relevance_mass, sign="absolute")}, mask=mask
    )
    e = rise.explain(x, y)
    expected = M.relevance_mass(e.attributions - e.details["neutral"].view(-1, 1, 1, 1), mask, sign="absolute")
    torch.testing.assert_close(moved.values["mass"]["rise"], expected.double(), rtol=1e-5, atol=1e-6)


def test_the_table_holds_what_the_metrics_give(table, scene):
    net, x, y, mask = scene
    ig = tw.IntegratedGradients(net, n_steps=8)
    maps = ig.attribute(x, y)
    v, close = table.values, {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(
        v["mass"]["integrated gradients"], M.relevance_mass(maps, mask, sign="absolute").double()
    )
    pixels = maps.sum(1, keepdim=True)
    expected = M.deletion(net, x, pixels, y, steps=10, softmax=True).auc.double()
    torch.testing.assert_close(v["deletion"]["integrated gradients"], expected, **close)
    torch.testing.assert_close(v["sparseness"]["integrated gradients"], M.sparseness(pixels).double(), **close)
    torch.testing.assert_close(v["random logit"]["integrated gradients"], M.random_logit(ig, x, y).double(), **close)
    assert bool(v["random logit"]["random"].isnan().all())  # no method to ask again
    assert table.evaluations["integrated gradients"] == ig.explain(x, y).evaluations / len(x)
    assert math.isnan(table.evaluations["random"])
    assert table.better == {"mass": True, "auc": True, "deletion": False, "sparseness": True, "random logit": False}


def test_means_intervals_and_tests(table):
    v = table.values["mass"]["gradient"]
    cell = table.cell("gradient", "mass")
    low, high = stats.t.interval(0.95, len(v) - 1, v.mean().item(), stats.sem(v))
    assert cell == pytest.approx((v.mean().item(), low, high, len(v)))
    pairs = {(d.first, d.second): d for d in table.differences("mass")}
    assert len(pairs) == 6
    d = pairs["random", "gradient"]
    p = stats.wilcoxon(table.values["mass"]["random"] - v).pvalue
    assert d.p_value == pytest.approx(p)
    assert d.mean == pytest.approx((table.values["mass"]["random"] - v).mean().item())
    # Holm: the smallest of 6 times 6, the next at least as large and times 5, ...
    ps = sorted(pairs.values(), key=lambda d: d.p_value)
    running = [max(min(1, (6 - k) * ps[k].p_value) for k in range(i + 1)) for i in range(6)]
    assert [d.adjusted for d in ps] == pytest.approx(running)
    one = table.differences("mass", against="truth")
    assert [(d.first, d.second) for d in one] == [("truth", m) for m in table.methods[:3]]
    assert max(d.adjusted for d in one) <= min(1, 3 * max(d.p_value for d in one))
    assert all(d.mean > 0 for d in one)
    assert table.best("mass") == {"truth"}
    assert table.best("random logit") <= {"gradient", "integrated gradients"}


def test_known_orderings(table):
    mean = {k: {m: table.cell(m, k).mean for m in table.methods} for k in ("mass", "auc", "deletion")}
    for k in ("mass", "auc"):
        assert min(mean[k], key=mean[k].get) == "random"
        assert mean[k]["truth"] == 1
    assert mean["auc"]["random"] == pytest.approx(0.5, abs=0.04)
    assert max(mean["deletion"], key=mean["deletion"].get) == "random"
    assert mean["mass"]["integrated gradients"] > 2 * mean["mass"]["random"]


def test_a_map_of_edges_does_not_see_the_weights(scene):
    net, x, y = scene[0], scene[1][:4], scene[2][:4]
    from test_metrics_explain_again import Given

    blind = M.model_randomization(Given(net, says=edges), x, y)
    sees = M.model_randomization(tw.IntegratedGradients(net, n_steps=8), x, y)
    assert blind.scores.shape == (len(x), 7)  # head, layer3, layer2, layer1, bn, conv
    assert float(blind.auc.min()) > 0.999
    assert float(sees.scores[:, -1].mean()) < 0.6


def test_its_forms(table, tmp_path):
    text = str(table)
    assert text.splitlines()[0].split()[:3] == ["method", "mass", "↑"]
    assert "—" in text
    assert "95% interval" in text
    rows = list(csv.DictReader(io.StringIO(table.to_csv(tmp_path / "t.csv"))))
    assert (tmp_path / "t.csv").read_text() == table.to_csv()
    assert [r["method"] for r in rows] == table.methods
    assert float(rows[1]["mass"]) == pytest.approx(table.cell("gradient", "mass").mean)
    page = table.to_html(tmp_path / "t.html")
    assert page.count("<tr>") == 5
    assert "<b>1.000 ± 0</b>" in page
    assert table.to_markdown().count("\n") == 5
    figure = table.plot()
    assert [ax.get_title() for ax in figure.axes] == ["mass →", "auc →", "deletion ←", "sparseness →", "random logit ←"]
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == table.methods


def test_a_share_of_a_few_rows_is_not_certain():
    maps, x = {"all": torch.rand(6, 1, 4, 4), "<i>": torch.rand(6, 1, 4, 4)}, torch.rand(6, 1, 4, 4)
    mask = torch.ones(6, 4, 4, dtype=torch.bool)
    mask[1:] = False
    mask[1:, 0, 0] = True
    maps["<i>"][:, :, 0, 0] = 2
    maps["all"][1:, :, 0, 0] = -1
    found = tw.compare(lambda x: x.sum((1, 2, 3)), x, None, maps, [M.pointing_game, M.sparseness], mask=mask)
    always, once = found.cell("<i>", "pointing_game"), found.cell("all", "pointing_game")
    z = stats.norm.ppf(0.975)  # Wilson 1927: the shares that a z test would not refuse
    for cell, share in ((always, 1.0), (once, 1 / 6)):
        centre, half = share + z**2 / 12, z * (share * (1 - share) / 6 + z**2 / 144) ** 0.5
        expected = (share, (centre - half) / (1 + z**2 / 6), (centre + half) / (1 + z**2 / 6), 6)
        assert cell == pytest.approx(expected)
    assert "1.000 [0.61, 1.00]" in str(found)
    v = found.values["sparseness"]["all"]
    assert found.cell("all", "sparseness")[1:3] == pytest.approx(
        stats.t.interval(0.95, 5, v.mean().item(), stats.sem(v))
    )
    assert "&lt;i&gt;" in found.to_html()
    assert "<i>" not in found.to_html()


def test_lists_of_methods_and_names_of_metrics(scene):
    net, x, y, mask = scene
    table = tw.compare(
        net,
        x[:1],
        y[:1],
        [tw.Saliency(net), tw.InputXGradient(net), tw.SmoothGrad(net, n_samples=2), tw.SmoothGrad(net, n_samples=3)],
        ["sparseness", M.pointing_game, "completeness_gap"],
        mask=mask[:1],
        baselines=0.5,
    )
    assert table.metrics == ["sparseness", "pointing_game", "completeness_gap"]
    assert table.methods[:2] == ["Saliency", "InputXGradient"]
    assert "n_samples=3" in table.methods[3]
    assert table.cell("Saliency", "sparseness").high == math.inf  # one row tells nothing of others
    assert "±" not in str(table).splitlines()[2]


@pytest.mark.parametrize(
    "methods,metrics,error,match",
    [
        (None, ["foo"], LookupError, "'foo' is not in"),
        (None, ["Curve"], LookupError, "'Curve' is not in"),
        (None, [], ValueError, "none given"),
        (None, {"x": len}, TypeError, "'x' is no metric"),
        (None, ["iou"], ValueError, "mask: iou"),
        ({"a": 3}, ["sparseness"], TypeError, "'a' is a int"),
        (
            {"a": torch.ones(3, 1, 64, 64)},
            ["sparseness"],
            ValueError,
            "'a' has attributions of 3 rows, the inputs have 2",
        ),
        ([], ["sparseness"], ValueError, "methods: none given"),
    ],
)
def test_refusals_name_the_argument(scene, methods, metrics, error, match):
    net, x, y, _ = scene
    with pytest.raises(error, match=match):
        tw.compare(net, x[:2], y[:2], [tw.Saliency(net)] if methods is None else methods, metrics)


def test_one_method_and_one_metric(scene):
    net, x, y, _ = scene
    table = tw.compare(net, x[:1], y[:1], tw.Saliency(net), "sparseness")
    assert (table.methods, table.metrics) == (["Saliency"], ["sparseness"])
    table = tw.compare(net, x[:1], y[:1], {"a|b": tw.Saliency(net)}, M.sparseness)
    assert table.to_markdown().splitlines()[-1].startswith(r"| a\|b |")


def test_unknown_names_are_refused(table):
    with pytest.raises(LookupError, match="'foo' was not compared"):
        table.cell("foo", "mass")
    with pytest.raises(LookupError, match="'bar' was not compared"):
        table.cell("gradient", "bar")


def test_packages_are_there_after_a_plain_import():
    assert tw.__getattr__("metrics") is M
    assert tw.metrics.deletion.higher_is_better is False


def test_pairs_without_a_difference_do_not_make_the_test_approximate():
    hit, some = torch.ones(16, dtype=torch.double), torch.ones(16, dtype=torch.double)
    some[:5] = 0
    maps = {"a": torch.rand(16, 1, 2, 2), "b": torch.rand(16, 1, 2, 2)}
    mask = torch.ones(16, 2, 2, dtype=torch.bool)
    found = tw.compare(
        lambda x: x.sum((1, 2, 3)), torch.rand(16, 1, 2, 2), None, maps, {"hit": M.pointing_game}, mask=mask
    )
    found.values["hit"] = {"a": hit, "b": some}
    (pair,) = found.differences("hit")
    assert pair.p_value == pytest.approx(0.0625)


def test_differences_of_rounding_are_none():
    x = torch.rand(20, 1, 2, 2)
    found = tw.compare(lambda x: x.sum((1, 2, 3)), x, None, {"a": x, "b": x}, ["sparseness"], level=0.995)
    found.values["sparseness"]["b"] = found.values["sparseness"]["a"] + 1e-9
    assert found.best("sparseness") == {"a", "b"}
    assert "99.5% interval" in str(found)


def test_names_that_pictures_and_old_consoles_cannot_read(tmp_path):
    x = torch.rand(4, 1, 2, 2)
    found = tw.compare(lambda x: x.sum((1, 2, 3)), x, None, {"$x^$": x, "ü": x}, {"$m_$": M.deletion})
    found.plot().savefig(tmp_path / "a.png")
    for name in ("html", "csv"):
        getattr(found, f"to_{name}")(tmp_path / name)
        assert "ü" in (tmp_path / name).read_bytes().decode("utf-8")


@pytest.mark.parametrize(
    "methods,metrics", [(None, ["deletion"]), (torch.rand(2, 2), ["deletion"]), ([], None), ([], [3])]
)
def test_what_is_no_list_is_refused_by_name(methods, metrics):
    with pytest.raises((TypeError, ValueError), match=r"methods|metrics"):
        tw.compare(lambda x: x, torch.rand(2, 2), 0, methods, metrics)


def test_products_of_a_subclass():
    class Mine(tw.IntegratedGradients):
        pass

    f, x = torch.nn.Linear(3, 2), torch.tensor([[1.0, 3.0, 2.0]])
    methods = {"theirs": tw.IntegratedGradients(f, n_steps=4), "mine": Mine(f, n_steps=4)}
    values = tw.compare(f, x, 0, methods, ["infidelity"]).values["infidelity"]
    torch.testing.assert_close(values["mine"], values["theirs"])


def linear(*w):
    """f(x) = w x + 1."""
    return lambda x: x.flatten(1) @ torch.tensor(w, dtype=x.dtype) + 1


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


def test_compare_draws_baselines_once():
    net, x = make("smooth"), inputs("smooth")
    methods = {"ig": tw.IntegratedGradients(net, n_steps=60), "shapley": tw.ExactShapley(net)}
    table = tw.compare(net, x, 1, methods, ["completeness_gap"], baselines=tw.Noise(std=0.5))
    assert max(table.cell(m, "completeness_gap").mean for m in methods) < 1e-6
    two, pair = make("two"), inputs("two")
    table = tw.compare(two, pair, 1, [tw.ExactShapley(two)], ["completeness_gap"], baselines="noise")
    assert table.cell("ExactShapley", "completeness_gap").mean < 1e-6


def test_compare_sums_the_channels_of_images_in_a_tuple_or_dict():
    net, x = make("conv"), inputs("conv")
    alone = tw.compare(net, x, 1, {"a": x}, ["deletion", "complexity"])
    for form in (lambda t: (t,), lambda t: {"x": t}):
        found = tw.compare(lambda x: net(x), form(x), 1, {"a": form(x)}, ["deletion", "complexity"])
        for name in found.metrics:
            torch.testing.assert_close(found.values[name]["a"], alone.values[name]["a"])


def test_explanations_and_arrays_in_the_place_of_methods():
    net, x = make("conv"), inputs("conv")
    e = tw.RISE(net, n_samples=20, generator=0).explain(x, 1)  # its maps have a neutral value
    table = tw.compare(net, x, 1, {"explained": e, "array": e.shown.numpy()}, ["deletion", "sparseness"])
    for name in table.metrics:
        torch.testing.assert_close(table.values[name]["explained"], table.values[name]["array"])
    assert table.evaluations["explained"] == e.evaluations / 3
    assert table.seconds["explained"] == e.seconds / 3
