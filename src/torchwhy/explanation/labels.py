"""Numbers of labels in columns of several explanations: the same label is the same number in all of them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from torchwhy.explanation.table import column_labels

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation

Key = TypeVar("Key", bound=Hashable)


def add_labels(known: dict[Key, list[str]], more: Mapping[Key, Sequence[str]]) -> None:
    """Add to the labels of each column those that are not there yet, behind them."""
    for column, labels in more.items():
        own = known.setdefault(column, [])
        own += [label for label in labels if label not in own]


def renumbered(values: Tensor, own: Mapping[int, Sequence[str]], common: Mapping[int, Sequence[str]]) -> Tensor:
    """Return inputs ``(N, d)`` in which the numbers of labels are those of ``common``, by the column's number; NaN stays."""
    found = values.clone()
    for column, labels in own.items():
        if list(labels) == list(common[column][: len(labels)]):
            continue
        for k, label in enumerate(labels):
            found[values[:, column] == k, column] = common[column].index(label)
    return found


def in_common_labels(parts: list[Explanation]) -> list[Explanation]:
    """Return explanations in whose inputs the same label is the same number; those of other inputs as they are."""
    each = [column_labels(e) for e in parts]
    if all(labels == each[0] for labels in each):
        return parts
    common: dict[int, list[str]] = {}
    for labels in each:
        add_labels(common, labels)
    if all(labels == sorted(labels) for own in each for labels in own.values()):
        common = {column: sorted(labels) for column, labels in common.items()}
    found = []
    for e, own in zip(parts, each):
        if isinstance(e.inputs, Tensor) and e.names is not None:
            inputs = renumbered(e.inputs.flatten(1), own, common).view_as(e.inputs)
            known = {**e.details.get("labels", {}), **{str(e.names[j]): labels for j, labels in common.items()}}
            e = replace(e, inputs=inputs, details={**e.details, "labels": known})
        found.append(e)
    return found
