"""torchwhy: why did the model say that?

A method is a class of settings over a model, called with data::

    import torchwhy as tw

    ig = tw.IntegratedGradients(model, n_steps=64)
    maps = ig.attribute(x, target=281)
    explanation = ig.explain(x, target=281)  # with the evaluations, the completeness gap, a picture
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# where each public name lives; it is imported when it is first used
_HOME = {
    "attribution": ["Attribution"],
    "explanation": ["Explanation"],
    "targets": ["Neuron"],
    "engine.layers.resolve": ["Layer"],
    "engine.run.batching": ["memory_budget"],
    "baselines": ["Blur", "Constant", "Distribution", "Mean", "Noise", "Uniform"],
    "gradient.saliency": ["Saliency"],
    "gradient.input_x_gradient": ["InputXGradient"],
    "gradient.smoothgrad": ["SmoothGrad", "SquareGrad", "VarGrad"],
    "gradient.integrated_gradients": ["IntegratedGradients"],
    "gradient.expected_gradients": ["ExpectedGradients"],
    "gradient.gradient_shap": ["GradientSHAP"],
    "gradient.blur_ig": ["BlurIG"],
    "gradient.guided_ig": ["GuidedIG"],
    "gradient.idgi": ["IDGI"],
    "gradient.conductance": ["Conductance"],
    "gradient.internal_influence": ["InternalInfluence"],
    "gradient.layer_activation": ["LayerActivation"],
    "cam.cam": ["CAM"],
    "cam.grad_cam": ["GradCAM"],
    "cam.grad_cam_plus_plus": ["GradCAMPlusPlus", "SmoothGradCAMPlusPlus"],
    "cam.xgrad_cam": ["XGradCAM"],
    "cam.hires_cam": ["HiResCAM", "ElementWiseCAM"],
    "cam.layer_cam": ["LayerCAM"],
    "cam.shapley_cam": ["ShapleyCAM"],
    "cam.eigen_cam": ["EigenCAM", "EigenGradCAM"],
    "cam.kpca_cam": ["KPCACAM"],
    "cam.score_cam": ["ScoreCAM"],
    "cam.ss_cam": ["SSCAM"],
    "cam.is_cam": ["ISCAM"],
    "cam.ablation_cam": ["AblationCAM"],
    "cam.opti_cam": ["OptiCAM"],
    "cam.finer_cam": ["FinerCAM"],
    "cam.fullgrad": ["FullGrad"],
    "cam.guided_grad_cam": ["GuidedGradCAM"],
    "perturbation.feature_ablation": ["FeatureAblation", "FeaturePermutation"],
    "perturbation.occlusion": ["Occlusion"],
    "perturbation.rise": ["RISE"],
    "perturbation.lime": ["LIME"],
    "perturbation.extremal_perturbation": ["ExtremalPerturbation"],
    "perturbation.segments": ["patches", "superpixels"],
    "shapley.exact_shapley": ["ExactShapley"],
    "shapley.kernel_shap": ["KernelSHAP", "Banzhaf"],
    "shapley.shapley_sampling": ["ShapleySampling", "OwenValues"],
    "shapley.linear_shap": ["LinearSHAP"],
    "backprop.guided_backprop": ["GuidedBackprop", "DeconvNet"],
    "backprop.lrp": ["LRP"],
    "backprop.deeplift": ["DeepLIFT", "DeepSHAP"],
    "backprop.excitation": ["ExcitationBackprop"],
    "backprop.linear_approximation": ["LinearApproximation"],
    "counterfactual.counterfactual": ["Counterfactual"],
    "attention.rollout": ["AttentionRollout", "RawAttention"],
    "attention.flow": ["AttentionFlow"],
    "attention.relevance": ["AttentionRelevance"],
    "attention.alti": ["ALTI"],
    "concept.tcav": ["TCAV"],
    "concept.dissection": ["NetworkDissection"],
    "concept.feature_visualization": ["DeepDream", "FeatureVisualization"],
    "surrogate.importance": ["GradientImportance", "PermutationImportance"],
    "surrogate.dependence": ["PartialDependence"],
    "surrogate.tree": ["SurrogateTree"],
    "surrogate.network": ["SurrogateNetwork"],
    "surrogate.bias": ["BiasReport"],
    "wrapper": ["Processed", "Wrapper"],
    "comparison": ["compare"],
    "comparison_table": ["Comparison"],
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}
_PACKAGES = ("baselines", "lrp", "metrics", "models", "visualize")

__all__ = ["__version__", "methods", *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module 'torchwhy' has no attribute {name!r}")
    found = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted(__all__)


def methods() -> dict[str, type[Any]]:
    """All methods, by name, in the order of their families."""
    found = {name: __getattr__(name) for name in _MODULES}
    bases = (found["Attribution"], found["Wrapper"], found["Processed"])
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, bases[0]) and c not in bases}
