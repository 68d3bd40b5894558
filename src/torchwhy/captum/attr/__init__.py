"""``captum.attr`` over the methods of torchwhy: the same names, arguments and forms of what is returned.

    from torchwhy.captum.attr import IntegratedGradients, LayerConductance

Where the numbers differ, and why, is said in docs/captum.md.
"""

from torchwhy.captum.attr import visualization
from torchwhy.captum.llm import LLMAttribution, LLMAttributionResult, LLMGradientAttribution
from torchwhy.captum.methods import (
    CLASSES_OF_CAPTUM,
    CaptumGradient,
    CaptumLayer,
    CaptumMethod,
    CaptumNeuron,
    CaptumPerturbation,
    NoiseTunnel,
)
from torchwhy.captum.missing import missing_classes
from torchwhy.captum.table import MISSING
from torchwhy.captum.text_inputs import InterpretableInput, TextTemplateInput, TextTokenInput, TokenReferenceBase

_BASES = {
    "Attribution": CaptumMethod,
    "GradientAttribution": CaptumGradient,
    "PerturbationAttribution": CaptumPerturbation,
    "LayerAttribution": CaptumLayer,
    "NeuronAttribution": CaptumNeuron,
}
_NAMES = {**_BASES, **CLASSES_OF_CAPTUM, **missing_classes("attr", MISSING)}
globals().update(_NAMES)

__all__ = [
    *_NAMES, "InterpretableInput", "LLMAttribution", "LLMAttributionResult", "LLMGradientAttribution", "NoiseTunnel",
    "TextTemplateInput", "TextTokenInput", "TokenReferenceBase", "visualization",
]  # fmt: skip


def __getattr__(name: str) -> type[CaptumMethod]:
    """Refuse names that captum.attr has not; for type checkers: all the others are there."""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
