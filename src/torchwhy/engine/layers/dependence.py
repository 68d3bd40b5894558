"""Which picture a layer's cells come from, and whether they are its cells at all: told by what depends on what.

How many tokens there are does not say where they come from. A model with two streams passes the words of a question as well as
the cells of its picture; learned queries and latents look at the whole picture, each of them. Both are told from a run of one
row with its graph. Which inputs a tensor comes from is in the graph (:class:`InputGraph`). Whether its tokens are the picture's
cells follows from pairs of backward passes (:func:`follows_cells`): half of the tokens, drawn at random, are added up, and so
is the other half; the gradient of each by the picture is large where the picture's part belongs to its own half, if a token
depends on its own part more than on the others. For queries, whatever they look at, it has nothing to do with the halves. Few
cells are tried with several halves, and halves of larger blocks tell of cells that see far around them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.engine.axes import Axes, axes_of
from torchwhy.engine.layers.drawn_row import find_once, place_key
from torchwhy.engine.layers.grid_layout import GridLayout, ToGrid, find_grid, picture_of
from torchwhy.engine.layers.layer import ResolvedLayer, record_with_grad
from torchwhy.engine.run.autograd import enable_grad_for, freeze_parameters
from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.engine.run.runner import Tally

if TYPE_CHECKING:
    from torchwhy.problem import Problem

LEAST_EFFECT = 0.4  # of a part's own half on the logarithm of its gradient; learned queries stay below 0.3
LEAST_CORRELATION = 0.3
MOST_RATIO = 2.0
CLEARLY_MORE = 0.1  # of a correlation, than another one
MOST_WIDER = 4  # a layer than the queries that it works on
CELLS_TO_TRY = 128  # in all halves together, so that few cells are no matter of chance
MOST_TRIALS = 8
BLOCKS = (1, 4)  # how many cells on a side change together: what sees far is told by large ones
REACHES = (0, 1, 2, 4)  # how many of their neighbours cells may see, on each side
MOVING_MEANS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}
AVERAGE_POOLS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


class InputGraph:
    """Which of the inputs a tensor depends on, by the graph of a run.

    Args:
        leaves: the inputs that have a gradient, by their numbers.
    """

    def __init__(self, leaves: Mapping[int, Tensor]) -> None:
        self.leaves = leaves
        self._known: dict[object, frozenset[int]] = {}  # node of the graph -> the inputs behind it

    def inputs_behind(self, tensor: Tensor) -> frozenset[int]:
        """Return the numbers of the inputs that a tensor depends on."""
        if tensor.grad_fn is None:
            return frozenset(k for k, leaf in self.leaves.items() if leaf is tensor)
        todo = [tensor.grad_fn]
        while todo:
            node = todo[-1]
            below = [n for n, _ in node.next_functions if n is not None]
            missing = [n for n in below if n not in self._known]
            if missing and node not in self._known:
                todo += missing
                continue
            own = [k for k, leaf in self.leaves.items() if getattr(node, "variable", None) is leaf]
            self._known[node] = frozenset(own).union(*(self._known[n] for n in below))
            todo.pop()
        return self._known[tensor.grad_fn]


def first_row_leaves(problem: Problem) -> tuple[list[Tensor], InputGraph]:
    """Return a problem's first row of what is explained, as leaves of a graph where it has a gradient, and that graph."""
    z = [t[:1].detach().clone() if t.is_floating_point() else t[:1] for t in problem.x]
    leaves = {k: t.requires_grad_() for k, t in enumerate(z) if t.is_floating_point()}
    return z, InputGraph(leaves)


def may_be_learned(problem: Problem, tokens: int, width: int) -> bool:
    """Say whether so many tokens of about a width may be no cells: other inputs, learned queries, or entries of a table."""
    if len(problem.x) > 1 or problem.inputs.args or problem.inputs.kwargs:
        return True
    for module in problem.model.modules():
        if isinstance(module, nn.Embedding):
            return True
        if type(module).__module__.startswith("torch.nn."):  # weights of layers, whatever their sizes
            continue
        own = (*module.parameters(recurse=False), *module.buffers(recurse=False))
        if any(_holds_tokens(p, sizes) for p in own for sizes in ((tokens, width), (width, tokens))):
            return True
    return False


def _holds_tokens(parameter: Tensor, sizes: tuple[int, int]) -> bool:
    """Say whether a parameter has a vector of about a width for each of so many tokens: ``sizes``."""
    tokens, width = sizes
    if parameter.dim() < 2 or not parameter.is_floating_point() or tokens not in parameter.shape[:-1]:
        return False
    return max(parameter.shape[-1], width) <= MOST_WIDER * min(parameter.shape[-1], width)


def follows_cells(tensor: Tensor, grid: ToGrid, leaf: Tensor, axes: Axes) -> bool | None:
    """Say whether each cell of a layer depends more on its own part of the picture than on the others; None: it is not known.

    Args:
        tensor: what passes the layer for one row, with its graph.
        grid: brings it to ``(1, C, *size)``.
        leaf: the picture, a leaf of the graph.
        axes: the picture's.
    """
    with torch.enable_grad():
        cells = grid(tensor)
        size = tuple(cells.shape[2:])
        if len(size) == 1 and size[0] > axes.size_of(leaf)[0]:
            return None  # more tokens than the series has points: it may lie the other way round
        generator = torch.Generator().manual_seed(0)
        for block in BLOCKS:
            if block > 1 and max(size) < 4 * block:
                break
            ratios, halves = [], []
            for _ in range(min(MOST_TRIALS, -(-CELLS_TO_TRY // math.prod(size)))):
                mine = _draw_half(size, block, generator).to(cells)
                weights = (draw_uniform(*cells.shape, generator=generator) + 0.5).to(cells)
                ratio = _ratio_of_halves(cells * weights, mine, leaf, axes)
                if ratio is None:
                    return None
                ratios.append(ratio)
                halves.append(mine.double())
            if block == 1 and isinstance(grid, GridLayout) and _comes_earlier(ratios, halves, grid.extra):
                return False
            blocks = math.prod(-(-side // block) for side in size) * len(halves)
            enough = max(LEAST_CORRELATION, min(0.9, 2 / math.sqrt(blocks)))  # what few reach by chance
            expected = map(torch.cat, zip(*map(_expected_ratios, halves)))
            if any(_goes_with(torch.cat(ratios), one, enough) for one in expected):
                return True
    return False


def _draw_half(size: tuple[int, ...], block: int, generator: torch.Generator) -> Tensor:
    """Return a half of the cells, in blocks of so many a side, drawn at random: 1 in it, 0 else, ``size``."""
    coarse = [-(-side // block) for side in size]
    n = math.prod(coarse)
    half = (draw_uniform(n, generator=generator).argsort() < (n + 1) // 2).float().view(coarse)
    for axis, side in enumerate(size):
        half = half.repeat_interleave(block, axis).narrow(axis, 0, side)
    return half


def _ratio_of_halves(cells: Tensor, mine: Tensor, leaf: Tensor, axes: Axes) -> Tensor | None:
    """Return for each part of the picture how much more the cells' sum over one half goes by it than that over the other.

    As a logarithm ``(cells,)``; None where the gradient of one is 0 or not finite.
    """
    energy = []
    for half in (mine, 1 - mine):
        (slope,) = torch.autograd.grad((cells * half).sum(), leaf, retain_graph=True, allow_unused=True)
        if slope is None:
            return None
        places = axes.channels_first(slope.double()).square().sum(1)
        energy.append(AVERAGE_POOLS[mine.dim()](places, list(mine.shape)).flatten())
    if not all(bool(e.any()) and bool(e.isfinite().all()) for e in energy):
        return None
    tiny = torch.finfo(torch.double).tiny
    ratio = (energy[0].clamp(min=tiny).log() - energy[1].clamp(min=tiny).log()) / 2
    return ratio.clamp(-MOST_RATIO, MOST_RATIO)  # a part that one half does not see at all says no more than that


def _comes_earlier(ratios: Sequence[Tensor], halves: Sequence[Tensor], extra: int) -> bool:
    """Say whether the cells are rather tokens some places earlier, which were taken for no cells, as with a text behind them."""
    found, mine = torch.stack(list(ratios)), torch.stack([half.flatten() for half in halves])
    cells = mine.shape[1]

    def agree(shift: int) -> float:
        return _cells_agree(found[:, shift:], mine[:, : cells - shift])

    here = agree(0)
    return any(
        agree(shift) > max(here + CLEARLY_MORE, LEAST_CORRELATION) for shift in range(1, min(extra, cells - 2) + 1)
    )


def _cells_agree(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum()) / max(float(a.norm() * b.norm()), 1e-30)


def _expected_ratios(mine: Tensor) -> Iterator[Tensor]:
    """Yield the logarithms of a part's share in its own half, for cells that see some of their neighbours, too: ``(cells,)``."""
    for reach in REACHES:
        if 2 * reach >= max(mine.shape):
            break
        sides = [2 * min(reach, (side - 1) // 2) + 1 for side in mine.shape]
        around = MOVING_MEANS[mine.dim()](
            mine[None, None], sides, 1, [side // 2 for side in sides], count_include_pad=False
        )
        yield around.clamp(0.02, 0.98).logit().flatten() / 2
    for side in range(
        2, min(mine.shape) // 2 + 1 if mine.dim() == 2 else 0
    ):  # windows whose cells see one another alike
        if all(length % side == 0 for length in mine.shape):
            windows = F.avg_pool2d(mine[None, None], side).repeat_interleave(side, 2).repeat_interleave(side, 3)
            yield windows.clamp(0.02, 0.98).logit().flatten() / 2


def _goes_with(ratio: Tensor, expected: Tensor, enough: float) -> bool:
    """Say whether what was found rises with what is expected, as closely as ``enough`` and by more than a little."""
    ratio, expected = ratio - ratio.mean(), expected - expected.mean()
    together, spread = float(ratio @ expected), float(expected @ expected)
    if not spread:
        return False
    effect = together / spread * float(expected.max() - expected.min())
    return together >= enough * float(ratio.norm()) * math.sqrt(spread) and effect >= LEAST_EFFECT


def choose_picture(problem: Problem, seen: Sequence[int], shape: Sequence[int]) -> int:
    """Return which of the input tensors a layer's map is to lie on: of those that it sees the one with the most dimensions.

    Of several the one whose proportions are nearest to the layer's.
    """
    most = max(problem.x[i].dim() for i in seen)
    best = [i for i in seen if problem.x[i].dim() == most]
    if len(best) == 1 or len(shape) != most or most < 4:
        return best[0]
    sizes = [axes_of(problem, i).size_of(problem.x[i]) for i in best]
    skews = [abs(math.log(s[-2] / s[-1]) - math.log(max(1, shape[-2]) / max(1, shape[-1]))) for s in sizes]
    return best[skews.index(min(skews))]


class Pictures:
    """Which picture each of the tensors that pass the layers sees, and how it lies on it, for one row.

    Only inputs with the most dimensions count as pictures here.

    Args:
        problem: explained by its inputs.
        graph: of the run.
        passed: all tensors that passed, with their graph.
    """

    def __init__(self, problem: Problem, graph: InputGraph, passed: Sequence[Tensor]) -> None:
        self.problem, self.graph = problem, graph
        most = max(t.dim() for t in problem.x)
        self.numbers = [i for i, t in enumerate(problem.x) if t.dim() == most]
        self.one_stream = len(problem.x) == 1 and not (problem.inputs.args or problem.inputs.kwargs)
        self.passed = passed

    @cached_property
    def hidden(self) -> list[int]:
        """The numbers of the pictures to which no graph leads: whole numbers, or a tower that runs without one."""
        reached = frozenset[int]().union(*map(self.graph.inputs_behind, self.passed))
        return [i for i in self.numbers if i not in reached]

    def seen_by(self, tensor: Tensor) -> int | None:
        """Return the number of the picture that a tensor comes from, None if there is none."""
        if self.one_stream:
            return self.numbers[0]
        seen = sorted(self.graph.inputs_behind(tensor) & set(self.numbers)) or self.hidden
        return choose_picture(self.problem, seen, tensor.shape) if seen else None

    def grid(self, place: ResolvedLayer, tensor: Tensor) -> GridLayout | None:
        """Return how a tensor lies on the picture that it sees, None if it does not."""
        number = self.seen_by(tensor)
        if number is None:
            return None
        return find_grid(place, tensor, 1, axes_of(self.problem, number).size_of(self.problem.x[number]))

    def may_be_attention(self, tensor: Tensor, grid: GridLayout, lengths: set[int]) -> bool:
        """Say whether a grid is rather the attention between tokens, as many as its side: it has not the picture's cells.

        Args:
            tensor: what passes.
            grid: how it would lie on the picture.
            lengths: of the sequences of tokens that pass elsewhere.
        """
        if tensor.dim() != self.problem.x[self.numbers[0]].dim() or not lengths & set(grid.size):
            return False
        number = self.seen_by(tensor)
        if number not in self.graph.leaves or number not in self.graph.inputs_behind(tensor):
            return True
        return follows_cells(tensor, grid, self.graph.leaves[number], axes_of(self.problem, number)) is not True

    def are_cells(self, tensor: Tensor, grid: GridLayout) -> bool:
        """Say whether the tokens of a grid are the picture's cells, where they may be something else."""
        number = self.seen_by(tensor)
        tokens = math.prod(grid.size) + grid.extra
        if tensor.dim() != 3 or number not in self.graph.leaves:
            return True
        if not may_be_learned(self.problem, tokens, tensor.shape[grid.channels]):
            return True
        if number not in self.graph.inputs_behind(tensor):
            return number in self.hidden
        return follows_cells(tensor, grid, self.graph.leaves[number], axes_of(self.problem, number)) is not False


def find_picture(problem: Problem, place: ResolvedLayer) -> int:
    """Return which of the input tensors a named layer's map lies on, found once for a model and shapes of inputs.

    Raises:
        ValueError: it depends on none of them.
    """
    seen, shape = _seen_inputs(problem, place)
    if not seen:
        raise ValueError(
            f"layer: {place} does not depend on {' and '.join(map(str, problem.input_names))}: it belongs to another stream of "
            "the model; choose a layer that sees what is explained, or layer='auto'"
        )
    return choose_picture(problem, seen, shape)


def pictures_alike(problem: Problem, place: ResolvedLayer) -> list[int]:
    """Return the numbers of the input tensors that a named layer's map lies on: those it sees, of one size and layout."""
    number = find_picture(problem, place)
    axes, size = axes_of(problem, number), axes_of(problem, number).size_of(problem.x[number])
    same_dims = [i for i in _seen_inputs(problem, place)[0] if problem.x[i].dim() == problem.x[number].dim()]
    return [i for i in same_dims if axes_of(problem, i) == axes and axes.size_of(problem.x[i]) == size]


def _seen_inputs(problem: Problem, place: ResolvedLayer) -> tuple[list[int], tuple[int, ...]]:
    """Return which of the input tensors a named layer depends on, and the shape of what passes it for one row."""

    def find(trial: Problem) -> tuple[list[int], tuple[int, ...]]:
        z, graph = first_row_leaves(trial)
        tensor = _passed_with_graph(trial, place, z)
        return sorted(graph.inputs_behind(tensor) or _inputs_that_change(trial, place)), tuple(tensor.shape)

    return find_once(problem, ("picture", *place_key(place)), find)


def check_cells(problem: Problem, place: ResolvedLayer, layout: ToGrid, size: tuple[int, ...]) -> None:
    """Refuse a named layer whose tokens are no cells of the picture, tried once for a model and shapes of inputs.

    Raises:
        ValueError: they are learned queries, latents, or the tokens of something else.
    """

    def find(trial: Problem) -> bool | None:
        picture = picture_of(trial, place)
        z, graph = first_row_leaves(trial)
        if picture.number not in graph.leaves:
            return None
        tensor = _passed_with_graph(trial, place, z)
        grid = find_grid(place, tensor, 1, size) if isinstance(layout, GridLayout) else layout
        if grid is None or not may_be_learned(trial, tensor.shape[1], tensor.shape[2]):
            return None
        return follows_cells(tensor, grid, graph.leaves[picture.number], axes_of(trial, picture.number))

    if find_once(problem, ("cells", *place_key(place)), find) is False:
        raise ValueError(
            f"layer: the tokens of {place} are no cells of the inputs: each depends on all parts alike, as learned "
            "queries and latents do; choose a layer below them, layer='auto', or give reshape= if they are laid out in a way of "
            "their own"
        )


def _passed_with_graph(problem: Problem, place: ResolvedLayer, z: Sequence[Tensor]) -> Tensor:
    """Return what passes a layer for one row, with its graph."""
    trial = problem.replace(tally=Tally(), check_finite=False)
    with (
        enable_grad_for(problem.model, z[0].device),
        freeze_parameters(problem.model),
        record_with_grad([place]) as seen,
    ):
        trial.run.outputs(z, problem.rows[:1])
    return seen[0]


def _inputs_that_change(problem: Problem, place: ResolvedLayer) -> set[int]:
    """Return which inputs change what passes a layer, where no graph leads to it: each turned round in its own run."""
    trial, rows = problem.replace(tally=Tally(), check_finite=False), problem.rows[:1]
    z = [t[:1] for t in problem.x]
    (before,) = trial.run.activations([place], z, rows)
    found = set()
    for i, t in enumerate(z):
        turned = t.flip(tuple(range(1, t.dim())))
        if turned.equal(t):
            turned = t + 1 if t.is_floating_point() else t
        (after,) = trial.run.activations([place], [*z[:i], turned, *z[i + 1 :]], rows)
        if turned.equal(t) or after.shape != before.shape or not after.equal(before):
            found.add(i)
    return found
