"""The table of methods: one row each, used by every file of properties."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest
import torch
from nets import inputs, make

import torchwhy as tw


def thirds(model):
    """Three groups of the features of the linear network, or of ``ROWS``."""
    return {"groups": torch.arange(5 if isinstance(model, torch.nn.Linear) else 24) % 3}


@dataclass(eq=False)
class Case:
    """A method with settings that keep it quick, the network it is tried on, and what holds for it.

    ``layer`` is one that it needs, ``laws`` the names of the laws of ``test_laws.py`` that hold for it, ``exact`` the settings
    with which they do, each element of a picture being a feature: more steps or samples than anything else needs.
    """

    method: type
    options: dict[str, Any] = field(default_factory=dict)
    net: str = "conv"
    layer: str | None = None
    laws: tuple[str, ...] = ()
    exact: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    wrap: Callable[[Any], Any] | None = None  # model → options: methods of methods, what depends on its features
    maps: bool = False  # gives maps (N, 1, H, W)
    shape: tuple[int, ...] | None = None  # of a row's attributions, where that is neither the inputs' nor such a map's

    def make(self, model, **options):
        layer = {"layer": self.layer} if self.layer else {}
        wrapped = self.wrap(model) if self.wrap else {}
        for other in wrapped.values():
            if isinstance(other, tw.Attribution):
                other.batch_size = options.get("batch_size")
        return self.method(model, **{**layer, **self.options, **wrapped, **options})

    def setup(self, dtype=torch.double, n=3):
        return make(self.net, dtype), inputs(self.net, n, dtype)

    @cache  # noqa: B019 - cases live as long as the tests
    def usual(self):
        """What it gives of class 1 with nothing set besides, to compare with."""
        net, x = self.setup()
        return self.make(net).attribute(x, target=1, **self.data)

    def __str__(self):
        return f"{self.method.__name__}{'' if self.wrap in (None, thirds) else '-of'}"


def parts(_):
    """Two convolutions as the components of the convolutional network."""
    first = tw.circuits.Component("first", writes=tw.Layer("conv1"))
    second = tw.circuits.Component("second", tw.Layer("conv2", input=True), tw.Layer("conv2"))
    return {"components": [first, second, tw.circuits.Component("end", tw.Layer("norm", input=True))]}


PATCHES = torch.arange(64).view(8, 8) // 12
ROWS = torch.arange(192).view(3, 8, 8) // 8
SAMPLES = {"n_samples": 6, "generator": 0}
CASES = [
    Case(tw.Saliency),
    Case(tw.InputXGradient, laws=("linear", "dummy")),
    Case(tw.SmoothGrad, SAMPLES),
    Case(tw.SmoothGrad, SAMPLES, wrap=lambda m: {"of": tw.IntegratedGradients(m, n_steps=5)}),
    Case(tw.SquareGrad, SAMPLES),
    Case(tw.VarGrad, SAMPLES),
    Case(tw.IntegratedGradients, {"n_steps": 8}, laws=("linear", "complete", "dummy"), exact={"n_steps": 40}),
    Case(tw.IntegratedGradients, {"tolerance": 0.005, "max_steps": 200}, laws=("linear", "complete", "dummy")),
    Case(tw.ExpectedGradients, SAMPLES, laws=("linear", "dummy")),
    Case(tw.GradientSHAP, {**SAMPLES, "stdevs": 0.0}, laws=("linear", "dummy")),
    Case(tw.GradientSHAP, {**SAMPLES, "stdevs": 0.1}, laws=("dummy",)),
    Case(tw.BlurIG, {"n_steps": 8, "max_sigma": 3.0}, laws=("complete",), exact={"n_steps": 40}),
    Case(tw.GuidedIG, {"n_steps": 5, "max_dist": 0.002}, laws=("linear", "complete", "dummy"), exact={"n_steps": 40}),
    Case(tw.IDGI, laws=("complete",)),
    Case(tw.IDGI, wrap=lambda m: {"of": tw.GuidedIG(m, n_steps=4)}, laws=("complete",)),
    Case(tw.IDGI, wrap=lambda m: {"of": tw.BlurIG(m, n_steps=6)}, laws=("complete",)),
    Case(tw.NeuronConductance, {"n_steps": 6, "neuron": tw.Neuron("conv1", (1, 2, 3))}),
    Case(
        tw.Conductance,
        {"n_steps": 8, "method": "riemann_trapezoid"},
        layer="conv1",
        laws=("complete",),
        exact={"n_steps": 60},
    ),
    Case(tw.InternalInfluence, {"n_steps": 10}, layer="conv1"),
    Case(tw.LayerActivation, layer="conv1"),
    Case(tw.GuidedBackprop),
    Case(tw.DeconvNet),
    Case(tw.LRP),
    Case(tw.LRP, {"composite": "epsilon"}, laws=("dummy",)),
    Case(tw.LRP, {"composite": "epsilon_gamma_box", "low": -5.0, "high": 5.0}),
    Case(tw.ExcitationBackprop),
    Case(tw.ExcitationBackprop, {"contrastive": True}, layer="conv1"),
    Case(tw.DeepLIFT, laws=("linear", "complete", "dummy")),
    Case(tw.DeepLIFT, {"rule": "reveal_cancel"}, laws=("linear", "complete", "dummy")),
    Case(tw.DeepSHAP, laws=("linear", "complete", "dummy")),
    Case(tw.LinearApproximation, layer="conv1"),
    Case(tw.FeatureAblation, data={"feature_mask": PATCHES}, laws=("linear", "dummy")),
    Case(tw.FeaturePermutation, {"n_repeats": 2, "generator": 0}, data={"feature_mask": PATCHES}, laws=("dummy",)),
    Case(tw.Occlusion, {"sliding_window_shapes": 3, "strides": 2}),
    Case(tw.RISE, {"n_samples": 20, "grid": 3, "generator": 0}, maps=True),
    Case(
        tw.ExtremalPerturbation,
        {"n_steps": 2, "areas": (0.3, 0.5), "step": 2, "sigma": 2.0, "max_blur": 3.0},
        maps=True,
    ),
    Case(tw.LIME, {"n_samples": 30, "n_segments": 6, "generator": 0, "kernel_width": 1.0}),
    Case(tw.ExactShapley, data={"feature_mask": PATCHES}, laws=("linear",)),
    Case(
        tw.KernelSHAP,
        {"n_samples": 60, "generator": 0},
        data={"feature_mask": ROWS},
        laws=("linear", "complete"),
        exact={"n_samples": 450},
    ),
    Case(tw.Banzhaf, {"n_samples": 60, "generator": 0}, data={"feature_mask": ROWS}, laws=("linear",)),
    Case(
        tw.ShapleySampling,
        {"n_samples": 4, "generator": 0},
        data={"feature_mask": PATCHES},
        laws=("linear", "complete"),
    ),
    Case(
        tw.OwenValues,
        {"n_samples": 4, "generator": 0},
        wrap=thirds,
        data={"feature_mask": ROWS},
        laws=("linear", "complete", "dummy"),
        exact={"groups": torch.arange(192) % 3},
    ),
    Case(tw.RawAttention, net="attending", maps=True),
    Case(tw.AttentionRollout, {"discard_ratio": 0.3}, net="attending", maps=True),
    Case(tw.AttentionFlow, net="attending", maps=True),
    Case(tw.AttentionRelevance, net="attending", maps=True),
    Case(tw.ALTI, net="attending", maps=True),
    Case(tw.LinearSHAP, {"rtol": 1e9}, data={"feature_mask": ROWS}, laws=("linear",)),
    *(
        Case(method, {"relu": False}, maps=True)
        for method in (
            tw.GradCAM,
            tw.GradCAMPlusPlus,
            tw.XGradCAM,
            tw.HiResCAM,
            tw.ElementWiseCAM,
            tw.LayerCAM,
            tw.ShapleyCAM,
            tw.EigenCAM,
            tw.EigenGradCAM,
            tw.KPCACAM,
            tw.ScoreCAM,
            tw.AblationCAM,
            tw.FinerCAM,
        )
    ),
    Case(tw.SmoothGradCAMPlusPlus, {**SAMPLES, "relu": False}, maps=True),
    Case(tw.SSCAM, {**SAMPLES, "stdev": 0.5, "relu": False}, maps=True),
    Case(tw.ISCAM, {"n_steps": 3, "relu": False}, maps=True),
    Case(tw.OptiCAM, {"n_steps": 3, "relu": False}, maps=True),
    Case(tw.FullGrad, maps=True),
    Case(tw.GuidedGradCAM),
    Case(tw.ActivationPatching, {"layer": ["conv1", "norm"], "units": "layer"}, shape=(2, 1)),
    Case(tw.AttributionPatching, {"layer": ["conv1", "norm"], "units": "layer"}, shape=(2, 1)),
    Case(tw.EdgeAttribution, {"n_steps": 4}, wrap=parts, shape=(2, 2)),
    Case(tw.DirectLogitAttribution, wrap=parts, shape=(2,)),
    Case(tw.LogitLens, {"layer": ["conv1", "norm"]}, shape=(2,)),
    Case(tw.TunedLens, {"layer": ["conv1", "norm"]}, shape=(2,)),
]


def in_turn(names, values, count):
    """Parameters of each name with so many of the values, others for the next name; the other pairs are slow tests."""
    often = [(i, (i * count + k) % len(values)) for i in range(len(names)) for k in range(count)]
    return [
        pytest.param(name, value, marks=() if (i, k) in often else pytest.mark.slow)
        for i, name in enumerate(names)
        for k, value in enumerate(values)
    ]


each_case = pytest.mark.parametrize("case", CASES, ids=str)


def cases(*, law):
    """The rows for which a law holds."""
    return pytest.mark.parametrize("case", [c for c in CASES if law in c.laws], ids=str)
