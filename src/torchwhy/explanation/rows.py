"""Rows of explanations: picked, and put together."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from textwrap import shorten
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.engine.structure import AnyForm, InForm, Keywords, RowList, flatten
from torchwhy.explanation.features import is_nested

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation

RowIndex = int | slice | Sequence[int] | Tensor | np.ndarray
PER_ROW = ("completeness_gap", "scores", "base_scores", "probabilities", "rounding")  # tensors (N, ...)


def find_rows(index: RowIndex, n: int) -> Tensor:
    """Return the rows ``(M,)`` that an index picks of ``n``.

    Raises:
        IndexError: a row that is not there, or none.
        TypeError: no index.
    """
    if isinstance(index, slice):
        rows = torch.arange(n)[index] if (index.step or 1) > 0 else torch.tensor(range(n)[index])
    else:
        try:
            given = torch.as_tensor(index.copy() if isinstance(index, np.ndarray) else index)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"rows: {index!r}; expected an int, a slice, or a list of ints or of bools") from None
        if given.is_floating_point() or given.is_complex() or given.dim() > 1:
            raise TypeError(f"rows: {index!r}; expected an int, a slice, or a list of ints or of bools")
        if given.dtype == torch.bool:
            if given.shape != (n,):
                raise IndexError(f"rows: {tuple(given.shape)} bools given for {n} rows")
            given = given.nonzero()[:, 0]
        bad = given[(given >= n) | (given < -n)]
        if bad.numel():
            raise IndexError(f"row {int(bad.reshape(-1)[0])}: there are {n} rows, 0 to {n - 1}")
        rows = given.reshape(-1).cpu() % n
    if not len(rows):
        raise IndexError(f"rows: {index!r} picks none of {n}; an explanation has at least one row")
    return rows


def select_rows(e: Explanation, index: RowIndex) -> Explanation:
    """Return the explanation of some rows, see :class:`torchwhy.Explanation`; of counts and seconds they have their share."""
    n = len(e)
    rows = find_rows(index, n)
    share = len(rows) / n

    def pick(value: object) -> object:
        return rows_of(value, rows, n)

    changes: Keywords = {name: pick(getattr(e, name)) for name in PER_ROW}
    changes |= {"evaluations": round(e.evaluations * share), "seconds": e.seconds * share}
    for name in ("attributions", "inputs", "standard_error"):
        parts, structure = flatten(getattr(e, name))
        changes[name] = structure.restore([pick(part) for part in parts])
    names: AnyForm = e.names
    if is_nested(names):
        names = [list(names[i]) for i in rows.tolist()]
    masks, structure = flatten(e.feature_mask)
    mask = structure.restore([pick(m) if n > 1 and _has_rows(m, e) else m for m in masks])
    target = (
        [e.target[i] for i in rows.tolist()] if isinstance(e.target, list) and len(e.target) == n else pick(e.target)
    )
    details = {k: pick(v) if n > 1 else v for k, v in e.details.items()}
    if isinstance(said := e.details.get("response"), list) and len(said) == n:
        details["response"] = [said[i] for i in rows.tolist()]
    return replace(e, **changes, names=names, feature_mask=mask, target=target, details=details)


def _has_rows(mask: object, e: Explanation) -> bool:
    """Say whether a feature mask has a row for each row of the explanation."""
    if isinstance(mask, (Ragged, RowList)):
        return True
    tensors = [t for t in flatten(e.attributions)[0] if isinstance(t, Tensor)]
    like = [t for t in tensors if isinstance(mask, Tensor) and t.dim() == mask.dim()]
    return bool(like) and isinstance(mask, Tensor) and len(mask) == len(e)


def rows_of(value: InForm, rows: Tensor, n: int) -> InForm:
    """Return rows ``(M,)`` of what has ``n`` rows: a tensor, an array, a table, a sample; anything else as it is."""
    if isinstance(value, Tensor):
        return value[rows.to(value.device)] if value.dim() and len(value) == n else value
    if isinstance(value, Ragged):
        return Ragged(
            torch.cat([value[i] for i in rows.tolist()], value.along), [value.sizes[i] for i in rows], dim=value.along
        )
    if isinstance(value, RowList):
        return RowList(value[i] for i in rows.tolist())
    if hasattr(value, "iloc"):
        return value.iloc[rows.tolist()]
    if isinstance(value, np.ndarray) and value.ndim and len(value) == n:
        return value[rows.numpy()]
    return value


def concat(explanations: Iterable[Explanation]) -> Explanation:
    """Return one explanation of the rows of several, in their order, as of the batches of a data set.

    Evaluations and seconds are added up; what only some of them know (a score, a gap) is NaN for the rows of the others.
    Inputs are left out where one has none.

    Args:
        explanations: of one method with the same settings (the seed may differ), with attributions of one form and shape.

    Raises:
        TypeError: something that is no explanation.
        ValueError: none, or explanations of several methods, settings, forms or shapes.

    >>> import torchwhy as tw
    >>> net = torch.nn.Linear(2, 1)
    >>> method = tw.Saliency(net)
    >>> len(tw.concat([method.explain(torch.ones(2, 2)), method.explain(torch.ones(3, 2))]))
    5
    """
    from torchwhy.explanation.explanation import Explanation
    from torchwhy.explanation.labels import in_common_labels

    parts = list(explanations)
    for part in parts:
        if not isinstance(part, Explanation):
            raise TypeError(f"concat: expected explanations, got {type(part).__name__}")
    if not parts:
        raise ValueError("concat: no explanations")
    check_alike(parts, "concat", ALIKE)
    parts = in_common_labels(parts)
    first = parts[0]
    changes: Keywords = {name: _stacked_rows([getattr(e, name) for e in parts], parts) for name in PER_ROW}
    for name in ("attributions", "inputs", "standard_error"):
        changes[name] = _joined_parts([getattr(e, name) for e in parts], parts, fill=name != "inputs")
    return replace(
        first,
        **changes,
        target=_joined_targets(parts),
        settings={
            k: v for k, v in first.settings.items() if all(_as_text(e.settings.get(k)) == _as_text(v) for e in parts)
        },
        evaluations=sum(e.evaluations for e in parts),
        seconds=sum(e.seconds for e in parts),
        names=_joined_names(parts),
        feature_mask=_joined_masks(parts),
        details=_joined_details(parts),
        provenance={key: _one_or_all([e.provenance.get(key) for e in parts]) for key in first.provenance},
    )


def check_alike(parts: list[Explanation], what: str, facts: Mapping[str, Callable[[Explanation], object]]) -> None:
    """Refuse explanations that do not belong together.

    Args:
        parts: the explanations.
        what: what is made of them.
        facts: what has to be the same, by its name in the message.

    Raises:
        ValueError: a fact that differs.
    """
    for name, fact in facts.items():
        for i, part in enumerate(parts):
            if fact(part) != fact(parts[0]):
                pair = ", ".join(shorten(str(fact(e)), 200, placeholder="...") for e in (part, parts[0]))
                raise ValueError(f"{what}: number {i} has another {name} than the first: {pair}")


def _as_text(value: object) -> str:
    from torchwhy.explanation.files import plain_data

    return json.dumps(value, default=plain_data, sort_keys=True)


def _settings_as_text(e: Explanation) -> str:
    return _as_text({k: v for k, v in e.settings.items() if k != "generator"})


def _form(e: Explanation) -> object:
    structure = flatten(e.attributions)[1]
    return structure.kind, sorted(map(str, structure.names or ()))


def _shapes_of_a_row(e: Explanation) -> list[tuple[int, ...]]:
    return [tuple(t.shape[1:]) for t in flatten(e.attributions)[0]]


ALIKE: dict[str, Callable[[Explanation], object]] = {
    "method": attrgetter("method"),
    "settings": _settings_as_text,
    "form": _form,
    "shapes of a row": _shapes_of_a_row,
}


def _stacked_rows(values: list[Tensor | None], parts: list[Explanation]) -> Tensor | None:
    """Return tensors ``(N, ...)`` one below the other, NaN for the rows of those that are None; None if all are."""
    like = next((v for v in values if v is not None), None)
    if like is None:
        return None
    found = [
        torch.full((len(e), *like.shape[1:]), torch.nan, dtype=like.dtype) if v is None else v.to(like.device)
        for v, e in zip(values, parts)
    ]
    return torch.cat([t.to(like.device) for t in found])


def _joined_parts(values: list[InForm], parts: list[Explanation], *, fill: bool) -> InForm:
    """Return tensors, or tuples or dicts of them, one below the other."""
    if any(v is None for v in values) and not (fill and any(v is not None for v in values)):
        return None
    kinds = [flatten(v) for v in values if v is not None]
    tensors, structure = kinds[0]
    if not all(isinstance(t, Tensor) for kind in kinds for t in kind[0]):
        return _joined_objects(values)
    if any(k.shape[1:] != t.shape[1:] for kind in kinds for k, t in zip(kind[0], tensors)):
        return None  # inputs of several lengths, while their attributions have one
    each = [[None] * structure.n if v is None else _in_order(v, structure.names) for v in values]
    return structure.restore([_stacked_rows(list(column), parts) for column in zip(*each)])


def _in_order(value: AnyForm, names: Sequence[str] | None) -> Sequence[Tensor]:
    return flatten(value)[0] if names is None else [value[name] for name in names]


def _joined_objects(values: list[InForm]) -> InForm:
    """Return tables one below the other; other things that are no tensors cannot be: None."""
    if not all(hasattr(v, "iloc") for v in values):
        return None
    import pandas

    return pandas.concat(values)


def _joined_targets(parts: list[Explanation]) -> InForm:
    """Return the target of all, where it is one, else one for each row."""
    if all(_as_text(e.target) == _as_text(parts[0].target) for e in parts) and not isinstance(
        parts[0].target, (list, Tensor)
    ):
        return parts[0].target
    found: list[object] = []
    for e in parts:
        target = e.target.tolist() if isinstance(e.target, (Tensor, np.ndarray)) else e.target
        found += target if isinstance(target, list) else [target] * len(e)
    return found


def _joined_names(parts: list[Explanation]) -> AnyForm:
    """Return the names of all, where they are one list, else a list for each row; None where some have none."""
    names: list[AnyForm] = [e.names for e in parts]
    if any(n is None for n in names):
        return None
    if not any(map(is_nested, names)) and all(list(n) == list(names[0]) for n in names):
        return list(names[0])
    return [list(row) for n, e in zip(names, parts) for row in (n if is_nested(n) else [n] * len(e))]


def _joined_masks(parts: list[Explanation]) -> AnyForm:
    """Return the feature mask of all, where it is one, else one for each row."""
    masks = [e.feature_mask for e in parts]
    if all(m is None for m in masks):
        return None
    if any(m is None for m in masks):
        raise ValueError("concat: some have a feature mask, others none")
    each = [flatten(m)[0] for m in masks]
    same = all(len(a) == 1 or not _has_rows(a, e) for m, e in zip(each, parts) for a in m)
    if same and all(a.shape == b.shape and a.equal(b) for m in each for a, b in zip(m, each[0])):
        return masks[0]
    structure, found = flatten(masks[0])[1], []
    for k in range(structure.n):
        rows = [m[k].expand(len(e), *flatten(e.attributions)[0][k].shape[1:]) for m, e in zip(each, parts)]
        found.append(torch.cat(rows))
    return structure.restore(found)


def _joined_details(parts: list[Explanation]) -> Keywords:
    """Return the details that all have: tensors ``(N, ...)`` one below the other, others once where they are the same."""
    found: Keywords = {}
    for key in parts[0].details:
        values = [e.details.get(key) for e in parts]
        tensors = [v for v, e in zip(values, parts) if isinstance(v, Tensor) and v.dim() and len(v) == len(e)]
        if len(tensors) == len(parts) and len({v.shape[1:] for v in tensors}) == 1:
            found[key] = torch.cat(tensors)
        else:
            found[key] = _one_or_all(values)
    return found


def _one_or_all(values: list[InForm]) -> InForm:
    """Return what all values are, or the list of those that differ."""
    distinct = [v for i, v in enumerate(values) if _as_text(v) not in map(_as_text, values[:i])]
    return distinct[0] if len(distinct) == 1 else distinct
