"""Methods side by side: every method, every metric."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchwhy import metrics as known_metrics
from torchwhy.attribution import Attribution, Inputs
from torchwhy.comparison_table import Comparison
from torchwhy.explanation import Explanation
from torchwhy.metrics.metric_function import settled_baselines
from torchwhy.targets import TargetLike

TIMES_INPUT_METRICS = ("InputXGradient", "IntegratedGradients", "DeepLIFT")


def compare(
    model: Any,
    inputs: Inputs,
    target: TargetLike,
    methods: Mapping[str, Any] | Sequence[Attribution],
    metrics: Mapping[str, Callable[..., Any]] | Sequence[str | Callable[..., Any]],
    *,
    mask: Tensor | None = None,
    baselines: Any = None,
    feature_mask: Any = None,
    additional_forward_args: Any = None,
    level: float = 0.95,
) -> Comparison:
    """Explain with every method and measure with every metric.

    Metrics of pixels get the sums over the channels of an image's attributions, so that methods with and without
    channels answer one question; with ``feature_mask``, those that run the model go by its features.
    ``infidelity`` is told that InputXGradient, IntegratedGradients and DeepLIFT (and their subclasses) are
    ``multiplied_by_inputs``; all other attributions, tensors too, it takes for local coefficients.

    Args:
        model: what the metrics run.
        inputs, target, additional_forward_args: as for a method.
        methods: with their settings, by name or in a list; an explanation, a tensor or an array in place of a method is taken
            as its attributions.
        metrics: names or functions of :mod:`torchwhy.metrics`, or functions by name, with settings through
            ``functools.partial``; a :class:`torchwhy.metrics.Curve` counts as its area.
        mask: the pixels that are known to matter, for the metrics of localisation.
        baselines, feature_mask: for the metrics, and for the methods that have a use for them; baselines that are drawn are
            drawn once.
        level: of the confidence intervals.

    Raises:
        LookupError: an unknown metric.
        TypeError: something that is no method.
        ValueError: no mask for a metric that needs one, two metrics or methods of one name.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    chosen = _metrics_of([metrics] if isinstance(metrics, str) or callable(metrics) else metrics)
    methods = [methods] if isinstance(methods, Attribution) else methods
    if not isinstance(methods, (Mapping, Sequence)):
        raise TypeError(f"methods: expected methods, by name or in a list; got {type(methods).__name__}")
    named = dict(methods) if isinstance(methods, Mapping) else _by_name(methods)
    if not named:
        raise ValueError("methods: none given")
    options = {"baselines": baselines, "feature_mask": feature_mask, "additional_forward_args": additional_forward_args}
    if baselines is not None:
        options["baselines"] = settled_baselines(baselines, inputs)
    result = Comparison({m: {} for m in chosen}, {}, {}, {}, {}, level)
    for name, method in named.items():
        _explain_rows(result, name, method, inputs, target, options)
    for name, function in chosen.items():
        facts = _facts(function)
        result.better[name] = _better(function)
        result.shares |= {name} if facts.yes_or_no else set()
        if facts.needs == "mask" and mask is None:
            raise ValueError(f"mask: {name} asks whether the map lies on the pixels that matter; give them")
        for key, method in named.items():
            result.values[name][key] = _measure(
                function, facts, model, inputs, target, method, result.attributions[key], mask, options
            )
    return result


def _explain_rows(
    result: Comparison, name: str, method: Any, inputs: Inputs, target: TargetLike, options: dict[str, Any]
) -> None:
    """Put a method's attributions and costs into the result."""
    n = len(
        next(iter(inputs.values()))
        if isinstance(inputs, Mapping)
        else inputs
        if isinstance(inputs, Tensor)
        else inputs[0]
    )
    if isinstance(method, Attribution):
        begun = time.perf_counter()
        e = method.explain(inputs, target, **_for(method, options))
        result.seconds[name], result.evaluations[name] = (time.perf_counter() - begun) / n, e.evaluations / n
        result.attributions[name] = e.shown  # of a map whose zero is not its neutral value, the difference from it
    elif isinstance(method, Explanation):
        result.seconds[name], result.evaluations[name] = method.seconds / n, method.evaluations / n
        result.attributions[name] = method.shown
    elif isinstance(method, (Tensor, np.ndarray, tuple, Mapping)):
        result.seconds[name] = result.evaluations[name] = math.nan
        result.attributions[name] = torch.as_tensor(method) if isinstance(method, np.ndarray) else method
    else:
        raise TypeError(f"methods: {name!r} is a {type(method).__name__}; expected a method such as tw.Saliency(model)")
    if len(_first_tensor(result.attributions[name])) != n:
        raise ValueError(
            f"methods: {name!r} has attributions of {len(_first_tensor(result.attributions[name]))} rows, the inputs have {n}"
        )


def _measure(
    function: Callable[..., Any],
    facts: Any,
    model: Any,
    inputs: Inputs,
    target: TargetLike,
    method: Any,
    attributions: Any,
    mask: Tensor | None,
    options: dict[str, Any],
) -> Tensor:
    """One metric of one method, (N,) on the CPU."""
    masked = facts.needs == "model" and options["feature_mask"] is not None  # which may tell channels apart
    maps = attributions if facts.elements or masked else _pixels(attributions, inputs)
    if facts.needs == "mask":
        value = function(maps, mask)
    elif facts.needs == "maps":
        value = function(maps)
    elif facts.needs == "model":
        value = function(model, inputs, maps, target, **_about(function, method, options))
    elif isinstance(method, Attribution):
        value = function(method, inputs, target, **_for(method, options))
    else:
        return torch.full((len(_first_tensor(attributions)),), math.nan, dtype=torch.double)
    value = value.auc if isinstance(value, known_metrics.Curve) else value
    return value.detach().double().cpu()


def _first_tensor(attributions: Any) -> Tensor:
    values = attributions.values() if isinstance(attributions, Mapping) else attributions
    return attributions if isinstance(attributions, Tensor) else next(iter(values))


def _pixels(attributions: Any, inputs: Inputs) -> Any:
    """The attributions of images' pixels."""
    if isinstance(attributions, Mapping) and isinstance(inputs, Mapping) and set(attributions) == set(inputs):
        return {name: _pixels(a, inputs[name]) for name, a in attributions.items()}
    if (
        isinstance(attributions, (tuple, list))
        and isinstance(inputs, (tuple, list))
        and len(attributions) == len(inputs)
    ):
        return tuple(map(_pixels, attributions, inputs))
    both = isinstance(attributions, Tensor) and isinstance(inputs, Tensor) and inputs.dim() == 4
    return attributions.sum(1, keepdim=True) if both and attributions.dim() == 4 else attributions


def _for(method: Attribution, options: dict[str, Any]) -> dict[str, Any]:
    """What this method has a use for."""
    unused = {"baselines": not method.uses_baselines, "feature_mask": not method.uses_feature_mask}
    return {k: v for k, v in options.items() if v is not None and not unused.get(k)}


def _about(function: Callable[..., Any], method: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What a metric that runs the model is told besides: the data it has a use for, and what the method's numbers are."""
    facts = _facts(function)
    given = {k: v for k, v in options.items() if v is not None and (facts.uses_baselines or k != "baselines")}
    kind, settings = _kind(method)
    if kind is not None:
        if "feature_mask" in given:
            given["whole_features"] = kind.uses_feature_mask
        # slopes times x - b
        product = any(k.__name__ in TIMES_INPUT_METRICS for k in kind.__mro__) and settings.get(
            "multiply_by_inputs", True
        )
        if "multiplied_by_inputs" in inspect.signature(facts).parameters and product:
            given["multiplied_by_inputs"] = True
            if not kind.uses_baselines:  # it multiplies by x - 0
                given.pop("baselines", None)
    return {k: v for k, v in given.items() if k not in getattr(function, "keywords", {})}


def _kind(method: Any) -> tuple[type[Attribution] | None, dict[str, Any]]:
    """Whose the attributions are, as far as it is known, and its settings."""
    if isinstance(method, Explanation):
        from torchwhy import methods

        return methods().get(method.method), method.settings
    return (type(method), method.settings()) if isinstance(method, Attribution) else (None, {})


def _better(function: Callable[..., Any]) -> bool | None:
    """Whether higher values are better, with the settings that the metric has."""
    facts = _facts(function)
    turned = facts.turned_by is not None and facts.turned_by in getattr(function, "keywords", {}).items()
    return not facts.higher_is_better if turned else facts.higher_is_better


def _by_name(methods: Sequence[Attribution]) -> dict[str, Any]:
    """Methods by their class names; several of one class also by their settings."""
    names = [type(m).__name__ for m in methods]
    long = [n if names.count(n) == 1 else repr(m) for n, m in zip(names, methods)]
    if len(set(long)) < len(long):
        raise ValueError("methods: two are equal; give a dict with names")
    return dict(zip(long, methods))


def _metrics_of(
    metrics: Mapping[str, Callable[..., Any]] | Sequence[str | Callable[..., Any]],
) -> dict[str, Callable[..., Any]]:
    if isinstance(metrics, Mapping):
        found = dict(metrics)
    elif not isinstance(metrics, Sequence):
        raise TypeError(f"metrics: expected names or functions, in a list or by name; got {type(metrics).__name__}")
    else:
        names = [m if isinstance(m, str) else getattr(getattr(m, "func", m), "__name__", repr(m)) for m in metrics]
        if len(set(names)) < len(names):
            raise ValueError(f"metrics: {', '.join(names)}: two of one name; give a dict with names")
        found = dict(zip(names, metrics))  # type: ignore[arg-type]
    for name, m in found.items():
        if isinstance(m, str):
            if m not in known_metrics.__all__ or not hasattr(getattr(known_metrics, m), "needs"):
                raise LookupError(f"metrics: {m!r} is not in torchwhy.metrics")
            found[name] = getattr(known_metrics, m)
        elif not hasattr(getattr(m, "func", m), "needs"):
            raise TypeError(f"metrics: {name!r} is no metric of torchwhy.metrics, nor a functools.partial of one")
    if not found:
        raise ValueError("metrics: none given")
    return found


def _facts(function: Callable[..., Any]) -> Any:
    return getattr(function, "func", function)
