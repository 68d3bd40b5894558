"""Every method on one image model, with settings that suit a photo: for the demo, the docs and the command line."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from torch import Tensor, nn

import torchwhy
from torchwhy.attribution import Attribution
from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation
from torchwhy.spelling import nearest_names

# for each method, its settings on a photo; a method that is not named has none
SETTINGS: dict[str, Keywords] = {
    "Saliency": {"channels": "max"},
    "SmoothGrad": {"channels": "max"},
    "SquareGrad": {"channels": "sum"},
    "VarGrad": {"channels": "sum"},
    "GradientSHAP": {"stdevs": 0.1},
    "Conductance": {"layer": "auto"},
    "LayerActivation": {"layer": "auto"},
    "LinearApproximation": {"layer": "auto"},
    "SSCAM": {"n_samples": 4},
    "ISCAM": {"n_steps": 4},
    "ExtremalPerturbation": {"areas": (0.1,)},
}

# the settings that say how much work is done; an effort below 1 takes that share of each
COUNTS: dict[str, dict[str, int]] = {
    "SmoothGrad": {"n_samples": 32},
    "SquareGrad": {"n_samples": 32},
    "VarGrad": {"n_samples": 32},
    "ExpectedGradients": {"n_samples": 64},
    "GradientSHAP": {"n_samples": 64},
    "BlurIG": {"n_steps": 50},
    "GuidedIG": {"n_steps": 50},
    "Conductance": {"n_steps": 32},
    "InternalInfluence": {"n_steps": 32},
    "SmoothGradCAMPlusPlus": {"n_samples": 32},
    "ScoreCAM": {"max_channels": 64},
    "SSCAM": {"max_channels": 32},
    "ISCAM": {"max_channels": 32},
    "AblationCAM": {"max_channels": 256},
    "OptiCAM": {"n_steps": 40},
    "ExtremalPerturbation": {"n_steps": 60},
    "RISE": {"n_samples": 400},
    "LIME": {"n_samples": 300, "n_segments": 50},
    "KernelSHAP": {"n_samples": 300},
    "Banzhaf": {"n_samples": 300},
    "ShapleySampling": {"n_samples": 8},
    "OwenValues": {"n_samples": 8},
}

# the features are square patches, so many along a side: with half the effort or more, and with less
PATCHES: dict[str, tuple[int, int]] = {
    "FeatureAblation": (7, 3),
    "FeaturePermutation": (7, 3),
    "KernelSHAP": (7, 3),
    "Banzhaf": (7, 3),
    "ShapleySampling": (7, 3),
    "OwenValues": (7, 3),
    "ExactShapley": (3, 2),
}

NOT_FOR_PHOTOS = {
    **dict.fromkeys(
        ("RawAttention", "AttentionRollout", "AttentionFlow", "AttentionRelevance", "ALTI"),
        "is for models with attention",
    ),
    **dict.fromkeys(
        (
            "ActivationPatching",
            "AttributionPatching",
            "EdgeAttribution",
            "DirectLogitAttribution",
            "LogitLens",
            "TunedLens",
        ),
        "is for transformers",
    ),
    "Counterfactual": "explains a change to another class",
    "LinearSHAP": "is for models that are linear in their input",
    "TCAV": "needs examples of concepts",
    "NeuronConductance": "is of one unit inside of the model",
}


def for_photos() -> list[str]:
    """Return the methods that explain a photo with nothing but the model."""
    return [name for name in torchwhy.methods() if name not in NOT_FOR_PHOTOS]


def _scaled(count: int, effort: float) -> int:
    return max(2, round(count * effort))


def _our_name(method: type[Attribution]) -> str:
    """Return the name of one of our methods; nothing of one's own, which may be called as one of ours."""
    return method.__name__ if torchwhy.methods().get(method.__name__) is method else ""


def _settings_for(method: type[Attribution], model: nn.Module, effort: float) -> Keywords:
    """Return the settings that suit a photo, for the share ``effort`` of the work."""
    name = _our_name(method)
    settings = dict(SETTINGS.get(name, {}))
    settings |= {key: _scaled(count, effort) for key, count in COUNTS.get(name, {}).items()}
    if any(f.name == "generator" for f in fields(method)):
        settings["generator"] = 0
    if name == "IntegratedGradients":
        settings |= {"tolerance": 0.01} if effort == 1 else {"n_steps": _scaled(50, effort)}
    elif name == "IDGI":
        settings["of"] = torchwhy.IntegratedGradients(model, n_steps=_scaled(50, effort))
    elif name == "InternalInfluence":
        settings["layer"] = _inner_layer(model)
    elif name == "Occlusion":
        stride = 32 if effort < 0.5 else 16
        settings |= {"sliding_window_shapes": (3, 32, 32), "strides": (3, stride, stride)}
    elif name == "OwenValues":
        side = _patches_along(name, effort)
        settings["groups"] = [patch // side for patch in range(side * side)]  # patches of one height together
    return settings


def _inner_layer(model: nn.Module) -> str:
    """Return a convolution in the upper half of the model.

    At the last one the gradient is the same everywhere, where a mean is taken above it.
    """
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d)]
    return names[int(0.6 * len(names))] if names else "auto"


def _patches_along(name: str, effort: float) -> int:
    full, quick = PATCHES[name]
    return quick if effort < 0.5 else full


def data_for_photos(method: type[Attribution], x: Tensor, effort: float) -> Keywords:
    """Return what a method is given besides the images and the target."""
    name = _our_name(method)
    if name in ("ExpectedGradients", "GradientSHAP"):
        return {"baselines": "noise"}
    if name == "DeepSHAP":
        return {"baselines": torchwhy.Noise(std=0.5, k=_scaled(8, effort))}
    if name in PATCHES:
        return {"feature_mask": torchwhy.patches(x, _patches_along(name, effort))}
    return {}


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
    """Return the method of that name, whatever its case, or that of a module of one's own, ``"module:Class"``.

    Raises:
        ValueError: there is none; the nearest names are listed.
    """
    if ":" in name:
        return own_method(name)
    known = {n.lower(): method for n, method in torchwhy.methods().items()}
    if name.lower() in known:
        return known[name.lower()]
    near = nearest_names(name, torchwhy.methods(), cutoff=0.4)
    listed = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(torchwhy.methods())}"
    module, _, last = name.rpartition(".")
    own = f"; a method of your own is module:Class, as {module or 'my_methods'}:{last}"
    raise ValueError(f"method: there is no {name!r}; {listed}{own if module or not near else ''}")


def own_method(name: str) -> type[Attribution]:
    """Return the method ``"module:Class"``; the module is installed, or a file in the current folder.

    Raises:
        ValueError: there is no such module, or no method of that name in it.
    """
    module_name, _, class_name = name.partition(":")
    try:
        with _importing_from_here():
            module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:  # the latter two of a name that is no module's, as "", ".a"
        raise ValueError(
            f"method: {name!r}: {error}; expected module:Class, a module that is installed or a file in this folder"
        ) from error
    found = getattr(module, class_name, None)
    if isinstance(found, type) and issubclass(found, Attribution):
        return found
    here = [n for n, kind in vars(module).items() if isinstance(kind, type) and issubclass(kind, Attribution)]
    there = f"there are {', '.join(here)}" if here else "there is none, no class that derives from tw.Attribution"
    raise ValueError(f"method: {module_name!r} has no method {class_name!r}; {there}")


@contextmanager
def _importing_from_here() -> Iterator[None]:
    """Let modules be imported from the current folder while open, which Python does for ``python -m`` alone."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def make(name: str, model: nn.Module, *, effort: float = 1.0, **settings: object) -> Attribution:
    """Return a method with the settings that suit a photo, some of them replaced.

    Args:
        name: as for :func:`method_named`.
        model: an image model.
        effort: the share of samples and steps that is spent, in (0, 1].
        settings: in place of those that suit a photo.

    Raises:
        ValueError: an unknown method, or a setting that it does not have.
    """
    method = method_named(name)
    known = [f.name for f in fields(method) if f.init and f.name != "model"]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise ValueError(f"{method.__name__} has no setting {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = _settings_for(method, model, effort)
    if {"n_steps", "method"} & set(settings):
        chosen.pop("tolerance", None)  # it would take the place of the steps that are asked for
    return method(model, **{**chosen, **settings})


def explain_photos(
    names: Iterable[str],
    model: nn.Module,
    x: Tensor,
    target: int | list[int] | str,
    *,
    effort: float = 1.0,
    **settings: object,
) -> list[Shown]:
    """Explain images ``x`` ``(N, C, H, W)`` by each of the named methods; further arguments as of :func:`make`."""
    shown = []
    for name in names:
        method = make(name, model, effort=effort, **settings)
        name = type(method).__name__
        shown.append(Shown(name, method.explain(x, target, **data_for_photos(type(method), x, effort))))
    return shown
