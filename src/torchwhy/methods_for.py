"""Which methods are for which data: pictures, texts, tables, black boxes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution

DataKind = Literal["image", "text", "table", "black-box"]

# methods that need a picture's axes, besides those of ``cam``
PICTURES_ALONE = ("BlurIG", "ExtremalPerturbation", "GuidedGradCAM", "FullGrad", "RISE", "Occlusion")
# methods that are no map of the input: of a layer's units, of examples, of another row; those of ``circuits`` neither
OTHER_QUESTIONS = ("Conductance", "InternalInfluence", "LayerActivation", "NeuronConductance", "TCAV", "Counterfactual")
LINEAR_MODELS = ("LinearSHAP",)


def methods_for(kind: DataKind) -> dict[str, type[Attribution]]:
    """Return the methods that give a number for each part of such an input, by name.

    Args:
        kind: ``"image"``; ``"text"``: a :class:`torchwhy.Text` or :class:`torchwhy.Prompt`; ``"table"``: rows of columns;
            ``"black-box"``: rows of a function that is no module, without gradients and layers.

    Raises:
        ValueError: another kind.

    >>> "GradCAM" in methods_for("image"), "GradCAM" in methods_for("table"), list(methods_for("black-box"))[:2]
    (True, False, ['FeatureAblation', 'FeaturePermutation'])
    """
    import torchwhy

    if kind not in get_args(DataKind):
        raise ValueError(f"kind={kind!r}: expected one of {', '.join(get_args(DataKind))}")
    return {name: method for name, method in torchwhy.methods().items() if _applies(method, kind)}


def _applies(method: type[Attribution], kind: DataKind) -> bool:
    name, family = method.__name__, method.__module__.split(".")[1]
    if name in OTHER_QUESTIONS or family == "circuits":
        return False
    if kind == "image":
        return name not in LINEAR_MODELS
    if family == "cam" or name in PICTURES_ALONE:
        return False
    if kind == "text":
        return name not in (*LINEAR_MODELS, "FeaturePermutation")
    if kind == "table":
        return family != "attention"
    return family != "attention" and not method.needs_gradient
