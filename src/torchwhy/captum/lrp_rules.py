"""Captum's rules of LRP, which it reads from the attribute ``rule`` of a module."""

from __future__ import annotations

from torch import nn

from torchwhy.backprop.composite import Composite
from torchwhy.backprop.lrp_rules import AlphaBeta, Epsilon, Gamma, Pass, Rule
from torchwhy.engine.structure import Model

STABILITY = 1e-9  # Captum's


class EpsilonRule(Epsilon):
    """Captum's ``EpsilonRule(epsilon=1e-9)``: :class:`torchwhy.lrp.Epsilon`."""

    def __init__(self, epsilon: float = STABILITY) -> None:
        super().__init__(epsilon)


class GammaRule(Gamma):
    """Captum's ``GammaRule(gamma=0.25)``: :class:`torchwhy.lrp.Gamma`."""

    def __init__(self, gamma: float = 0.25, set_bias_to_zero: bool = False) -> None:
        super().__init__(gamma)


class Alpha1_Beta0_Rule(AlphaBeta):
    """Captum's ``Alpha1_Beta0_Rule``: :class:`torchwhy.lrp.AlphaBeta` with α = 1 and β = 0."""

    def __init__(self, set_bias_to_zero: bool = False) -> None:
        super().__init__(1.0, 0.0)


class IdentityRule(Pass):
    """Captum's ``IdentityRule``: :class:`torchwhy.lrp.Pass`."""


def composite_of(model: Model) -> Composite:
    """Return Captum's rules: ε = 1e-9, and at modules that have one, their ``rule``."""
    every = Epsilon(STABILITY)
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    chosen = {name: m.rule for name, m in modules if isinstance(getattr(m, "rule", None), Rule)}
    return Composite(convolution=every, linear=every, by_name=chosen)
