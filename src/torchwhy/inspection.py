"""A look at a model before the work: which methods apply to it, what they cost, and what in it may go wrong."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.auto_layer import last_grid_layer
from torchwhy.engine.layers.layer import resolve_layer
from torchwhy.engine.prepare import prepare
from torchwhy.engine.run.autograd import isolated
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.black_box import as_model, columns_of_labels
from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.structure import AnyModel, Keywords, Model, flatten
from torchwhy.engine.tables import as_tensors, frame_form, holds_tables
from torchwhy.inspection_result import Inspection, Verdict
from torchwhy.problem import Problem
from torchwhy.targets import find_logits

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution
    from torchwhy.input_types import Inputs
    from torchwhy.targets import TargetLike

MOST_EVALUATIONS = 64  # of a trial of a method; what takes more is stopped there, and its cost is what it had planned
MOST_FEATURES = 64  # that methods which hide features are tried with; more elements are put together
WORK_SETTINGS = ("n_steps", "n_samples")  # settings that say how much work is done
TRIED = (2, 4)  # values of these in two trials; the cost at the default follows, as it is linear in them
WITH_RULES = ("LRP", "DeepLIFT", "GuidedBackprop")  # methods that replace backward passes
PARTS = 4  # of a side, that a window of Occlusion takes one of


class Enough(Exception):
    """A trial has taken as many evaluations as it may."""


class LimitedTally(Tally):
    """A tally that stops a trial."""

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "evaluations" and self.evaluations > MOST_EVALUATIONS:
            raise Enough


def inspect(
    model: Model,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    additional_forward_args: object = None,
    methods: Sequence[str] | None = None,
) -> Inspection:
    """Return what can be said of a model before it is explained: an :class:`Inspection`, to print, as HTML or as a dict.

    Each method is tried on the first row, with two steps or samples and then four, from which its cost with the default settings
    follows. Nothing of the model is changed, nor the state of torch's random numbers.

    Args:
        model: a module, or a callable.
        inputs: as for :meth:`torchwhy.Attribution.attribute`, also arrays and data frames; with several rows it is seen whether
            they depend on one another.
        target: likewise; None is each row's largest output where there are several, else the output.
        additional_forward_args: likewise.
        methods: the names of those to try; None is all of them.

    Raises:
        TypeError, ValueError: inputs that the model does not take, a method that there is not.

    >>> import torch, torchwhy as tw
    >>> found = tw.inspect(torch.nn.Linear(3, 2), torch.rand(2, 3), methods=["Saliency", "GradCAM"])
    >>> found.methods["Saliency"].applies, found.methods["GradCAM"].applies
    (True, False)
    """
    if hasattr(inputs, "masked"):
        raise TypeError(
            "inputs: a look takes tensors; of a sample, ready = sample.bind(model), give ready.tensors, and ready.arguments as "
            "additional_forward_args"
        )
    called = getattr(model, "__name__", type(model).__name__)
    if holds_tables(inputs):
        model, inputs, _ = as_tensors(model, inputs, None, frame_form(inputs))
        target = target if isinstance(model, nn.Module) else columns_of_labels(as_model(model), target)
    elif not isinstance(model, nn.Module):
        target = columns_of_labels(as_model(model), target)
    with warnings.catch_warnings(record=True) as said, torch.random.fork_rng():
        warnings.simplefilter("always")
        found = _inspect(model, inputs, target, additional_forward_args, _chosen(methods))
    messages = dict.fromkeys(str(warning.message) for warning in said)
    return found.replace(model=called, warnings=tuple(messages))


def _chosen(names: Sequence[str] | None) -> dict[str, type[Attribution]]:
    """Return methods by name.

    Raises:
        ValueError: there is no such one.
    """
    import torchwhy
    from torchwhy.spelling import nearest_names

    every = torchwhy.methods()
    for name in names or ():
        if name not in every:
            raise ValueError(f"methods: there is no {name!r}; the nearest are {', '.join(nearest_names(name, every))}")
    return {name: every[name] for name in (every if names is None else names)}


def _inspect(
    model: AnyModel, inputs: Inputs, target: TargetLike, extra: object, methods: Mapping[str, type[Attribution]]
) -> Inspection:
    """Return the inspection, without its warnings."""
    asked: Keywords = {"additional_forward_args": extra}
    buffers = {name: b.clone() for name, b in model.named_buffers()} if isinstance(model, nn.Module) else {}
    with isolated(model) as held:
        plain = prepare(model, inputs, None, **asked)
        with torch.no_grad():
            output = find_logits(plain.run.outputs(plain.x, plain.rows))
        target = "predicted" if target is None and output.dim() == 2 and output.shape[1] > 1 else target
        problem = prepare(model, inputs, target, **asked)
        _scores_of(problem)
        written = tuple(name for name, b in buffers.items() if not model.get_buffer(name).equal(b))
        is_random = not _scores_of(problem).equal(_scores_of(problem))
        depend = None if problem.n == 1 or is_random else _rows_depend(problem)
        rows = _rows_per_call(problem)
        layers = _layers(problem)
        verdicts = {name: _verdict(kind, problem, inputs, target, extra, layers) for name, kind in methods.items()}
    return Inspection(
        model="",
        parameters=sum(p.numel() for p in model.parameters()) if isinstance(model, nn.Module) else 0,
        inputs=tuple(tuple(t.shape) for t in problem.inputs.tensors),
        output=tuple(output.shape),
        target=target,
        training=tuple(held.noisy),
        is_random=is_random,
        rows_depend=depend,
        written_buffers=written,
        rows_per_call=rows,
        layers=layers,
        operations={
            name: v.operations for name, v in verdicts.items() if name in WITH_RULES and v.operations is not None
        },
        methods=verdicts,
    )


# ------------------------------------------------------------------------------------------------- of the model
def _scores_of(problem: Problem, rows: slice = slice(None)) -> Tensor:
    """Return the scores of some rows, in one call."""
    return problem.run.scores([t[rows] for t in problem.x], problem.rows[rows])


def _rows_depend(problem: Problem) -> bool:
    """Return whether the score of the first row changes, beyond rounding, with the rows beside it."""
    together = _scores_of(problem)
    try:
        alone = _scores_of(problem, slice(0, 1))
    except Exception:  # whatever the code of a model raises without the other rows
        return True
    eps = torch.finfo(together.dtype).eps if together.is_floating_point() else 0.0
    size = float(together.abs().max())
    return float((together[0] - alone[0]).abs()) > 1e3 * eps * max(size, 1e-30)


def _rows_per_call(problem: Problem) -> dict[str, int]:
    """Return how many rows a call of long work gets, without and with gradients."""
    found, few = {}, problem.rows[:2]
    for name, run in (("scores", problem.run.scores), ("gradients", problem.run.gradients)):
        batching = Batching(None, problem.inputs.tensors, graph=name == "gradients", progress=False, label="")
        x = [t[:2] for t in problem.x]
        if name == "gradients" and not all(t.is_floating_point() for t in x):
            continue
        try:
            with CallCost() as cost:
                run(x, few)
        except (ValueError, TypeError, RuntimeError):  # no gradient passes
            continue
        found[name] = batching.affordable_rows(cost, len(few))
    return found


def _layers(problem: Problem) -> dict[str, str]:
    """Return what ``layer="auto"`` and ``layer="embeddings"`` mean here; nothing of one that means nothing."""
    if not isinstance(problem.model, nn.Module):
        return {}
    found = {}
    for word in ("auto", "embeddings"):
        try:
            place = last_grid_layer(problem) if word == "auto" else resolve_layer(problem.model, word)
            found[word] = place.name
        except Exception:  # whatever the code of a model raises on the way
            continue
    return found


# ------------------------------------------------------------------------------------------------- of the methods
def _verdict(
    kind: type[Attribution], problem: Problem, inputs: Inputs, target: TargetLike, extra: object, layers: dict[str, str]
) -> Verdict:
    """Return whether a method applies to the first row, or two if it needs them, and what it costs with its defaults."""
    from torchwhy.counterfactual.counterfactual import Counterfactual

    settings = _settings_to_try(kind, problem, layers)
    n = 1 if kind.rows_are_independent else min(2, problem.n)
    row = _cut_rows(inputs, n)
    mask = (
        _feature_mask(row)
        if kind.uses_feature_mask and kind.needs_gradient is False and "layer" not in settings
        else None
    )
    asked: Keywords = {"additional_forward_args": _first_of(extra, problem.n, n)}
    if mask is not None:
        asked["feature_mask"] = mask
    wanted = target if isinstance(target, str) or not isinstance(target, (list, Tensor)) else target[:n]
    if issubclass(kind, Counterfactual) and not callable(target):
        wanted = None  # any other answer
    try:
        cost, details = _cost(kind, settings, row, wanted, asked, problem)
    except Exception as error:  # a refusal, or whatever the code of a model raises
        return Verdict(kind.__name__, applies=False, reason=" ".join(str(error).split()) or type(error).__name__)
    ruled = "plain_operations" in details
    return Verdict(
        kind.__name__,
        applies=True,
        settings={k: v for k, v in settings.items() if k != "generator"},
        evaluations=-(-cost // n),
        needs_gradient=kind.needs_gradient,
        features=None if mask is None else _n_features(mask),
        operations={k: dict(details[k]) for k in ("operations_with_rule", "plain_operations")} if ruled else None,
    )


def _cost(
    kind: type[Attribution], settings: Keywords, row: Inputs, target: TargetLike, asked: Keywords, problem: Problem
) -> tuple[int, Keywords]:
    """Return the evaluations that a method takes for a row with its default settings, and the details of a trial of it."""
    counts = {name: value for name in WORK_SETTINGS if isinstance(value := _default(kind, name), int)}
    if not counts:
        return _run(kind(problem.model, **settings), row, target, asked, problem)
    (name, default), *_ = counts.items()
    trials = [_run(kind(problem.model, **{**settings, name: n}), row, target, asked, problem) for n in TRIED]
    (low, details), (high, _) = trials
    return round(low + (high - low) / (TRIED[1] - TRIED[0]) * (default - TRIED[0])), details


def _run(
    method: Attribution, row: Inputs, target: TargetLike, asked: Keywords, problem: Problem
) -> tuple[int, Keywords]:
    """Return the evaluations that a method takes for a row, or has planned when it is stopped, and its details."""
    from torchwhy.attribution import solve

    tally = LimitedTally()
    parent = prepare(problem.model, row, None, additional_forward_args=asked["additional_forward_args"])
    parent = parent.replace(tally=tally)
    try:
        result, _ = solve(
            method, row, target, None, asked.get("feature_mask"), asked["additional_forward_args"], parent=parent
        )
    except Enough:
        return max(parent.batching.plan.jobs, tally.evaluations), {}
    return tally.evaluations, result.details


def _default(kind: type[Attribution], name: str) -> object:
    """Return the default of a setting, None where there is no such one."""
    return next((f.default for f in fields(kind) if f.name == name), None)


def _settings_to_try(kind: type[Attribution], problem: Problem, layers: dict[str, str]) -> Keywords:
    """Return what a method needs besides its defaults on such inputs."""
    names = {f.name for f in fields(kind)}
    settings: Keywords = {"generator": 0} if "generator" in names else {}
    whole = not all(t.is_floating_point() for t in problem.inputs.tensors)
    if kind.layer_role == "read" and _default(kind, "layer") is None and layers:
        settings["layer"] = "auto" if "auto" in layers else "embeddings"
    elif kind.layer_role not in ("read", "own") and kind.needs_gradient and whole and "embeddings" in layers:
        settings["layer"] = "embeddings"
    if "sliding_window_shapes" in names:
        shape = problem.inputs.tensors[0].shape[1:]
        settings["sliding_window_shapes"] = tuple(
            n if i == 0 and len(shape) > 1 else -(-n // PARTS) for i, n in enumerate(shape)
        )
    return settings


def _cut_rows(inputs: Inputs, count: int) -> Inputs:
    tensors, structure = flatten(inputs)
    return structure.restore(tuple(t[:count] for t in tensors))


def _first_of(extra: object, n: int, count: int) -> object:
    """Return further arguments, those with n rows cut to the first ones."""
    if extra is None:
        return None
    values, structure = flatten(extra)
    cut = tuple(v[:count] if isinstance(v, Tensor) and v.dim() and n > 1 and len(v) == n else v for v in values)
    return structure.restore(cut)


def _feature_mask(row: Inputs) -> object:
    """Return a mask that puts elements together, squares of a picture or runs; None where there are few."""
    tensors, structure = flatten(row)
    if sum(t[0].numel() for t in tensors) <= MOST_FEATURES:
        return None
    masks, begin = [], 0
    for t in tensors:
        mask = _numbered(t[0].shape)
        masks.append(mask[None] + begin)
        begin += int(mask.max()) + 1
    return structure.restore(tuple(masks))


def _numbered(shape: torch.Size) -> Tensor:
    """Return numbers of at most ``MOST_FEATURES`` features of a row of some shape."""
    side = int(MOST_FEATURES**0.5)
    if len(shape) == 3:  # a picture
        down, across = (torch.arange(n) * min(side, n) // n for n in shape[1:])
        return (down[:, None] * side + across).expand(shape).unique(return_inverse=True)[1]
    n = shape.numel()
    return (torch.arange(n) * min(MOST_FEATURES, n) // n).view(shape)


def _n_features(mask: object) -> int:
    return int(torch.cat([m.flatten() for m in flatten(mask)[0]]).unique().numel())
