"""``layer="auto"``: the last layer with a grid of cells or tokens on which the target depends."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from operator import itemgetter
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.dependence import Pictures, first_row_leaves
from torchwhy.engine.layers.drawn_row import find_once
from torchwhy.engine.layers.grid_layout import HEAD_MODULES, dense_grid, picture_of
from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.engine.refusals import refuse_layer_of_graph
from torchwhy.engine.torch_internals import is_graph

if TYPE_CHECKING:
    from torchwhy.problem import Problem


def last_grid_layer(problem: Problem, *, input: bool = False) -> ResolvedLayer:
    """Return the last layer that passes a grid of cells (not a bare projection) on which the target of the first row depends.

    It is found with a drawn row, for an index as the target once for a model, a shape of inputs and the index.

    Raises:
        ValueError: there is none, or the model's own output is such a grid.
    """
    given, model = problem.target.given, problem.model
    if is_graph(model) and not isinstance(model, torch.jit.ScriptModule):  # which tracing refuses
        refuse_layer_of_graph("auto", "")
    first = given[0] if isinstance(given, list) or (isinstance(given, Tensor) and given.dim()) else given
    names = tuple(name for name, _ in model.named_modules())
    known_again = not callable(first) and problem.neuron is None
    found = find_once(problem, ("auto", str(first), names) if known_again else None, _find_last_grid_layer)
    return replace(found, module=model.get_submodule(found.name), input=input)


def _find_last_grid_layer(problem: Problem) -> ResolvedLayer:
    """Return it, as the first row says, and where that is dead in a later layer, the same row spread around 0."""
    at, found, dead = _last_grid_in_use(problem)
    if dead:
        spread = tuple(4 * t - 2 if t.is_floating_point() else t for t in problem.x)
        found = max((at, found), _last_grid_in_use(problem.replace(x=spread))[:2], key=itemgetter(0))[1]
    if found is not None:
        return found
    picture = picture_of(problem)
    raise ValueError(
        f"layer='auto': no layer passes a grid of cells over inputs of shape {tuple(problem.x[picture.number].shape[1:])} on "
        "which the target depends, as far as gradients say; name a layer, with reshape= if its cells are laid out in an unusual "
        "way"
    )


def _last_grid_in_use(problem: Problem) -> tuple[int, ResolvedLayer | None, bool]:
    """Return the last grid whose gradient is not 0 for the first row, before it its place in the run, after it whether others
    with a gradient of 0 follow."""
    size, dead = picture_of(problem).size, False
    z, graph = first_row_leaves(problem)
    scores, passed = problem.run.trace(z, problem.rows[:1])
    calls = Counter(place.name for place, _ in passed)
    whole = next((t for place, t in passed if not place.name), None)
    if whole is not None and whole.dim() == 2 + len(size) and dense_grid(tuple(whole.shape), size, set()):
        raise ValueError(
            f"layer='auto' is for models with one answer a row; this one's output has shape {tuple(whole.shape)}: "
            "name the layer that the answer is to be explained by"
        )
    with torch.enable_grad():
        total = whole.square().sum() if scores is None and whole is not None else scores
        total = None if total is None else total.sum()
    passed = [(place, tensor) for place, tensor in passed if tensor.dim() > 1]  # a bare number is the score of one row
    pictures = Pictures(problem, graph, [tensor for _, tensor in passed])
    grids = [(place, tensor, pictures.grid(place, tensor)) for place, tensor in passed]
    sequences = {t.shape[1] for _, t, grid in grids if grid and t.dim() == 3 < 2 + len(size)}
    for at in reversed(range(len(grids))):
        place, tensor, grid = grids[at]
        if grid is None or not place.name or isinstance(place.module, HEAD_MODULES):
            continue
        if pictures.may_be_attention(tensor, grid, sequences):
            continue
        if total is not None and total.requires_grad:
            if not tensor.requires_grad:
                continue
            (slope,) = torch.autograd.grad(total, tensor, allow_unused=True, retain_graph=True)
            if slope is None or not bool(grid(slope).any()):
                dead |= slope is not None
                continue
        if pictures.are_cells(tensor, grid):
            return at, replace(place, module=_NO_MODULE, call=None if calls[place.name] == 1 else place.call), dead
    return -1, None, dead


_NO_MODULE = nn.Identity()  # in the cache, which must not keep a model alive
