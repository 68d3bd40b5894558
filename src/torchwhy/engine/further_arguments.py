"""Further arguments of the model in their checked form: which follow the rows, and what each is for a row."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from torchwhy.arguments import Argument, Holder, PackedRows, PassedWhole, PerRow, Ragged, Shared, Unmarked
from torchwhy.engine.copies import holds_tensors
from torchwhy.engine.structure import AnyModel, Keywords, Model, flatten, map_nested

Sizes = Mapping[str, Tensor]  # of ragged tensors by name: the length of each row


def read_further(
    extra: object, n: int, model: Model, ragged: Sizes, before: int = 0
) -> tuple[tuple[object, ...], Keywords]:
    """Return the further arguments of a call for ``n`` rows, positional ones and those by name.

    Args:
        extra: as the caller gave them.
        n: the number of rows N.
        model: whose arguments they are.
        ragged: the inputs that are ragged.
        before: the number of positional arguments before these.

    Raises:
        ValueError: another number of rows than the inputs', or numbers that point into nothing.
    """
    if extra is None:
        return (), {}
    values, structure = flatten(extra)
    keys = structure.names or range(len(values))
    sizes = dict(ragged)
    if any(isinstance(value, Ragged) for value in values):
        labels = structure.names or positional_names(model)[before:]
        sizes |= {label: torch.tensor(v.sizes) for label, v in zip(labels, values) if isinstance(v, Ragged)}
    found = []
    for key, value in zip(keys, values):
        name = f"additional_forward_args[{key!r}]"

        def of_part(part: object, name: str = name) -> object:
            return _read_part(part, name, n, sizes)

        found.append(map_nested(of_part, value))
    return (tuple(found), {}) if structure.names is None else ((), dict(zip(structure.names, found)))


def _read_part(part: object, name: str, n: int, sizes: Sizes) -> object:
    """Return a part of an argument that is no container, as an :class:`Argument` where it depends on rows or is copied."""
    if isinstance(part, Tensor):
        if part.dim() == 0 or len(part) != n:
            return PassedWhole(part) if part.dim() else Shared(part)
        return PerRow(part) if n == 1 else Unmarked(part, part, name)
    if isinstance(part, Ragged):
        if len(part) != n:
            raise ValueError(f"{name}: tw.Ragged has {len(part)} rows, the inputs have {n}")
        return PackedRows.check(part, _space_of(part, name, sizes), name)
    if isinstance(part, PerRow) and part.tensor.shape[part.dim] != n:
        raise ValueError(
            f"{name}: tw.PerRow has {part.tensor.shape[part.dim]} rows along dimension {part.dim} of its shape "
            f"{tuple(part.tensor.shape)}, the inputs have {n}"
        )
    if isinstance(part, (Argument, nn.Module)):
        return part
    return Holder(part, n) if holds_tensors(part) else part


def _space_of(ragged: Ragged, name: str, sizes: Sizes) -> Tensor | None:
    """Return the sizes of the rows into which the numbers of a ragged argument point, None for values."""
    where = ragged.points_into
    if where is None:
        return None
    if where == "rows":
        return torch.ones(len(ragged), dtype=torch.long)
    if where not in sizes:
        known = ", ".join(map(repr, sizes)) or "none"
        raise ValueError(
            f"{name}: points_into={where!r}, but no ragged input or argument is called so (there are: {known})"
        )
    return sizes[where]


def hint_about_packed(given: object, n: int) -> str:
    """Return what may be wrong with further arguments in a call of another number of rows than the n that there are."""
    shapes: list[str] = []

    def note(part: object) -> None:
        if isinstance(part, PassedWhole) and isinstance(part.value, Tensor):
            shapes.append(str(tuple(part.value.shape)))

    map_nested(note, given)
    if not shapes:
        return ""
    return (
        f". Mind: further arguments of shape {', '.join(shapes)} have no row for each of the {n} inputs, and each call gets them "
        "whole; where they are rows of several lengths behind one another, such as packed patches, give tw.Ragged(tensor, sizes)"
    )


def takes_one_row(args: object, kwargs: object) -> bool:
    """Say whether a call must have one row, because of an object among its arguments that fits no other number."""
    held: list[bool] = []
    map_nested(lambda part: held.append(isinstance(part, Holder) and part.fits == "one row"), (args, kwargs))
    return any(held)


def positional_names(model: AnyModel) -> list[str]:
    """Return what a model calls its positional arguments, nothing where that is not known."""
    try:
        signature = inspect.signature(model.forward if isinstance(model, nn.Module) else model)
    except (TypeError, ValueError):
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in signature.parameters.values() if p.kind in kinds]
