"""A row that is drawn, in place of the caller's, for what is found out about a model once and remembered.

Which layer passes the last grid, where a token lies on the picture, which axis is the rows': all this is found by running the
model. Were it asked with the first row of a call, a row in which some unit is dead would say another thing than the next one,
and what a call gives would depend on the rows beside it and on the calls before it. So numbers are drawn, always the same.
Whole numbers, such as the ids of tokens, may stand for rows of a table and are left as they are; so are further arguments.
What they hold is part of what an outcome is remembered by.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.engine.structure import Tensors, map_nested
from torchwhy.engine.trials import memory_of, remember

if TYPE_CHECKING:
    from torchwhy.engine.layers.layer import ResolvedLayer
    from torchwhy.problem import Problem

Finding = TypeVar("Finding")


def find_once(problem: Problem, what: tuple[object, ...] | None, find: Callable[[Problem], Finding]) -> Finding:
    """Return what ``find`` says of a problem whose row is drawn, found once for a model, what is asked and shapes of inputs.

    Where the model does not run on drawn numbers, as with boxes whose corners are in order, the first row is asked each time.

    Args:
        problem: the caller's.
        what: is asked, as a part of the key; None: not to be remembered.
        find: runs the model on the first row of what it is given.
    """
    memory = {} if what is None else memory_of(problem.model)
    shapes = tuple((tuple(t.shape[1:]), t.is_floating_point()) for t in (*problem.x, *problem.inputs.tensors))
    key = () if what is None else (*what, shapes, problem.axes, _what_stays(problem))
    if key not in memory:
        drawn = draw_row(problem)
        try:
            remember(memory, key, find(drawn))
        except Exception as error:
            if not is_refused(error, find, drawn):
                raise
            return find(problem)
    found: Finding = memory[key]  # type: ignore[assignment]
    return found


def is_refused(error: Exception, find: Callable[[Problem], object], drawn: Problem) -> bool:
    """Say whether an error was the model's word on drawn numbers, where the caller's rows may be as it wants them.

    Errors of its own kinds count where they come again: one that comes once, as of a file that is gone, is the caller's to see.
    """
    if isinstance(error, MISFITS):
        return True
    try:
        find(drawn)
    except Exception:
        return True
    return False


def place_key(place: ResolvedLayer) -> tuple[object, ...]:
    """Return what tells a place in a model from others."""
    return place.name, place.call, place.output, place.input


def draw_row(problem: Problem) -> Problem:
    """Return the problem with one drawn row, of the inputs and of what it is explained by."""

    def of(given: Tensors) -> Tensors:
        return tuple(draw_like(t[:1]) if t.is_floating_point() else t[:1] for t in given)

    tensors = of(problem.inputs.tensors)
    x = of(problem.x) if problem.input_layers else tensors
    return problem.replace(inputs=replace(problem.inputs, tensors=tensors), x=x)


def draw_like(tensor: Tensor) -> Tensor:
    """Return numbers in [0, 1) of a tensor's shape and type; 0 where it is of whole numbers."""
    if not tensor.is_floating_point():
        return torch.zeros_like(tensor)
    return draw_uniform(*tensor.shape, generator=torch.Generator().manual_seed(1)).to(tensor)


def _what_stays(problem: Problem) -> tuple[str, str]:
    """Return a key of what is not drawn: whole numbers of the first row, and further arguments."""
    data = problem.inputs
    whole = [_digest(t[:1]) for t in data.tensors if not t.is_floating_point()]
    further = data.further(problem.rows[:1]) if data.args or data.kwargs else ()
    return str(whole) if whole else "", str(map_nested(_digest, further)) if further else ""


def _digest(part: object) -> object:
    """Return a key of a value: a plain value itself, a hash of what is in a tensor, else its class."""
    if isinstance(part, Tensor) and part.layout == torch.strided and not part.is_meta:
        contents = part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        return tuple(part.shape), part.dtype, hashlib.blake2b(contents, digest_size=16).hexdigest()
    return part if isinstance(part, (bool, int, float, str, type(None))) else type(part)
