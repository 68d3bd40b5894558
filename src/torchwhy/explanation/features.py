"""The attributions of an explanation as one number for each feature, and what the features are called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.engine.axes import Axes, parse_axes
from torchwhy.engine.features.numbering import Features, number_features
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.engine.structure import Tensors, flatten
from torchwhy.explanation.uneven import is_uneven, row_as_tensors

if TYPE_CHECKING:
    from torchwhy.explanation.explanation import Explanation

Names = Sequence[str] | Sequence[Sequence[str]] | None


def explained_tensors(e: Explanation, values: object = None) -> Tensors:
    """Return what features are counted in: the tensors of the attributions, those of tokens' embeddings summed.

    Args:
        e: the explanation.
        values: in the form of its attributions; None is these, as pictures show them.
    """
    found = flatten(e.shown if values is None else values)[0]
    ids = e.inputs if isinstance(e.inputs, Tensor) and not e.inputs.is_floating_point() else None
    if ids is not None and len(found) == 1 and found[0].dim() == 3 and found[0].shape[:2] == ids.shape:
        return (found[0].sum(2),)
    return found


def numbered_features(e: Explanation) -> Features:
    """Return which element is which feature: by the feature mask, else each element of the attributions its own."""
    tensors = explained_tensors(e)
    return number_features(tensors, None if e.feature_mask is None else flatten(e.feature_mask)[0])


def feature_values(e: Explanation, values: object = None) -> list[Tensor]:
    """Return for each row one number for each of its features, see :meth:`torchwhy.Explanation.features`.

    Args:
        e: the explanation.
        values: numbers of each element, in the form of the attributions; None is these, as pictures show them.
    """
    if is_uneven(e.attributions):
        if values is not None:
            e = replace(e, attributions=values, feature_mask=e.feature_mask)
        return [feature_values(row_as_tensors(e, i))[0] for i in range(len(e))]
    tensors = [at_least_float32(t.detach()) for t in explained_tensors(e, values)]
    if e.feature_mask is None:
        flat = torch.cat([t.reshape(len(t), -1) for t in tensors], 1)
        own = e.names if is_nested(e.names) else None
        if own is not None and tensors[0].dim() == 3 and max(map(len, own)) <= tensors[0].shape[2]:  # several targets
            return [t[..., : len(n)] for t, n in zip(tensors[0], own)]
        return list(flat) if own is None else [t[: len(n)] for t, n in zip(flat, own)]
    features = numbered_features(e)
    sums = tensors[0].new_zeros(len(tensors[0]), features.d)
    counts = torch.zeros_like(sums)
    for t, ids in zip(tensors, features.ids):
        index, value = ids.to(t.device).expand(t.shape).flatten(1), t.flatten(1).to(sums)
        sums.scatter_add_(1, index, value)
        counts.scatter_add_(1, index, torch.ones_like(value))
    found = sums / counts.clamp(min=1) if e.whole_features else sums
    return [t[:d] for t, d in zip(found, features.count.tolist())]


def pixel_maps(e: Explanation) -> Tensor | None:
    """Return the maps ``(N, maps, ...)`` that pictures draw, None where there are several tensors.

    Channels are summed, and where one feature lies on several of them, its value counts once. What is no channel but a map
    of its own, as of RISE with ``targets="all"``, stays one.
    """
    tensors = flatten(e.shown)[0]
    if len(tensors) != 1 or is_uneven(e.attributions):
        return None
    (maps,) = tensors
    if maps.dim() < 4 or maps.shape[1] == 1 or e.details.get("neutral") is not None:
        return maps
    if not e.whole_features:
        return maps.sum(1, keepdim=True)
    return (maps / channels_per_feature(e, maps)).sum(1, keepdim=True)


def in_usual_layout(e: Explanation) -> Explanation:
    """Return an explanation whose axes are in another order with tensors ``(N, C, *places)``, as pictures draw them."""
    axes = axes_of_explanation(e)
    if axes is None:
        return e

    def moved(value: object) -> Any:
        fits = isinstance(value, Tensor) and value.dim() == len(axes.letters)
        return axes.channels_first(value) if fits else value  # type: ignore[arg-type]

    fields = ("attributions", "inputs", "standard_error", "feature_mask")
    return replace(
        e, details={k: v for k, v in e.details.items() if k != "axes"}, **{f: moved(getattr(e, f)) for f in fields}
    )


def axes_of_explanation(e: Explanation) -> Axes | None:
    """Return where the single tensor of an explanation has its channels, None where they come first."""
    letters = e.details.get("axes")
    if not isinstance(letters, str) or not isinstance(e.attributions, Tensor) or e.attributions.dim() != len(letters):
        return None
    return parse_axes(letters, e.attributions.shape)


def channels_per_feature(e: Explanation, maps: Tensor) -> Tensor:
    """Return over how many channels the feature of each element reaches at its place, broadcastable to maps ``(N, C, ...)``."""
    windows = e.details.get("window_shapes")
    if windows:
        return torch.tensor(windows[0][0], device=maps.device)
    if e.feature_mask is None:
        return maps.new_ones(())
    (ids,) = numbered_features(e).ids
    ids = ids.to(maps.device).expand(-1, *maps.shape[1:])
    return torch.stack([(ids == ids[:, [c]]).sum(1) for c in range(ids.shape[1])], 1)


def is_nested(names: object) -> bool:
    """Say whether names are lists of strings, one for each row, not one list for all."""
    return isinstance(names, Sequence) and bool(names) and not isinstance(names[0], str)


def check_names(e: Explanation) -> None:
    """Refuse names of another number than the features of an explanation.

    Raises:
        TypeError: a string.
        ValueError: another number of names, or of rows.
    """
    names = e.names
    if names is None:
        return
    if isinstance(names, str):
        raise TypeError(f"names={names!r}: expected a list of strings, one for each feature")
    if is_uneven(e.attributions):
        _check_names_of_rows(e)
        return
    tensors = explained_tensors(e)
    n, width = len(tensors[0]), sum(t[0].numel() for t in tensors)
    if is_nested(names):
        if len(names) != n:
            raise ValueError(f"names: lists for {len(names)} rows given, there are {n}")
        longest = max(map(len, names))
        if longest > width:
            raise ValueError(f"names: {longest} given for a row of {width} features")
        return
    last = tensors[0].shape[-1] if len(tensors) == 1 and tensors[0].dim() == 3 else width  # a target each
    d = width if e.feature_mask is None else numbered_features(e).d
    if len(names) not in (d, width, last):
        also = f" (or {width}, one for each element)" if d != width else ""
        raise ValueError(f"names: {len(names)} given, there are {d} features{also}")


def _check_names_of_rows(e: Explanation) -> None:
    """Refuse names of rows that have features of their own, where they are not a list for each row."""
    names, n = e.names, len(e)
    if not is_nested(names) or names is None or len(names) != n:
        raise ValueError(f"names: rows have features of their own; give {n} lists of names, one for each row")
    unnamed = replace(e, names=None)
    for i in range(n):
        check_names(replace(row_as_tensors(unnamed, i), names=[names[i]]))


def feature_names(e: Explanation, row: int) -> list[str]:
    """Return what the features of a row are called: by their names, else by their numbers."""
    if is_uneven(e.attributions):
        return feature_names(row_as_tensors(e, row), 0)
    tensors = explained_tensors(e)
    features = numbered_features(e) if e.feature_mask is not None else None
    width = sum(t[0].numel() for t in tensors)
    d = width if features is None else int(features.count[row])
    if is_nested(e.names):
        own = e.names[row] if e.names is not None else ()
        return [str(name) for name in own]
    if e.names is not None and len(e.names) == width and features is not None and width != d:
        return _names_of_groups([str(name) for name in e.names], features, tensors, row)
    if e.names is not None:
        return [str(name) for name in e.names[:d]]
    structure = flatten(e.attributions)[1]
    if features is not None or structure.kind == "single":
        return [f"feature {j}" for j in range(d)]
    found = []
    for key, t in zip(structure.names or [f"input {k}" for k in range(structure.n)], tensors):
        size = t[0].numel()
        found += [str(key)] if size == 1 else [f"{key}, {j}" for j in range(size)]
    return found


def _names_of_groups(names: list[str], features: Features, tensors: Tensors, row: int) -> list[str]:
    """Return a name for each group of elements, made of the elements' names."""
    ids = torch.cat([i.expand(len(t), *t.shape[1:])[row].flatten() for i, t in zip(features.ids, tensors)]).tolist()
    members: list[list[str]] = [[] for _ in range(int(features.count[row]))]
    for name, number in zip(names, ids):
        members[number].append(name)
    return [", ".join(m) if len(m) <= 3 else f"{m[0]}, … {m[-1]} ({len(m)})" for m in members]
