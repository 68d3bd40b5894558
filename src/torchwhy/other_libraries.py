"""Names of Captum, Zennit, pytorch-grad-cam, torchcam, SHAP and LIME, and what they are called here.

Read only when a name is looked for that ``torchwhy`` does not have, to say so in the error.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec

from torchwhy.public_names import MODULES, ROOMS
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
    "IG": "IntegratedGradients",
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
    "DataLoaderAttribution": "it is tw.explain_dataset here, or a call for each batch",
    "TextTokenInput": "it is tw.Prompt(tokenizer, text, units='token') here",
    "TextTemplateInput": "it is tw.Prompt(tokenizer, template, units={field: text}) here",
    "ProductBaselines": "no counterpart here; tw.Prompt(absent={field: [texts]}) averages over several baselines",
    "LimeBase": "it is tw.LIME(model) here, whose model may be any function of the interpretable features",
    "TokenReferenceBase": "not needed here; baselines= takes the id of the padding token, as in "
    "tw.IntegratedGradients(model, layer='embeddings').attribute(ids, baselines=0)",
    "GuidedBackpropReLUModel": "it is tw.GuidedBackprop(model) here",
    "CAV": "it is tw.TCAV here, which fits the concepts' vectors",
    "Concept": "it is a name and a tensor of examples here, in the mapping that tw.TCAV(model, layer=...).fit takes",
    "Problem": "a method of your own is given one, a torchwhy.problem.Problem; there is nothing to make one for",
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
    **dict.fromkeys(("InterpretableInput", "ImageMaskInput"), _FEATURES),
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
    in_rooms = _names_in_rooms()
    if ours := _same_class(name, in_rooms):
        return f": it is {in_rooms[ours]} here"
    if name.isidentifier() and find_spec(f"torchwhy.{name}"):
        return _hint_for_module(name)
    if ours := _same_class(name.removeprefix("Layer"), known):
        return f": it is tw.{ours}(model, layer=...) here"
    if ours := _same_class(name.removeprefix("Neuron"), known):
        return f": it is tw.{ours}(model) with target=tw.Neuron(layer, index) here"
    near = [f"tw.{n}" for n in nearest_names(name, known)] or [in_rooms[n] for n in nearest_names(name, in_rooms)]
    return f"; did you mean {' or '.join(near)}?" if near else "; dir(tw) lists what there is"


def hint_in_room(room: str, name: str, own: Iterable[str]) -> str:
    """Return the end of an error message about an unknown ``name`` in one of the rooms of ``torchwhy``, such as ``tw.lrp``.

    Args:
        room: the name of the room.
        name: what was looked for in it.
        own: the public names that it has.

    >>> hint_in_room("lrp", "Gama", ["Gamma", "Flat"])
    '; did you mean tw.lrp.Gamma?'
    >>> hint_in_room("cam", "GradCam", [])
    ': it is tw.GradCAM here'
    """
    for prefix, known in ((f"tw.{room}", list(own)), ("tw", list(MODULES))):
        if ours := _same_class(name, known):
            return f": it is {prefix}.{ours} here"
    for prefix, known in ((f"tw.{room}", list(own)), ("tw", list(MODULES))):
        if near := nearest_names(name, known):
            return f"; did you mean {' or '.join(f'{prefix}.{n}' for n in near)}?"
    return f"; tw.{room}.__all__ lists what there is" if own else "; dir(tw) lists what there is"


def _names_in_rooms() -> dict[str, str]:
    """Return where the names are that one of the rooms has, and ``torchwhy`` itself has not."""
    found: dict[str, str] = {}
    for room in ROOMS:
        names = getattr(importlib.import_module(f"torchwhy.{room}"), "__all__", ())
        found |= {name: f"tw.{room}.{name}" for name in names if name not in MODULES and name not in found}
    return found


def _hint_for_module(name: str) -> str:
    """Return what is said of a module that is inside: what there is of it in ``torchwhy``."""
    public = [f"tw.{n}" for n, module in MODULES.items() if module.partition(".")[0] == name]
    return f": it is inside the library; what is public of it: {', '.join(public) or 'nothing'}"


def _same_class(name: str, known: Iterable[str]) -> str | None:
    """Return our name of a class: from the table, or that which differs in capitals and underscores alone."""
    known = list(known)
    if CLASSES.get(name) in known:
        return CLASSES[name]
    letters = name.replace("_", "").casefold()
    return next((ours for ours in known if ours.casefold() == letters), None)
