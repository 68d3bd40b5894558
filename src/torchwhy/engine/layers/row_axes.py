"""Where the tensors of layers have their rows: first, as most; behind a sequence, or several entries for each.

The shape says it where the number of rows stands in the first place and nowhere else. Elsewhere (sequences that come first,
states of recurrent layers, frames folded into the batch) it is tried: the axis that grows when the model is given two rows and
not one is the rows'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.layers.drawn_row import find_once, place_key
from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.runner import Tally

if TYPE_CHECKING:
    from torchwhy.problem import Problem

FIRST = BatchAxis(0)


class RowAxes:
    """Brings what passes layers into a form with the rows first.

    Args:
        problem: whose model is run, where a trial is needed.
        layers: the layers.
    """

    def __init__(self, problem: Problem, layers: Sequence[ResolvedLayer]) -> None:
        self.problem, self.layers = problem, layers
        self.tried: dict[int, BatchAxis] = {}

    def __call__(self, passed: Sequence[Tensor], m: int) -> tuple[Tensor, ...]:
        """Return the tensors that pass the layers in a call of m rows, as ``(M, ...)``."""
        return tuple(self._axis(i, t, m).split(t, m) for i, t in enumerate(passed))

    def placed(self) -> tuple[ResolvedLayer, ...]:
        """Return the layers, with where their tensors have their rows as far as that is not first."""
        return tuple(replace(layer, rows=self.tried.get(i)) for i, layer in enumerate(self.layers))

    def _axis(self, i: int, tensor: Tensor, m: int) -> BatchAxis:
        if i not in self.tried:
            shape = tuple(tensor.shape)
            if shape[:1] == (m,) and m not in shape[1:]:
                return FIRST
            self.tried[i] = _try_rows_of_layer(self.problem, self.layers[i], shape, m)
        return self.tried[i]


def _try_rows_of_layer(problem: Problem, layer: ResolvedLayer, shape: tuple[int, ...], m: int) -> BatchAxis:
    """Return where a layer's tensor has its rows, from a run of one row and one of two, which are not counted.

    Args:
        shape: what it passes for m rows.

    Raises:
        ValueError: no axis grows with the rows, or several do.
    """
    what = ("rows of", m == 1, *place_key(layer))
    found = find_once(problem, what, lambda trial: _find_growing_axis(trial, layer, lone=m == 1))
    if found is None:
        raise ValueError(
            f"{layer} passes a tensor of shape {shape} for {m} rows: its first dimension must be the rows, or one that grows "
            "with them, and no other"
        )
    return found


def _find_growing_axis(problem: Problem, layer: ResolvedLayer, *, lone: bool) -> BatchAxis | None:
    """Return where a layer's tensor has its rows, from runs of the first row, and of it beside another one.

    Args:
        lone: whether a model that takes one row only may be meant.
    """
    aside = problem.replace(tally=Tally(), n_targets=1, input_layers=(), check_finite=False)
    first = [t[:1] for t in aside.inputs.tensors]
    other = [t.roll(1, -1) / 2 if t.is_floating_point() else t.roll(1, -1) for t in first]
    both = list(map(torch.cat, zip(first, other)))
    with torch.no_grad():
        (one,) = aside.run.passed([layer], first, aside.rows[:1])
        try:
            (two,) = aside.run.passed([layer], both, aside.rows[:1].expand(2))
        except MISFITS:  # the model takes one row
            return batch_axis_of_one_row(tuple(one.shape)) if lone else None
        return _growing_axis(one, two)


def _growing_axis(one: Tensor, two: Tensor) -> BatchAxis | None:
    """Return the axis of the rows, from what a layer passes for the first row alone and beside another one."""
    if one.dim() != two.dim():
        return None
    grown = [axis for axis, (a, b) in enumerate(zip(one.shape, two.shape)) if a != b]
    if len(grown) != 1 or two.shape[grown[0]] != 2 * one.shape[grown[0]]:
        return None
    if one.shape[grown[0]] == 1:
        return BatchAxis(grown[0])
    if grown != [0]:
        return None
    entries = len(one)
    alternate = _near(two[::2], one) and not _near(two[:entries], one)
    return BatchAxis(None, alternating=alternate)


def _near(a: Tensor, b: Tensor) -> bool:
    """Say whether tensors are equal up to rounding."""
    return bool(((a - b).abs().double().max() if a.numel() else torch.zeros(())) <= 1e-3 * b.abs().double().max())
