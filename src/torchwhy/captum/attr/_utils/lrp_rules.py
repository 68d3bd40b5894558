"""Captum's rules of LRP, to be set as ``layer.rule``."""

from torchwhy.captum.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule

__all__ = ["Alpha1_Beta0_Rule", "EpsilonRule", "GammaRule", "IdentityRule"]
