"""Methods side by side: every method, every metric."""

from __future__ import annotations

import difflib
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from torchwhy import metrics as known_metrics
from torchwhy.arguments import Argument
from torchwhy.attribution import Attribution
from torchwhy.comparison_table import Comparison
from torchwhy.engine.axes import Axes, AxesLike, axes_by_shape, read_axes
from torchwhy.engine.refusals import refuse_inputs
from torchwhy.engine.samples import count_features
from torchwhy.engine.structure import Keywords, RowList, flatten
from torchwhy.engine.uneven import read_uneven, row_lists
from torchwhy.explanation import Explanation
from torchwhy.input_types import Baselines, FeatureMasks, Inputs
from torchwhy.metrics import Curve, Metric
from torchwhy.metrics.definition import ASKED, CALL_DATA
from torchwhy.metrics.features_of_attributions import AttributionsLike, one_for_each_token
from torchwhy.metrics.reexplain import draw_baselines_once
from torchwhy.metrics.scoring import ModelLike
from torchwhy.samples.sample import AnyGiven, Given, Sample
from torchwhy.targets import TargetLike

MetricLike = str | Callable[..., object]
MethodLike = Attribution | Explanation | AttributionsLike
Named = Keywords  # arguments by name


def compare(
    model: ModelLike,
    inputs: Inputs,
    target: TargetLike,
    methods: Mapping[str, MethodLike] | Sequence[Attribution],
    metrics: Mapping[str, MetricLike] | Sequence[MetricLike],
    *,
    mask: Tensor | None = None,
    baselines: Baselines = None,
    feature_mask: FeatureMasks = None,
    additional_forward_args: object = None,
    axes: AxesLike = None,
    level: float = 0.95,
) -> Comparison:
    """Explain with every method and measure with every metric.

    Metrics of pixels get the sums over the channels of an image's attributions, so that methods with and without
    channels answer one question, and of token ids' embeddings one number for each token; with ``feature_mask``, those that
    run the model go by its features. ``infidelity`` is told that InputXGradient, IntegratedGradients and DeepLIFT (and others
    whose fact ``is_slope_times_input`` holds) are ``multiplied_by_inputs``; all other attributions, tensors too, it takes for
    local coefficients.

    Args:
        model: what the metrics run.
        inputs, target, additional_forward_args: as for a method.
        methods: with their settings, by name or in a list; an explanation, a tensor or an array in place of a method is taken
            as its attributions.
        metrics: names of :mod:`torchwhy.metrics`, or metrics, also your own (:func:`torchwhy.metrics.metric`), by name or in
            a list, with settings through ``functools.partial``; a :class:`torchwhy.metrics.Curve` counts as its area.
        mask: the pixels that are known to matter, for the metrics of localisation.
        axes: what the axes of the inputs are, where their shape does not say it, for methods and metrics.
        baselines, feature_mask: for the metrics, and for the methods that have a use for them; baselines that are drawn are
            drawn once.
        level: of the confidence intervals.

    Raises:
        LookupError: an unknown metric.
        TypeError: something that is no method or no metric, or a metric that asks for what nobody gives.
        ValueError: no mask for a metric that needs one, two metrics or methods of one name, a metric that does not give one
            number for each row.
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}: expected a share between 0 and 1")
    chosen = _choose_metrics(metrics)
    for entry in chosen.values():
        entry.check(mask)
    named = _name_methods(methods)
    data: Named = dict(zip(CALL_DATA, (baselines, feature_mask, additional_forward_args, axes)))
    if isinstance(inputs, Argument):
        refuse_inputs((inputs,))
    if isinstance(inputs, list):
        uneven = read_uneven(model, inputs, additional_forward_args)
        inputs = inputs if uneven is None else row_lists(inputs, uneven.structure)
    if isinstance(inputs, Sample):
        inputs, target = inputs.asked(model, target)
    elif baselines is not None:
        data["baselines"] = draw_baselines_once(baselines, inputs)
    result = Comparison({m: {} for m in chosen}, {}, {}, {}, {}, level)
    for name, method in named.items():
        _explain_rows(result, name, method, inputs, target, data)
    given = {"model": model, "inputs": inputs, "target": target, "mask": mask}
    for name, entry in chosen.items():
        result.better[name] = entry.metric.higher_is_better_with(entry.settings)
        result.shares |= {name} if entry.metric.is_binary else set()
        for key, method in named.items():
            result.values[name][key] = entry.measure(method, {**given, "attributions": result.attributions[key]}, data)
    return result


@dataclass(frozen=True)
class _Entry:
    """A metric of the table.

    Args:
        name: its name in the table.
        metric: the metric.
        settings: what it is called with besides.
    """

    name: str
    metric: Metric[..., object]
    settings: Named

    def check(self, mask: Tensor | None) -> None:
        """Refuse a metric that asks for what is not given.

        Raises:
            TypeError: a parameter that ``compare`` does not know, without a default.
            ValueError: it needs a mask, and there is none.
        """
        asked = [name for name in self.metric.required if name not in self.settings]
        unknown = [name for name in asked if name not in ASKED]
        if unknown:
            raise TypeError(
                f"metrics: {self.name!r} asks for {', '.join(unknown)}; give it a default, or bind it with "
                f"functools.partial; compare gives {', '.join(ASKED)}"
            )
        if "mask" in asked and mask is None:
            raise ValueError(f"mask: {self.name} asks whether the map lies on the pixels that matter; give them")

    def measure(self, method: MethodLike, given: Named, data: Named) -> Tensor:
        """Measure a method, (N,) on the CPU; NaN for attributions where the metric asks the method again.

        Args:
            method: a method, an explanation or attributions.
            given: what a metric may ask for by name.
            data: what methods and metrics are called with besides; None where it was not given.
        """
        rows = len(_first_tensor(given["attributions"]))
        if "method" not in self.metric.parameters:
            told = self._data_for_metric(method, data)
        elif isinstance(method, Attribution):
            told = _data_for_method(method, data)
        else:
            return torch.full((rows,), math.nan, dtype=torch.double)
        if self.metric.sum_channels and "feature_mask" not in told:  # which may tell channels apart
            given = {
                **given,
                "attributions": _sum_channels(given["attributions"], given["inputs"], told.get("axes"), given["model"]),
            }
        given = {**given, "method": method, **told}
        asked = {
            name: value
            for name, value in given.items()
            if name in self.metric.parameters or (name in told and self.metric.takes_any)
        }
        asked = {name: value for name, value in asked.items() if value is not None or name == "target"}
        return self._one_per_row(self.metric(**{**asked, **self.settings}), rows)

    def _data_for_metric(self, method: MethodLike, data: Named) -> Named:
        """Return what the metric itself has a use for, and what the method's numbers are."""
        given = {k: v for k, v in data.items() if v is not None}
        if self.metric.needs != "model":
            return {k: v for k, v in given.items() if k in self.metric.parameters}
        if not self.metric.uses_baselines:
            given.pop("baselines", None)
        kind, settings = _method_class(method)
        if kind is None:
            return given
        if "feature_mask" in given:
            given["whole_features"] = kind.uses_feature_mask
        if "multiplied_by_inputs" in self.metric.parameters and _are_slopes_times_inputs(kind, settings):
            given["multiplied_by_inputs"] = True
            if not kind.uses_baselines:  # it multiplies by x - 0
                given.pop("baselines", None)
        return given

    def _one_per_row(self, value: object, rows: int) -> Tensor:
        """Return what the metric gave as doubles (N,), a curve as its area.

        Raises:
            ValueError: not one number for each row.
        """
        value = torch.as_tensor(value.auc if isinstance(value, Curve) else value)
        if value.shape != (rows,):
            raise ValueError(
                f"metrics: {self.name!r} gave shape {tuple(value.shape)}; expected one number for each of {rows} rows"
            )
        return value.detach().double().cpu()


def _explain_rows(
    result: Comparison, name: str, method: MethodLike, inputs: Inputs, target: TargetLike, data: Named
) -> None:
    """Put a method's attributions and costs into the result.

    Raises:
        TypeError: something that is no method.
        ValueError: attributions of other rows than the inputs'.
    """
    n = count_features(inputs).n if isinstance(inputs, Sample) else len(_first_tensor(inputs))
    if isinstance(method, Attribution):
        begun = time.perf_counter()
        e = method.explain(inputs, target, **_data_for_method(method, data))
        result.seconds[name], result.evaluations[name] = (time.perf_counter() - begun) / n, e.evaluations / n
        result.attributions[name] = e.shown  # of a map whose zero is not its neutral value, the difference from it
    elif isinstance(method, Explanation):
        result.seconds[name], result.evaluations[name] = method.seconds / n, method.evaluations / n
        result.attributions[name] = method.shown
    elif isinstance(method, (Tensor, np.ndarray, tuple, Mapping)):
        result.seconds[name] = result.evaluations[name] = math.nan
        result.attributions[name] = torch.as_tensor(method) if isinstance(method, np.ndarray) else cast(Inputs, method)
    else:
        raise TypeError(f"methods: {name!r} is a {type(method).__name__}; expected a method such as tw.Saliency(model)")
    rows = len(_first_tensor(result.attributions[name]))
    if rows != n:
        raise ValueError(f"methods: {name!r} has attributions of {rows} rows, the inputs have {n}")


def _first_tensor(tensors: Inputs) -> Tensor:
    """Return a tensor, or the first of a tuple or dict of them."""
    return flatten(tensors)[0][0]


def _sum_channels(attributions: AnyGiven, inputs: AnyGiven, axes: AxesLike, model: ModelLike) -> Given:
    """Return the attributions of images' pixels, and of places whose ``axes`` were told, summed over the channels."""
    if isinstance(attributions, RowList):  # one picture (C, H, W) each
        pairs = list(zip(attributions, inputs)) if len(attributions) == len(inputs) else []
        return RowList(a.sum(0, keepdim=True) if a.dim() == x.dim() == 3 else a for a, x in pairs) or attributions
    (found, structure), (tensors, form) = flatten(attributions), flatten(inputs)
    if structure.names and form.names and set(structure.names) == set(form.names):
        found, structure = tuple(attributions[name] for name in form.names), form
    if len(found) != len(tensors):
        return attributions
    told = [None] * len(tensors) if axes is None else read_axes(axes, tensors, form)
    return structure.restore([_sum_image_channels(a, x, at, model) for a, x, at in zip(found, tensors, told)])


def _sum_image_channels(attributions: Tensor, inputs: Tensor, axes: Axes | None, model: ModelLike) -> Tensor:
    """Return one number for each pixel of images ``(N, C, H, W)``, each place whose axes were told, and each token id."""
    if not isinstance(attributions, Tensor) or not isinstance(inputs, Tensor):
        return attributions
    attributions = one_for_each_token(attributions, inputs)
    if inputs.dim() != attributions.dim() or (axes is None and inputs.dim() != 4):
        return attributions
    axes = axes or axes_by_shape(inputs.shape, model)
    return attributions if axes.channels is None else attributions.sum(axes.channels, keepdim=True)


def _data_for_method(method: Attribution, data: Named) -> Named:
    """Return what this method has a use for."""
    unused = {"baselines": not method.uses_baselines, "feature_mask": not method.uses_feature_mask}
    return {k: v for k, v in data.items() if v is not None and not unused.get(k)}


def _method_class(method: MethodLike) -> tuple[type[Attribution] | None, Named]:
    """Return whose the attributions are, as far as it is known, and its settings."""
    if isinstance(method, Explanation):
        from torchwhy import methods

        return methods().get(method.method), method.settings
    return (type(method), method.settings()) if isinstance(method, Attribution) else (None, {})


def _are_slopes_times_inputs(kind: type[Attribution], settings: Mapping[str, object]) -> bool:
    """Tell whether attributions are local coefficients times the distance of the inputs from the baselines."""
    return kind.is_slope_times_input and bool(settings.get("multiply_by_inputs", True))


def _name_methods(methods: Mapping[str, MethodLike] | Sequence[Attribution]) -> dict[str, MethodLike]:
    """Return the methods by name: of a list by their class names, several of one class also by their settings.

    Raises:
        TypeError: neither a dict nor a list.
        ValueError: none, or two that are equal.
    """
    methods = [methods] if isinstance(methods, Attribution) else methods
    if not isinstance(methods, (Mapping, Sequence)):
        raise TypeError(f"methods: expected methods, by name or in a list; got {type(methods).__name__}")
    if not methods:
        raise ValueError("methods: none given")
    if isinstance(methods, Mapping):
        return dict(methods)
    names = [type(m).__name__ for m in methods]
    long = [n if names.count(n) == 1 else repr(m) for n, m in zip(names, methods)]
    if len(set(long)) < len(long):
        raise ValueError("methods: two are equal; give a dict with names")
    return dict(zip(long, methods))


def _choose_metrics(metrics: Mapping[str, MetricLike] | Sequence[MetricLike] | MetricLike) -> dict[str, _Entry]:
    """Return the metrics by name: of a list by the names of their functions.

    Raises:
        LookupError: a name that is no metric's.
        TypeError: neither a dict nor a list, or something that is no metric.
        ValueError: none, or two of one name.
    """
    listed: object = [metrics] if isinstance(metrics, str) or callable(metrics) else metrics
    if not isinstance(listed, (Mapping, Sequence)):
        raise TypeError(f"metrics: expected names or metrics, in a list or by name; got {type(metrics).__name__}")
    if not listed:
        raise ValueError("metrics: none given")
    if isinstance(listed, Mapping):
        return {name: _entry(name, m) for name, m in listed.items()}
    names = [m if isinstance(m, str) else getattr(getattr(m, "func", m), "__name__", repr(m)) for m in listed]
    if len(set(names)) < len(names):
        raise ValueError(f"metrics: {', '.join(names)}: two of one name; give a dict with names")
    return {name: _entry(name, m) for name, m in zip(names, listed)}


def _entry(name: str, metric: MetricLike) -> _Entry:
    """Return one metric and its settings."""
    if isinstance(metric, str):
        found = getattr(known_metrics, metric, None)
        if not isinstance(found, Metric):
            known = [name for name in dir(known_metrics) if isinstance(getattr(known_metrics, name), Metric)]
            near = difflib.get_close_matches(metric, known, n=3, cutoff=0.4)
            said = f"; the nearest are {', '.join(near)}" if near else ""
            raise LookupError(f"metrics: {metric!r} is not in torchwhy.metrics{said}")
        return _Entry(name, found, {})
    function = metric.func if isinstance(metric, functools.partial) else metric
    settings = dict(metric.keywords) if isinstance(metric, functools.partial) else {}
    if not isinstance(function, Metric):
        raise TypeError(
            f"metrics: {name!r} is no metric: name one of torchwhy.metrics, or decorate the function with "
            "@torchwhy.metrics.metric"
        )
    if isinstance(metric, functools.partial) and metric.args:
        raise TypeError(f"metrics: {name!r} has positional arguments bound; bind settings by keyword")
    return _Entry(name, function, settings)
