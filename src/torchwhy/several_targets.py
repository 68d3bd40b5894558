"""Several targets at once: one run of a method, in which the model is asked once for what they share.

How that works is told in :mod:`torchwhy.engine.run.shared_runner`. A run each is taken by what cannot be one: methods that
search (:attr:`Attribution.searches`) or draw from the batch, targets inside the model, and ``layer="auto"`` where it is not the
same layer for all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwhy.attribution import Attribution, finish_result
from torchwhy.engine.axes import AxesLike
from torchwhy.engine.layers.auto_layer import last_grid_layer
from torchwhy.engine.prepare import prepare_for, with_target
from torchwhy.engine.run.autograd import freeze_parameters, isolated
from torchwhy.engine.run.black_box import ClassColumn, as_model, columns_of_labels
from torchwhy.engine.run.estimators import every_output
from torchwhy.engine.samples import as_sample
from torchwhy.engine.structure import AnyForm, Model, flatten, map_nested, parts_by_key
from torchwhy.engine.uneven import may_be_uneven, read_uneven
from torchwhy.explanation.of_result import explanation_of
from torchwhy.problem import Problem
from torchwhy.provenance import has_unknown_gap, measure_ends_besides, measure_ends_of_each
from torchwhy.result import Result, ScoreEnds, as_result
from torchwhy.targets.each_target import join_targets
from torchwhy.targets.target import Neuron, TargetLike, logits_per_row

if TYPE_CHECKING:
    from torchwhy.explanation import Explanation, Names
    from torchwhy.input_types import Baselines, FeatureMasks, Inputs
    from torchwhy.samples.sample import Sample

Solved = tuple[Result, Problem]
DATA = (
    "baselines",
    "feature_mask",
    "additional_forward_args",
    "axes",
)  # what a call is given besides inputs and targets
CallData = tuple[AnyForm, AnyForm, AnyForm, AxesLike]  # these


def attribute_each(
    method: Attribution, inputs: Inputs, targets: Sequence[TargetLike] | str, given: CallData
) -> list[Any]:
    """Return what :meth:`Attribution.attribute` gives for each of several targets, ``given`` the other arguments."""
    data = dict(zip(DATA, given))
    if _is_uneven(method, inputs, data["additional_forward_args"]):
        return [method.attribute(inputs, target, **data) for target in _listed(targets)]
    structure = method.result_structure(flatten(inputs)[1])
    solved = solve_each(method, inputs, targets, **data)
    return [(result.form or problem.form or structure).restore(result.attributions) for result, problem in solved]


def explain_each(
    method: Attribution, inputs: Inputs, targets: Sequence[TargetLike] | str, given: CallData, names: Names
) -> list[Explanation]:
    """Return what :meth:`Attribution.explain` gives for each of several targets, ``given`` the other arguments."""
    data = dict(zip(DATA, given))
    if _is_uneven(method, inputs, data["additional_forward_args"]):
        return [method.explain(inputs, target, names=names, **data) for target in _listed(targets)]
    begun = time.perf_counter()
    solved = solve_each(method, inputs, targets, **data, measure_gap=True)
    seconds = time.perf_counter() - begun
    return [explanation_of(method, r, p, inputs, data["baselines"], names, seconds) for r, p in solved]


def solve_each(
    method: Attribution,
    inputs: Inputs,
    targets: Sequence[TargetLike] | str,
    baselines: Baselines = None,
    feature_mask: FeatureMasks = None,
    additional_forward_args: object = None,
    axes: AxesLike = None,
    *,
    measure_gap: bool = False,
    parent: Problem | None = None,
) -> list[Solved]:
    """Return for each target what :func:`torchwhy.attribution.solve` does.

    Args:
        method, inputs, baselines, feature_mask, additional_forward_args, axes: see :meth:`Attribution.attribute`.
        targets: the targets, or ``"all"``.
        measure_gap, parent: see :func:`torchwhy.attribution.solve`.

    Raises:
        TypeError, ValueError: no targets.
    """

    data = (baselines, feature_mask, additional_forward_args, parent, axes)

    def problem_of(target: TargetLike, of: object = inputs) -> Problem:
        problem = prepare_for(method, of, target, *data)
        return problem.with_gap(is_part=parent is not None) if measure_gap else problem

    with isolated(method.model):
        each = list_targets(targets)
        if not isinstance(method.model, nn.Module):  # a number may be a label of another output
            box = as_model(method.model)
            each = columns_of_labels(box, each) if each else [*every_output(box.outputs or [])]
            each = each or all_classes(problem_of(ClassColumn(0)))
        each = each or all_classes(problem_of(0))
        if not hasattr(inputs, "masked"):
            return _solve_targets(method, problem_of, each, measure_gap)
        found: dict[int, Solved] = {}
        for ready, members in _by_sample(method.model, inputs, each):
            solved = _solve_targets(method, partial(problem_of, of=ready), list(members.values()), measure_gap)
            found |= dict(zip(members, solved))
        return [found[i] for i in range(len(each))]


def _solve_targets(
    method: Attribution, problem_of: Callable[[TargetLike], Problem], each: Sequence[TargetLike], measure_gap: bool
) -> list[Solved]:
    """Return what a method finds for each of several targets of the same inputs: in one run, or one after the other."""
    problem = problem_of(each[0])
    with freeze_parameters(problem.model):  # a function's layers are known by now
        return _solve_prepared(method, problem, problem_of, each, measure_gap)


def _solve_prepared(
    method: Attribution,
    problem: Problem,
    problem_of: Callable[[TargetLike], Problem],
    each: Sequence[TargetLike],
    measure_gap: bool,
) -> list[Solved]:
    """Return what :func:`_solve_targets` does, from the problem of the first target."""
    if len(each) > 1 and _can_share(method, each):
        problems = [problem, *(with_target(problem, t) for t in each[1:])]
        if not _differ_in_layers(method, problems):
            return _solve_together(method, problems, measure_gap)
    problems = [problem, *map(problem_of, each[1:])]
    return [(finish_result(method, p, method._attribute(p), measure_gap=measure_gap), p) for p in problems]


def _by_sample(model: Model, sample: object, each: Sequence[TargetLike]) -> list[tuple[Sample, dict[int, TargetLike]]]:
    """Return the targets by the sample that is ready for them, which may differ: with a response behind it, and without."""
    groups: list[tuple[Sample, dict[int, TargetLike]]] = []
    for i, given in enumerate(each):
        ready, target = as_sample(sample).asked(model, given)
        for known, members in groups:
            if _equal([known.tensors, known.arguments], [ready.tensors, ready.arguments]):
                members[i] = target
                break
        else:
            groups.append((ready, {i: target}))
    return groups


def _equal(a: object, b: object) -> bool:
    """Say whether two containers hold the same."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and a.equal(b)
    parts, others = parts_by_key(a), parts_by_key(b)
    if parts or others:
        return parts.keys() == others.keys() and all(_equal(v, others[k]) for k, v in parts.items())
    return a is b or (isinstance(a, (int, float, str, type(None))) and a == b)


def _can_share(method: Attribution, targets: Sequence[TargetLike]) -> bool:
    """Say whether targets can share a run."""
    depends = not (method.rows_are_independent or method.knows_pairs)
    return not (depends or method.searches) and not any(isinstance(t, Neuron) for t in targets)


def _solve_together(method: Attribution, problems: Sequence[Problem], measure_gap: bool) -> list[Solved]:
    """Return what one run of a method finds for problems that differ in their targets."""
    first, t = problems[0], len(problems)
    given = method._attribute(pair_rows(problems))
    found = as_result(type(method).__name__, given, first.n * t)
    results = [part_of_result(found, first.n, t, number) for number in range(t)]
    ends: list[ScoreEnds | None] = [None] * t
    wanted = has_unknown_gap(method, found) or first.coalitions is not None
    if measure_gap and found.baselines is None and wanted:
        measure = measure_ends_of_each if has_unknown_gap(method, found) else measure_ends_besides
        ends = list(measure(first, [p.target for p in problems]))
    return [
        (finish_result(method, p, r, measure_gap=measure_gap, ends=e), p) for p, r, e in zip(problems, results, ends)
    ]


def list_targets(targets: Sequence[TargetLike] | str) -> list[TargetLike]:
    """Return the targets, none for ``"all"``.

    Raises:
        TypeError: no list of targets.
        ValueError: an empty list, or another word.
    """
    if isinstance(targets, str):
        if targets != "all":
            raise ValueError(f"targets={targets!r}: the only word is 'all'; give a list of targets")
        return []
    if isinstance(targets, (Tensor, np.ndarray)):
        targets = targets.tolist()
    if not isinstance(targets, Sequence):
        raise TypeError(f"targets={targets!r}: expected a list of targets, or 'all'")
    if not targets:
        raise ValueError("targets: expected one or more targets")
    return list(targets)


def _is_uneven(method: Attribution, inputs: Inputs, additional_forward_args: object) -> bool:
    """Say whether the rows have shapes of their own."""
    if isinstance(inputs, Tensor) or not may_be_uneven(inputs):
        return False
    return read_uneven(method.model, inputs, additional_forward_args) is not None


def _listed(targets: Sequence[TargetLike] | str) -> list[TargetLike]:
    """Return the targets of rows with shapes of their own, which take a run each."""
    each = list_targets(targets)
    if not each:
        raise ValueError("targets='all': list them, where rows have shapes of their own")
    return each


def all_classes(problem: Problem) -> list[TargetLike]:
    """Return all classes of an output ``(N, classes)``, which the first row has."""
    with torch.no_grad():
        out = logits_per_row(problem.run.outputs([x[:1] for x in problem.x], problem.rows[:1]), 1)
    if out.dim() != 2:
        raise ValueError(
            f"targets='all': needs an output (N, classes), this one has shape {tuple(out.shape)}; list them"
        )
    return [ClassColumn(k) for k in range(out.shape[1])]


def _differ_in_layers(method: Attribution, problems: Sequence[Problem]) -> bool:
    """Say whether ``layer="auto"`` is not the same layer for all targets."""
    if method.layer_role == "own" or "auto" not in [x for x in flatten(method.layer)[0] if isinstance(x, str)]:
        return False
    at_inputs = [p.replace(x=p.inputs.tensors, input_layers=(), read_layers=()) for p in problems]
    return len({last_grid_layer(p, input=method.attribute_to_layer_input).name for p in at_inputs}) > 1


def pair_rows(problems: Sequence[Problem]) -> Problem:
    """Return the problem with a row for each pair of a row and a target, from problems that differ in their targets."""
    problem, t = problems[0], len(problems)
    n = problem.n
    return problem.replace(
        n_targets=t,
        target=join_targets([p.target for p in problems], n, problem.rows.device),
        x=tuple(x.expand(t, *x.shape[1:]) if n == 1 else x.repeat_interleave(t, 0) for x in problem.x),
        baselines=tuple(b if b.shape[1] == 1 else b.repeat_interleave(t, 1) for b in problem.baselines),
        feature_mask=None
        if problem.feature_mask is None
        else tuple(_repeat_mask(m, x, t) for m, x in zip(problem.feature_mask, problem.x)),
    )


def _repeat_mask(mask: object, x: Tensor, t: int) -> object:
    """Return a feature mask for t targets of each row of ``x``: of those masks that each row has its own."""
    if mask is None:
        return None
    mask = torch.as_tensor(mask)
    own = mask.dim() == x.dim() and len(mask) == len(x) and len(x) > 1
    return mask.repeat_interleave(t, 0) if own else mask


def part_of_result(result: Result, n: int, t: int, number: int) -> Result:
    """Return the part of a result for n t pairs that belongs to one target."""

    def of_part(value: object) -> object:
        if isinstance(value, Tensor) and value.dim() and len(value) == n * t:
            return value.unflatten(0, (n, t))[:, number]
        return value

    def of_target(value: object) -> Any:
        return map_nested(of_part, value, whole=list)

    baselines = result.baselines
    if baselines is not None:
        baselines = tuple(b if b.shape[1] == 1 else b.unflatten(1, (n, t))[:, :, number] for b in baselines)
    return replace(
        result,
        attributions=of_target(result.attributions),
        completeness_gap=of_target(result.completeness_gap),
        standard_error=of_target(result.standard_error),
        details=of_target(result.details),
        baselines=baselines,
    )


def join_results(results: Sequence[Result], n: int) -> Result:
    """Return the result for n T pairs from those of T targets for n rows."""

    def of_pairs(first: object, *others: Tensor) -> object:
        if isinstance(first, Tensor) and first.dim() and len(first) == n:
            return torch.stack((first, *others), 1).flatten(0, 1)
        return first

    def of_all(read: Callable[[Result], object]) -> Any:
        return map_nested(of_pairs, *map(read, results), whole=list)

    return Result(
        of_all(lambda r: r.attributions),
        of_all(lambda r: r.completeness_gap),
        of_all(lambda r: r.standard_error),
        of_all(lambda r: r.details),
        has_gap=results[0].has_gap,
        baselines=results[0].baselines,
        form=results[0].form,
    )
