"""Layer-wise relevance propagation: its rules, its composites, and the base classes of rules of your own.

``tw.LRP(net, composite=tw.lrp.EPSILON_PLUS.replace(by_name={"layer4": tw.lrp.Gamma(0.25)}))``
"""

from typing import TYPE_CHECKING

from torchwhy.backprop.composite import (
    ATTENTION,
    EPSILON,
    EPSILON_ALPHA2_BETA1,
    EPSILON_ALPHA2_BETA1_FLAT,
    EPSILON_GAMMA,
    EPSILON_GAMMA_BOX,
    EPSILON_PLUS,
    EPSILON_PLUS_FLAT,
    EXCITATION,
    Composite,
)
from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.backprop.lrp_rules import (
    AlphaBeta,
    Epsilon,
    Excitation,
    Flat,
    Gamma,
    InputRule,
    LayerRule,
    Norm,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
)
from torchwhy.spelling import refusal_of

__all__ = [
    "ATTENTION",
    "EPSILON",
    "EPSILON_ALPHA2_BETA1",
    "EPSILON_ALPHA2_BETA1_FLAT",
    "EPSILON_GAMMA",
    "EPSILON_GAMMA_BOX",
    "EPSILON_PLUS",
    "EPSILON_PLUS_FLAT",
    "EXCITATION",
    "AlphaBeta",
    "Composite",
    "Epsilon",
    "Excitation",
    "Flat",
    "Gamma",
    "InputRule",
    "LayerRule",
    "LinearLayer",
    "Norm",
    "Pass",
    "WSquare",
    "ZBox",
    "ZPlus",
]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
