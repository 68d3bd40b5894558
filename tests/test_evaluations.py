"""How many rows a method runs the model on: what its docstring states is what ``explain`` counts."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

import torchwhy as tw

STATEMENT = re.compile(r"\bevaluations? (of a row|and|more)\b|\b(forward|backward) pass|\ba run for each layer")
D, C = 4, 4  # features, channels
FEATURES = torch.arange(64).view(8, 8) // 16


def net():
    """A network of two convolutions, none of whose channels is ever constant."""
    torch.manual_seed(0)
    convolutions = (nn.Conv2d(3, C, 3, padding=1), nn.Tanh(), nn.Conv2d(C, C, 3, padding=1), nn.Softplus())
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 5)).eval()


@dataclass
class Cost:
    """What a method states, and takes: ``a row`` for each of the K baselines that it is given, and ``in all`` besides.

    Args:
        says: the words of its docstring, line breaks as spaces.
        a_row: evaluations of a row, from K.
        in_all: evaluations that the rows share.
    """

    method: type
    says: str
    a_row: Callable[[int], int]
    in_all: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    masked: bool = True  # by FEATURES
    baselines: bool = True  # takes several

    def __str__(self):
        return self.method.__name__ + "".join(f"-{name}" for name in self.settings)


def cam(method, says, a_row, in_all=0, **settings):
    return Cost(method, says, lambda k: a_row, in_all, {"layer": "2", **settings}, masked=False, baselines=False)


UNIT = tw.Neuron("2", (0, 1, 1))
COSTS = [
    cam(tw.ScoreCAM, "C + 1 forward passes a row", C + 1),
    cam(tw.SSCAM, "m · C + 1 forward passes a row", 3 * C + 1, n_samples=3),
    cam(tw.ISCAM, "m · C + 1 forward passes a row", 3 * C + 1, n_steps=3),
    cam(tw.AblationCAM, "C + 2 forward passes a row, and four in all", C + 2, 4),
    cam(
        tw.OptiCAM,
        "``n_steps`` forward and backward passes through the whole model, and a forward pass before",
        4,
        n_steps=3,
    ),
    cam(tw.ShapleyCAM, "a second backward pass", 1),
    Cost(tw.FeatureAblation, "Takes K (d + 1) evaluations of a row", lambda k: k * (D + 1)),
    Cost(
        tw.FeaturePermutation,
        "R d + 1 evaluations of a row",
        lambda k: 2 * D + 1,
        settings={"n_repeats": 2},
        baselines=False,
    ),
    Cost(
        tw.Occlusion,
        "Takes K (windows + 1) evaluations of a row",
        lambda k: k * (16 + 1),
        settings={"sliding_window_shapes": 2, "strides": 2},
        masked=False,
    ),
    Cost(
        tw.RISE,
        "K n_samples evaluations of a row; reduced variance makes an odd",
        lambda k: k * 22,
        settings={"n_samples": 21},
        masked=False,
    ),
    Cost(tw.ExactShapley, "Takes :math:`K 2^d` evaluations of a row", lambda k: k * 2**D),
    Cost(tw.KernelSHAP, "n_samples: evaluations of a row and baseline", lambda k: k * 12, settings={"n_samples": 12}),
    Cost(
        tw.ShapleySampling,
        "Takes K (n_samples (d − 1) + 2) evaluations of a row",
        lambda k: k * (6 * (D - 1) + 2),
        settings={"n_samples": 6},
    ),
    Cost(
        tw.NeuronConductance,
        "Takes two evaluations of a row for each step and baseline, and one in all",
        lambda k: k * 2 * 10,
        1,
        settings={"neuron": UNIT, "n_steps": 10},
        masked=False,
    ),
    Cost(tw.LinearSHAP, "Takes K (d + 2) evaluations of a row", lambda k: k * (D + 2), settings={"rtol": float("inf")}),
]


def stated(method):
    return re.sub(r"\s+", " ", method.__doc__)


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("cost", COSTS, ids=str)
def test_the_evaluations_are_as_stated(cost, k, n):
    assert cost.says in stated(cost.method)
    assert STATEMENT.search(cost.says)
    data: dict[str, Any] = {"feature_mask": FEATURES} if cost.masked else {}
    if cost.baselines:
        data["baselines"] = tw.baselines.Distribution(torch.randn(k, 3, 8, 8))
    drawn = {"generator": 0} if hasattr(cost.method, "generator") else {}
    found = cost.method(net(), **drawn, **cost.settings).explain(torch.randn(n, 3, 8, 8), 1, **data)
    assert found.evaluations == n * cost.a_row(k) + cost.in_all


def test_every_statement_of_a_number_is_tried():
    elsewhere = {
        *("ActivationPatching", "AttributionPatching", "EdgeAttribution", "LogitLens"),  # test_circuits.py
        "ExtremalPerturbation",  # below
    }
    states = {name for name, method in tw.methods().items() if STATEMENT.search(stated(method))}
    assert states == {cost.method.__name__ for cost in COSTS} | elsewhere


@pytest.mark.parametrize(
    "area, reward, times",
    [
        (0.05, "preserve", 1),
        (0.2, "hybrid", 2),
        *(pytest.param(a, *r, marks=pytest.mark.slow) for a in (0.1, 0.2) for r in [("preserve", 1)]),
        *(pytest.param(a, "hybrid", 2, marks=pytest.mark.slow) for a in (0.05, 0.1)),
    ],
)
def test_the_discs_of_extremal_perturbation_are_about_as_many_as_stated(area, reward, times):
    assert "n_steps forward and backward passes, and about 1 / (0.3 area) + 27 forward passes" in stated(
        tw.ExtremalPerturbation
    )
    method = tw.ExtremalPerturbation(net(), areas=(area,), n_steps=4, reward=reward, max_blur=3.0)
    found = method.explain(torch.randn(2, 3, 40, 40), 1).evaluations
    assert found == pytest.approx(2 * times * (4 + 1 / (0.3 * area) + 27), rel=0.1)
