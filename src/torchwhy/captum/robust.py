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
        dict.fromkeys(
            OF_ROBUST,
            "a step that lowers the score is x - epsilon * tw.Saliency(model, signed=True).attribute(x, target).sign(), one that "
            "raises it x + epsilon * ...; tw.Counterfactual looks for the nearest input that is another class",
        ),
    )
)

__all__ = [*OF_ROBUST]
