"""Circuits: which parts inside a transformer carry an answer, and which of them hand it to which.

``circuit_method``            what the methods here have in common
``transformer_parts``         the blocks, heads and components of a model, found by their names and the order in which they run
``units``                     positions and heads of a layer
``activation_patching``       a unit gets the value that it has on another input
``attribution_patching``      the same to first order, for all units at once
``edge_attribution``          from the output of one component to the input of another
``direct_logit_attribution``  what each component adds to the score through the last norm alone
``logit_lens``                what the model would say if it ended after a block
"""

from typing import TYPE_CHECKING

from torchwhy.circuits.transformer_parts import Component, find_blocks, find_head_layers
from torchwhy.spelling import refusal_of

__all__ = ["Component", "find_blocks", "find_head_layers"]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
