"""The table of metrics: one row each, used by every file of properties of metrics."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from nets import inputs, make
from reference import metrics as ref
from reference.gradient import input_x_gradient

import torchwhy as tw
from torchwhy import metrics as M

SEGMENTS = torch.arange(64).view(1, 8, 8) // 12
LAYERS = ["head", "norm", "conv2", "conv1"]  # of the network of images, from the output downwards


@dataclass
class Scene:
    """What metrics are tried on: images, random attributions of them, a mask of the evidence, a class for each row."""

    net: torch.nn.Module
    x: torch.Tensor
    b: torch.Tensor
    a: torch.Tensor
    mask: torch.Tensor
    target: list[int]

    @classmethod
    def make(cls, dtype=torch.double, n=3, kind="conv"):
        """Of images, or of rows of numbers ("smooth")."""
        g = torch.Generator().manual_seed(7)
        x = inputs(kind, n, dtype)
        a, b = (torch.randn(x.shape, generator=g, dtype=torch.double).to(dtype) for _ in range(2))
        mask = torch.rand(n, 8, 8, generator=g) < 0.3
        return cls(make(kind, dtype), x, b, a, mask, [2, 0, 3 if kind == "conv" else 1][:n])

    def row(self, i):
        """A scene of that row alone."""
        part = slice(i, i + 1)
        return Scene(self.net, self.x[part], self.b[part], self.a[part], self.mask[part], self.target[part])

    def outputs(self, z):
        return self.net(z[None])[0]

    def score(self, i):
        return lambda z: self.outputs(z)[self.target[i]]

    def probability(self, i):
        return lambda z: self.outputs(z).softmax(0)[self.target[i]]

    def rows(self, probability=False):
        """For each row its function, input, baseline and attributions, as the references take them."""
        kind = self.probability if probability else self.score
        return [(kind(i), self.x[i], self.b[i], self.a[i]) for i in range(len(self.x))]

    def heats(self):
        """For each row its map and its mask."""
        return [(a.abs().sum(0), m) for a, m in zip(self.a, self.mask)]


@dataclass
class MetricCase:
    """A metric with settings that keep it quick, and what it should be.

    ``reference``: scene → what the metric gives, slowly, row by row. ``constant`` and ``zero``: whether maps without
    contrast have a value ("number") or not ("nan").
    """

    metric: M.Metric
    settings: dict[str, Any] = field(default_factory=dict)
    reference: Callable[[Scene], list] = None
    constant: str = "number"
    zero: str = "number"
    baselines: bool = True  # given to it
    channels: int | None = None  # of the attributions that it takes, if not all
    tolerance: float = 1e-9
    images_only: bool = False  # not for rows of numbers
    name: str = ""

    def attributions(self, scene):
        return scene.a.abs() if self.metric.needs == "mask" else scene.a[:, : self.channels]

    def measure(self, scene, *, attributions=None, method=tw.InputXGradient, batch_size=None, **options):
        """One number, or one curve, for each row."""
        a, told = self.attributions(scene) if attributions is None else attributions, {**self.settings, **options}
        if self.metric.needs == "maps":
            found = self.metric(a, **told)
        elif self.metric.needs == "mask":
            found = self.metric(a, scene.mask, **told)
        elif self.metric.needs == "method":
            method = method(scene.net, batch_size=batch_size) if isinstance(method, type) else method
            found = self.metric(method, scene.x, scene.target, **told)
        else:
            given = {"baselines": scene.b} if self.baselines else {}
            given |= {} if batch_size is None else {"batch_size": batch_size}
            found = self.metric(scene.net, scene.x, a, scene.target, **{**given, **told})
        return found.scores if isinstance(found, M.Curve) else found

    def __str__(self):
        return self.name or self.metric.name


def watched(case, scene):
    """The inputs that a metric evaluates, for a scene of one row."""
    case.measure(scene)  # trials of the model run the first time, and are remembered
    seen = []
    hook = scene.net.register_forward_pre_hook(lambda m, args: seen.append(args[0].detach().clone()))
    try:
        case.measure(scene)
    finally:
        hook.remove()
    return torch.cat(seen)


def sets_of(case, scene, i):
    """The features that a metric takes away from row i, for each evaluation after the first."""
    x = scene.x[i]
    return [(z != x).flatten().nonzero()[:, 0].tolist() for z in watched(case, scene.row(i))[1:]]


def steps(scene, count, radius=0.3):
    return ref.cube(torch.Generator().manual_seed(0), scene.x.shape[1:], radius, count)


def each(function, *settings, probability=False):
    """A reference of one row as one of a scene."""
    return lambda scene: [function(*row, *settings) for row in scene.rows(probability)]


def each_heat(function, *settings):
    return lambda scene: [function(*heat, *settings) for heat in scene.heats()]


def each_map(function, *settings):
    return lambda scene: [function(a, *settings) for a in scene.a]


def infidelity(scene):
    moved = [x - watched(INFIDELITY, scene.row(i))[1:] for i, x in enumerate(scene.x)]
    return [ref.infidelity(f, x, a, m) for (f, x, _, a), m in zip(scene.rows(), moved)]


def correlation(scene):
    rows = enumerate(scene.rows())
    return [ref.faithfulness_correlation(*row, sets_of(CORRELATION, scene, i)) for i, row in rows]


def corrected_correlation(scene):
    rows = enumerate(scene.rows())
    return [ref.corrected_correlation(*row, sets_of(OVERSAMPLED, scene, i)) for i, row in rows]


def sensitivity_n(scene):
    found = []
    for i, row in enumerate(scene.rows()):
        sets = sets_of(SENSITIVITY_N, scene, i)
        assert {len(s) for s in sets[:8]} == {20}
        found.append([ref.faithfulness_correlation(*row, part) for part in (sets[:8], sets[8:])])
    return found


def explained(function, *settings):
    """A reference of one row that asks the method again."""
    return lambda scene: [function(input_x_gradient, f, x, *settings) for f, x, _, _ in scene.rows()]


def moved(function, count):
    return lambda scene: explained(function, steps(scene, count))(scene)


def explanation_attack(scene):
    settings = {"radius": 0.3, "steps": 3, "pairs": 3, "tolerance": 0.5}
    return [
        ref.explanation_attack(
            input_x_gradient, scene.outputs, t, x, **settings, generator=torch.Generator().manual_seed(0)
        )
        for x, t in zip(scene.x, scene.target)
    ]


def model_randomization(mode):
    def reference(scene):
        nets = ref.with_random_weights(scene.net, LAYERS, torch.Generator().manual_seed(0), mode)
        start = explained(lambda explain, f, x: explain(f, x).abs())(scene)
        found = [[1.0] for _ in start]
        for net in nets:
            other = Scene(net, scene.x, scene.b, scene.a, scene.mask, scene.target)
            later = explained(lambda explain, f, x: explain(f, x).abs())(other)
            for row, a, b in zip(found, start, later):
                row.append(ref.rank_correlation(a, b))
        return found

    return reference


def random_logit(scene):
    offset = int(torch.randint(1, 4, (1,), generator=torch.Generator().manual_seed(0)))
    later = Scene(scene.net, scene.x, scene.b, scene.a, scene.mask, [(t + offset) % 4 for t in scene.target])
    both = (explained(lambda explain, f, x: explain(f, x).abs())(s) for s in (scene, later))
    return [ref.rank_correlation(a, b) for a, b in zip(*both)]


SHARES = [0.1, 0.6]
AGAIN = {"radius": 0.3, "n_samples": 4}
NAN = {"constant": "nan", "zero": "nan"}
INFIDELITY = MetricCase(M.infidelity, {"n_samples": 5}, infidelity)
CORRELATION = MetricCase(M.faithfulness_correlation, {"n_samples": 8}, correlation, **NAN)
OVERSAMPLED = MetricCase(
    M.faithfulness_correlation,
    {"n_samples": 9, "oversample": 10, "subset_size": 12},
    corrected_correlation,
    **NAN,
    images_only=True,
    name="oversampled",
)
SENSITIVITY_N = MetricCase(M.sensitivity_n, {"n_samples": 8, "sizes": [20, 50]}, sensitivity_n, **NAN, images_only=True)
METRIC_CASES = [
    MetricCase(M.deletion, {"steps": 5}, each(ref.deletion, 5)),
    MetricCase(
        M.deletion, {"steps": 5, "softmax": True}, each(ref.deletion, 5, probability=True), name="deletion-softmax"
    ),
    MetricCase(M.insertion, {"steps": 5}, each(ref.insertion, 5)),
    MetricCase(
        M.irof,
        {"feature_mask": SEGMENTS, "softmax": True},
        each(ref.irof, SEGMENTS.expand(3, 8, 8), probability=True),
        images_only=True,
    ),
    MetricCase(
        M.road,
        {"fractions": [0.0, 0.3, 0.9], "noise": 0.0},
        lambda scene: [ref.road(f, x, a[:1], [0.0, 0.3, 0.9]) for f, x, _, a in scene.rows()],
        baselines=False,
        channels=1,
        tolerance=1e-4,  # iterated
        images_only=True,
    ),
    MetricCase(M.sufficiency, {"fractions": SHARES}, each(ref.sufficiency, SHARES)),
    MetricCase(M.comprehensiveness, {"fractions": SHARES}, each(ref.comprehensiveness, SHARES)),
    MetricCase(M.monotonicity, {"steps": 10**6}, each(ref.monotonicity)),
    MetricCase(M.average_drop, {}, lambda scene: [ref.average_drop(*row)[0] for row in scene.rows(probability=True)]),
    MetricCase(
        M.average_increase, {}, lambda scene: [ref.average_drop(*row)[1] for row in scene.rows(probability=True)]
    ),
    INFIDELITY,
    CORRELATION,
    OVERSAMPLED,
    SENSITIVITY_N,
    MetricCase(
        M.faithfulness_estimate,
        {"steps": 7},
        each(ref.faithfulness_estimate, 7),
        constant="nan",
        zero="nan",
        images_only=True,
    ),
    MetricCase(M.completeness_gap, {}, each(ref.completeness_gap)),
    MetricCase(M.non_sensitivity, {"tolerance": 0.1}, each(ref.non_sensitivity, 0.1)),
    MetricCase(M.sparseness, {}, each_map(ref.gini), zero="nan"),
    MetricCase(M.complexity, {}, each_map(ref.entropy), zero="nan"),
    MetricCase(M.effective_complexity, {"epsilon": 0.3}, each_map(ref.effective_complexity, 0.3), zero="nan"),
    MetricCase(M.pointing_game, {"tolerance": 1.5}, each_heat(ref.pointing_game, 1.5)),
    MetricCase(M.relevance_mass, {}, each_heat(ref.relevance_mass), zero="nan"),
    MetricCase(M.energy_pointing_game, {}, each_heat(ref.relevance_mass), zero="nan"),
    MetricCase(M.relevance_rank, {}, lambda scene: [ref.largest_on_mask(h, m, int(m.sum())) for h, m in scene.heats()]),
    MetricCase(M.top_k_intersection, {"k": 10}, each_heat(ref.largest_on_mask, 10)),
    MetricCase(M.auc, {}, each_heat(ref.roc_area)),
    MetricCase(M.iou, {"threshold": 0.6}, each_heat(ref.iou, 0.6), zero="nan"),
    MetricCase(M.sensitivity_max, AGAIN, lambda scene: [max(s) for s in moved(ref.sensitivity, 4)(scene)], zero="nan"),
    MetricCase(
        M.sensitivity_avg, AGAIN, lambda scene: [sum(s) / 4 for s in moved(ref.sensitivity, 4)(scene)], zero="nan"
    ),
    MetricCase(M.local_lipschitz, AGAIN, moved(ref.local_lipschitz, 4)),
    MetricCase(M.continuity, {"shifts": (1, -2)}, explained(ref.continuity, (1, -2)), images_only=True),
    MetricCase(
        M.explanation_attack,
        {"radius": 0.3, "steps": 3, "n_samples": 3, "tolerance": 0.5},
        explanation_attack,
        zero="nan",
    ),
    MetricCase(M.input_invariance, {"shift": 0.7}, explained(ref.input_invariance, 0.7), zero="nan"),
    *(
        MetricCase(
            M.model_randomization,
            {"mode": mode},
            model_randomization(mode),
            **NAN,
            images_only=True,
            name=f"model_randomization-{mode}",
        )
        for mode in ("cascading", "independent")
    ),
    MetricCase(M.random_logit, {}, random_logit, **NAN, images_only=True),
]
each_metric = pytest.mark.parametrize("case", METRIC_CASES, ids=str)
each_metric_of_numbers = pytest.mark.parametrize(
    "case", [c for c in METRIC_CASES if not c.images_only and c.metric.needs != "mask"], ids=str
)


def metrics_that(*, need: str):
    """The rows of the metrics that are called with the model, the maps, the mask or the method (several: with a blank)."""
    found = [c for c in METRIC_CASES if c.metric.needs in need.split()]
    return pytest.mark.parametrize("case", found, ids=str)
