"""Names of Captum, Zennit, pytorch-grad-cam, torchcam, SHAP and LIME, and what they are called here.

Read only when a name is looked for that ``torchwhy`` does not have, to say so in the error.
"""

from __future__ import annotations

from collections.abc import Iterable

from torchwhy.spelling import nearest_names

# classes that are spelt otherwise; those that differ in capitals or underscores alone are found without a table
CLASSES = {
    "Deconvolution": "DeconvNet",
    "DeepLiftShap": "DeepSHAP",
    "ShapleyValueSampling": "ShapleySampling",
    "ShapleyValues": "ExactShapley",
    "GradientXActivation": "InputXGradient",
    "GradCAMpp": "GradCAMPlusPlus",
    "SmoothGradCAMpp": "SmoothGradCAMPlusPlus",
    "GradCAMElementWise": "ElementWiseCAM",
    "DeepExplainer": "DeepSHAP",
    "GradientExplainer": "GradientSHAP",
    "KernelExplainer": "KernelSHAP",
    "LinearExplainer": "LinearSHAP",
    "ExactExplainer": "ExactShapley",
    "PermutationExplainer": "ShapleySampling",
    "SamplingExplainer": "ShapleySampling",
    "PartitionExplainer": "OwenValues",
    "LimeImageExplainer": "LIME",
    "LimeTabularExplainer": "LIME",
    "LimeTextExplainer": "LIME",
}

_BASE = "all methods share one base class here, tw.Attribution; layer= and tw.Neuron are for layers and neurons"
_EMBEDDINGS = (
    'not needed here; tw.IntegratedGradients(model, layer="embeddings") explains token ids by their embeddings'
)
_LANGUAGE_MODELS = (
    "every method explains a tw.Prompt here: tw.FeatureAblation(model).explain(tw.Prompt(tokenizer, text, answer), "
    "target='each'); torchwhy.captum.attr has the classes by their names"
)
_FEATURES = "no counterpart here; say what the features are by feature_mask=, as in tw.FeatureAblation(model).attribute"
_STATISTICS = "no counterpart here; the statistics of attributions are torch's, such as attributions.mean(0)"
_COMPOSITE = (
    "the composite of tw.LRP is a tw.lrp.Composite, a name or a mapping here: "
    "tw.LRP(model, composite={'layer4': tw.lrp.Gamma(0.25)})"
)
_PLAIN_TARGET = (
    "a target is an int, a list of them, a callable or tw.Neuron here: tw.GradCAM(model).attribute(x, target=281)"
)

# what is no class here, or takes another form
FORMS = {
    "NoiseTunnel": "it is tw.SmoothGrad(model, of=method) here, or tw.SquareGrad or tw.VarGrad, for of=method",
    "Gradient": "it is tw.Saliency(model, signed=True) here",
    "NeuronGradient": "it is tw.Saliency(model, signed=True) with target=tw.Neuron(layer, index) here",
    "DataLoaderAttribution": "no counterpart here; call a method, such as tw.FeatureAblation(model), for each batch",
    "LimeBase": "it is tw.LIME(model) here, whose model may be any function of the interpretable features",
    "TokenReferenceBase": "not needed here; baselines= takes the id of the padding token, as in "
    "tw.IntegratedGradients(model, layer='embeddings').attribute(ids, baselines=0)",
    "GuidedBackpropReLUModel": "it is tw.GuidedBackprop(model) here",
    "CAV": "it is tw.TCAV here, which fits the concepts' vectors",
    "Concept": "it is a name and a tensor of examples here, in the mapping that tw.TCAV(model, layer=...).fit takes",
    "infidelity": "it is tw.metrics.infidelity here",
    "sensitivity_max": "it is tw.metrics.sensitivity_max here",
    "visualization": "it is tw.visualize here",
    "visualize_image_attr": "it is tw.visualize.heatmap here",
    "visualize_image_attr_multiple": "it is tw.visualize.grid here",
    "visualize_text": "it is tw.visualize.colored_text here",
    "visualize_timeseries_attr": "it is tw.visualize.series here",
    "show_cam_on_image": "it is tw.visualize.overlay here",
    "EpsilonGammaBox": "it is tw.LRP(model, composite='epsilon_gamma_box', low=..., high=...) here",
    "EpsilonRule": "it is tw.lrp.Epsilon here",
    "GammaRule": "it is tw.lrp.Gamma here",
    "Alpha1_Beta0_Rule": "it is tw.lrp.AlphaBeta(1, 0) here",
    "IdentityRule": "it is tw.lrp.Pass here",
    **{
        rule: f"it is tw.lrp.{rule} here"
        for rule in ("AlphaBeta", "Epsilon", "Flat", "Gamma", "Norm", "Pass", "WSquare", "ZBox", "ZPlus")
    },
    **{
        "Epsilon" + name: f"it is tw.LRP(model, composite={'epsilon_' + setting!r}) here"
        for name, setting in (
            ("Plus", "plus"),
            ("PlusFlat", "plus_flat"),
            ("Alpha2Beta1", "alpha2_beta1"),
            ("Alpha2Beta1Flat", "alpha2_beta1_flat"),
        )
    },
    **dict.fromkeys(
        ("GradientAttribution", "PerturbationAttribution", "LayerAttribution", "NeuronAttribution", "Attributor"), _BASE
    ),
    **dict.fromkeys(
        (
            "InterpretableEmbeddingBase",
            "configure_interpretable_embedding_layer",
            "remove_interpretable_embedding_layer",
        ),
        _EMBEDDINGS,
    ),
    **dict.fromkeys(("LLMAttribution", "LLMAttributionResult", "LLMGradientAttribution"), _LANGUAGE_MODELS),
    **dict.fromkeys(("RemoteLLMAttribution", "RemoteLLMProvider", "VLLMProvider"), _LANGUAGE_MODELS),
    **dict.fromkeys(
        ("InterpretableInput", "ImageMaskInput", "ProductBaselines", "TextTemplateInput", "TextTokenInput"), _FEATURES
    ),
    **dict.fromkeys(
        ("Summarizer", "SummarizerSingleTensor", "ClassSummarizer", "CommonStats", "StatValue"), _STATISTICS
    ),
    **dict.fromkeys(("StdDev", "MSE", "Var", "Min", "Max", "Sum", "Count"), _STATISTICS),
    **dict.fromkeys(
        ("Composite", "LayerMapComposite", "NameMapComposite", "NameLayerMapComposite", "MixedComposite"), _COMPOSITE
    ),
    **dict.fromkeys(
        ("SpecialFirstLayerMapComposite",), "it is tw.LRP(model, first=tw.lrp.Flat()) here, or another rule"
    ),
    **dict.fromkeys(("ClassifierOutputTarget", "RawScoresOutputTarget"), _PLAIN_TARGET),
}


def hint_for(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message about an unknown ``name``: what it is called here, or the nearest names.

    Args:
        name: what was looked for in ``torchwhy``.
        known: the names that there are.

    >>> hint_for("LayerGradCam", ["GradCAM"])
    ': it is tw.GradCAM(model, layer=...) here'
    >>> hint_for("Salience", ["Saliency"])
    '; did you mean tw.Saliency?'
    """
    known = list(known)
    if name in FORMS:
        return f": {FORMS[name]}"
    if ours := _same_class(name, known):
        return f": it is tw.{ours} here"
    if ours := _same_class(name.removeprefix("Layer"), known):
        return f": it is tw.{ours}(model, layer=...) here"
    if ours := _same_class(name.removeprefix("Neuron"), known):
        return f": it is tw.{ours}(model) with target=tw.Neuron(layer, index) here"
    near = nearest_names(name, known)
    return f"; did you mean {' or '.join(f'tw.{n}' for n in near)}?" if near else "; dir(tw) lists what there is"


def _same_class(name: str, known: Iterable[str]) -> str | None:
    """Return our name of a class: from the table, or that which differs in capitals and underscores alone."""
    if name in CLASSES:
        return CLASSES[name]
    letters = name.replace("_", "").casefold()
    return next((ours for ours in known if ours.casefold() == letters), None)
