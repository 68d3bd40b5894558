"""Captum's classes over our methods: what they are called with is translated, and what comes back."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

import torchwhy as tw
from torchwhy.captum import data
from torchwhy.captum.lrp_rules import composite_of
from torchwhy.captum.question import CaptumCall, ask_without_target
from torchwhy.captum.signatures import bind, signature_of
from torchwhy.captum.table import METHODS, NO_MATTER, REFUSED, RENAMED_SETTING, SAME_SETTING, Row
from torchwhy.engine.layers.function_layers import with_layers
from torchwhy.engine.structure import AnyForm, Keywords, as_tuple

MAP_MODES: dict[str, Literal["linear", "nearest"]] = {
    **dict.fromkeys(("linear", "bilinear", "trilinear"), "linear"), "nearest": "nearest",
}  # fmt: skip


class CaptumMethod:
    """The base of Captum's classes."""

    row: ClassVar[Row]

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = bind(type(self).__name__, self.row.init, args, kwargs)
        self.forward_func = given.pop("forward_func", given.pop("model", None))
        self.layer = given.pop("layer", None)
        self.options = given
        self.model = self.forward_func if self.layer is None else with_layers(self.forward_func, as_tuple(self.layer))

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether the attributions have the factor input less baseline."""
        return bool(self.options.get("multiply_by_inputs", getattr(tw, self.row.ours).multiplies_by_input))

    def has_convergence_delta(self) -> bool:
        """Say whether ``attribute`` can return a delta."""
        return "return_convergence_delta" in signature_of(self.row.attribute).parameters

    def compute_convergence_delta(
        self, attributions: AnyForm, start_point: AnyForm, end_point: AnyForm, target: AnyForm = None,
        additional_forward_args: AnyForm = None,
    ) -> Tensor:  # fmt: skip
        """Return the sum of the attributions less the change of the score from start to end, ``(N,)``."""
        ends = tw.FeatureAblation(self.model).explain(
            end_point, data.target_of(target), baselines=start_point,
            feature_mask=data.one_feature(end_point), additional_forward_args=additional_forward_args,
        )  # fmt: skip
        if ends.scores is None or ends.base_scores is None:
            raise NotImplementedError("compute_convergence_delta: the scores were not measured")
        total = torch.stack([a.flatten(1).sum(1) for a in data.in_tuples(attributions)]).sum(0)
        return total - (ends.scores - ends.base_scores).to(total)

    def attribute(self, *args: object, **kwargs: object) -> AnyForm:
        """Return the attributions, in Captum's form."""
        given = bind(f"{type(self).__name__}.attribute", self.row.attribute, args, kwargs)
        question = self.question(given)
        if question.target is None and not self.row.gradient and self.layer is None:
            return ask_without_target(question)
        return question.answer()

    def question(self, given: Mapping[str, object]) -> CaptumCall:
        """Return a call in our words.

        Raises:
            NotImplementedError: an argument that has no counterpart.
        """
        all_given: Keywords = {**self.options, **given}
        name, options = type(self).__name__, dict(all_given)
        for argument, instead in REFUSED.items():
            if all_given.get(argument) not in (None, argument == "attr_dim_summation"):
                raise NotImplementedError(f"torchwhy.captum: {name} has no {argument}=; {instead}")
        inputs = options.pop("inputs")
        method = self._method(options)
        call = {k: options.pop(k, None) for k in ("target", "additional_forward_args", "neuron_selector")}
        question = CaptumCall(
            method, self.model, inputs, data.target_of(call["target"]),
            delta=bool(options.pop("return_convergence_delta", False)),
            per_feature=not options.pop("return_input_shape", True),
            together=self.row.together,
        )  # fmt: skip
        masked = inputs if "feature_mask" in options else None  # else a layer
        mask = options.pop("feature_mask", options.pop("layer_mask", None))
        found: Keywords = {"additional_forward_args": call["additional_forward_args"]}
        if mask is not None:
            found["feature_mask"] = data.as_masks(mask, masked)
        if "layer_baselines" in options:
            value = options.pop("layer_baselines")
            found["baselines"] = tw.AtLayer(0 if value is None else value)
        elif options.get("baselines") is not None:
            found["baselines"] = data.as_baselines(options["baselines"], inputs)
        options.pop("baselines", None)
        options = {k: v for k, v in options.items() if k not in REFUSED}
        question = self._placed(replace(question, data=found), options, call["neuron_selector"])
        return replace(question, settings=self._settings(question, options))

    def _method(self, options: Keywords) -> type[tw.Attribution]:
        """Return our method; gradients without the factor of activations are Saliency's."""
        if self.row.ours == "InputXGradient" and not options.get("multiply_by_inputs", True):
            options.pop("multiply_by_inputs")
            options["abs"] = False
            return tw.Saliency
        found: type[tw.Attribution] = getattr(tw, self.row.ours)
        return found

    def _placed(self, question: CaptumCall, options: Keywords, selector: AnyForm) -> CaptumCall:
        """Return the question at the inputs, at layers, or of a neuron."""
        if selector is not None:
            place = tw.Layer(self.layer, input=bool(options.pop("attribute_to_neuron_input", False)))
            neuron = tw.Neuron(place, data.as_neuron(selector))
            if self.row.ours == "NeuronConductance":
                options["neuron"] = neuron
                return question
            return replace(question, target=neuron)
        if self.layer is None or self.row.ours == "GuidedGradCAM":
            return question
        return replace(question, layer=self.layer, to_input=bool(options.pop("attribute_to_layer_input", False)))

    def _settings(self, question: CaptumCall, options: Keywords) -> Keywords:
        """Return the settings of our method.

        Raises:
            NotImplementedError: an argument that has no counterpart.
        """
        known = {f.name: f.default for f in fields(question.ours)}  # type: ignore[arg-type]
        found = dict(self.row.settings)
        for name, value in options.items():
            if name in SAME_SETTING and name in known:
                found[name] = value
            elif name in RENAMED_SETTING:
                found[RENAMED_SETTING[name]] = value
            elif name == "abs":
                found["signed"] = not value
            elif name == "neuron":
                found[name] = value
            elif name == "interpolate_mode":
                found["of"] = self._map_of(options, str(value))
            elif name not in NO_MATTER and value not in (True, None):
                raise NotImplementedError(f"torchwhy.captum: {type(self).__name__} has no {name}={value!r}")
        if "generator" in known:
            found["generator"] = seed_of_torch()
        if question.ours is tw.LRP:
            found["composite"] = composite_of(self.model)
        if question.ours in (tw.KernelSHAP, tw.LIME) and hasattr(question.inputs, "masked"):
            d = max(map(len, question.inputs.names))
            found["n_samples"] = max(int(found["n_samples"]), min(2 * d + 2, 2**d), 3)
        elif question.ours in (tw.KernelSHAP, tw.LIME):
            if question.data.get("feature_mask") is None:
                question.data["feature_mask"] = data.each_element_a_feature(question.inputs)
            d = data.most_features(question.data["feature_mask"])
            found["n_samples"] = max(int(found["n_samples"]), min(2 * d + 2, 2**d), 3)
        return found

    def _map_of(self, options: Keywords, mode: str) -> tw.GradCAM:
        """Return the Grad-CAM whose map GuidedGradCam lays over the picture."""
        if mode not in MAP_MODES:
            raise NotImplementedError(f"torchwhy.captum: interpolate_mode={mode!r}; there are {', '.join(MAP_MODES)}")
        return tw.GradCAM(
            self.model, layer=self.layer, interpolation=MAP_MODES[mode],
            attribute_to_layer_input=bool(options.get("attribute_to_layer_input", False)),
        )  # fmt: skip


def seed_of_torch() -> int:
    """Return a seed drawn from torch's own generator, so that ``torch.manual_seed`` holds as it does in Captum."""
    return int(torch.randint(2**62, ()))


class CaptumGradient(CaptumMethod):
    """The base of what Captum calls gradient methods."""


class CaptumPerturbation(CaptumMethod):
    """The base of what Captum calls perturbation methods."""


class CaptumLayer(CaptumMethod):
    """The base of the methods at layers."""

    @staticmethod
    def interpolate(
        layer_attribution: Tensor, interpolate_dims: int | tuple[int, ...], interpolate_mode: str = "nearest"
    ) -> Tensor:
        """Return attributions ``(N, C, ...)`` resized to the inputs' size."""
        return F.interpolate(layer_attribution, interpolate_dims, mode=interpolate_mode)


class CaptumNeuron(CaptumMethod):
    """The base of the methods of neurons."""


NOISE = {"smoothgrad": tw.SmoothGrad, "smoothgrad_sq": tw.SquareGrad, "vargrad": tw.VarGrad}


class NoiseTunnel(CaptumMethod):
    """Another method's attributions of noisy inputs: their mean, mean square or variance.

    Args:
        attribution_method: one of this module.
    """

    row: ClassVar[Row] = Row(
        "SmoothGrad",
        "attribution_method",
        "inputs, nt_type='smoothgrad', nt_samples=5, nt_samples_batch_size=None, stdevs=1.0, "
        "draw_baseline_from_distrib=False, **kwargs",
    )

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = bind("NoiseTunnel", self.row.init, args, kwargs)
        self.attribution_method: CaptumMethod = given["attribution_method"]
        if not isinstance(self.attribution_method, CaptumMethod):
            raise TypeError(
                f"attribution_method: expected one of torchwhy.captum.attr, got {type(self.attribution_method).__name__}"
            )

    def attribute(self, *args: object, **kwargs: object) -> AnyForm:
        """Return the statistic of the attributions, in Captum's form."""
        given = bind("NoiseTunnel.attribute", self.row.attribute, args, kwargs)
        if given.pop("draw_baseline_from_distrib"):
            raise NotImplementedError(
                f"torchwhy.captum: NoiseTunnel has no draw_baseline_from_distrib=; {REFUSED['draw_baseline_from_distrib']}"
            )
        if given.get("return_convergence_delta"):
            raise NotImplementedError(
                "torchwhy.captum: NoiseTunnel has no return_convergence_delta=; the mean gap of tw.SmoothGrad(model, of=method)"
                ".explain is in details['of']"
            )
        kind, samples, stdevs = given.pop("nt_type"), given.pop("nt_samples"), given.pop("stdevs")
        given.pop("nt_samples_batch_size")
        if kind not in NOISE:
            raise ValueError(f"nt_type={kind!r}: expected {', '.join(NOISE)}")
        inner = self.attribution_method
        bound = bind(f"{type(inner).__name__}.attribute", inner.row.attribute, (), given)
        around = partial(_with_noise, NOISE[kind], n_samples=samples, stdevs=stdevs, generator=seed_of_torch())
        return replace(inner.question(bound), around=around).answer()


def _with_noise(kind: type[tw.SmoothGrad], method: tw.Attribution, **settings: AnyForm) -> tw.Attribution:
    """Return a method around another one."""
    return kind(method.model, of=method, **settings)


def method_class(name: str, row: Row) -> type[CaptumMethod]:
    """Return the class of a row of the table."""
    selects = "neuron_selector" in signature_of(row.attribute).parameters
    layers = name.startswith(("Layer", "Internal"))
    kind = CaptumGradient if row.gradient else CaptumPerturbation
    bases = (*[CaptumNeuron] * selects, *[CaptumLayer] * layers, kind)
    made = type(name, bases, {"row": row, "__module__": "torchwhy.captum.attr", "__doc__": _doc(name, row)})
    return show_signatures(made)


def show_signatures(made: type[CaptumMethod]) -> type[CaptumMethod]:
    """Return a class that shows Captum's signatures to ``help`` and to editors."""
    called = made.attribute

    def attribute(self: CaptumMethod, *args: object, **kwargs: object) -> AnyForm:
        """Return the attributions, in Captum's form."""
        return called(self, *args, **kwargs)

    seen = signature_of(made.row.attribute)
    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    made.__signature__ = signature_of(made.row.init)  # type: ignore[attr-defined]
    attribute.__signature__ = seen.replace(parameters=[itself, *seen.parameters.values()])  # type: ignore[attr-defined]
    made.attribute = attribute  # type: ignore[method-assign]
    return made


def _doc(name: str, row: Row) -> str:
    at = next(
        (where for start, where in (("Layer", ", at a layer"), ("Neuron", ", of a neuron")) if name.startswith(start)),
        "",
    )
    return f"Captum's ``{name}`` by :class:`torchwhy.{row.ours}`{at}; see docs/captum.md for where the numbers differ."


CLASSES_OF_CAPTUM = {name: method_class(name, row) for name, row in METHODS.items()}
show_signatures(NoiseTunnel)
