"""Every result shows itself: a picture, a table, and both in a notebook; and the numbers there are its own."""

import csv
import functools
import importlib
import inspect
import pkgutil
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import torchwhy as tw
from torchwhy.viewable import Viewable
from torchwhy.visualize import to_html
from torchwhy.visualize.drawing import Picture

X = torch.rand(12, 4, generator=torch.Generator().manual_seed(0))
NET = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def score(x):
    return x[:, 0] + x[:, 1] * x[:, 2]


def two_classes(x):
    return torch.stack([x[:, 0], 1 - x[:, 0]], 1)


def net():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).eval()


def images():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    ).eval()


def a_bias(**options):
    x = X.clone()
    x[:, 3] = torch.arange(12) % 3
    return tw.BiasReport(score, **options).measure(x, column=3)


def a_tcav(layer="1", random=True):
    concepts = {"small": X * 0.1, "large": X + 1}
    sets = [torch.rand(12, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    return tw.TCAV(net(), layer=layer, level=0.25).fit(concepts, sets if random else None).score(X, 1)


def a_dissection():
    masks = {"left": torch.zeros(2, 8, 8), "top": torch.zeros(2, 8, 8)}
    masks["left"][:, :, :4], masks["top"][:, :4] = 1, 1
    data = [(torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), masks)]
    return tw.NetworkDissection(images(), layer="0", quantile=0.2).measure(data)


def a_comparison():
    model = net()
    return tw.compare(model, X, 1, [tw.Saliency(model), tw.InputXGradient(model)], ["deletion"])


def a_dataset():
    folder = Path(tempfile.mkdtemp())
    return tw.explain_dataset(tw.Saliency(net()), TensorDataset(X), folder / "explained", target=1, batch_size=5)


class Reader(nn.Module):
    """Tokens ``(N, 4)`` → logits ``(N, 4, 7)``, through two layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.a, self.b, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 7)

    def forward(self, ids):
        return self.head(torch.tanh(self.b(torch.tanh(self.a(self.table(ids))))))


MAKE = {
    "LensReading": lambda: tw.LogitLens(Reader(), layer=["a", "b"]).read(torch.tensor([[1, 2, 3, 4]]), top=2),
    "Inspection": lambda: tw.inspect(net(), X, 1),
    "ExplainedDataset": a_dataset,
    "Explanation": lambda: tw.Saliency(net()).explain(X, 1),
    "Curve": lambda: tw.metrics.deletion(NET, X, torch.rand(12, 4), 1, softmax=True),
    "Dependence": lambda: tw.PartialDependence(score).measure(X, feature=1),
    "Dependence of two": lambda: tw.PartialDependence(score, grid_resolution=4).measure(X, feature=(1, 2)),
    "Importance": lambda: tw.PermutationImportance(score).measure(X, score(X)),
    "Importance of gradients": lambda: tw.GradientImportance(net()).measure(X, torch.arange(12) % 3),
    "LocalEffects": lambda: tw.AccumulatedLocalEffects(score).measure(X, feature=1),
    "LocalEffectsOfTwo": lambda: tw.AccumulatedLocalEffects(score).measure(X, feature=(1, 2)),
    "LossShares": lambda: tw.SAGE(net(), n_samples=8).measure(X, torch.arange(12) % 3),
    "Summary": lambda: tw.summarize(tw.Saliency(net()).explain(X, 1), cohorts=["a", "b"] * 6),
    "PickedRows": lambda: tw.submodular_pick(tw.Saliency(net()).explain(X, 1), n_features=2),
    "Drift": lambda: tw.drift(tw.Saliency(net()).explain(X, 1), tw.InputXGradient(net()).explain(X, 1)),
    "ExplanationClusters": lambda: tw.SpRAy(n_neighbors=3).cluster(tw.InputXGradient(net()).explain(X, 1)),
    "Bias": a_bias,
    "SurrogateTree": lambda: tw.SurrogateTree(two_classes, max_depth=2).fit(X),
    "SurrogateTree of scores": lambda: tw.SurrogateTree(score, max_depth=2).fit(X),
    "ConceptScores": a_tcav,
    "ConceptScores without random sets": lambda: a_tcav(random=False),
    "LayerConceptScores": lambda: a_tcav(["0", "1"]),
    "ConceptScore": lambda: a_tcav()["small"],
    "Dissection": a_dissection,
    "Visualization": lambda: tw.FeatureVisualization(images(), size=(8, 8), n_steps=2).generate([0, 1]),
    "Found": lambda: tw.Counterfactual(net(), bounds=None).generate(X),
    "Found of images": lambda: tw.Counterfactual(images(), n_steps=3).generate(torch.rand(2, 3, 8, 8)),
    "Found, several": lambda: tw.Counterfactual(net(), bounds=None, n_diverse=2).generate(X),
    "Comparison": a_comparison,
    "RetrainingScore": lambda: tw.influence.linear_datamodeling_score(X.T, X.T > 0.5, X[:4]),
    "Influences": lambda: tw.TracIn(net()).fit(X, torch.arange(12) % 3).explain(X[:2], torch.tensor([0, 2])),
}


@functools.cache
def make_once(name):
    return MAKE[name]()


@pytest.fixture
def made():
    return make_once


# of several results of a class, the others differ in what test_every_result.py reads from their pictures
KINDS = {name.split()[0].rstrip(","): name for name in reversed(MAKE)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in KINDS.values() else pytest.mark.slow) for name in MAKE]
)
@pytest.mark.filterwarnings("ignore:TCAV", "ignore:Counterfactual")
def test_every_result_has_a_picture_a_table_and_a_view(name, made, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    result = made(name)
    assert type(result).__name__ == name.split()[0].rstrip(",")
    figure = result.plot()
    assert isinstance(figure, Picture)  # a notebook shows it, and not its type
    assert not plt.get_fignums()
    table = result.to_dataframe()
    assert len(table)
    view = result._repr_html_()
    assert "<table" in view
    if name in ("Comparison", "Inspection"):  # tables that are pictures themselves
        view = to_html(figure)
    assert "data:image/png;base64,iVBOR" in view
    if name != "Comparison":
        assert len(repr(result)) < 900
    result.to_csv(tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.reader(file))) >= len(table)
    if isinstance(result, Viewable):
        monkeypatch.setitem(__import__("sys").modules, "pandas", None)
        with pytest.raises(ImportError, match="needs pandas"):
            result.to_dataframe()


def modules():
    for info in pkgutil.walk_packages(tw.__path__, "torchwhy."):
        if not info.name.endswith("__main__"):
            yield importlib.import_module(info.name)


def what_is_returned():
    """The classes of this package that public methods of public classes, and the metrics, return."""
    verbs = ("measure", "generate", "score", "fit", "explain", "read", "cluster")
    homes = [getattr(tw, name) for name in tw.__all__ if inspect.isclass(getattr(tw, name))]
    functions = [vars(home)[verb] for home in homes for verb in verbs if verb in vars(home)]
    functions += [getattr(tw, name) for name in tw.__all__ if inspect.isfunction(getattr(tw, name))]
    functions += [*(m.function for m in vars(tw.metrics).values() if hasattr(m, "function"))]
    known = {name: kind for module in modules() for name, kind in vars(module).items() if inspect.isclass(kind)}
    for function in functions:
        words = re.findall(r"\w+", str(inspect.unwrap(function).__annotations__["return"]))
        yield from (known[w] for w in words if w in known and known[w].__module__.startswith("torchwhy"))


def test_no_result_is_left_out():
    known = {name.split()[0].rstrip(",") for name in MAKE}
    # they return themselves: a network, vectors, maps; tw.methods() returns the methods
    without_numbers = {"SurrogateNetwork", "TCAV", "TunedLens", "Attribution"}
    wanted = {kind.__name__ for kind in what_is_returned()} | {kind.__name__ for kind in subclasses(Viewable)}
    assert wanted - without_numbers == known


def subclasses(kind):
    for sub in kind.__subclasses__():
        yield sub
        yield from subclasses(sub)


# ---- the numbers


def lengths(ax):
    names = [t.get_text().replace("\n", " ") for t in ax.get_yticklabels()]
    return dict(zip(names, [float(p.get_width()) for p in ax.patches]))


def test_dependence_is_drawn_with_its_rows(made):
    d = made("Dependence")
    *rows, mean = made("Dependence").plot().axes[0].lines
    np.testing.assert_allclose(mean.get_ydata(), d.values.numpy())
    assert len(rows) == 12
    np.testing.assert_allclose(np.stack([r.get_ydata() for r in rows]), d.ice.numpy())
    centered = d.plot(centered=True, names=["bmi"]).axes[0]
    np.testing.assert_allclose(centered.lines[-1].get_ydata(), (d.values - d.values[0]).numpy(), atol=1e-6)
    assert centered.get_xlabel() == "bmi"
    two = made("Dependence of two")
    shades = two.plot().axes[0].collections[0].get_array()
    np.testing.assert_allclose(np.asarray(shades).reshape(two.values.T.shape), two.values.T.numpy())
    assert len(two.to_dataframe()) == two.values.numel()
    np.testing.assert_allclose(d.to_dataframe()["score"], d.values.numpy(), rtol=1e-6)


def test_importance_is_drawn_with_its_spread(made):
    found = made("Importance")
    figure = found.plot(names=list("abcd"))
    expected = dict(zip("abcd", found.mean.tolist()))
    assert lengths(figure.axes[0]) == pytest.approx(expected)
    assert "standard deviation" in figure.axes[0].get_xlabel()
    assert found.to_dataframe()["std"].tolist() == pytest.approx(found.std.tolist())


def test_bias_is_drawn_by_groups(made):
    b = made("Bias")
    left, right = b.plot().axes
    np.testing.assert_allclose(left.lines[0].get_xdata(), [float(s.mean) for s in b.score], rtol=1e-5)
    np.testing.assert_allclose(right.lines[0].get_xdata(), [float(s.mean) for s in b.set_to], rtol=1e-5)
    ends = np.stack([s[:, 0] for s in left.collections[0].get_segments()])
    np.testing.assert_allclose(ends, [[float(s.low), float(s.high)] for s in b.score], rtol=1e-5)
    assert left.get_xlim() == right.get_xlim()
    low, high = left.get_xlim()
    assert low < min(float(s.low) for s in [*b.score, *b.set_to])
    assert high > max(float(s.high) for s in [*b.score, *b.set_to])
    assert b.to_dataframe()["rows"].tolist() == b.sizes


def test_tcav_draws_the_runs_and_chance(made):
    scores = made("ConceptScores")
    assert max(scores.plot().axes[0].get_xticks()) == 1  # a share
    ax = scores.plot().axes[0]
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [s.score for s in scores.values()])
    ends = np.stack([s[:, 0] for s in ax.collections[0].get_segments()])
    np.testing.assert_allclose(ends, [[min(s.runs), max(s.runs)] for s in scores.values()])
    assert 0.5 in [line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 2]
    assert f"p = {scores['small'].p_value:.2g}" in ax.texts[0].get_text()
    assert isinstance(scores, dict)
    assert list(made("LayerConceptScores").to_dataframe()["concept"]) == [
        "0: small",
        "0: large",
        "1: small",
        "1: large",
    ]


def test_dissection_draws_the_best_units(made):
    found = made("Dissection")
    best, which = found.iou.max(1)
    expected = {f"unit {u}: {found.concepts[int(which[u])]}": float(best[u]) for u in range(4)}
    assert lengths(found.plot().axes[0]) == pytest.approx(expected)
    assert len(found.plot(top=2).axes[0].patches) == 2
    assert len(found.to_dataframe()) == 8


def test_generated_images_are_in_their_own_colours(made):
    found = made("Visualization")
    axes = found.plot().axes
    for ax, image, value in zip(axes, found.images, found.scores.tolist(), strict=True):
        np.testing.assert_allclose(np.asarray(ax.images[0].get_array()), image.permute(1, 2, 0).numpy(), atol=1e-6)
        assert ax.get_xlabel() == f"score {value:.3g}"


@pytest.mark.filterwarnings("ignore:Counterfactual")
def test_counterfactuals_show_what_changed(made):
    found = made("Found")
    words = [t.get_text() for t in found.plot(row=2).axes[0].texts]
    change = (found.counterfactuals - X)[2]
    largest = int(change.abs().argmax())
    assert words[4:6] == [f"feature {largest}", f"{X[2, largest]:.4g}".replace("-", "−")]
    table = found.to_dataframe()
    np.testing.assert_allclose(table["change"], table["after"] - table["before"], atol=1e-6)
    pictures = made("Found of images")
    axes = pictures.plot().axes
    assert [ax.get_title() for ax in axes[:3]] == ["row 0", "counterfactual", "change"]
    nearest = made("Found, several")
    which = nearest.distance.nan_to_num(torch.inf).argmin(1)
    row0 = nearest.to_dataframe().query("row == 0")
    np.testing.assert_allclose(
        sorted(row0["after"]),
        sorted(nearest.counterfactuals[0, which[0]][nearest.counterfactuals[0, which[0]] != X[0]].tolist()),
    )
    with pytest.raises(IndexError, match="row 12: there are 12"):
        found.plot(row=12)


def test_a_tree_names_its_classes_and_says_how_far_it_can_be_trusted(made):
    tree = made("SurrogateTree")
    figure = tree.plot(feature_names=list("abcd"))
    assert f"fidelity {tree.fidelity:.3g}" in figure.axes[0].get_title()
    assert any("class = " in t.get_text() for t in figure.axes[0].texts)
    assert not any("gini" in t.get_text() for t in figure.axes[0].texts)
    n = len(tree.tree.classes_)
    named = tree.plot(class_names=[f"kind {i}" for i in range(n)])
    assert any("kind" in t.get_text() for t in named.axes[0].texts)
    with pytest.raises(ValueError, match="class_names"):
        tree.plot(class_names=["one"] * (n + 1))
    table = tree.to_dataframe()
    assert table["rows"][0] == 9
    assert table["parent"].isna().sum() == 1
    inner = table[table["feature"].notna()]
    assert inner["at most"].tolist() == [t for t in tree.tree.tree_.threshold if t != -2]


def test_a_curve_is_drawn_with_its_area(made):
    curve = made("Curve")
    label = curve.plot().axes[0].get_legend().get_texts()[0].get_text()
    assert label == f"AUC {float(curve.auc.mean()):.3f}"
    assert len(curve.to_dataframe()) == curve.scores.numel()


def test_tables_are_escaped():
    from torchwhy.viewable import table_as_html

    view = table_as_html(["<b>"], [["<script>"], *[[float(i)] for i in range(20)]])
    assert "<script>" not in view
    assert "&lt;b&gt;" in view
    assert "and 11 more" in view
