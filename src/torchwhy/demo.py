"""Every method on one image model, with settings that suit a photo: what the demo, the pictures in the docs and `explain` use."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torchwhy

from .attribution import Attribution
from .explanation import Explanation

# for each method, its settings on a photo: (model, effort in (0, 1]) -> keyword arguments; a method that is not named has none
SETTINGS: dict[str, Callable[[Any, float], dict[str, Any]]] = {
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
    "InternalInfluence": lambda m, e: {"n_steps": _n(32, e), "layer": "auto"},
    "LayerActivation": lambda m, e: {"layer": "auto"},
}

# what a method is given besides the image and the target
DATA: dict[str, dict[str, Any]] = {
    "ExpectedGradients": {"baselines": "noise"},
    "GradientSHAP": {"baselines": "noise"},
}

# what an image and its predicted class alone do not answer: these need concepts, or another class
NOT_ON_A_PHOTO = {"TCAV", "Counterfactual"}


def photo_methods() -> list[str]:
    """The names of the methods that have an answer for any image model and photo."""
    return [name for name in torchwhy.methods() if name not in NOT_ON_A_PHOTO]


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
    chosen = {**SETTINGS.get(method.__name__, lambda m, e: {})(model, effort), **settings}
    unknown = set(chosen) - set(method.__dataclass_fields__)
    if unknown:
        known = ", ".join(f for f in method.__dataclass_fields__ if f != "model")
        raise ValueError(f"{method.__name__} has no setting {', '.join(sorted(unknown))}; it has {known}")
    return method(model, **chosen)


def explain(
    names: Iterable[str], model: Any, x: Any, target: Any, *, effort: float = 1.0, **settings: Any
) -> list[Shown]:
    """What each of the named methods says of images ``x`` ``(N, C, H, W)``."""
    shown = []
    for name in names:
        method = make(name, model, effort=effort, **settings)
        data = DATA.get(type(method).__name__, {})
        shown.append(Shown(type(method).__name__, method.explain(x, target, **data)))
    return shown
