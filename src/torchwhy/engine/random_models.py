"""Does the model draw at random? It is tried, twice or more on one row; how it is written does not say it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.engine import state
from torchwhy.engine.layers.drawn_row import draw_row, is_refused
from torchwhy.engine.run.autograd import HeldModel
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.fingerprint import fingerprint
from torchwhy.engine.run.optimizations import is_compiled
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.run.warn import warn_of_randomness
from torchwhy.problem import Problem
from torchwhy.targets.target import logits_per_row

FEW_RUNS, MANY_RUNS = 2, 8  # of a row; many where numbers were drawn: a path may be dropped by chance twice, too


def notice_randomness(problem: Problem, held: HeldModel) -> None:
    """Warn of a model that gives a row different scores; one that drew nothing is not tried again in this mode.

    The row is a drawn one, as in the caller's first the part that is random may be dead. Functions, and modules that do not run
    on drawn numbers, are asked with the first row each time.
    """
    if is_compiled(problem.model):  # it would be compiled again, for one row
        return
    devices = [d for d in {x.device for x in problem.x} if d.type == "cuda"]
    with torch.random.fork_rng(devices):
        runs, of_drawn = _run_drawn_row(problem), True
        if runs is None:
            try:
                runs, of_drawn = _run_again(problem), False
            except MISFITS:
                return
    if not runs.steady:
        where = (runs.first - runs.last).abs().argmax()
        warn_of_randomness(runs.first[where : where + 1], runs.last[where : where + 1])
    elif of_drawn and not runs.drew:
        state.repeating[problem.model] = fingerprint(problem.model)
        held.may_draw = False


class _Runs(NamedTuple):
    """What the model gave for a row at first and at last, whether both are equal but for rounding, whether numbers were drawn."""

    first: Tensor
    last: Tensor
    steady: bool
    drew: bool


def _run_drawn_row(problem: Problem) -> _Runs | None:
    """Run a drawn row; None where the model does not run on one, for whatever reason it gives."""
    if not isinstance(problem.model, nn.Module):
        return None
    drawn = draw_row(problem)
    try:
        return _run_again(drawn)
    except Exception as error:
        if not is_refused(error, _run_again, drawn):
            raise
        return None


def _run_again(problem: Problem) -> _Runs:
    """Run the first row twice, or more often if numbers were drawn, until another answer comes."""
    trial = problem.replace(tally=Tally(), check_finite=False)
    generators = (torch.default_generator, *torch.cuda.default_generators)
    before = [g.get_state() for g in generators]
    first = last = _answer(trial)
    rtol, runs = min(1e3 * trial.tally.eps, 0.05), 1  # some devices add up in another order each time
    for most in (FEW_RUNS, MANY_RUNS):
        while runs < most:
            last, runs = _answer(trial), runs + 1
            if not torch.allclose(first, last, rtol, atol=trial.tally.eps, equal_nan=True):
                return _Runs(first, last, steady=False, drew=True)
        if all(torch.equal(g.get_state(), was) for g, was in zip(generators, before)):
            return _Runs(first, last, steady=True, drew=False)
    return _Runs(first, last, steady=True, drew=True)


def _answer(trial: Problem) -> Tensor:
    """Return the score of the first row, or its outputs where several are there and none is asked for."""
    first, row = [x[:1] for x in trial.x], trial.rows[:1]
    try:
        return trial.run.scores_with_graph(first, row)
    except ValueError:
        if trial.target.given is not None:
            raise
        return logits_per_row(trial.run.outputs(first, row), 1).detach().flatten()
