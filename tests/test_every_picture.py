"""Every function that draws: its numbers are read back from the figure. A new one without its reading fails here."""

import inspect

import numpy as np
import pytest
import torch

import torchwhy as tw
from torchwhy import visualize as v
from torchwhy.visualize import drawing
from torchwhy.visualize.series import LINE_COLORS
from torchwhy.visualize.text import colored_text

UNIT = np.linspace(-1, 1, 2001)
NAMES = ["age", "pay", "debt", "rent"]


def number(text):
    return float(text.replace("−", "-"))


def end_of(bar):
    """The largest tick of a colour bar."""
    labels = [t.get_text() for t in [*bar.get_yticklabels(), *bar.get_xticklabels()] if t.get_text()]
    return max(map(number, labels))


def values_of(colours, bar, under=None, colormap=None):
    """The numbers that colours stand for, by the colour bar beside them; ``under``: the grey of the photo below."""
    if colormap is not None:
        known = colormap((UNIT + 1) / 2)[:, :3]
    elif under is None:
        known = drawing.to_rgb(UNIT, True)
    else:
        known = drawing.mix_colors(UNIT, np.full(len(UNIT), under), 0.9, True, None)
    distance = ((np.asarray(colours, dtype=float)[..., None, :3] - known) ** 2).sum(-1)
    return UNIT[distance.argmin(-1)] * end_of(bar)


def pixels(ax):
    return np.asarray(ax.images[0].get_array(), dtype=float)


def shown(ax):
    """The colours of an image, as its own scale has them."""
    image = ax.images[0]
    return image.to_rgba(np.asarray(image.get_array(), dtype=float))


def named(ax, values):
    """Values in the order of names, by the labels of the lines of an axes."""
    found = dict(zip([t.get_text().split(" = ")[0] for t in ax.get_yticklabels()], values))
    return np.array([found[name] for name in NAMES])


def widths(ax):
    return [p.get_width() for p in ax.patches]


def offsets(collection):
    return np.asarray(collection.get_offsets())


def ends(ax):
    return [s[:, 0] for s in ax.collections[0].get_segments()]


def read_heatmap(rng, draw=v.heatmap):
    a = rng.normal(size=(4, 5))
    figure = draw(a, percentile=100)
    return values_of(shown(figure.axes[0]), figure.axes[-1]), a


def read_overlay(rng):
    a, photo = rng.normal(size=(4, 5)), np.zeros((3, 4, 5))
    figure = v.overlay(photo, a, percentile=100)
    return values_of(shown(figure.axes[0]), figure.axes[-1], under=v.grey(photo)[0, 0]), a


def read_grid(rng):
    maps = {"a": rng.normal(size=(1, 4, 5)), "b": 3 * rng.normal(size=(1, 4, 5))}
    figure = v.grid(maps, shared_scale="absolute", percentile=100)
    found = [values_of(shown(ax), figure.axes[-1]) for ax in figure.axes[:2]]
    return np.stack(found), np.concatenate([*maps.values()])


def read_slices(rng):
    volume = rng.normal(size=(4, 4, 5))
    figure = v.slices(volume, at=range(4), percentile=100)
    return np.stack([values_of(shown(ax), figure.axes[-1]) for ax in figure.axes[:4]]), volume


def read_matrix(rng):
    a = rng.normal(size=(3, 4))
    ax = v.matrix(a, percentile=100).axes[0]
    written = [float(f"{x:.2g}") for x in a.ravel()]  # of so many columns two digits
    return [pixels(ax), [number(t.get_text()) for t in ax.texts]], [a, written]


def read_spectrogram(rng):
    a, power = rng.normal(size=(5, 7)), rng.random((5, 7))
    above, below = v.spectrogram(a, power).axes[:2]
    return [np.reshape(ax.collections[0].get_array(), (5, 7)) for ax in (above, below)], [power, a]


def read_series(rng):
    signal, a = rng.normal(size=9), rng.normal(size=9)
    figure = v.series(signal, a, percentile=100)
    line, colours = figure.axes[0].collections[0], drawing.LinearSegmentedColormap.from_list("line", LINE_COLORS, 257)
    drawn = [s[1, 1] if len(s) == 3 and i else s[0, 1] for i, s in enumerate(line.get_segments())]
    drawn[-1] = line.get_segments()[-1][-1, 1]
    return [drawn, values_of(line.get_colors(), figure.axes[-1], colormap=colours)], [signal, a]


def read_text(rng):
    a = rng.normal(size=4)
    figure = v.text(NAMES, a)
    at = {t.get_text(): t.get_bbox_patch().get_facecolor() for t in figure.axes[0].texts}
    return values_of([at[name] for name in NAMES], figure.axes[-1]), a


def read_html(rng, write):
    """Of the functions that write HTML, the numbers that a pointer shows."""
    import re

    a = rng.normal(size=4)
    return [number(t) for t in re.findall(r'title="[^"]*: ([^"]*)"', write(a))], a


def read_bars(rng, draw=v.bars):
    a = rng.normal(size=4)
    ax = draw(a).axes[0]
    return named(ax, widths(ax)), a


def read_waterfall(rng):
    a, base = rng.normal(size=4), rng.normal()
    ax = v.waterfall(a, base, NAMES).axes[0]
    begins = named(ax, [p.get_x() for p in ax.patches])
    order = np.argsort(np.abs(a), kind="stable")
    expected = np.empty(4)
    expected[order] = base + np.concatenate([[0.0], a[order].cumsum()[:-1]])
    return [named(ax, widths(ax)), begins], [a, expected]


def read_force(rng):
    a, base = rng.normal(size=4), rng.normal()
    spans = np.array([sorted((p.get_x(), p.get_x() + p.get_width())) for p in v.force(a, base, NAMES).axes[0].patches])
    return np.concatenate([np.sort(spans[:, 1] - spans[:, 0]), [spans[:, 0].min(), spans[:, 1].max()]]), [
        *np.sort(np.abs(a)), base + a.sum() - a[a > 0].sum(), base + a.sum() - a[a < 0].sum()
    ]  # fmt: skip


def read_decision(rng):
    a, base = rng.normal(size=(6, 4)), rng.normal()
    ax = v.decision(a, base, NAMES).axes[0]
    order = np.argsort(np.abs(a).mean(0))
    ways = np.column_stack([np.full(6, base), a[:, order]]).cumsum(1)
    return np.stack([line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 5]), ways


def read_beeswarm(rng):
    a = rng.normal(size=(6, 4))
    ax = v.beeswarm(a, names=NAMES).axes[0]
    return named(ax, [offsets(c)[:, 0] for c in ax.collections]), a.T


def read_importance(rng):
    a = rng.normal(size=(6, 4))
    ax = v.importance(a, NAMES).axes[0]
    return named(ax, widths(ax)), np.abs(a).mean(0)


def read_cohorts(rng):
    groups = {"men": rng.normal(size=(6, 4)), "women": rng.normal(size=(5, 4))}
    ax = v.cohorts(groups, NAMES).axes[0]
    found = [named(ax, [p.get_width() for p in bars]) for bars in ax.containers]
    return found, [np.abs(a).mean(0) for a in groups.values()]


def read_panels_of_swarms(rng):
    groups = {"men": rng.normal(size=(6, 4)), "women": rng.normal(size=(6, 4))}
    panels = v.panels_of_swarms(groups, names=NAMES).axes[:2]
    return [named(ax, [offsets(c)[:, 0] for c in ax.collections]) for ax in panels], [a.T for a in groups.values()]


def read_row_matrix(rng):
    a, scores = rng.normal(size=(6, 4)), rng.normal(size=6)
    above, below = v.row_matrix(a, NAMES, scores=scores).axes[:2]
    return [above.lines[0].get_ydata(), *named(below, pixels(below))], [np.sort(scores), *a[scores.argsort()].T]


def read_scatter(rng):
    a, x = rng.normal(size=(2, 6))
    return offsets(v.scatter(a, x).axes[0].collections[0]), np.column_stack([x, a])


def read_scatter_of_cohorts(rng):
    pairs = {name: rng.normal(size=(2, 6)) for name in ("men", "women")}
    return [offsets(c).T for c in v.scatter_of_cohorts(pairs).axes[0].collections[:2]], [*pairs.values()]


def read_clusters(rng):
    eigenvalues, means = np.sort(rng.random(4)), rng.normal(size=(2, 4))
    left, right = v.clusters(eigenvalues, means, ["a", "b"], NAMES).axes[:2]
    columns = dict(zip([t.get_text() for t in right.get_xticklabels()], pixels(right).T))
    return [left.lines[0].get_ydata(), *(columns[n] for n in NAMES)], [eigenvalues, *means.T]


def read_curve(rng):
    scores = rng.normal(size=(5, 3))
    ax = v.curve([0.0, 0.5, 1.0], scores).axes[0]
    return ax.lines[0].get_ydata(), scores.mean(0)


def read_convergence(rng):
    gaps = rng.random(3)
    line = v.convergence([2, 4, 8], gaps).axes[0].lines[0]
    return [line.get_xdata(), line.get_ydata()], [[2, 4, 8], gaps]


def read_path_profile(rng):
    scores = rng.normal(size=5)
    return v.path_profile(np.linspace(0, 1, 5), scores).axes[0].lines[0].get_ydata(), scores


def read_partial_dependence(rng):
    ice = rng.normal(size=(6, 3))
    *rows, mean = v.partial_dependence([0.0, 1.0, 3.0], ice.mean(0), ice).axes[0].lines
    return [*(r.get_ydata() for r in rows), mean.get_ydata(), mean.get_xdata()], [*ice, ice.mean(0), [0, 1, 3]]


def intervals_of(rng, n=3):
    low = rng.normal(size=n)
    return low + rng.random(n), low, low + 1 + rng.random(n)


def read_intervals(rng):
    means, low, high = intervals_of(rng)
    ax = v.intervals(means, low, high, ["a", "b", "c"]).axes[0]
    return [ax.lines[0].get_xdata(), *np.transpose(ends(ax))], [means, low, high]


def read_panels_of_intervals(rng):
    panels = {name: intervals_of(rng) for name in ("left", "right")}
    axes = v.panels_of_intervals(panels, ["a", "b", "c"]).axes
    found = [[ax.lines[0].get_xdata(), *np.transpose(ends(ax))] for ax in axes]
    return found, [*panels.values()]


def read_before_after(rng):
    before, after = rng.normal(size=(2, 4))
    texts = [t.get_text() for t in v.before_after(before, after, NAMES).axes[0].texts]
    lines = {texts[i]: texts[i + 1 : i + 4] for i in range(4, 20, 4)}
    return [[number(t) for t in lines[n]] for n in NAMES], np.column_stack([before, after, after - before])


def read_before_after_images(rng):
    before, after = rng.random((2, 1, 1, 4, 5))
    figure = v.before_after_images({"counterfactual": after, "change": after - before}, before, ["row 0"])
    axes = [ax for ax in figure.axes if ax.images]
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    change = np.sign(pixels(axes[2])[..., 0] - pixels(axes[2])[..., 2])  # red is more, blue is less
    strong = np.abs(after - before)[0, 0] > 0.1
    drawn = [pixels(ax)[..., 0] * (high - low) + low for ax in axes[:2]]
    return [*drawn, change * strong], [before[0, 0], after[0, 0], np.sign(after - before)[0, 0] * strong]


def read_gallery(rng):
    images = rng.random((2, 3, 4, 5))
    return [pixels(ax) for ax in v.gallery(images).axes], images.transpose(0, 2, 3, 1)


READ = {
    "bars": lambda r: read_bars(r, lambda a: v.bars(a, NAMES)),
    "beeswarm": read_beeswarm,
    "before_after": read_before_after,
    "before_after_images": read_before_after_images,
    "clusters": read_clusters,
    "cohorts": read_cohorts,
    "colored_text": lambda r: read_html(r, lambda a: colored_text(NAMES, a)),
    "convergence": read_convergence,
    "curve": read_curve,
    "decision": read_decision,
    "force": read_force,
    "gallery": read_gallery,
    "grid": read_grid,
    "heatmap": read_heatmap,
    "importance": read_importance,
    "intervals": read_intervals,
    "matrix": read_matrix,
    "overlay": read_overlay,
    "panels_of_intervals": read_panels_of_intervals,
    "panels_of_swarms": read_panels_of_swarms,
    "partial_dependence": read_partial_dependence,
    "path_profile": read_path_profile,
    "plot": lambda r: read_bars(
        r,
        lambda a: v.plot(
            tw.Explanation(attributions=torch.from_numpy(a)[None], inputs=torch.zeros(1, 4), names=[NAMES])
        ),
    ),
    "row_matrix": read_row_matrix,
    "scatter": read_scatter,
    "scatter_of_cohorts": read_scatter_of_cohorts,
    "series": read_series,
    "signed_map": lambda r: read_heatmap(r, v.signed_map),
    "slices": read_slices,
    "spectrogram": read_spectrogram,
    "text": read_text,
    "text_table": lambda r: read_html(r, lambda a: v.text_table([NAMES], [a])),
    "waterfall": read_waterfall,
}
# what is no picture: arrays, a number, files, and a figure as bytes or markup; other files test those
OTHERS = {
    "as_photo", "blend", "grey", "normalize", "page", "report", "strongest_interaction", "to_html", "to_map", "to_png",
}  # fmt: skip


def test_no_function_is_forgotten():
    drawn = {n for n in v.__all__ if str(inspect.signature(getattr(v, n)).return_annotation).endswith("Figure")}
    assert drawn <= set(READ)
    assert set(READ) == set(v.__all__) - OTHERS


@pytest.mark.parametrize("name", READ)
def test_the_figure_has_the_numbers(name):
    read = []
    for seed in (0, 1):
        found, expected = map(flat, READ[name](np.random.default_rng(seed)))
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0.005, atol=0.012 * np.abs(expected).max())  # a shade, a digit
        read.append(found)
    assert np.abs(read[0] - read[1]).max() > 0.1  # other attributions, another picture


def flat(values):
    return np.concatenate([np.ravel(np.asarray(a, dtype=float)) for a in values])
