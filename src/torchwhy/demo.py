"""Every method on one image model, with settings that suit a photo: for the demo, the docs and the command line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any

from torch import nn

import torchwhy
from torchwhy.attribution import Attribution
from torchwhy.explanation import Explanation

Effort = float  # in (0, 1]: the share of samples and steps that is spent

# for each method, its settings on a photo; a method that is not named has none
SETTINGS: dict[str, Callable[[Any, Effort], dict[str, Any]]] = {
    "Saliency": lambda m, e: {"channels": "max"},
    "SmoothGrad": lambda m, e: {"n_samples": _n(32, e), "channels": "max", "generator": 0},
    "SquareGrad": lambda m, e: {"n_samples": _n(32, e), "channels": "sum", "generator": 0},
    "VarGrad": lambda m, e: {"n_samples": _n(32, e), "channels": "sum", "generator": 0},
    "IntegratedGradients": lambda m, e: {"tolerance": 0.01} if e == 1 else {"n_steps": _n(50, e)},
    "ExpectedGradients": lambda m, e: {"n_samples": _n(64, e), "generator": 0},
    "GradientSHAP": lambda m, e: {"n_samples": _n(64, e), "stdevs": 0.1, "generator": 0},
    "BlurIG": lambda m, e: {"n_steps": _n(50, e)},
    "GuidedIG": lambda m, e: {"n_steps": _n(50, e)},
    "IDGI": lambda m, e: {"of": torchwhy.IntegratedGradients(m, n_steps=_n(50, e))},
    "Conductance": lambda m, e: {"n_steps": _n(32, e), "layer": "auto"},
    "InternalInfluence": lambda m, e: {"n_steps": _n(32, e), "layer": _inner_layer(m)},
    "LayerActivation": lambda m, e: {"layer": "auto"},
    "LinearApproximation": lambda m, e: {"layer": "auto"},
    "SmoothGradCAMPlusPlus": lambda m, e: {"n_samples": _n(32, e), "generator": 0},
    "ScoreCAM": lambda m, e: {"max_channels": _n(64, e)},
    "SSCAM": lambda m, e: {"max_channels": _n(32, e), "n_samples": 4, "generator": 0},
    "ISCAM": lambda m, e: {"max_channels": _n(32, e), "n_steps": 4},
    "OptiCAM": lambda m, e: {"n_steps": _n(40, e)},
    "ExtremalPerturbation": lambda m, e: {"n_steps": _n(60, e), "areas": (0.1,)},
    "AblationCAM": lambda m, e: {"max_channels": _n(256, e)},
    "Occlusion": lambda m, e: {"sliding_window_shapes": (3, 32, 32), "strides": (3, *[32 if e < 0.5 else 16] * 2)},
    "RISE": lambda m, e: {"n_samples": _n(400, e), "generator": 0},
    "LIME": lambda m, e: {"n_samples": _n(300, e), "n_segments": _n(50, e), "generator": 0},
    "KernelSHAP": lambda m, e: {"n_samples": _n(300, e), "generator": 0},
    "Banzhaf": lambda m, e: {"n_samples": _n(300, e), "generator": 0},
    "ShapleySampling": lambda m, e: {"n_samples": _n(8, e), "generator": 0},
    "OwenValues": lambda m, e: {"n_samples": _n(8, e), "generator": 0, "groups": _rows_of_patches(3 if e < 0.5 else 7)},
    "FeaturePermutation": lambda m, e: {"generator": 0},
}

# what a method is given besides the images and the target
DATA: dict[str, Callable[[Any, Effort], dict[str, Any]]] = {
    "ExpectedGradients": lambda x, e: {"baselines": "noise"},
    "GradientSHAP": lambda x, e: {"baselines": "noise"},
    "DeepSHAP": lambda x, e: {"baselines": torchwhy.Noise(std=0.5, k=_n(8, e))},
    **dict.fromkeys(
        ("FeatureAblation", "FeaturePermutation", "KernelSHAP", "Banzhaf", "ShapleySampling", "OwenValues"),
        lambda x, e: {"feature_mask": torchwhy.patches(x, 3 if e < 0.5 else 7)},
    ),
    "ExactShapley": lambda x, e: {"feature_mask": torchwhy.patches(x, 2 if e < 0.5 else 3)},
}

NOT_FOR_PHOTOS = {
    **dict.fromkeys(
        ("RawAttention", "AttentionRollout", "AttentionFlow", "AttentionRelevance", "ALTI"),
        "is for models with attention",
    ),
    "Counterfactual": "explains a change to another class",
    "LinearSHAP": "is for models that are linear in their input",
    "TCAV": "needs examples of concepts",
}


def for_photos() -> list[str]:
    """The methods that explain a photo with nothing but the model."""
    return [name for name in torchwhy.methods() if name not in NOT_FOR_PHOTOS]


def _rows_of_patches(grid: int) -> list[int]:
    """The groups of OwenValues: patches of one height together."""
    return [patch // grid for patch in range(grid * grid)]


def _inner_layer(model: Any) -> str:
    """A convolution in the upper half: the gradient at the last one is the same everywhere, where a mean is taken above it."""
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return names[int(0.6 * len(names))] if names else "auto"


def _n(full: int, effort: float) -> int:
    return max(2, round(full * effort))


@dataclass
class Shown:
    """One method's answer, and the line under its picture."""

    name: str
    explanation: Explanation

    @property
    def captions(self) -> list[str]:
        """One line for each image: seconds and evaluations for each, completeness gap."""
        e, n = self.explanation, len(self.explanation.inputs)
        gaps = [None] * n if e.completeness_gap is None else e.completeness_gap.tolist()
        return [
            f"{e.seconds / n:.1f} s · {e.evaluations // n} evals" + ("" if g is None else f"\ngap {g:.2g}")
            for g in gaps
        ]


def method_named(name: str) -> type[Attribution]:
    """The method of that name, whatever its case.

    Raises:
        ValueError: there is none (with the nearest names).
    """
    known = {n.lower(): c for n, c in torchwhy.methods().items()}
    if name.lower() in known:
        return known[name.lower()]
    near = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.4)
    names = ", ".join(known[n].__name__ for n in near) or ", ".join(torchwhy.methods())
    raise ValueError(f"method: there is no {name!r}; " + (f"the nearest are {names}" if near else f"there are {names}"))


def make(name: str, model: Any, *, effort: float = 1.0, **settings: Any) -> Attribution:
    """A method with the settings that suit a photo, some of them replaced.

    Raises:
        ValueError: an unknown method, or a setting that it does not have.
    """
    method = method_named(name)
    known = [f.name for f in fields(method) if f.init and f.name != "model"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{method.__name__} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = SETTINGS.get(method.__name__, lambda m, e: {})(model, effort)
    if {"n_steps", "method"} & set(settings):
        chosen.pop("tolerance", None)  # it would take the place of the steps that are asked for
    return method(model, **{**chosen, **settings})


def explain_photos(
    names: Iterable[str], model: Any, x: Any, target: Any, *, effort: float = 1.0, **settings: Any
) -> list[Shown]:
    """What each of the named methods says of images ``x`` ``(N, C, H, W)``."""
    shown = []
    for name in names:
        method = make(name, model, effort=effort, **settings)
        data = DATA.get(type(method).__name__, lambda x, e: {})
        shown.append(Shown(type(method).__name__, method.explain(x, target, **data(x, effort))))
    return shown
