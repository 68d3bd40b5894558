"""Trials on the first rows: does an argument follow the rows, and does a row's score depend on the rows beside it?

They run the model on one or two rows, once for a model where the outcome follows from it, and change no number: what they find
is which of two readings is meant, or a warning. Their evaluations are not counted. ``check=False`` leaves them out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from torchwhy.arguments import Argument, PerRow, Shared, Unmarked
from torchwhy.engine import state
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.fingerprint import fingerprint
from torchwhy.engine.run.optimizations import is_compiled
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import named_parts, tensors_in
from torchwhy.problem import ModelInputs, Problem
from torchwhy.targets.predicted import found_by_running
from torchwhy.targets.target import logits_per_row

PART_OF_SPREAD = 0.01  # of the scores over rows, that rounding may move one: it switches rectifiers and routes
PART_OF_SPREAD_LOW = 0.3  # the same in lower precision
REMEMBERED = 4096  # outcomes of one model, some of each layer and text


WAYS_OUT = (
    "if the rows are parts of one thing, such as the nodes of a graph, give each graph as one row, (1, nodes, features) or "
    "tw.Ragged; where batch statistics or a contrast within the batch mix rows, batch_size=1 keeps them apart"
)


ALL_OR_NONE = (
    "the model runs on all rows together, but not on one or two of them: it was made for a number of rows, as some exported and "
    "traced models are, or rows depend on one another"
)


class TrialRun(NamedTuple):
    """Whether the model ran, the scores ``(M, K)`` of its rows, None where the target could not be read, and the shapes of what
    it gave."""

    ran: bool
    scores: Tensor | None = None
    shapes: tuple[torch.Size, ...] = ()


def memory_of(owner: object) -> dict[tuple[object, ...], object]:
    """Return what was found out about a model since it last changed; a method of an object shares that of the object."""
    owner = owner if isinstance(owner, nn.Module) else getattr(owner, "__self__", owner)
    now = fingerprint(owner) if isinstance(owner, nn.Module) else ()
    try:
        before, memory = state.trials.get(owner, (None, {}))
        if before != now:
            state.trials[owner] = now, (memory := {})
        return memory
    except TypeError:  # an object to which there is no weak reference, or that has no hash
        return {}


def remember(memory: dict[tuple[object, ...], object], key: tuple[object, ...], outcome: object) -> None:
    """Note an outcome that follows from the model; when there are many, the others are forgotten."""
    if len(memory) >= REMEMBERED:
        memory.clear()
    memory[key] = outcome


class Trial:
    """Runs a problem's model on chosen rows.

    Args:
        problem: explained by its inputs, with its target, if that is known before the model runs.
        target: the caller's.
        memory: what was found out about the model.
        key: of what is tried, in it.
    """

    def __init__(
        self,
        problem: Problem,
        target: object,
        memory: dict[tuple[object, ...], object],
        key: tuple[object, ...],
    ) -> None:
        self.problem = problem.replace(tally=Tally(), check_finite=False)
        self.known, self.memory, self.key = not found_by_running(target), memory, key

    def run(self, inputs: ModelInputs, rows: Tensor, tensors: Sequence[Tensor] = ()) -> TrialRun:
        """Return what the model gives for rows ``(M,)``, ``tensors`` in place of their inputs."""
        problem = self.problem.replace(inputs=inputs, x=inputs.tensors)
        try:
            output = problem.run.outputs(tensors or [t[rows] for t in inputs.tensors], rows)
        except MISFITS:
            return TrialRun(False)
        try:
            if self.known:
                scores = problem.target.select(output, rows)[:, None]
            else:
                scores = logits_per_row(output, len(rows)).flatten(1)
        except MISFITS:
            return TrialRun(True)
        scores = scores.abs() if scores.is_complex() else scores
        parts = [output] if isinstance(output, Tensor) else named_parts(output).values()
        shapes = tuple(t.shape for t in tensors_in(parts))
        return TrialRun(True, scores.double() if bool(scores.isfinite().all()) else None, shapes)

    def remember(self, key: tuple[object, ...], outcome: object) -> None:
        """Note an outcome that follows from the model."""
        remember(self.memory, key, outcome)

    def are_near(self, a: Tensor | None, b: Tensor | None, spread: float) -> bool:
        """Say whether scores are equal up to rounding, where those of different rows are ``spread`` apart."""
        if a is None or b is None or a.shape != b.shape:
            return False
        eps = _coarsest_eps(self.problem)
        part = PART_OF_SPREAD if eps < 1e-5 else PART_OF_SPREAD_LOW
        size = float(torch.maximum(a.abs(), b.abs()).max())
        return float((a - b).abs().max()) <= part * spread + min(1e3 * eps, 0.1) * size


def try_rows(problem: Problem, owner: object, target: object) -> Problem:
    """Return the problem with its further arguments settled, after warning of rows that depend on one another.

    Args:
        problem: explained by its inputs; with its target, if that takes no run of the model.
        owner: the caller's model.
        target: the caller's.

    Raises:
        ValueError: it is ambiguous whether an argument follows the rows.
    """
    inputs, device = problem.inputs, problem.inputs.tensors[0].device
    further: list[Argument] = inputs.find_further(Argument) if inputs.args or inputs.kwargs else []
    unmarked = [part for part in further if isinstance(part, Unmarked)]
    meet = problem.n > 1 and problem.batching.plan.rows != 1  # in a call
    memory, key = memory_of(owner), _key_of(inputs, further, owner)
    if not unmarked and (not meet or memory.get(_key_of_rows(key, target)) == ""):
        return problem
    trial = Trial(problem, target, memory, key)
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        if unmarked:
            problem = problem.replace(inputs=_settle(trial, unmarked, target))
        if meet:
            _notice_dependence(trial, problem.inputs, target)
    return problem


def _key_of(inputs: ModelInputs, further: Sequence[Argument], owner: object) -> tuple[object, ...]:
    """Return what an outcome is remembered by: the form of a row, the kinds of further arguments, the model's mode."""
    shapes = tuple((t.shape[1:], t.dtype) for t in inputs.tensors)
    mode = getattr(owner, "training", None) if isinstance(owner, nn.Module) else getattr(owner, "__name__", None)
    return (mode, shapes, inputs.names, inputs.forms, tuple(map(type, further)))


def _key_of_rows(key: tuple[object, ...], target: object) -> tuple[object, ...]:
    """Return what is added where rows are tried: a callable target may mix them too, an index does not."""
    return ("rows", *key, _target_kind(target) if callable(target) else "index")


def _settle(trial: Trial, unmarked: Sequence[Unmarked], target: object) -> ModelInputs:
    """Return the inputs with each unmarked argument as one that follows the rows, or as one that is the same for all."""
    inputs = trial.problem.inputs
    tensors = tuple((a.name, a.whole.shape[1:], a.whole.dtype) for a in unmarked)
    key = ("arguments", *trial.key, tensors, _target_kind(target))
    shared = trial.memory.get(key)
    if not isinstance(shared, frozenset):
        shared, is_certain = _shared_among(trial, inputs, unmarked)
        if is_certain:
            trial.remember(key, shared)
    return _marked(inputs, unmarked, shared)


def _marked(inputs: ModelInputs, unmarked: Sequence[Unmarked], shared: frozenset[int]) -> ModelInputs:
    """Return the inputs with the arguments at some positions shared, and the others one for each row."""
    position = {id(argument): i for i, argument in enumerate(unmarked)}

    def mark(part: Argument) -> Argument:
        if not isinstance(part, Unmarked):
            return part
        return Shared(part.whole) if position[id(part)] in shared else PerRow(part.tensor)

    return inputs.replace_further(mark)


def _shared_among(trial: Trial, inputs: ModelInputs, unmarked: Sequence[Unmarked]) -> tuple[frozenset[int], bool]:
    """Return the positions of the arguments that are the same for all rows, and whether only that reading runs.

    Raises:
        ValueError: several readings run, and differ.
    """
    rows = trial.problem.rows
    found: dict[frozenset[int], TrialRun] = {}
    for shared in _readings(len(unmarked)):
        run = trial.run(_marked(inputs, unmarked, shared), rows[:1])
        if run.scores is not None:
            found[shared] = run
    if len(found) < 2:  # without any, the model's own error comes with its first call
        return next(iter(found), frozenset()), len(found) == 1
    chosen = min(found, key=len)
    first, last = found[chosen].scores, trial.run(_marked(inputs, unmarked, chosen), rows[-1:]).scores
    spread = 0.0 if first is None or last is None or first.shape != last.shape else float((first - last).abs().max())
    for shared, run in found.items():
        if run.shapes != found[chosen].shapes or not trial.are_near(first, run.scores, spread):
            _refuse_ambiguous([unmarked[i] for i in sorted(chosen ^ shared)], trial.problem.n)
    return chosen, False


def _readings(k: int) -> Iterator[frozenset[int]]:
    """Yield which of k arguments may be shared: all combinations of up to four; of more, of one or two, or all but one."""
    for size in range(k + 1):
        if size < 3 or size > k - 2:
            yield from map(frozenset, combinations(range(k), size))


def _refuse_ambiguous(arguments: Sequence[Unmarked], n: int) -> NoReturn:
    """Refuse arguments that can be read both ways."""
    names = " and ".join(a.name for a in arguments)
    shapes = ", ".join(str(tuple(a.whole.shape)) for a in arguments)
    raise ValueError(
        f"{names}: of shape {shapes}, as many rows as the inputs ({n}), and the model runs on a row with all of it and with one "
        "row of it, to other scores: mark it as tw.Shared(tensor), the same for all rows, or tw.PerRow(tensor), one for each"
    )


def _notice_dependence(trial: Trial, inputs: ModelInputs, target: object) -> None:
    """Warn where the score of the first row depends on the rows beside it."""
    key = _key_of_rows(trial.key, target)
    found = trial.memory.get(key)
    if found is None:
        found, is_certain = _dependence(trial, inputs)
        if is_certain:
            trial.remember(key, found)
    if found:
        warn(f"{found}: {WAYS_OUT}; check=False leaves this trial out")


def _dependence(trial: Trial, inputs: ModelInputs) -> tuple[str, bool]:
    """Return in what way the first row depends on others, nothing if it does not, and whether that follows from the model."""
    problem = trial.problem
    if is_compiled(problem.model):  # it would be compiled again, for one row and for two
        return "", True
    rows, n, most = problem.rows, problem.n, problem.batching.plan.rows or problem.n
    if _may_be_indices(inputs, n):  # of rows, which fewer rows do not have
        if most < n:
            return "", False
        others = [torch.cat([t[:1], t[:1].expand(n - 1, *t.shape[1:])]) for t in inputs.tensors]
        together = trial.run(inputs, rows).scores
        found = _compare(trial, together, trial.run(inputs, rows, others).scores)
        return (found if found and _repeats(trial, inputs, rows, together) else ""), False
    other = next((i for i in range(1, min(n, 9)) if inputs.differ(0, i)), None)
    alone = trial.run(inputs, rows[:1])
    beside = trial.run(inputs, rows[[0, other or 1]]) if alone.ran else alone
    if beside.ran:
        found = _compare(trial, beside.scores, alone.scores)
        if found and not _repeats(trial, inputs, rows[:1], alone.scores):
            return "", False
        return found, other is not None
    if n <= most and trial.run(inputs, rows).ran:
        return ALL_OR_NONE, True
    return "", False


def _compare(trial: Trial, together: Tensor | None, others: Tensor | None) -> str:
    """Return what is to be said of the scores of the first row, in two calls."""
    if together is None or others is None:
        return ""
    spread = float((together - together[:1]).abs().max()) if len(together) else 0.0
    if trial.are_near(together[:1], others[:1], spread):
        return ""
    return "rows depend on one another: the score of row 0 changes with the rows beside it in a call"


def _repeats(trial: Trial, inputs: ModelInputs, rows: Tensor, scores: Tensor | None) -> bool:
    """Say whether the model gives rows the same scores again; one that draws at random does not."""
    return trial.are_near(scores, trial.run(inputs, rows).scores, 0.0)


def _may_be_indices(inputs: ModelInputs, n: int) -> bool:
    """Say whether whole numbers among the shared arguments may be numbers of rows, such as the edges of a graph of them."""
    tensors = tensors_in([a.value for a in inputs.find_further(Shared)])
    whole = [t for t in tensors if not t.is_floating_point() and t.dtype != torch.bool and t.numel()]
    return any(0 < int(t.max()) < n and int(t.min()) >= 0 for t in whole if not t.is_complex())


def _coarsest_eps(problem: Problem) -> float:
    """Return the rounding of the coarsest numbers that take part in a call."""
    parameters = problem.model.parameters() if isinstance(problem.model, nn.Module) else ()
    kinds = {t.dtype for t in (*parameters, *problem.inputs.tensors)} - {torch.bool, torch.long, torch.int}
    device = problem.inputs.tensors[0].device.type
    callers = state.callers_state.get()
    kinds.update(dtype for kind, dtype in (() if callers is None else callers.autocast) if kind == device)
    if problem.precision is not None:
        kinds.add(problem.precision)
    return max((torch.finfo(k).eps if k.is_floating_point else 0.01 for k in kinds), default=1e-7)


def _target_kind(target: object) -> object:
    """Return what tells a target from another, as far as whether the model runs with it."""
    if isinstance(target, Tensor):
        target = target.tolist()
    if isinstance(target, list) and target:
        return _target_kind(target[0])
    if isinstance(target, partial):
        return _target_kind(target.func)
    if callable(target):
        return getattr(target, "__code__", type(target))
    return str(target)
