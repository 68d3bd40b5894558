"""What a caller gives to a picture: arrays, or an explanation, of which it takes what it draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from torchwhy.visualize.scaling import as_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from typing_extensions import TypeIs

    from torchwhy.explanation import Explanation
    from torchwhy.visualize.scaling import AnyOption, Array


def is_explanation(value: object) -> TypeIs[Explanation]:
    """Say whether a value is an explanation, not an array."""
    return hasattr(value, "attributions") and hasattr(value, "maps")


def above_rounding(values: np.ndarray, rounding: Array | None) -> tuple[np.ndarray, list[float]]:
    """Return values ``(N, ...)`` with those that are no larger than their row's rounding as 0.

    Also the rounding of each row in which nothing that is not 0 is left, 0 elsewhere.
    """
    if rounding is None:
        return values, [0.0] * len(values)
    floor = as_array(rounding, "rounding", ndim=(1,)).reshape(-1, *[1] * (values.ndim - 1))
    found = np.where(np.abs(values) <= floor, 0.0, values)
    flat = tuple(range(1, values.ndim))
    lost = (found == 0).all(flat) & (values != 0).any(flat)
    return found, (floor.reshape(-1) * lost).tolist()


def maps_of(value: Array | Sequence[Array], name: str) -> AnyOption:
    """Return what is drawn of an explanation of images: its maps, without what is rounding; anything else as it is.

    Raises:
        ValueError: an explanation of something else.
    """
    if not is_explanation(value):
        return value
    maps = value.maps
    if maps is None or maps.dim() < 3:
        shape = "several tensors" if maps is None else f"shape {tuple(maps.shape)}"
        raise ValueError(f"{name}: an explanation of {shape} has no maps; .plot() draws it")
    return above_rounding(as_array(maps, name), value.rounding)[0]


class FeatureRow(NamedTuple):
    """One row's features: ``values`` ``(d,)``, their ``names`` and standard ``errors``, and what of them is rounding."""

    values: np.ndarray
    names: list[str]
    errors: np.ndarray | None
    floor: float  # values up to this are rounding, and 0 here


def features_of(e: Explanation, row: int = 0, names: Sequence[str] | None = None) -> FeatureRow:
    """Return the features of a row of an explanation."""
    from torchwhy.explanation.table import feature_errors, feature_names

    named = e if names is None else e.with_names(list(names))
    values = as_array(e.features()[row], "attributions")
    errors = feature_errors(e)
    error = None if errors is None else np.nan_to_num(np.asarray(errors[row].cpu().double()), posinf=0.0)
    floor = 0.0 if e.rounding is None else float(e.rounding[row])
    lost = (np.abs(values) <= floor) & (values != 0)
    if error is not None:
        error = np.where(lost, 0.0, error)
    return FeatureRow(
        np.where(lost, 0.0, values), feature_names(named, row)[: len(values)], error, floor * bool(lost.any())
    )


def named_with_values(e: Explanation, given: FeatureRow) -> list[str]:
    """Return the names of the first row's features, as ``"age = 52"`` where the row has names and a feature is one number."""
    from torchwhy.explanation.table import column_labels, input_values, label_of

    known = input_values(e) if e.names is not None else None
    if known is None:
        return given.names
    labels = column_labels(e)
    found = []
    for j, (name, number) in enumerate(zip(given.names, known[0].tolist())):
        is_label = j in labels or number != number  # or that there is none
        meant = label_of(labels.get(j, ()), number) if is_label else f"{number:.4g}".replace("-", "−")
        found.append(f"{name} = {meant}")
    return found


class FeatureTable(NamedTuple):
    """All rows' features: ``values`` ``(N, d)``, their ``names``, and their own numbers ``(N, d)``, where they have any.

    What is missing is NaN there; ``labels`` are those that the numbers of a column stand for, by its number.
    """

    values: np.ndarray
    names: list[str]
    inputs: np.ndarray | None
    labels: dict[int, list[str]]


def table_of_features(e: Explanation, names: Sequence[str] | None = None) -> FeatureTable:
    """Return the features of all rows of an explanation.

    Raises:
        ValueError: rows of different features.
    """
    from torchwhy.explanation.table import column_labels, feature_names, input_values

    named = e if names is None else e.with_names(list(names))
    rows = [as_array(r, "attributions") for r in e.features()]
    if len({len(r) for r in rows}) > 1:
        raise ValueError("attributions: rows with different numbers of features; draw them one by one, e[0].plot()")
    values = above_rounding(np.stack(rows), e.rounding)[0]
    known = input_values(e)
    inputs = None if known is None else np.stack([as_array(t, "inputs", missing=True) for t in known])
    return FeatureTable(values, feature_names(named, 0), inputs, column_labels(e))


def base_of(e: Explanation, row: int = 0) -> float:
    """Return the base score of a row: where there is none, what the score leaves when the attributions are taken off it."""
    if e.base_scores is not None:
        return float(e.base_scores[row])
    return 0.0 if e.scores is None else float(e.scores[row]) - float(e.features()[row].sum())


def score_of(e: Explanation, row: int = 0) -> float | None:
    """Return the score of a row, None where it is not known."""
    return None if e.scores is None else float(e.scores[row])
