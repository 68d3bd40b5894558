"""``captum.robust``: the names can be imported, and say what would do when they are used."""

from torchwhy.captum.missing import missing_classes

OF_ROBUST = (
    "AttackComparator",
    "FGSM",
    "MinParamPerturbation",
    "PGD",
    "Perturbation",
)
globals().update(
    missing_classes(
        "robust",
        dict.fromkeys(OF_ROBUST, "a step is x + epsilon * tw.Saliency(model, signed=True).attribute(x, target).sign()"),
    )
)

__all__ = [*OF_ROBUST]
