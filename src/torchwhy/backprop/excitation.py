"""Excitation backpropagation, plain and contrastive."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.backprop.excitation_rules import EXCITATION_RULES
from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.backprop.lrp_rules import Excitation, LayerRule, stabilize
from torchwhy.backprop.propagation import Propagation, rule_table
from torchwhy.engine.rules.mode import count_operations, run_with_rules
from torchwhy.engine.rules.opaque import warn_if_without_rules
from torchwhy.engine.run.rows import expand_like
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result


class _Contrast(LayerRule):
    """The excitation rule, and at the top layer, which the backward pass meets first, its contrast with the dual."""

    def __init__(self) -> None:
        self.rule = Excitation()
        self.top: LinearLayer | None = None

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j, see :meth:`LayerRule.multiplier`."""
        found = self.rule.multiplier(layer, m)
        if self.top is None:
            self.top = layer
        return found - self.rule.multiplier(layer.negated(), m) if self.top is layer else found


class ExcitationBackprop(Attribution[GivenLayer]):
    r"""Marginal winning probabilities: the target's unit hands 1 down, each unit to its excitatory inputs,
    :math:`P(j) = \sum_k \frac{x_j w_{jk}^+}{\sum_i x_i w_{ik}^+} P(k)`.

    Shape of the input or of ``layer=``; a map is the sum over channels, best at a middle layer. Probabilities, which sum to 1 per
    row where activations are not negative and every unit has an excitatory input; negative activations get nothing. The
    score itself plays no part, only which unit it is. The rest (batch norm folded, skip connections, attention) is as in
    :class:`LRP`.

    Args:
        contrastive: subtract what the dual unit, with the top layer's weights negated, would hand down; then positive
            values speak for the target and negative ones for the others.

    Paper: Zhang et al. 2018, arXiv:1608.00507, equations 1-5 and section 3.3.
    """

    contrastive: bool = False

    paper: ClassVar[str] = "arXiv:1608.00507"

    def _attribute(self, problem: Problem) -> Result:
        def make() -> Propagation:
            rule = _Contrast() if self.contrastive else Excitation()
            return Propagation({**rule_table(rule, rule), **EXCITATION_RULES})

        scores, signal, used = run_with_rules(problem, make)
        details = count_operations(used)
        if details["plain_operations"]:
            warn_if_without_rules(type(self).__name__, details, [rules.unreached for rules in used])
        start = 1 / stabilize(scores, 1e-12)
        values = tuple(x * m * expand_like(start, m) for x, m in zip(problem.x, signal))
        return Result(values, details=details)
