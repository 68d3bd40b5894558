"""``captum.concept`` by :class:`torchwhy.TCAV`."""

from torchwhy.captum.concepts import CAV, Concept
from torchwhy.captum.concepts import CaptumTCAV as TCAV
from torchwhy.captum.missing import missing_classes

OF_CONCEPT = ("Classifier", "ConceptInterpreter", "DefaultClassifier")
globals().update(
    missing_classes("concept", dict.fromkeys(OF_CONCEPT, "TCAV(model, layers, classifier=...) takes scikit-learn's"))
)

__all__ = [*OF_CONCEPT, "CAV", "Concept", "TCAV"]
