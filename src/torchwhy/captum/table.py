"""Captum's methods: what each is called here, with Captum's signatures."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchwhy.engine.structure import Keywords


@dataclass(frozen=True)
class Row:
    """One method of Captum.

    Args:
        ours: the name of ours.
        init: the signature of the constructor.
        attribute: that of ``attribute``.
        settings: of ours, where Captum has no argument for them.
        together: whether the tensors of a layer, and several layers, are explained in one call, as where the others matter for
            what one of them is worth; else each in its own.
        gradient: whether Captum counts it among the gradients, not the perturbations.
    """

    ours: str
    init: str
    attribute: str
    settings: Keywords = field(default_factory=dict)
    together: bool = True
    gradient: bool = True


F, M = "forward_func", "model"
FL, ML = "forward_func, layer, device_ids=None", "model, layer"
X, N = "inputs", "inputs, neuron_selector"
B, T, E = "baselines=None", "target=None", "additional_forward_args=None"
INTEGRAL = "n_steps=50, method='gausslegendre', internal_batch_size=None"
DELTA, INPUT, KWARGS = "return_convergence_delta=False", "attribute_to_layer_input=False", "grad_kwargs=None"
CUSTOM, UNIT = "custom_attribution_func=None", "attribute_to_neuron_input=False"
SAMPLES, PER_EVAL, SHOW = "n_samples=25", "perturbations_per_eval=1", "show_progress=False"
DRAWS, FACTOR, MASK = "n_samples=5, stdevs=0.0", "multiply_by_inputs=True", "feature_mask=None"


def captum_row(ours: str, init: str, *attribute: str, **how: object) -> Row:
    """Return a row: our name, the constructor's signature, the parts of that of ``attribute``, and settings of ours."""
    names = {name: how.pop(name) for name in ("together", "gradient") if name in how}
    return Row(ours, init, ", ".join(attribute), settings=how, **names)  # type: ignore[arg-type]


AT_INPUT = {
    "IntegratedGradients": captum_row("IntegratedGradients", f"{F}, {FACTOR}", X, B, T, E, INTEGRAL, DELTA),
    "DeepLift": captum_row("DeepLIFT", f"{M}, {FACTOR}, eps=1e-10", X, B, T, E, DELTA, CUSTOM),
    "DeepLiftShap": captum_row("DeepSHAP", f"{M}, {FACTOR}", X, "baselines", T, E, DELTA, CUSTOM),
    "GradientShap": captum_row("GradientSHAP", f"{F}, {FACTOR}", X, "baselines", DRAWS, T, E, DELTA),
    "InputXGradient": captum_row("InputXGradient", F, X, T, E),
    "Saliency": captum_row("Saliency", F, X, T, "abs=True", E),
    "GuidedBackprop": captum_row("GuidedBackprop", M, X, T, E),
    "Deconvolution": captum_row("DeconvNet", M, X, T, E),
    "GuidedGradCam": captum_row(
        "GuidedGradCAM", "model, layer, device_ids=None", X, T, E, "interpolate_mode='nearest'", INPUT
    ),
    "LRP": captum_row("LRP", M, X, T, E, DELTA, "verbose=False"),
    "FeatureAblation": captum_row("FeatureAblation", F, X, B, T, E, MASK, PER_EVAL, SHOW, "**kwargs", gradient=False),
    "FeaturePermutation": captum_row(
        "FeaturePermutation", f"{F}, perm_func=None", X, T, E, MASK, PER_EVAL, SHOW, "**kwargs", gradient=False
    ),
    "Occlusion": captum_row(
        "Occlusion", F, X, "sliding_window_shapes, strides=None", B, T, E, PER_EVAL, SHOW, gradient=False
    ),
    "ShapleyValueSampling": captum_row("ShapleySampling", F, X, B, T, E, MASK, SAMPLES, PER_EVAL, SHOW, gradient=False),
    "ShapleyValues": captum_row("ExactShapley", F, X, B, T, E, MASK, PER_EVAL, SHOW, gradient=False),
    "Lime": captum_row(
        "LIME", f"{F}, interpretable_model=None, similarity_func=None, perturb_func=None",
        X, B, T, E, MASK, SAMPLES, PER_EVAL, "return_input_shape=True", SHOW, gradient=False, kernel_width=1000.0,
    ),
    "KernelShap": captum_row(
        "KernelSHAP", F, X, B, T, E, MASK, SAMPLES, PER_EVAL, "return_input_shape=True", SHOW, gradient=False
    ),
}  # fmt: skip

AT_LAYERS = {
    "LayerConductance": captum_row("Conductance", FL, X, B, T, E, INTEGRAL, DELTA, INPUT, KWARGS, together=False),
    "LayerIntegratedGradients": captum_row("IntegratedGradients", f"{FL}, {FACTOR}", X, B, T, E, INTEGRAL, DELTA, INPUT, KWARGS),
    "LayerDeepLift": captum_row("DeepLIFT", f"{ML}, {FACTOR}", X, B, T, E, DELTA, INPUT, CUSTOM, KWARGS),
    "LayerDeepLiftShap": captum_row("DeepSHAP", f"{ML}, {FACTOR}", X, "baselines", T, E, DELTA, INPUT, CUSTOM),
    "LayerGradientShap": captum_row("GradientSHAP", f"{FL}, {FACTOR}", X, "baselines", DRAWS, T, E, DELTA, INPUT),
    "LayerGradientXActivation": captum_row(
        "InputXGradient", f"{FL}, {FACTOR}, memory_efficient=False", X, T, E, INPUT, KWARGS, together=False
    ),
    "LayerActivation": captum_row("LayerActivation", FL, X, E, INPUT, together=False),
    "LayerGradCam": captum_row(
        "GradCAM", FL, X, T, E, INPUT, "relu_attributions=False, attr_dim_summation=True", KWARGS,
        together=False, upsample=False,
    ),
    "LayerLRP": captum_row("LRP", ML, X, T, E, DELTA, INPUT, "verbose=False", together=False),
    "LayerFeatureAblation": captum_row(
        "FeatureAblation", FL, X, "layer_baselines=None", T, E, "layer_mask=None", INPUT, PER_EVAL, gradient=False
    ),
    "LayerFeaturePermutation": captum_row("FeaturePermutation", FL, X, T, E, "layer_mask=None", PER_EVAL, gradient=False),
    "InternalInfluence": captum_row("InternalInfluence", FL, X, B, T, E, INTEGRAL, INPUT, KWARGS, together=False),
}  # fmt: skip

TRAPEZOID = "n_steps=50, method='riemann_trapezoid', internal_batch_size=None"
AT_NEURONS = {
    "NeuronConductance": captum_row("NeuronConductance", f"{FL}, {FACTOR}", N, B, T, E, TRAPEZOID, UNIT, KWARGS),
    "NeuronGradient": captum_row("Saliency", FL, N, E, UNIT, signed=True),
    "NeuronIntegratedGradients": captum_row("IntegratedGradients", f"{FL}, {FACTOR}", N, B, E, INTEGRAL, UNIT),
    "NeuronDeepLift": captum_row("DeepLIFT", f"{ML}, {FACTOR}", N, B, E, UNIT, CUSTOM),
    "NeuronDeepLiftShap": captum_row("DeepSHAP", f"{ML}, {FACTOR}", N, "baselines", E, UNIT, CUSTOM),
    "NeuronGradientShap": captum_row("GradientSHAP", f"{FL}, {FACTOR}", N, "baselines", DRAWS, E, UNIT),
    "NeuronGuidedBackprop": captum_row("GuidedBackprop", f"{ML}, device_ids=None", N, E, UNIT),
    "NeuronDeconvolution": captum_row("DeconvNet", f"{ML}, device_ids=None", N, E, UNIT),
    "NeuronFeatureAblation": captum_row("FeatureAblation", FL, N, B, E, MASK, UNIT, PER_EVAL, gradient=False),
}

METHODS = {**AT_INPUT, **AT_LAYERS, **AT_NEURONS}

# arguments that say how, not what: ours has no use for them
NO_MATTER = (
    "device_ids", "grad_kwargs", "memory_efficient", "verbose", "perturbations_per_eval", "eps",
    "nt_samples_batch_size",
)  # fmt: skip
SAME_SETTING = (
    "n_steps", "method", "multiply_by_inputs", "n_samples", "stdevs", "sliding_window_shapes", "strides",
    "attribute_to_layer_input",
)  # fmt: skip
RENAMED_SETTING = {"internal_batch_size": "batch_size", "show_progress": "progress", "relu_attributions": "relu"}
# arguments without a counterpart: what would do
REFUSED = {
    "custom_attribution_func": "tw.DeepLIFT(model, multiply_by_inputs=False) gives the multipliers, to be combined by hand",
    "attr_dim_summation": "tw.ElementWiseCAM keeps the cells apart, and tw.InputXGradient(model, layer=...) the channels too",
    "perm_func": "tw.FeaturePermutation permutes the rows; a wrapper of the model can do otherwise",
    "interpretable_model": "tw.LIME(model, regularizer='ridge' or 'lasso', alpha=...) has the linear models",
    "similarity_func": "tw.LIME(model, distance=...) takes a function of which features are there",
    "perturb_func": "tw.LIME draws coalitions by keep_probability=",
    "draw_baseline_from_distrib": "tw.GradientSHAP and tw.ExpectedGradients draw baselines",
}

# names of captum.attr that have no counterpart here: what would do
MISSING = {
    "DataLoaderAttribution": "tw.explain_dataset, or a call for each batch",
    "LimeBase": "tw.LIME(function of the interpretable features)",
    "RemoteLLMAttribution": "tw.Prompt(None, text, absent='remove') with a function of texts as the model",
    "RemoteLLMProvider": "tw.Prompt(None, text, absent='remove') with a function of texts as the model",
    "VLLMProvider": "tw.Prompt(None, text, absent='remove') with a function of texts as the model",
    "ProductBaselines": "tw.Prompt(absent={field: [texts]}) averages over several baselines",
    "ImageMaskInput": "feature_mask=, as in tw.FeatureAblation(model).attribute",
    "InterpretableEmbeddingBase": "layer='embeddings' explains token ids by their embeddings, without a change of the model",
    "configure_interpretable_embedding_layer": "layer='embeddings' explains token ids, without a change of the model",
    "remove_interpretable_embedding_layer": "layer='embeddings' explains token ids, without a change of the model",
    **dict.fromkeys(
        ("Summarizer", "SummarizerSingleTensor", "ClassSummarizer", "CommonStats", "StatValue", "Mean", "StdDev", "MSE",
         "Var", "Min", "Max", "Sum", "Count"),
        "the statistics of attributions are torch's, such as attributions.mean(0)",
    ),
}  # fmt: skip
