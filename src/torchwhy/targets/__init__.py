"""What is explained: one scalar for each row of the model's output.

Beside indices, callables and :class:`torchwhy.Neuron` there are targets with a name, which know what belongs to each row::

    tw.KernelSHAP(model).explain(x, tw.targets.Probability(labels))
    tw.GradCAM(segmenter, layer="auto").explain(x, tw.targets.Region(1, masks))
"""

from typing import TYPE_CHECKING

from torchwhy.spelling import refusal_of
from torchwhy.targets.of_classes import ClassTarget, Contrast, Entropy, LogProb, Probability
from torchwhy.targets.of_pictures import Box, Region
from torchwhy.targets.of_text import Similarity, Span
from torchwhy.targets.score_target import ScoreTarget
from torchwhy.targets.target import DerivedTarget, Neuron, Target, TargetLike, find_logits, logits_per_row

__all__ = [
    "Box",
    "ClassTarget",
    "Contrast",
    "DerivedTarget",
    "Entropy",
    "LogProb",
    "Neuron",
    "Probability",
    "Region",
    "ScoreTarget",
    "Similarity",
    "Span",
    "Target",
    "TargetLike",
    "find_logits",
    "logits_per_row",
]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
