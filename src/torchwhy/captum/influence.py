"""``captum.influence``: the names can be imported, and say what would do when they are used."""

from torchwhy.captum.missing import missing_classes

OF_INFLUENCE = (
    "DataInfluence",
    "NaiveInfluenceFunction",
    "SimilarityInfluence",
    "TracInCP",
    "TracInCPBase",
    "TracInCPFast",
    "TracInCPFastRandProj",
)
globals().update(
    missing_classes("influence", dict.fromkeys(OF_INFLUENCE, "torch.func has the gradients of each example"))
)

__all__ = [*OF_INFLUENCE]
