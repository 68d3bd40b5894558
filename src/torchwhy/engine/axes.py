"""Axes: which axis of an input holds its channels, and along which ones its places lie.

Mostly the shape says it: ``(N, L)``, ``(N, C, L)``, ``(N, C, H, W)``, ``(N, C, D, H, W)``; one or three channels, and elsewhere
more than that, are also found in the last place of a picture, and behind the frames of a video. Where it does not, a caller
does: ``axes="NTF"``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from torchwhy.engine.structure import Model, Structure
from torchwhy.engine.torch_internals import ConvModule

if TYPE_CHECKING:
    from torchwhy.problem import Problem

Number = TypeVar("Number", int, float)

AxesLike = str | tuple[str | None, ...] | Mapping[str, str] | None
LETTERS = {
    "N": "rows",
    "C": "channels",
    "F": "the features of a step, or frequencies beside a C",
    "T": "time or frames",
    "L": "length",
    "D": "depth",
    "H": "height",
    "W": "width",
}
COLOURS = (1, 3)  # how many channels a picture has, where it is one
SMALLEST_SIDE = 5  # of a picture with its channels in the last place


class Axes(NamedTuple):
    """Where a tensor has its channels and its places.

    Args:
        channels: the axis of the channels, None where each place has one number.
        spatial: the axes along which places lie, in the order of the tensor.
        letters: how a caller says it.
    """

    channels: int | None
    spatial: tuple[int, ...]
    letters: str = ""

    @property
    def are_usual(self) -> bool:
        """Whether the channels come first, or there is one line of places."""
        return self.channels == 1 or (self.channels is None and self.spatial == (1,))

    def size_of(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the size of pictures or series, in places."""
        return tuple(tensor.shape[i] for i in self.spatial)

    def channels_first(self, tensor: Tensor) -> Tensor:
        """Return a tensor of this layout as ``(N, C, *size)``, a view; with C = 1 where it has no channels."""
        return tensor[:, None] if self.channels is None else tensor.movedim(self.channels, 1)

    def restore(self, tensor: Tensor) -> Tensor:
        """Return ``(N, C, *size)`` in this layout, a view: what :meth:`channels_first` undoes."""
        return tensor[:, 0] if self.channels is None else tensor.movedim(1, self.channels)


def axes_by_shape(shape: Sequence[int], model: Model = None) -> Axes:
    """Return where a tensor has its channels and its places, as far as its shape says it.

    Raises:
        ValueError: a single number a row.
    """
    dims, channels = len(shape), 1
    if dims < 2:
        raise ValueError(f"inputs: a map needs a picture or a series to lie on, got shape {tuple(shape)}")
    if dims == 2:
        return Axes(None, (1,), "NL")
    for i in {4: (3,), 5: (2, 4)}.get(dims, ()):
        if shape[i] in COLOURS and shape[i] != shape[1] and _holds_colours(shape, i, model):
            channels = i
            break
    places = {3: "L", 4: "HW", 5: "THW"}.get(dims, "")
    letters = f"N{places[: channels - 1]}C{places[channels - 1 :]}"
    return Axes(channels, tuple(i for i in range(1, dims) if i != channels), letters)


def one_for_each(name: str, given: Number | Sequence[Number], size: Sequence[int]) -> tuple[Number, ...]:
    """Return one number for each axis of places: a single one is for each of them.

    Args:
        name: of the setting.
        given: the setting.
        size: how many places each axis has.

    Raises:
        ValueError: another number of them than of axes.
    """
    found = tuple(given) if isinstance(given, Sequence) else (given,) * len(size)
    if len(found) != len(size):
        raise ValueError(f"{name}={given!r}: {len(found)} numbers for the {len(size)} axes of places, {tuple(size)}")
    return found


def check_one_for_each(name: str, given: object) -> None:
    """Refuse an empty list, or an array, as what is one number, one for each axis of places, or None.

    Raises:
        ValueError: it is so.
    """
    if not (given is None or isinstance(given, Real) or (isinstance(given, Sequence) and len(given))):
        raise ValueError(f"{name}={given!r}: expected one number, or a list with one for each axis of places")


def cells_along(grid: int | Sequence[int], size: Sequence[int]) -> tuple[int, ...]:
    """Return into how many cells each axis of places is cut: a single number is for each of them.

    Raises:
        ValueError: another number of them than of axes, less than one cell, or more than an axis has places.
    """
    cells = one_for_each("grid", grid, size)
    for n, places in zip(cells, size):
        if not 1 <= n <= places:
            raise ValueError(
                f"grid={grid!r}: expected 1 to {places} cells along an axis of {places} places, of {tuple(size)}; "
                "several numbers are one for each axis"
            )
    return cells


def axes_of(problem: Problem, index: int) -> Axes:
    """Return where an input tensor has its channels and its places: as it was told, else by its shape."""
    told = problem.axes[index] if problem.axes else None
    return told or axes_by_shape(problem.x[index].shape, problem.model)


def _holds_colours(shape: Sequence[int], i: int, model: Model) -> bool:
    """Say whether pictures have their channels in axis ``i``, as the convolutions of the model and their sizes say."""
    modules = model.modules() if isinstance(model, torch.nn.Module) else ()
    taken = {m.in_channels for m in modules if isinstance(m, ConvModule)}
    if shape[i] in taken or shape[1] in taken:
        return shape[1] not in taken or (shape[i] in taken and shape[1] not in COLOURS)
    wide = min(n for k, n in enumerate(shape) if k not in (0, 1, i)) >= SMALLEST_SIDE
    square = len(shape) > 4 or shape[i] > 1 or shape[1] == shape[2]
    return wide and square and shape[1] not in COLOURS and (i == 2 or shape[1] >= SMALLEST_SIDE)


def read_axes(given: AxesLike, tensors: Sequence[Tensor], structure: Structure) -> tuple[Axes | None, ...]:
    """Return the axes that a caller names, for each of the input tensors; None where the shape is to say it.

    A single string is for the tensors with as many axes as it has letters.

    Raises:
        ValueError: an unknown letter, or axes that fit no tensor.
    """
    if isinstance(given, str):
        found = [parse_axes(given, t.shape) if t.dim() == len(given) else None for t in tensors]
        return tuple(found) if any(found) else (parse_axes(given, tensors[0].shape),)
    return tuple(
        None if one is None else parse_axes(one, t.shape) for one, t in zip(structure.match(given, "axes"), tensors)
    )


def parse_axes(letters: str, shape: Sequence[int]) -> Axes:
    """Return the axes of a tensor of ``shape`` from their letters, such as ``"NTCHW"``.

    Raises:
        TypeError, ValueError: no such letters, one of them twice, no rows in the first place, no axis of places, or another
            number of them than the tensor has axes.
    """
    if not isinstance(letters, str):
        raise TypeError(f"axes={letters!r}: expected letters such as 'NCHW', or one such string for each input")
    known = ", ".join(f"{letter} ({what})" for letter, what in LETTERS.items())
    for letter in letters:
        if letter not in LETTERS:
            raise ValueError(f"axes={letters!r}: there is no axis {letter!r}; the letters are {known}")
    if len(set(letters)) < len(letters) or not letters.startswith("N"):
        raise ValueError(f"axes={letters!r}: expected the rows N in the first place, and each letter once")
    if len(letters) != len(shape):
        raise ValueError(
            f"axes={letters!r}: {len(letters)} letters for inputs of shape {tuple(shape)}: one for each axis"
        )
    channels = letters.find("C") if "C" in letters else letters.find("F")
    spatial = tuple(i for i in range(1, len(letters)) if i != channels)
    if not spatial:
        raise ValueError(f"axes={letters!r}: no axis of places; the letters are {known}")
    return Axes(None if channels < 0 else channels, spatial, letters)


def axes_of_inputs(
    given: AxesLike, tensors: Sequence[Tensor], structure: Structure, parent: Problem | None
) -> tuple[Axes | None, ...]:
    """Return the axes of the input tensors as a caller says them, or said them of the problem that this one is a part of."""
    if given is not None:
        return read_axes(given, tensors, structure)
    known = () if parent is None else parent.axes
    same = len(known) == len(tensors) and all(a is None or len(a.letters) == t.dim() for a, t in zip(known, tensors))
    return known if same else ()


def axes_in_words(problem: Problem) -> dict[str, str]:
    """Return the axes of the inputs for the details of an explanation; nothing where they are as usual."""
    if problem.input_layers or problem.sample is not None:
        return {}
    dims = [t.dim() for t in problem.x]
    found = [axes_of(problem, i) if d > 2 or problem.axes else None for i, d in enumerate(dims)]
    letters = ["" if a is None or a.are_usual else a.letters for a in found]
    return {"axes": ", ".join(letters)} if any(letters) else {}
