"""Targets that say "predicted": what the model's outputs at the inputs fill in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from torchwhy.baselines import NAMED
from torchwhy.engine.structure import Output
from torchwhy.targets.calling import Scorer
from torchwhy.targets.score_target import ScoreTarget
from torchwhy.targets.target import Index, Neuron, Place, TargetLike, logits_per_row

Look = Callable[[Callable[[Output, Tensor], Tensor]], Tensor]  # what to read of a call's output → that of all rows


def found_by_running(target: object) -> bool:
    """Say whether a target takes the model's run to be known: it is inside the model, or what the model predicts."""
    return isinstance(target, Neuron) or needs_outputs(target)


def needs_outputs(target: object) -> bool:
    """Say whether a target depends on what the model predicts."""
    if isinstance(target, (tuple, list)):
        return any(map(needs_outputs, target))
    return isinstance(target, str) or (isinstance(target, ScoreTarget) and target.needs_outputs)


def fill_in_predicted(target: object, look: Look) -> TargetLike:
    """Return the target with what the model predicts in the place of the word.

    Args:
        target: for which :func:`needs_outputs` is true.
        look: runs the model on all rows, and reads its outputs.

    Raises:
        ValueError: another word, or an output of other dimensions.
    """
    if isinstance(target, ScoreTarget):
        return target.with_predicted(look(target.predicted).tolist())
    if isinstance(target, list):
        return [_of_row(t, i, look) for i, t in enumerate(target)]
    places = tuple(target) if isinstance(target, tuple) else (target,)
    found = look(lambda output, rows: largest_at(logits_per_row(output, len(rows)), places))
    if isinstance(target, str):
        return found[:, 0].tolist()
    return [tuple(index) for index in found.tolist()]


def _of_row(target: Index | Scorer, row: int, look: Look) -> Index | Scorer:
    """Return the target of one row of a list of them."""
    if not needs_outputs(target):
        return target
    if isinstance(target, ScoreTarget):
        return target.with_predicted(look(target.predicted)[row : row + 1].tolist())
    filled = fill_in_predicted(target, look)
    return filled[row] if isinstance(filled, list) else target


def largest_at(out: Tensor, places: tuple[Place, ...]) -> Tensor:
    """Return the index ``(M, depth)`` of each row's largest output among those that have the given ``places``.

    >>> out = torch.tensor([[[0.0, 5.0], [7.0, 6.0]]])
    >>> largest_at(out, (0, "predicted")).tolist(), largest_at(out, ("predicted", "predicted")).tolist()
    ([[0, 1]], [[1, 0]])
    """
    for place in places:
        if isinstance(place, str) and place != "predicted":
            meant = f"; a baseline goes by name, baselines={place!r}" if place in NAMED else ""
            raise ValueError(f"target={place!r}: the only word is 'predicted'{meant}")
        if not isinstance(place, (str, int)):
            raise TypeError(f"target={places!r}: expected a tuple of ints and 'predicted'")
    if len(places) != out.dim() - 1:
        raise ValueError(
            f"target={places[0] if len(places) == 1 else places!r}: 'predicted' alone needs an output (N, classes), this one "
            f"has shape {tuple(out.shape)}; give a tuple of {out.dim() - 1}, such as (-1, 'predicted')"
        )
    sizes = out.shape[1:]
    for place, size in zip(places, sizes):
        if isinstance(place, int) and not -size <= place < size:
            raise ValueError(f"target: index {place} is out of range, the output has {size} (0 to {size - 1})")
    index = (slice(None), *(slice(None) if isinstance(p, str) else p for p in places))
    among = out[index]
    flat = among.flatten(1).argmax(1)
    found = iter(torch.unravel_index(flat, among.shape[1:]))
    return torch.stack(
        [next(found) if isinstance(p, str) else torch.full_like(flat, p % s) for p, s in zip(places, sizes)], 1
    )
