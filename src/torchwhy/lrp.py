"""The rules of layer-wise relevance propagation, for composites of your own: ``tw.lrp.Gamma(0.25)``."""

from torchwhy.backprop.lrp_rules import AlphaBeta, Epsilon, Excitation, Flat, Gamma, Norm, Pass, WSquare, ZBox, ZPlus

__all__ = ["AlphaBeta", "Epsilon", "Excitation", "Flat", "Gamma", "Norm", "Pass", "WSquare", "ZBox", "ZPlus"]
