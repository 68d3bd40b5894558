"""``captum.concept``: the names can be imported, and say what would do when they are used."""

from torchwhy.captum.missing import missing_classes

OF_CONCEPT = (
    "CAV",
    "Classifier",
    "Concept",
    "ConceptInterpreter",
    "DefaultClassifier",
    "TCAV",
)
globals().update(
    missing_classes(
        "concept",
        dict.fromkeys(OF_CONCEPT, "tw.TCAV(model, layer=...).fit({name: examples}, random_sets).score(x, target)"),
    )
)

__all__ = [*OF_CONCEPT]
