"""Explanations whose rows have shapes of their own, row by row: each is one of tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.engine.structure import AnyForm, InForm, RowList, flatten

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation


def is_uneven(value: InForm) -> bool:
    """Say whether tensors have among them ragged ones, or lists of rows."""
    return not isinstance(value, Tensor) and any(isinstance(part, (Ragged, RowList)) for part in flatten(value)[0])


def shape_in_words(part: AnyForm) -> str:
    """Return the shape of a tensor, of the rows behind one another, or of each row of a list."""
    return " and ".join(map(shape_in_words, part)) if isinstance(part, RowList) else str(tuple(part.shape))


def row_as_tensors(e: Explanation, row: int) -> Explanation:
    """Return the explanation of a row, with tensors ``(1, ...)`` in the place of what is ragged or a list."""
    one = e[row]
    masks = one.feature_mask
    if masks is not None:
        parts, structure = flatten(e.feature_mask)
        masks = structure.restore([_row_of_mask(mask, row, len(e)) for mask in parts])
    tensors = {name: _as_tensors(getattr(one, name)) for name in ("attributions", "inputs", "standard_error")}
    return replace(one, **tensors, feature_mask=masks)


def _as_tensors(value: InForm) -> AnyForm:
    """Return what has one row with tensors ``(1, ...)``."""
    if value is None:
        return None
    parts, structure = flatten(value)
    return structure.restore([torch.stack(list(p)) if isinstance(p, (Ragged, RowList)) else p for p in parts])


def _row_of_mask(mask: InForm, row: int, n: int) -> InForm:
    """Return the feature mask of a row: its own, where rows have masks of their own."""
    if isinstance(mask, (Ragged, RowList)):
        return torch.as_tensor(mask[row])[None]
    return mask


def tensors_by_name(value: InForm) -> dict[str, Tensor]:
    """Return the tensors of a tensor, a tuple or a dict by name; of a ragged one its rows and their sizes, of a list its rows."""
    if value is None:
        return {}
    parts, structure = flatten(value)
    found: dict[str, Tensor] = {}
    for key, part in zip(structure.names or range(len(parts)), parts):
        if isinstance(part, Ragged):
            found |= {f"{key}:ragged:{part.along}": part.tensor, f"{key}:sizes": torch.tensor(part.sizes)}
        elif isinstance(part, RowList):
            found |= {f"{key}:row:{i}": row for i, row in enumerate(part)}
        else:
            found[str(key)] = part
    return found


def parts_of_names(tensors: dict[str, Tensor]) -> dict[str, InForm]:
    """Return what :func:`tensors_by_name` took apart, by the names of the parts."""
    found: dict[str, AnyForm] = {}
    for name, tensor in tensors.items():
        key, _, kind = name.rpartition(":")
        if not key:
            found[name] = tensor
        elif key.endswith(":ragged"):
            key = key.removesuffix(":ragged")
            found[key] = Ragged(tensor, tensors[f"{key}:sizes"].tolist(), dim=int(kind))
        elif key.endswith(":row"):
            rows = found.setdefault(key.removesuffix(":row"), {})
            rows[int(kind)] = tensor
    return {k: RowList(v[i] for i in range(len(v))) if isinstance(v, dict) else v for k, v in found.items()}
