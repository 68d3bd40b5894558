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

from torchwhy.public_names import MODULES, ROOMS

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

__all__ = ["__version__", "methods", *MODULES]


def _load(name: str) -> Any:
    """Import a public name or a room on its first use.

    Raises:
        AttributeError: there is no such name; the message says what it is called here, or the nearest names.
    """
    if name in ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name not in MODULES:
        message = f"module 'torchwhy' has no attribute {name!r}"
        if not name.startswith("_"):
            from torchwhy.other_libraries import hint_for

            message += hint_for(name, [*__all__, *ROOMS])
        raise AttributeError(message, name=name, obj=sys.modules[__name__])
    found = getattr(importlib.import_module(f".{MODULES[name]}", __name__), name)
    globals()[name] = found
    return found


if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = _load


def __dir__() -> list[str]:
    return sorted([*__all__, *ROOMS])


def methods() -> dict[str, type[Attribution]]:
    """Return all methods, by name, in the order of their families."""
    found = {name: _load(name) for name in MODULES}
    bases = (found["Attribution"], found["Wrapper"], found["Processed"])
    return {n: c for n, c in found.items() if isinstance(c, type) and issubclass(c, bases[0]) and c not in bases}
