"""torchwhy: why did the model say that?

A method is a class of settings over a model, called with data::

    import torchwhy as tw

    ig = tw.IntegratedGradients(model, n_steps=64)
    maps = ig.attribute(x, target=281)
    explanation = ig.explain(x, target=281)  # with the evaluations, the completeness gap, a picture
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

# what type checkers and editors read; at run time a name is imported when it is first used
if TYPE_CHECKING:
    # isort: off
    from torchwhy import (
        attention as attention,
        backprop as backprop,
        baselines as baselines,
        cam as cam,
        captum as captum,
        circuits as circuits,
        concept as concept,
        counterfactual as counterfactual,
        datasets as datasets,
        global_view as global_view,
        gradient as gradient,
        influence as influence,
        lrp as lrp,
        metrics as metrics,
        models as models,
        perturbation as perturbation,
        result as result,
        shapley as shapley,
        surrogate as surrogate,
        targets as targets,
        visualize as visualize,
        wrapper as wrapper,
    )
    from torchwhy.gradient.saliency import Saliency as Saliency
    from torchwhy.gradient.input_x_gradient import InputXGradient as InputXGradient
    from torchwhy.gradient.smoothgrad import SmoothGrad as SmoothGrad
    from torchwhy.gradient.smoothgrad import SquareGrad as SquareGrad
    from torchwhy.gradient.smoothgrad import VarGrad as VarGrad
    from torchwhy.gradient.integrated_gradients import IntegratedGradients as IntegratedGradients
    from torchwhy.gradient.expected_gradients import ExpectedGradients as ExpectedGradients
    from torchwhy.gradient.gradient_shap import GradientSHAP as GradientSHAP
    from torchwhy.gradient.blur_ig import BlurIG as BlurIG
    from torchwhy.gradient.guided_ig import GuidedIG as GuidedIG
    from torchwhy.gradient.idgi import IDGI as IDGI
    from torchwhy.gradient.conductance import Conductance as Conductance
    from torchwhy.gradient.neuron_conductance import NeuronConductance as NeuronConductance
    from torchwhy.gradient.internal_influence import InternalInfluence as InternalInfluence
    from torchwhy.gradient.layer_activation import LayerActivation as LayerActivation
    from torchwhy.cam.cam import CAM as CAM
    from torchwhy.cam.grad_cam import GradCAM as GradCAM
    from torchwhy.cam.grad_cam_plus_plus import GradCAMPlusPlus as GradCAMPlusPlus
    from torchwhy.cam.grad_cam_plus_plus import SmoothGradCAMPlusPlus as SmoothGradCAMPlusPlus
    from torchwhy.cam.xgrad_cam import XGradCAM as XGradCAM
    from torchwhy.cam.hires_cam import HiResCAM as HiResCAM
    from torchwhy.cam.hires_cam import ElementWiseCAM as ElementWiseCAM
    from torchwhy.cam.layer_cam import LayerCAM as LayerCAM
    from torchwhy.cam.shapley_cam import ShapleyCAM as ShapleyCAM
    from torchwhy.cam.eigen_cam import EigenCAM as EigenCAM
    from torchwhy.cam.eigen_cam import EigenGradCAM as EigenGradCAM
    from torchwhy.cam.kpca_cam import KPCACAM as KPCACAM
    from torchwhy.cam.score_cam import ScoreCAM as ScoreCAM
    from torchwhy.cam.ss_cam import SSCAM as SSCAM
    from torchwhy.cam.is_cam import ISCAM as ISCAM
    from torchwhy.cam.ablation_cam import AblationCAM as AblationCAM
    from torchwhy.cam.opti_cam import OptiCAM as OptiCAM
    from torchwhy.cam.finer_cam import FinerCAM as FinerCAM
    from torchwhy.cam.fullgrad import FullGrad as FullGrad
    from torchwhy.cam.guided_grad_cam import GuidedGradCAM as GuidedGradCAM
    from torchwhy.perturbation.feature_ablation import FeatureAblation as FeatureAblation
    from torchwhy.perturbation.feature_permutation import FeaturePermutation as FeaturePermutation
    from torchwhy.perturbation.occlusion import Occlusion as Occlusion
    from torchwhy.perturbation.rise import RISE as RISE
    from torchwhy.perturbation.lime import LIME as LIME
    from torchwhy.perturbation.extremal_perturbation import ExtremalPerturbation as ExtremalPerturbation
    from torchwhy.perturbation.segments import patches as patches
    from torchwhy.perturbation.segments import superpixels as superpixels
    from torchwhy.shapley.exact_shapley import ExactShapley as ExactShapley
    from torchwhy.shapley.kernel_shap import KernelSHAP as KernelSHAP
    from torchwhy.shapley.banzhaf import Banzhaf as Banzhaf
    from torchwhy.shapley.shapley_sampling import ShapleySampling as ShapleySampling
    from torchwhy.shapley.owen_values import OwenValues as OwenValues
    from torchwhy.shapley.linear_shap import LinearSHAP as LinearSHAP
    from torchwhy.attention.rollout import AttentionRollout as AttentionRollout
    from torchwhy.attention.raw_attention import RawAttention as RawAttention
    from torchwhy.attention.flow import AttentionFlow as AttentionFlow
    from torchwhy.attention.relevance import AttentionRelevance as AttentionRelevance
    from torchwhy.attention.alti import ALTI as ALTI
    from torchwhy.attribution import Attribution as Attribution
    from torchwhy.backprop.deeplift import (
        DeepLIFT as DeepLIFT,
        DeepSHAP as DeepSHAP,
    )
    from torchwhy.backprop.excitation import ExcitationBackprop as ExcitationBackprop
    from torchwhy.backprop.guided_backprop import (
        DeconvNet as DeconvNet,
        GuidedBackprop as GuidedBackprop,
    )
    from torchwhy.backprop.linear_approximation import LinearApproximation as LinearApproximation
    from torchwhy.backprop.lrp import LRP as LRP
    from torchwhy.arguments import PerRow as PerRow, Ragged as Ragged, Shared as Shared
    from torchwhy.baselines import (
        AtLayer as AtLayer,
        Blur as Blur,
        Constant as Constant,
        Distribution as Distribution,
        Mean as Mean,
        Noise as Noise,
        Uniform as Uniform,
    )
    from torchwhy.circuits.activation_patching import ActivationPatching as ActivationPatching
    from torchwhy.circuits.attribution_patching import AttributionPatching as AttributionPatching
    from torchwhy.circuits.direct_logit_attribution import DirectLogitAttribution as DirectLogitAttribution
    from torchwhy.circuits.edge_attribution import EdgeAttribution as EdgeAttribution
    from torchwhy.circuits.logit_lens import LogitLens as LogitLens, TunedLens as TunedLens
    from torchwhy.comparison import compare as compare
    from torchwhy.comparison_table import Comparison as Comparison
    from torchwhy.datasets import explain_dataset as explain_dataset
    from torchwhy.datasets import load_dataset as load_dataset
    from torchwhy.concept.dissection import NetworkDissection as NetworkDissection
    from torchwhy.concept.feature_visualization import (
        DeepDream as DeepDream,
        FeatureVisualization as FeatureVisualization,
    )
    from torchwhy.concept.tcav import TCAV as TCAV
    from torchwhy.counterfactual.counterfactual import Counterfactual as Counterfactual
    from torchwhy.engine.layers.layer import Layer as Layer
    from torchwhy.engine.run.batching import memory_budget as memory_budget
    from torchwhy.engine.run.black_box import NumPyModel as NumPyModel, TorchModel as TorchModel
    from torchwhy.explanation import Explanation as Explanation, concat as concat
    from torchwhy.app.page import explore as explore
    from torchwhy.influence.influence_function import InfluenceFunction as InfluenceFunction
    from torchwhy.global_view.drift import drift as drift
    from torchwhy.global_view.measured import measure_dataset as measure_dataset
    from torchwhy.global_view.pick import submodular_pick as submodular_pick
    from torchwhy.global_view.spray import SpRAy as SpRAy
    from torchwhy.global_view.summary import summarize as summarize
    from torchwhy.influence.knn_shapley import KNNShapley as KNNShapley
    from torchwhy.influence.representer_points import RepresenterPoints as RepresenterPoints
    from torchwhy.influence.similarity import SimilarityInfluence as SimilarityInfluence
    from torchwhy.influence.tracin import TracIn as TracIn
    from torchwhy.influence.trak import TRAK as TRAK
    from torchwhy.inspection import inspect as inspect
    from torchwhy.inspection_result import Inspection as Inspection
    from torchwhy.samples.sample import Sample as Sample
    from torchwhy.samples.text import Text as Text
    from torchwhy.samples.prompt import Prompt as Prompt
    from torchwhy.samples.picture import PromptPicture as PromptPicture
    from torchwhy.surrogate.accumulated import AccumulatedLocalEffects as AccumulatedLocalEffects
    from torchwhy.surrogate.bias import BiasReport as BiasReport
    from torchwhy.surrogate.dependence import PartialDependence as PartialDependence
    from torchwhy.surrogate.importance import (
        GradientImportance as GradientImportance,
        PermutationImportance as PermutationImportance,
    )
    from torchwhy.surrogate.network import SurrogateNetwork as SurrogateNetwork
    from torchwhy.surrogate.sage import SAGE as SAGE
    from torchwhy.surrogate.tree import SurrogateTree as SurrogateTree
    from torchwhy.targets import Neuron as Neuron
    from torchwhy.visualize.report import report as report
    from torchwhy.wrapper import (
        Processed as Processed,
        Wrapper as Wrapper,
    )
    # isort: on

__version__ = "0.2.0"

# where each public name lives; it is imported when it is first used
_HOME = {
    "attribution": ["Attribution"],
    "explanation": ["Explanation", "concat"],
    "app.page": ["explore"],
    "samples.sample": ["Sample"],
    "samples.text": ["Text"],
    "samples.picture": ["PromptPicture"],
    "samples.prompt": ["Prompt"],
    "targets": ["Neuron"],
    "engine.layers.layer": ["Layer"],
    "engine.run.batching": ["memory_budget"],
    "engine.run.black_box": ["NumPyModel", "TorchModel"],
    "arguments": ["PerRow", "Ragged", "Shared"],
    "baselines": ["AtLayer", "Blur", "Constant", "Distribution", "Mean", "Noise", "Uniform"],
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
    "gradient.neuron_conductance": ["NeuronConductance"],
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
    "perturbation.feature_ablation": ["FeatureAblation"],
    "perturbation.feature_permutation": ["FeaturePermutation"],
    "perturbation.occlusion": ["Occlusion"],
    "perturbation.rise": ["RISE"],
    "perturbation.lime": ["LIME"],
    "perturbation.extremal_perturbation": ["ExtremalPerturbation"],
    "perturbation.segments": ["patches", "superpixels"],
    "shapley.exact_shapley": ["ExactShapley"],
    "shapley.kernel_shap": ["KernelSHAP"],
    "shapley.banzhaf": ["Banzhaf"],
    "shapley.shapley_sampling": ["ShapleySampling"],
    "shapley.owen_values": ["OwenValues"],
    "shapley.linear_shap": ["LinearSHAP"],
    "backprop.guided_backprop": ["GuidedBackprop", "DeconvNet"],
    "backprop.lrp": ["LRP"],
    "backprop.deeplift": ["DeepLIFT", "DeepSHAP"],
    "backprop.excitation": ["ExcitationBackprop"],
    "backprop.linear_approximation": ["LinearApproximation"],
    "counterfactual.counterfactual": ["Counterfactual"],
    "attention.rollout": ["AttentionRollout"],
    "attention.raw_attention": ["RawAttention"],
    "attention.flow": ["AttentionFlow"],
    "attention.relevance": ["AttentionRelevance"],
    "attention.alti": ["ALTI"],
    "circuits.activation_patching": ["ActivationPatching"],
    "circuits.attribution_patching": ["AttributionPatching"],
    "circuits.edge_attribution": ["EdgeAttribution"],
    "circuits.direct_logit_attribution": ["DirectLogitAttribution"],
    "circuits.logit_lens": ["LogitLens", "TunedLens"],
    "concept.tcav": ["TCAV"],
    "concept.dissection": ["NetworkDissection"],
    "concept.feature_visualization": ["DeepDream", "FeatureVisualization"],
    "influence.tracin": ["TracIn"],
    "influence.representer_points": ["RepresenterPoints"],
    "influence.knn_shapley": ["KNNShapley"],
    "influence.influence_function": ["InfluenceFunction"],
    "influence.trak": ["TRAK"],
    "influence.similarity": ["SimilarityInfluence"],
    "surrogate.importance": ["GradientImportance", "PermutationImportance"],
    "surrogate.dependence": ["PartialDependence"],
    "surrogate.accumulated": ["AccumulatedLocalEffects"],
    "surrogate.sage": ["SAGE"],
    "surrogate.tree": ["SurrogateTree"],
    "surrogate.network": ["SurrogateNetwork"],
    "surrogate.bias": ["BiasReport"],
    "visualize.report": ["report"],
    "wrapper": ["Processed", "Wrapper"],
    "comparison": ["compare"],
    "datasets": ["explain_dataset", "load_dataset"],
    "comparison_table": ["Comparison"],
    "global_view.drift": ["drift"],
    "global_view.measured": ["measure_dataset"],
    "global_view.pick": ["submodular_pick"],
    "global_view.spray": ["SpRAy"],
    "global_view.summary": ["summarize"],
    "inspection": ["inspect"],
    "inspection_result": ["Inspection"],
}
_MODULES = {name: module for module, names in _HOME.items() for name in names}

# the rooms: modules and packages that are reached as ``torchwhy.NAME``
_ROOMS = (
    "attention",
    "backprop",
    "baselines",
    "cam",
    "captum",
    "circuits",
    "concept",
    "counterfactual",
    "datasets",
    "global_view",
    "gradient",
    "influence",
    "lrp",
    "metrics",
    "models",
    "perturbation",
    "result",
    "shapley",
    "surrogate",
    "targets",
    "visualize",
    "wrapper",
)

__all__ = ["__version__", "methods", *_MODULES]


def _load(name: str) -> Any:
    """Import a public name or a room on its first use.

    Raises:
        AttributeError: there is no such name; the message says what it is called here, or the nearest names.
    """
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULES:
        message = f"module 'torchwhy' has no attribute {name!r}"
        if not name.startswith("_"):
            from torchwhy.other_libraries import hint_for

            message += hint_for(name, [*__all__, *_ROOMS])
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    found = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])


def methods() -> dict[str, type[Attribution]]:
    """Return all methods, by name, in the order of their families."""
    found = {name: _load(name) for name in _MODULES}
    bases = (found["Attribution"], found["Wrapper"], found["Processed"])
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, bases[0]) and c not in bases}
