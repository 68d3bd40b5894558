"""Guided backpropagation and the deconvolution network: rectifiers that look at the sign of the signal."""

from __future__ import annotations

from torch import Tensor

from torchwhy.engine.operations import RECTIFIERS
from torchwhy.engine.rules import Call, Rule, derivative, pointwise, writes


@writes
def guided(call: Call) -> Tensor:
    r"""m_x = max(m_y, 0) · max(f'(x), 0): a positive signal, through a positive slope."""
    slope = call.x > 0 if call.name == "relu" else derivative(call, call.x).clamp(min=0)
    return pointwise(call, call.value(), lambda m: (m.clamp(min=0) * slope,))


@writes
def deconvolution(call: Call) -> Tensor:
    r"""m_x = max(m_y, 0): a positive signal, whatever the activation did on the way up."""
    return pointwise(call, call.value(), lambda m: (m.clamp(min=0),))


GUIDED: dict[str, Rule] = dict.fromkeys(RECTIFIERS, guided)
DECONVOLUTION: dict[str, Rule] = dict.fromkeys(RECTIFIERS, deconvolution)
