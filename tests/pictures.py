"""Every kind of picture, drawn once, and what it takes to look at one."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from skimage import data, filters

from torchwhy import visualize as v

rng = np.random.default_rng(0)
CAT = data.chelsea()[::4, ::4].transpose(2, 0, 1) / 255.0  # (3, 75, 113)
EDGES = filters.gaussian(filters.sobel(CAT.mean(0)), 2)
SIGNED = rng.standard_normal((3, 75, 113))
STEPS = np.array([2, 4, 8, 16, 32])
GAPS = np.array([0.5, 0.1, 0.02, 0.003, 0.0])
FRACTIONS = np.linspace(0, 1, 11)
CURVES = np.linspace(1, 0, 11) + 0.05 * rng.standard_normal((6, 11))
ROWS = rng.standard_normal((40, 5)) * np.array([3, 0.1, 1, 2, 0.5])
NAMES = ["age", "bmi", "a $dear$ one", "s1", "s2"]
REVIEW = "the film was not as bad as i had fear ##ed ; < b > costs $ 5 and $ 6 , a yawn"
TOKENS = [*REVIEW.split(), *REVIEW.split()]
SCORES = rng.standard_normal(len(TOKENS))
WAVE = np.sin(np.linspace(0, 9, 60)) * np.array([[1.0], [0.3], [2.0]])
CAPTIONS = {"Saliency": "0.8 s · 64 evaluations · gap 0.3 %", "IntegratedGradients": ["12.5 s · 1024 evaluations", "b"]}
MAPS = {"Saliency": np.stack([EDGES, EDGES])[:, None], "IntegratedGradients": np.stack([SIGNED, SIGNED])}

# each kind of picture, drawn from arrays that `a` has turned into something else
FIGURES = {
    "heatmap": lambda a: v.heatmap(a(EDGES), title="edges, blurred, in a long title " * 2, label="logit"),
    "signed_map": lambda a: v.signed_map(a(SIGNED), title="noise of $x$", label="logit"),
    "signed_map, wide": lambda a: v.signed_map(a(SIGNED[:, :9]), title="time and frequency", label="logit"),
    "overlay": lambda a: v.overlay(a(CAT), a(EDGES[None]), title="edges"),
    "grid": lambda a: v.grid(
        {k: a(m) for k, m in MAPS.items()}, images=a(np.stack([CAT, CAT])), titles=["a cat", "b"], captions=CAPTIONS
    ),
    "grid, broken": lambda a: v.grid(
        {f"{k} {i}": a(m[0]) for k, m in MAPS.items() for i in range(3)}, images=a(CAT), max_columns=3
    ),
    "grid, own scales": lambda a: v.grid({k: a(m) for k, m in MAPS.items()}, shared_scale=False),
    "grid, narrow": lambda a: v.grid({"+": a(EDGES), "+-": a(SIGNED)}, shared_scale=False, max_columns=1, panel=1.5),
    "curve": lambda a: v.curve(
        a(FRACTIONS), {"IntegratedGradients": a(CURVES), "random": a(CURVES[0])}, title="Deletion"
    ),
    "convergence": lambda a: v.convergence(a(STEPS), {"left": a(GAPS), "right": a(GAPS + 0.01)}, tolerance=0.02),
    "path_profile": lambda a: v.path_profile(a(FRACTIONS), {"straight": a(CURVES[0]), "guided": a(CURVES[1] + 1)}),
    "bars": lambda a: v.bars(a(ROWS[0]), NAMES, errors=a(np.abs(ROWS[1])), top=3, title="row 0"),
    "bars, tiny": lambda a: v.bars(a(-np.abs(ROWS[0]) * 2.0**-16), errors=a(np.abs(ROWS[1]) * 2.0**-18)),
    "beeswarm": lambda a: v.beeswarm(a(ROWS), a(ROWS), NAMES, title="all rows"),
    "text": lambda a: v.text(TOKENS, a(SCORES), title="a review", label="change of the logit of the class"),
    "series": lambda a: v.series(a(WAVE), a(WAVE), names=["I", "II", "V1"], title="three leads", label="logit"),
    "series, one channel": lambda a: v.series(a(WAVE[0]), a(WAVE[0]), times=a(np.arange(60.0))),
    "heatmap, contours": lambda a: v.heatmap(a(SIGNED), image=a(CAT), style="contour", photo="colour", label="logit"),
    "heatmap, masked photo": lambda a: v.heatmap(a(EDGES), image=a(CAT), style="mask", title="edges"),
    "grid, across": lambda a: v.grid(
        {"IG": a(MAPS["Saliency"])}, images=a(np.stack([CAT, CAT])), titles=["a", "b"], across=2
    ),
    "slices": lambda a: v.slices(a(SIGNED), a(CAT), label="logit"),
    "matrix": lambda a: v.matrix(a(ROWS[:6]), list("abcdef"), NAMES, title="a matrix", xlabel="x", ylabel="y"),
    "spectrogram": lambda a: v.spectrogram(a(EDGES), a(EDGES), ylabel="frequency (Hz)", title="a word"),
    "series, many channels": lambda a: v.series(a(EDGES), a(EDGES), title="75 channels"),
    "waterfall": lambda a: v.waterfall(a(ROWS[0]), 1.5, NAMES, top=3, title="row 0"),
    "force": lambda a: v.force(a(ROWS[0]), 1.5, NAMES, title="row 0"),
    "decision": lambda a: v.decision(a(ROWS), 1.5, NAMES, top=3, title="all rows"),
    "importance": lambda a: v.importance(a(ROWS), NAMES, top=3, title="all rows"),
    "cohorts": lambda a: v.cohorts({"left": a(ROWS[:20]), "right": a(ROWS[20:])}, NAMES),
    "panels_of_swarms": lambda a: v.panels_of_swarms(
        {"left": a(ROWS[:20]), "right": a(ROWS[20:])}, {"left": a(ROWS[:20]), "right": a(ROWS[20:])}, NAMES, top=3
    ),
    "scatter_of_cohorts": lambda a: v.scatter_of_cohorts({"a $b$": (a(GAPS), a(GAPS)), "c": (a(STEPS), a(GAPS))}, "x"),
    "clusters": lambda a: v.clusters(a(np.sort(GAPS)), a(ROWS[:3]), ["a", "b", "c"], NAMES),
    "clusters of maps": lambda a: v.clusters(a(np.sort(GAPS)), a(SIGNED[:2, None]), ["a cluster", "another one"]),
    "scatter": lambda a: v.scatter(a(ROWS[:, 0]), a(ROWS[:, 1]), a(ROWS[:, 2]), names=("age", "bmi")),
    "row_matrix": lambda a: v.row_matrix(a(ROWS), NAMES, title="all rows"),
    "partial_dependence": lambda a: v.partial_dependence(a(FRACTIONS), a(CURVES.mean(0)), a(CURVES), names=["age"]),
    "intervals": lambda a: v.intervals(
        a(GAPS), a(GAPS - 0.5), a(GAPS + 0.5), NAMES, notes=["p = 0.1"] * 5, xlabel="score"
    ),
    "before_after": lambda a: v.before_after(a(ROWS[0]), a(ROWS[1]), NAMES, title="row 0"),
    "gallery": lambda a: v.gallery(a(np.stack([CAT, CAT])), ["a cat", "the same"]),
}
# those that take one axes, with the argument that holds the numbers first and as an array
ON_AXES = {
    "heatmap": lambda x, **o: v.heatmap(x, **o),
    "overlay": lambda x, **o: v.overlay(np.ones((1, 2, 2)), x, **o),
    "curve": lambda x, **o: v.curve([0.0, 1.0], x, **o),
    "convergence": lambda x, **o: v.convergence([1.0, 2.0], x, **o),
    "path_profile": lambda x, **o: v.path_profile([0.0, 1.0], x, **o),
    "bars": lambda x, **o: v.bars(x[0], **o),
    "beeswarm": lambda x, **o: v.beeswarm(x, **o),
    "text": lambda x, **o: v.text(["a", "b"], x[0], **o),
    "series": lambda x, **o: v.series(x[0], x[0], **o),
    "matrix": lambda x, **o: v.matrix(x, **o),
    "waterfall": lambda x, **o: v.waterfall(x[0], **o),
    "force": lambda x, **o: v.force(x[0], **o),
    "decision": lambda x, **o: v.decision(x, **o),
    "importance": lambda x, **o: v.importance(x, **o),
    "scatter": lambda x, **o: v.scatter(x[0], x[0], **o),
    "partial_dependence": lambda x, **o: v.partial_dependence([0.0, 1.0], x[0], **o),
    "before_after": lambda x, **o: v.before_after(x[0], x[0], **o),
}


def same(array):
    return array


def drawn(figure):
    """The pixels (H, W, 4) of the figure."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())


def pixel(figure, ax, x, y):
    """The colour drawn at a data position of an axes."""
    rgba = drawn(figure)
    column, row = ax.transData.transform((x, y))
    return rgba[rgba.shape[0] - 1 - int(row), int(column), :3] / 255


def luminance(color):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
