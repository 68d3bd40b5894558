"""Every result's own picture: the numbers are read back from it. A new result without its reading fails here."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from test_every_picture import READ as FUNCTIONS
from test_results import MAKE, lengths, make_once

DOCS = Path(__file__).parent.parent / "docs"


def bars(figure, prefix="feature "):
    """The lengths of bars in the order of the numbers in their names."""
    found = lengths(figure.axes[0])
    return [found[name] for name in sorted(found, key=lambda n: int(n.removeprefix(prefix).split(":")[0]))]


def points(figure):
    """The points of intervals, by the names beside them."""
    ax = figure.axes[0]
    return dict(zip([t.get_text() for t in ax.get_yticklabels()], ax.lines[0].get_xdata()))


def mesh(figure, like):
    return np.reshape(figure.axes[0].collections[0].get_array(), like.T.shape).T


def image(ax):
    return np.asarray(ax.images[0].get_array(), dtype=float)


def numbers_of_images(f):
    """A photo, its counterfactual and both together as the picture scales them."""
    drawn = [image(ax) for ax in f.plot().axes[:2]]
    both = torch.stack([f.inputs[0], f.counterfactuals[0]])
    low = min(f.inputs.min(), f.counterfactuals.min())
    high = max(f.inputs.max(), f.counterfactuals.max())
    return drawn, ((both - low) / (high - low)).permute(0, 2, 3, 1)


def written_changes(f, after):
    """Before and after, as the table of a row writes them, and what they are."""
    words = [t.get_text().replace("−", "-") for t in f.plot(row=0).axes[0].texts]
    at = [i for i, word in enumerate(words) if word.startswith("feature ")]
    found = [[float(words[i].split()[1]), *map(float, words[i + 1 : i + 3])] for i in at]
    return found, [[j, float(f.inputs[0, int(j)]), float(after[int(j)])] for j, *_ in found]


def thresholds(tree):
    """What the boxes of a tree ask for, in the order of its nodes."""
    texts = [t.get_text() for t in tree.plot().axes[0].texts]
    return sorted(float(t.split("<= ")[1].split("\n")[0]) for t in texts if "<= " in t), sorted(
        t for t in tree.tree.tree_.threshold if t != -2
    )


def of_clusters(r):
    left, right = r.plot().axes[:2]
    order = r.means.abs().mean(0).argsort(descending=True)
    return [left.lines[0].get_ydata(), *image(right)], [r.eigenvalues[: len(r.eigenvalues)], *r.means[:, order]]


def of_comparison(r):
    """Means of the panels, and the ends of their intervals."""
    axes = r.plot().axes
    means = [[line.get_xdata()[0] for line in ax.lines if len(line.get_xdata()) == 1] for ax in axes]
    ends = [[line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2] for ax in axes]
    cells = [[r.cell(m, metric) for m in r.methods] for metric in r.metrics]
    return [*means, *ends], [
        *([c.mean for c in row] for row in cells),
        *([(c.low, c.high) for c in row] for row in cells),
    ]


def of_influences(r):
    found, rows = lengths(r.plot().axes[0]), [*r.top(5).indices[0].tolist(), *r.bottom(5).indices[0].tolist()]
    return [found[f"train {j} ({int(r.training_labels[j])})"] for j in rows], r.attributions[0, rows]


def by_size(values):
    return values[:, values.abs().mean(0).argsort(descending=True)]


def of_lines(r):
    return [line.get_ydata() for line in r.plot().axes[0].lines], [*r.ice, r.values]


def of_scores(r):
    return [*points(r.plot()).values()], [s.score for s in r.values()]


def of_dataset(r):
    means = r.mean_absolute()
    return [p.get_width() for p in r.plot().axes[0].patches], means.sort(descending=True).values


def of_inspection(r):
    found = lengths(r.plot().axes[0])
    cost = {name: v.evaluations for name, v in r.methods.items() if v.applies and v.evaluations is not None}
    assert len(cost) > 20
    return [found[name] for name in cost], [*cost.values()]


READ = {
    "Inspection": of_inspection,
    "ExplainedDataset": of_dataset,
    "LensReading": lambda r: (image(r.plot().axes[0]), r.probabilities[0, ..., 0]),
    "Explanation": lambda r: (bars(r.plot()), r.attributions[0]),
    "Curve": lambda r: (r.plot().axes[0].lines[0].get_ydata(), r.scores.mean(0)),
    "Dependence": of_lines,
    "Dependence of two": lambda r: (mesh(r.plot(), r.values), r.values),
    "Importance": lambda r: (bars(r.plot()), r.mean),
    "Importance of gradients": lambda r: (bars(r.plot()), r.mean),
    "LocalEffects": lambda r: (r.plot().axes[0].lines[0].get_ydata(), r.values),
    "LocalEffectsOfTwo": lambda r: (mesh(r.plot(), r.values), r.values),
    "LossShares": lambda r: (bars(r.plot()), r.values),
    "Summary": lambda r: (
        [[p.get_width() for p in of_cohort] for of_cohort in r.plot().axes[0].containers],
        by_size(r.mean_absolute),
    ),
    "PickedRows": lambda r: (
        image(r.plot().axes[0]),
        r.values[:, r.importance.argsort(descending=True, stable=True)][:, :2],
    ),
    "Drift": lambda r: ([points(r.plot())[n] for n in r.names], r.after - r.before),
    "ExplanationClusters": of_clusters,
    "Bias": lambda r: (
        [ax.lines[0].get_xdata() for ax in r.plot().axes],
        [[s.mean for s in p] for p in (r.score, r.set_to)],
    ),
    "SurrogateTree": thresholds,
    "SurrogateTree of scores": thresholds,
    "ConceptScores": of_scores,
    "ConceptScores without random sets": of_scores,
    "LayerConceptScores": lambda r: (
        [*points(r.plot()).values()],
        [s.score for of_layer in r.values() for s in of_layer.values()],
    ),
    "ConceptScore": lambda r: ([*points(r.plot()).values()], [r.score]),
    "Dissection": lambda r: (bars(r.plot(), "unit "), r.iou.max(1).values),
    "Visualization": lambda r: ([image(ax) for ax in r.plot().axes], r.images.permute(0, 2, 3, 1)),
    "Found": lambda r: written_changes(r, r.counterfactuals[0]),
    "Found of images": numbers_of_images,
    "Found, several": lambda r: written_changes(r, r.counterfactuals[0, r.distance[0].nan_to_num(torch.inf).argmin()]),
    "Comparison": of_comparison,
    "RetrainingScore": lambda r: (bars(r.plot(), "row "), r.each),
    "Influences": of_influences,
}


def test_no_result_is_without_a_reading():
    assert set(READ) == set(MAKE)  # which is every class that a method, a metric or a function returns: test_results.py


@pytest.mark.filterwarnings("ignore:TCAV", "ignore:Counterfactual")
@pytest.mark.parametrize("name", READ)
def test_the_picture_of_a_result_has_its_numbers(name):
    found, expected = (
        np.concatenate([np.ravel(np.asarray(a, dtype=float)) for a in v]) for v in READ[name](make_once(name))
    )
    assert found.size
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


MARKUP = {"text_table", "colored_text"}  # HTML
SHOWN = set(FUNCTIONS) - MARKUP | {name.split()[0].rstrip(",") for name in MAKE}


def test_the_gallery_has_a_picture_of_every_function_and_result():
    """As its words say, which the test below draws; the small pictures at its head are of the same."""
    text = (DOCS / "gallery.md").read_text()
    functions = set(re.findall(r"^visualize\.(\w+)\(", text, re.M)) & set(FUNCTIONS)  # not of pages and bytes
    results = set(re.findall(r"\*\*`([A-Z]\w+)`\*\*", text.split("## Results")[1]))
    assert functions | results == SHOWN
    assert all(f"Html(visualize.{name}(" in text for name in MARKUP)
    kept = [
        Image.open(DOCS / "pictures" / f"gallery_{sheet}.png").text["names"].split()
        for sheet in ("functions", "results")
    ]
    assert {*kept[0], *kept[1]} == SHOWN, "python docs/pictures.py gallery, and look at them"


@pytest.mark.slow
def test_the_gallery_draws_every_function_and_result(tmp_path, monkeypatch):
    """Its code runs here, and what each block ends with is drawn."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    shown = list(runpy.run_path(str(DOCS / "pictures.py"))["blocks_of"]("gallery.md"))
    assert {name for name, picture in shown if isinstance(picture, Figure)} == SHOWN
