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

from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.trials import memory_of

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
    memory, sizes = memory_of(problem.model), tuple(tuple(t.shape[1:]) for t in problem.inputs.tensors)
    key = ("rows of", layer.name, layer.call, layer.output, layer.input, sizes)
    if (known := memory.get(key)) is not None:
        return known  # type: ignore[return-value]
    aside = problem.replace(tally=Tally(), n_targets=1, input_layers=(), check_finite=False)
    first, last = ([t[at : at + 1] for t in aside.inputs.tensors] for at in (0, aside.n - 1))
    if aside.n == 1:  # another row than the first
        last = [t.roll(1, -1) for t in first]
    rows, both = aside.rows[[0, -1]], [torch.cat([a, b]) for a, b in zip(first, last)]
    with torch.no_grad():
        (one,) = aside.run.passed([layer], first, rows[:1])
        try:
            (two,) = aside.run.passed([layer], both, rows)
        except MISFITS:  # the model takes one row
            found = batch_axis_of_one_row(tuple(one.shape)) if m == 1 else None
        else:
            found = _growing_axis(one, two)
    if found is None:
        raise ValueError(
            f"{layer} passes a tensor of shape {shape} for {m} rows: its first dimension must be the rows, or one that grows "
            "with them, and no other"
        )
    memory[key] = found
    return found


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
