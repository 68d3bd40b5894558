"""Slide a window over the input and replace what is under it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from typing import ClassVar, cast

from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import SlidingWindows, score_drops
from torchwhy.engine.structure import Tensors, as_tuple
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import listed

Size = int | Sequence[int]  # of a window or a step: of all dimensions but the first, or of the last ones
SizePerInput = Size | Sequence[Size | None] | None


class Occlusion(Attribution[GivenLayer]):
    r"""How far the score drops when a window is replaced by the baseline, averaged over the windows that cover an element:

    :math:`A_{nu} = \frac{1}{|\{w : u \in w\}|} \sum_{w : u \in w} f(x_n) - f(x_n \setminus w)`.

    In units of the score, positive where the window speaks for the target; the mean effect of windows, not of single
    elements, so no sum is promised. Windows that reach over the far edge are cut off there, which covers every element. Of
    several inputs one at a time is covered. Takes K (windows + 1) evaluations of a row.

    Args:
        sliding_window_shapes: the size of the window in each dimension of a row: (channels, height, width) of an image. A
            shorter tuple is for the last dimensions, an int for all but the first (the channels); along the others the
            window is whole. For several inputs, a tuple with one of these each.
        strides: the steps of the window, given likewise; None is 1.

    Raises:
        ValueError: a window larger than the row; a step of zero, or larger than the window.

    Paper: Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2.
    """

    sliding_window_shapes: SizePerInput
    strides: SizePerInput = None

    needs_gradient: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1311.2901"

    @property
    def gives_whole_features(self) -> bool:
        """Whether every element has the whole value of its windows: it has."""
        return True

    def _attribute(self, problem: Problem) -> Result:
        sizes = _per_input("sliding_window_shapes", self.sliding_window_shapes, len(problem.x))
        steps = _per_input("strides", self.strides, len(problem.x))
        windows = [_sliding_windows(tuple(t.shape[1:]), w, s) for t, w, s in zip(problem.x, sizes, steps)]
        numbers = [math.prod(w.counts) for w in windows]
        first = [1 + sum(numbers[:k]) for k in range(len(numbers))]  # mask 0 keeps everything

        def masks(index: Tensor, rows: Tensor) -> Tensors:
            return tuple(w.keep(index - f, rows.device) for w, f in zip(windows, first))

        gains = score_drops(problem, masks, sum(numbers)).split(numbers, dim=1)
        means = [w.mean_over(g) for w, g in zip(windows, gains)]
        found = tuple(m if t.is_floating_point() else m.float() for m, t in zip(means, problem.x))
        return Result(found, details={"window_shapes": [list(w.size) for w in windows]})

    def _check_settings(self) -> None:
        super()._check_settings()
        for name in ("sliding_window_shapes", "strides"):
            _check_sizes(name, getattr(self, name))
        _check_steps(self.sliding_window_shapes, self.strides)


def _is_per_input(setting: SizePerInput) -> bool:
    """Say whether a setting is a tuple with one setting for each input."""
    return isinstance(setting, (tuple, list)) and any(isinstance(s, (tuple, list)) or s is None for s in setting)


def _per_input(name: str, setting: SizePerInput, n: int) -> list[Size | None]:
    """Return a setting for each of n inputs, from one for all or a tuple of them."""
    if not _is_per_input(setting):
        return [cast("Size | None", setting)] * n
    each = list(cast("Sequence[Size | None]", setting))
    if len(each) != n:
        raise ValueError(f"{name}: {len(each)} given for {n} input tensors")
    return each


def _check_sizes(name: str, setting: SizePerInput) -> None:
    """Refuse what is no size: a positive int or a tuple of them; None is one where there is a default."""
    n = len(cast("Sequence[Size]", setting)) if _is_per_input(setting) else 1
    for given in _per_input(name, setting, n):
        sizes = as_tuple(given)
        default = given is None and name == "strides"
        if not default and not all(isinstance(v, Integral) and not isinstance(v, bool) and int(v) > 0 for v in sizes):
            raise ValueError(f"{name}={given!r}: expected a positive int, or a tuple of them, one for each dimension")


def _check_steps(window: object, step: object) -> None:
    """Refuse steps that are larger than the window, as far as the two are given likewise; else the inputs' shape will say it."""
    if isinstance(window, Integral) and isinstance(step, Integral) and int(step) > int(window):
        raise ValueError(f"strides={step}: a window of {window} has steps of 1 to {window}, which cover every element")
    windows, steps = listed(window) or (), listed(step) or ()
    if len(windows) != len(steps):
        return
    for k, (w, s) in enumerate(zip(windows, steps)):
        if isinstance(w, Integral) and isinstance(s, Integral) and int(s) > int(w):
            raise ValueError(
                f"strides={step}: dimension {k} of these has a window of {w}; steps of 1 to {w} cover every element"
            )
        _check_steps(w, s)


def _sliding_windows(shape: tuple[int, ...], size: Size | None, step: Size | None) -> SlidingWindows:
    """Return the checked windows over an input with rows of this shape."""
    sizes = _size_per_dimension("sliding_window_shapes", size, shape, shape)
    steps = (1,) * len(shape) if step is None else _size_per_dimension("strides", step, shape, sizes)
    for dim, (n, w, s) in enumerate(zip(shape, sizes, steps)):
        if w > n:
            raise ValueError(
                f"sliding_window_shapes={sizes}: dimension {dim} of a row of shape {shape} has {n} elements, "
                f"a window over it 1 to {n}"
            )
        if s > w:
            raise ValueError(
                f"strides={steps}: dimension {dim} has a window of {w}; steps of 1 to {w} cover every element"
            )
    return SlidingWindows(shape, sizes, steps)


def _size_per_dimension(
    name: str, given: Size | None, shape: tuple[int, ...], rest: tuple[int, ...]
) -> tuple[int, ...]:
    """Return a size for every dimension: ``rest`` where none is given."""
    sizes = given if isinstance(given, Sequence) else (given,) * max(1, len(shape) - 1)
    if len(sizes) > len(shape):
        raise ValueError(f"{name}={given!r}: expected an int or up to {len(shape)} ints, a row has shape {shape}")
    return (*rest[: len(shape) - len(sizes)], *(int(v) for v in sizes if v is not None))
