"""The difference of two explanations of the same features: why this answer, and not that one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.structure import AnyForm, InForm, Keywords, flatten
from torchwhy.explanation.rows import ALIKE, check_alike
from torchwhy.explanation.uneven import is_uneven

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation


def subtract(e: Explanation, other: Explanation) -> Explanation:
    """Return the difference of two explanations, see :meth:`torchwhy.Explanation.__sub__`.

    Raises:
        ValueError: explanations that are not of the same features, or rows of several shapes.
    """
    if is_uneven(e.attributions) or is_uneven(other.attributions):
        raise ValueError("difference: rows are of several shapes; subtract them one by one, e[i] - other[i]")
    check_alike([e, other], "difference", {**ALIKE, **_SAME_FEATURES})
    _check_tensors(e, other)
    changes: Keywords = {name: _less(getattr(e, name), getattr(other, name)) for name in ("scores", "base_scores")}
    changes |= {name: _sum(getattr(e, name), getattr(other, name)) for name in ("standard_error", "rounding")}
    found = replace(
        e,
        attributions=_less(e.attributions, other.attributions),
        target=_targets(e, other),
        evaluations=e.evaluations + other.evaluations,
        seconds=e.seconds + other.seconds,
        probabilities=None,
        details=_details(e, other),
        settings={k: v for k, v in e.settings.items() if k != "generator" or other.settings.get(k) == v},
        **changes,
    )
    promised = e.completeness_gap is not None and other.completeness_gap is not None
    return replace(found, completeness_gap=_gap_of_sums(found, found.scores) if promised else None)


def _names_as_lists(e: Explanation) -> object:
    if e.names is None:
        return None
    return [name if isinstance(name, str) else list(name) for name in e.names]


def _baselines_in_words(e: Explanation) -> object:
    return e.provenance.get("baselines")


_SAME_FEATURES: dict[str, Callable[[Explanation], object]] = {
    "number of rows": len,
    "list of names": _names_as_lists,
    "baseline": _baselines_in_words,
}


def _check_tensors(e: Explanation, other: Explanation) -> None:
    """Refuse other numbers that were explained, or other groups of them; token ids hold a response, which may differ.

    Raises:
        ValueError: they differ.
    """
    for name in ("inputs", "feature_mask"):
        first, second = ([t for t in flatten(getattr(x, name))[0] if isinstance(t, Tensor)] for x in (e, other))
        if name == "inputs":
            first, second = ([t for t in ts if t.is_floating_point()] for ts in (first, second))
        known = getattr(e, name) is not None and getattr(other, name) is not None
        if (known or name == "feature_mask") and not _are_equal(first, second):
            raise ValueError(
                f"difference: number 1 has other {name} than the first; explain the same rows by the same features"
            )


def _are_equal(first: list[Tensor], second: list[Tensor]) -> bool:
    """Say whether tensors are equal, NaN where the others are."""
    same = [a.shape == b.shape for a, b in zip(first, second)]
    return len(first) == len(second) and all(same) and all(map(_equal_nan, first, second))


def _equal_nan(a: Tensor, b: Tensor) -> bool:
    b = b.to(a.device)
    return bool(((a == b) | (a != a) & (b != b)).all())


def _less(a: InForm, b: InForm) -> InForm:
    """Return a − b, tensors in the same form; None where one is."""
    return _element_by_element(torch.sub, a, b)


def _sum(a: InForm, b: InForm) -> InForm:
    """Return a + b likewise: no less than the error of a difference, however the two errors hang together."""
    return _element_by_element(torch.add, a, b)


def _element_by_element(operation: Callable[[Tensor, Tensor], Tensor], a: AnyForm, b: AnyForm) -> InForm:
    if a is None or b is None:
        return None
    (first, structure), second = flatten(a), flatten(b)
    names = structure.names
    others = second[0] if names is None else [b[name] for name in names]
    return structure.restore([operation(x, y.to(x.device)) for x, y in zip(first, others)])


def _targets(e: Explanation, other: Explanation) -> InForm:
    """Return both targets, ``{"this": ..., "less": ...}``, for each row where one of them has one for each."""
    a, b = e.target, other.target
    if isinstance(a, str) and isinstance(b, str) and a == b == "each":
        return a
    n = len(e)
    each = [t.tolist() if isinstance(t, Tensor) and t.dim() else t for t in (a, b)]
    rows = [t if isinstance(t, list) and len(t) == n else None for t in each]
    if rows == [None, None]:
        return {"this": a, "less": b}
    of_rows = [t if row is None else row for t, row in zip(([a] * n, [b] * n), rows)]
    return [{"this": x, "less": y} for x, y in zip(*of_rows)]


def _details(e: Explanation, other: Explanation) -> Keywords:
    """Return what both were told alike, in plain words, and the two responses as one."""
    found: Keywords = {}
    for name, value in e.details.items():
        also = other.details.get(name)
        if name != "response" and _is_words_and_numbers(value) and _is_words_and_numbers(also) and value == also:
            found[name] = value
    said = [x.details.get("response") for x in (e, other)]
    if all(isinstance(s, list) and len(s) == len(e) for s in said):
        by_token = isinstance(e.target, str) and e.target == "each"
        found["response"] = [_both_said(a, b, by_token=by_token) for a, b in zip(*said)]
    return found


def _is_words_and_numbers(value: object) -> bool:
    """Say whether a value is words and numbers, alone or in lists."""
    return (
        all(map(_is_words_and_numbers, value))
        if isinstance(value, (list, tuple))
        else isinstance(value, (str, int, float))
    )


def _both_said(a: list[str], b: list[str], *, by_token: bool) -> list[str]:
    """Return the tokens of one response less those of another."""
    pairs = zip(a, b) if by_token else [(" ".join(a), " ".join(b))]
    return [f"{x} − {y}" for x, y in pairs]


def _gap_of_sums(e: Explanation, scores: Tensor | None) -> Tensor | None:
    """Return how far the sums of the attributions are from the change of the score, ``(N,)`` or ``(N, T)``."""
    if scores is None:
        return None
    sums = torch.stack([row.double().sum(-1) for row in e.features()])
    change = scores.double() if e.base_scores is None else scores.double() - e.base_scores
    return (sums - change.to(sums.device)).abs().to(scores.dtype)
