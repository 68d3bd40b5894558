"""Which tokens of a sequence are the cells of a picture: those that change with it, where an attention first reads them.

How many tokens there are does not say it: a question of 9 words before 16 patches makes 25 tokens, five times five, and words
may stand behind the patches as well as before them. So the model is run once more with another picture. What changes then, of
the values that the first attention reads, are the patches; a class token, registers and words do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.maps import grid_of_tokens
from torchwhy.engine.layers.drawn_row import draw_like
from torchwhy.engine.layers.grid_layout import token_grid
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.trials import memory_of

if TYPE_CHECKING:
    from torchwhy.attention.attention_method import AttentionRun
    from torchwhy.attention.sequences import TokenSequence

LEAST_CHANGE = 1e-3  # of a token, as a share of the largest; what is less is rounding


class TokenCells(NamedTuple):
    """Which tokens are a picture's cells.

    Args:
        size: of their grid.
        tokens: their numbers in each row, in the grid's order, ``(n, cells)``.
    """

    size: tuple[int, ...]
    tokens: Tensor

    def others(self, count: int) -> Tensor:
        """Return which of so many tokens are none, ``(n, count)`` bool."""
        mask = torch.ones(len(self.tokens), count, dtype=torch.bool, device=self.tokens.device)
        return mask.scatter(1, self.tokens, False)


def find_cells(run: AttentionRun, sequence: TokenSequence, grid: tuple[int, ...] | None) -> TokenCells:
    """Return which tokens of a sequence are the cells of the picture that it comes from.

    Where it is not seen, because all tokens change with the picture, or none, they are counted: those at the end.

    Args:
        run: the attentions of some rows.
        sequence: of tokens that are of a picture.
        grid: its size, where it is given.

    Raises:
        ValueError: they make no grid, or not the one that was given.
    """
    ground, count = run.ground_of(sequence), sequence.tokens
    changing = _changing_tokens(run, sequence)
    if changing is not None:
        cells = int(changing[0].sum())
        if 0 < cells < count and bool((changing.sum(1) == cells).all()):
            tokens = changing.nonzero()[:, 1].view(run.n, cells)
            if grid is not None and torch.Size(grid).numel() == cells and len(grid) == len(ground.size):
                return TokenCells(tuple(grid), tokens)
            if grid is None and (found := token_grid(cells, ground.size)) is not None:
                return TokenCells(found.size, tokens[:, found.extra :])
    size, extra = grid_of_tokens(count, ground, grid)
    return TokenCells(size, torch.arange(extra, count, device=run.rows.device).expand(run.n, -1))


def _changing_tokens(run: AttentionRun, sequence: TokenSequence) -> Tensor | None:
    """Return which tokens of a sequence change with its picture, ``(n, T)`` bool; None where it cannot be tried.

    Of a model that is given nothing else a picture that is drawn says it for all, once for a model and shapes of inputs.
    """
    problem, number = run.problem, run.input_of(sequence)
    reading = next((i for i, column in enumerate(run.map.columns) if column is sequence), None)
    if number is None or reading is None:
        return None
    if not run.one_stream:
        return _change_with_picture(run, reading, run.inputs, number)
    memory = memory_of(problem.model)
    key = ("cells", reading, sequence.tokens, problem.axes, tuple(problem.x[0].shape[1:]))
    if key not in memory:
        memory[key] = _change_of_drawn_row(run, reading, number)
    known = memory[key]
    return known.to(run.rows.device).expand(run.n, -1) if isinstance(known, Tensor) else None


def _change_of_drawn_row(run: AttentionRun, reading: int, number: int) -> Tensor | None:
    """Return which tokens change with input ``number``, ``(1, T)``, by no row of the caller's: it is remembered for others.

    A model may take no other number of rows than there are.
    """
    drawn = [draw_like(t) for t in run.inputs]
    try:
        return _change_with_picture(run, reading, [t[:1] for t in drawn], number)
    except MISFITS:
        found = _change_with_picture(run, reading, drawn, number)
        return None if found is None else found[:1]


def _change_with_picture(run: AttentionRun, reading: int, z: list[Tensor], number: int) -> Tensor | None:
    """Return which tokens that an attention reads change with input ``number`` of z ``(n, ...)``, ``(n, T)`` bool."""
    before = _values_read(run, reading, [t.clone() for t in z])  # to which the model may write
    picture = z[number]
    if picture.is_floating_point():
        generator = torch.Generator().manual_seed(0)
        other = (picture + draw_uniform(*picture.shape, generator=generator).to(picture)) / 2
    else:
        other = picture + 1
    after = _values_read(run, reading, [*z[:number], other, *z[number + 1 :]])
    if before is None or after is None or after.shape != before.shape:
        return None
    change = (after - before).abs().amax(2)
    return change > LEAST_CHANGE * change.amax(1, keepdim=True)


def _values_read(run: AttentionRun, reading: int, z: list[Tensor]) -> Tensor | None:
    """Return the values that an attention reads in a run of inputs ``z``, by tokens, ``(n, T, ...)``; None where not clear."""
    rows = run.rows[: len(z[0])]
    trial = run.problem.replace(tally=Tally(), check_finite=False)
    with torch.no_grad(), AttentionCapture() as captured:
        captured.lineages.begin(z)
        trial.run.outputs(z, rows)
    if len(captured.values) != len(run.captured.values):
        return None
    values, tokens = captured.values[reading], captured.matrices[reading].shape[-1]
    if values.dim() == 3 and len(values) % len(rows) == 0:
        values = values.unflatten(0, (len(rows), -1))
    fitting = [axis for axis in range(1, values.dim()) if values.shape[axis] == tokens]
    axis = values.dim() - 2 if values.dim() - 2 in fitting else next(iter(fitting), None)
    if len(values) != len(rows) or axis is None:
        return None
    return values.movedim(axis, 1).flatten(2).float()
