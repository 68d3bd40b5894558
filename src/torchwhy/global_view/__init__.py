"""The global view: what explanations of many rows say together, read batch by batch from what was kept of a data set.

``rows`` reads explanations, wherever they are, as rows of features; each other file is one question about them.
"""

from typing import TYPE_CHECKING

from torchwhy.global_view.drift import Drift
from torchwhy.global_view.pick import PickedRows
from torchwhy.global_view.spray import ExplanationClusters
from torchwhy.global_view.summary import CohortRows, Summary
from torchwhy.spelling import refusal_of

__all__ = ["CohortRows", "Drift", "ExplanationClusters", "PickedRows", "Summary"]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
