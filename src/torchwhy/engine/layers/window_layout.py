"""From what passes a layer to a grid of cells: laid out plainly, in windows, or as the caller says.

Where the shape of a layer's tensor does not say which token is which part of the picture (the windows of a Swin transformer,
shifted and padded, are a batch of short sequences), it follows from *dependence*. Some layer before or after passes a plain
grid. If each cell of that grid changes exactly one token (or comes from exactly one), the token lies where the cell lies.

Which one is found by differentiation, not by knowledge of the architecture. Give the units of the later tensor numbers, and
differentiate the sum of those whose number has bit b = 1, and of those with b = 0, by the earlier tensor. A unit that changes
just one later unit has a gradient in one of the two only, and which one is the bit of that unit's number. So a layout of
thousands of tokens takes two backward passes per bit, and a unit with a gradient in both is one that has been mixed, as by
attention: such a pair of layers tells nothing, and the next grid is tried (:func:`_unique_dependency`). It runs on two or
three rows, so that rows laid out one after the other are told from tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice, zip_longest
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.layers.drawn_row import find_once, place_key
from torchwhy.engine.layers.grid_layout import GridLayout, ToGrid, find_grid, in_proportion
from torchwhy.engine.layers.layer import ResolvedLayer, record_with_grad, trace_modules
from torchwhy.engine.run.autograd import enable_grad_for, freeze_parameters
from torchwhy.engine.run.randomness import draw_uniform

if TYPE_CHECKING:
    from torchwhy.problem import Problem

MAX_COMPARED_GRIDS = 16  # how many grids before, and after, the windows are compared with them


@dataclass(frozen=True, eq=False)
class WindowLayout:
    """How the tokens of windows, a row's one after the other, become ``(N, C, *size)``.

    Args:
        size: the grid, (L,), (H, W) or (D, H, W).
        cells: for each cell of the grid which of a row's tokens it is, LongTensor ``(cells,)``.
        tokens: how many tokens a row has; those that pad the windows are no cells.
        channels: the axis of the channels.
    """

    size: tuple[int, ...]
    cells: Tensor
    tokens: int
    channels: int = -1

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the grid."""
        tokens = tensor.movedim(self.channels, -1).flatten(0, -2).unflatten(0, (-1, self.tokens))
        return tokens[:, self.cells.to(tensor.device)].mT.unflatten(2, self.size)


@dataclass(frozen=True)
class BatchAxis:
    """Where a layer's tensor has its rows: along an ``axis``, or, if None, several entries of the first axis each.

    These entries lie behind one another, or, ``alternating``, the first ones of all rows before the second ones.
    """

    axis: int | None = 0
    alternating: bool = False

    def split(self, tensor: Tensor, n: int) -> Tensor:
        """Return the tensor of n rows with the rows first."""
        if self.alternating:
            return tensor.unflatten(0, (-1, n)).movedim(1, 0)
        return tensor.unflatten(0, (n, -1)) if self.axis is None else tensor.movedim(self.axis, 0)

    def join(self, tensor: Tensor) -> Tensor:
        """Return rows ``(M, ...)`` as the layer passes them."""
        if self.alternating:
            tensor = tensor.movedim(0, 1)
        return tensor.flatten(0, 1) if self.axis is None else tensor.movedim(0, self.axis)


def find_batch_axis(view: ToGrid, tensor: Tensor, n: int) -> BatchAxis:
    """Return where the tensor that ``view`` turns into a grid has its n rows."""
    if isinstance(view, GridLayout):
        return BatchAxis(view.rows)
    shape = tensor.shape
    fitting = [axis for axis in (0, 1) if shape[axis] == n] + ([None] if len(tensor) % n == 0 else [])
    if not isinstance(view, WindowLayout) and n > 1:  # several may fit: ask where the cells of the rows come from
        index = torch.arange(tensor.numel(), device=tensor.device)
        cells = view(index.double().view(shape)).flatten(1).long().clamp(0, tensor.numel() - 1)
        own = torch.arange(n, device=tensor.device)[:, None]
        for axis in fitting:
            entries = BatchAxis(axis).split(index.view(shape), n).flatten(1)
            row = torch.empty_like(index).scatter(0, entries.flatten(), own.expand_as(entries).flatten())
            if bool((row[cells] == own).all()):
                return BatchAxis(axis)
    return BatchAxis(None if isinstance(view, WindowLayout) or not fitting else fitting[0])


def batch_axis_of_one_row(shape: tuple[int, ...]) -> BatchAxis:
    """Return where a layer's tensor has its rows, told by its shape for a single row."""
    if shape[0] == 1:
        return BatchAxis(0)
    return BatchAxis(1 if shape[1:2] == (1,) else None)


def layout_by_dependence(problem: Problem, place: ResolvedLayer, n: int, size: tuple[int, ...]) -> ToGrid | None:
    """Return the view of a layer whose shape alone does not tell, found once for a model and a shape of inputs."""
    n = 3 if n == 2 else 2
    return find_once(problem, ("layout", *place_key(place)), lambda trial: _match_layout(trial, place, n, size))


def _match_layout(problem: Problem, place: ResolvedLayer, n: int, size: tuple[int, ...]) -> ToGrid | None:
    """Return the view of a layer, from n times the first row and from the grids that pass before and after it.

    Which cell a token is follows from what depends on what. Between a grid and windows that are cut out of it, or put together
    to it, each cell belongs to one token; between tokens and cells that attention has mixed, to several.
    """
    rows = problem.rows[:1].expand(n)
    z = [t[rows] for t in problem.x]
    with enable_grad_for(problem.model, z[0].device), freeze_parameters(problem.model):
        with trace_modules(problem.model) as passed, record_with_grad([place]) as seen:
            problem.run.outputs(z, rows)
        tokens = seen[0]
        plain = find_grid(place, tokens, n, size)
        if plain is not None and plain.sure:
            return plain
        if tokens.dim() < 3 or not tokens.requires_grad:
            return None
        for near, grid, before in _nearby_grids(place, passed, n, size):
            # if both had their channels in the same doubtful axis, anything element by element would do
            for channels in (-1, 1 - tokens.dim()) if grid.sure else (-1,):
                found = _match_tokens(near, grid, tokens, channels, n, before=before)
                if found is not None:
                    return WindowLayout(grid.size, *found, channels)
    return None


def _nearby_grids(
    place: ResolvedLayer, passed: list[tuple[ResolvedLayer, Tensor]], n: int, size: tuple[int, ...]
) -> Iterator[tuple[Tensor, GridLayout, bool]]:
    """Return the nearest grids to compare with, in turns one before the layer and one after it."""
    same = (i for i, (p, _) in enumerate(passed) if p.name == place.name and p.call == (place.call or 0))
    at = next(same, len(passed))

    def anchors(
        part: Iterable[tuple[ResolvedLayer, Tensor]], before: bool
    ) -> Iterator[tuple[Tensor, GridLayout, bool]]:
        found = ((t, _anchor_grid(p, t, n, size), before) for p, t in part if t.requires_grad)
        return islice(((t, grid, b) for t, grid, b in found if grid is not None), MAX_COMPARED_GRIDS)

    turns = zip_longest(anchors(reversed(passed[:at]), True), anchors(passed[at + 1 :], False))
    return (turn for turn in chain.from_iterable(turns) if turn is not None)


def _anchor_grid(place: ResolvedLayer, tensor: Tensor, n: int, size: tuple[int, ...]) -> GridLayout | None:
    """Return a grid that is beyond doubt, or will be: channels that do not come first would not be one cell to one token."""
    grid, shape = find_grid(place, tensor, n, size), tuple(tensor.shape)
    if grid is None or grid.sure:
        return grid
    first = len(shape) == 2 + len(size) and in_proportion(shape[2:], size)
    return GridLayout(shape[2:], sure=False) if first else None


def _match_tokens(
    near: Tensor, grid: GridLayout, tokens: Tensor, channels: int, n: int, *, before: bool
) -> tuple[Tensor, int] | None:
    """Return which of a row's tokens each cell of a grid before or after them is, and how many tokens a row has.

    None unless each cell is one token, no two are the same, and the rows, one after the other, are laid out alike.
    """
    units = torch.arange(tokens.numel() // tokens.shape[channels], device=tokens.device)
    per_row = len(units) // n
    if before:
        ids = units.view(*tokens.movedim(channels, -1).shape[:-1], 1).movedim(-1, channels).expand_as(tokens)
        found = _unique_dependency(near, tokens, ids, lambda g: grid(g).ne(0).any(1).flatten())
    else:
        found = _source_tokens(near, grid, tokens, channels)
    if found is None or bool((found < 0).any()):
        return None
    cells = found.view(n, -1)
    alike = bool((cells == cells[:1] + per_row * torch.arange(n, device=cells.device)[:, None]).all())
    return (cells[0], per_row) if alike and len(cells[0].unique()) == len(cells[0]) else None


def _source_tokens(near: Tensor, grid: GridLayout, tokens: Tensor, channels: int) -> Tensor | None:
    """Return the token that each cell of a grid after them comes from, -1 for none; None if a cell comes from several."""
    at = grid(torch.arange(near.numel(), device=near.device).view(near.shape))  # (N, C, *size)
    count = at[:, 0].numel()
    cells = torch.arange(count, device=near.device).view(len(at), 1, *grid.size).expand_as(at)
    ids = torch.full((near.numel(),), count, device=near.device)  # what is no cell
    ids = ids.scatter(0, at.flatten(), cells.flatten()).view(near.shape)
    goal = _unique_dependency(tokens, near, ids, lambda g: g.movedim(channels, -1).ne(0).any(-1).flatten())
    if goal is None:
        return None
    goes = ((goal >= 0) & (goal < count)).nonzero()[:, 0]
    if len(goal[goes].unique()) != len(goes):
        return None
    return goal.new_full((count,), -1).scatter(0, goal[goes], goes)


def _unique_dependency(earlier: Tensor, later: Tensor, ids: Tensor, reached: ToGrid) -> Tensor | None:
    """Return for each unit of ``earlier`` the only unit of ``later`` that it changes, -1 for none.

    Which one is asked bit by bit of its number: what changes units with the bit, and what changes units without it.

    Args:
        ids: which unit an entry of ``later`` belongs to, of its shape.
        reached: from a gradient by ``earlier`` to whether each unit has one, ``(units,)``.

    Returns:
        LongTensor ``(units,)``; None if a unit changes several.
    """
    weights = draw_uniform(*later.shape, generator=torch.Generator().manual_seed(0)).to(later) + 0.5
    number = torch.zeros((), dtype=torch.long, device=later.device)
    touched = torch.ones((), dtype=torch.bool, device=later.device)
    for bit in range(int(ids.max()).bit_length() or 1):
        sides = []
        for side in (0, 1):
            picked = weights * (((ids >> bit) & 1) == side)
            (slope,) = torch.autograd.grad(later, earlier, picked, retain_graph=True, allow_unused=True)
            if slope is None:
                return None
            sides.append(reached(slope))
        if bool((sides[0] & sides[1]).any()):
            return None
        number = number + (sides[1].long() << bit)
        touched = touched & (sides[0] | sides[1])
    return torch.where(touched, number, -1)
