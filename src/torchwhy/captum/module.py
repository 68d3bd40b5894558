"""``captum.module``: the names can be imported, and say that they are no explanations when they are used."""

from torchwhy.captum.missing import missing_classes

OF_MODULE = ("BinaryConcreteStochasticGates", "GaussianStochasticGates", "StochasticGatesBase")
globals().update(
    missing_classes(
        "module", dict.fromkeys(OF_MODULE, "they are layers that are trained with a model, which PyTorch has none of")
    )
)

__all__ = [*OF_MODULE]
