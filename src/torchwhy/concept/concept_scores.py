"""The scores of concepts: what TCAV says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import TYPE_CHECKING

from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True)
class ConceptScore(Viewable):
    """The influence of a concept on a class.

    Args:
        score: the TCAV score in [0, 1]: the share of the inputs whose score rises in the concept's direction, the mean
            over the runs.
        magnitude: the share, in [0, 1], of the rises in all changes: the sum of the positive derivatives over that of
            the absolute ones.
        derivative: the mean directional derivative, in units of the score per unit of activation.
        accuracy: of the classifiers, on held-out examples, balanced over the two classes; 0.5 is chance.
        p_value: of the hypothesis that the concept's examples are like any random set, two-sided; None without random
            sets.
        runs: the score of each run.
    """

    score: float
    magnitude: float
    derivative: float
    accuracy: float
    p_value: float | None
    runs: tuple[float, ...]

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        return draw_concepts({"concept": self}, pictures, **options)

    def _table(self) -> Table:
        return table_of_concepts({"concept": self})


class ConceptScores(dict[str, ConceptScore], Viewable):
    """The :class:`ConceptScore` of each concept by its name: a dict that draws itself and makes a table."""

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        return draw_concepts(self, pictures, **options)

    def _table(self) -> Table:
        return table_of_concepts(self)

    __repr__ = dict.__repr__


class LayerConceptScores(dict[str, ConceptScores], Viewable):
    """The :class:`ConceptScores` of each layer by its name: a dict that draws itself and makes a table."""

    def _flat(self) -> dict[str, ConceptScore]:
        return {f"{layer}: {name}": score for layer, scores in self.items() for name, score in scores.items()}

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        return draw_concepts(self._flat(), pictures, **options)

    def _table(self) -> Table:
        return table_of_concepts(self._flat())

    __repr__ = dict.__repr__


def draw_concepts(scores: Mapping[str, ConceptScore], pictures: ModuleType, **options: PictureOption) -> Figure:
    """Draw TCAV scores, from the lowest to the highest run, with their p-values and the classifiers' accuracy."""
    ends = [(s.score, min(s.runs, default=s.score), max(s.runs, default=s.score)) for s in scores.values()]
    mean, low, high = (list(column) for column in zip(*((m, min(m, a), max(m, b)) for m, a, b in ends)))
    notes = [
        f"accuracy {s.accuracy:.2f}" + ("" if s.p_value is None else f", p = {s.p_value:.2g}") for s in scores.values()
    ]
    shown = {"reference": 0.5, "notes": notes, "xlabel": "TCAV score, lowest to highest run", **options}
    figure: Figure = pictures.intervals(mean, low, high, list(scores), **shown)
    figure.axes[0].set_xticks([0, 0.25, 0.5, 0.75, 1])  # a share; the room beyond is for the notes
    return figure


def table_of_concepts(scores: Mapping[str, ConceptScore]) -> Table:
    """Return a line for each concept."""
    names = [f.name for f in fields(ConceptScore) if f.name != "runs"]
    lines: list[list[object]] = [
        [name, *(getattr(s, field) for field in names), min(s.runs, default=s.score), max(s.runs, default=s.score)]
        for name, s in scores.items()
    ]
    return ["concept", *names, "lowest run", "highest run"], lines
