"""From a caller's arguments to a checked, frozen :class:`torchwhy.problem.Problem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.baselines import AtLayer, Distribution, resolve_baseline, same_number, weights_of
from torchwhy.engine import state
from torchwhy.engine.asker import Asker, Question, with_model
from torchwhy.engine.axes import Axes, AxesLike, axes_of_inputs
from torchwhy.engine.explained_layers import explain_by_layers, layers_by_running, named_layers, named_places
from torchwhy.engine.further_arguments import positional_names, read_further, takes_one_row
from torchwhy.engine.layers.function_layers import function_with_places
from torchwhy.engine.layers.layer import ResolvedLayer, record_activations, resolve_layer
from torchwhy.engine.missing_values import check_takes_missing, first_row
from torchwhy.engine.random_models import notice_randomness
from torchwhy.engine.refusals import (
    refuse_besides_sample,
    refuse_facts_about_tokens,
    refuse_inputs,
    refuse_without_gradient,
)
from torchwhy.engine.run.autograd import HeldModel, freeze_parameters
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.black_box import as_model, columns_of_labels
from torchwhy.engine.run.randomness import make_generator
from torchwhy.engine.run.rows import RowForm, Stacked, all_finite, rows_between
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.run.warn import warn_of_training
from torchwhy.engine.samples import ask_about
from torchwhy.engine.structure import Model, Output, Structure, flatten
from torchwhy.engine.tables import as_tensors, column_names, frame_form, holds_tables, mask_of_columns, warn_of_labels
from torchwhy.engine.trials import try_rows
from torchwhy.problem import ModelInputs, Problem
from torchwhy.targets.predicted import fill_in_predicted, found_by_running, needs_outputs
from torchwhy.targets.target import Neuron, Target, TargetLike, logits_per_row

NO_ROWS = {(), (0,)}  # shapes of a tensor's rows that there are none of
PRECISIONS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(
    model: Model,
    inputs: object,
    target: TargetLike = None,
    *,
    baselines: object = None,
    feature_mask: object = None,
    additional_forward_args: object = None,
    axes: AxesLike = None,
    **how: Any,
) -> Problem:
    """Return the checked problem of somebody who is no method; ``how`` are the fields of :class:`Question`."""
    question = Question(model=model, **how)
    return prepare_for(question, inputs, target, baselines, feature_mask, additional_forward_args, axes=axes)


def prepare_for(
    asker: Asker,
    inputs: object,
    target: TargetLike = None,
    baselines: object = None,
    feature_mask: object = None,
    additional_forward_args: object = None,
    parent: Problem | None = None,
    axes: AxesLike = None,
) -> Problem:
    """Return the checked problem of a call.

    Args:
        asker: the method, or a :class:`Question`.
        inputs, target, baselines, feature_mask, additional_forward_args, axes: as a caller gives them, see
            :meth:`torchwhy.Attribution.attribute`.
        parent: the problem of which this one is a part: its batching and tally hold here too.

    Raises:
        TypeError, ValueError, LookupError: an argument that makes no sense; the message names it.
    """
    given = (baselines, feature_mask, additional_forward_args)
    if not isinstance(inputs, Tensor) and (hasattr(inputs, "masked") or holds_tables(inputs)):
        return _prepare_for_sample_or_table(asker, inputs, target, given, parent, axes)
    data = _model_inputs(asker, inputs, additional_forward_args, feature_mask, is_part=parent is not None)
    told = () if axes is None and parent is None else axes_of_inputs(axes, data.tensors, data.structure, parent)
    first, layer, model = data.tensors[0], asker.layer, asker.model
    if not isinstance(model, nn.Module):
        model, target = _as_model(asker, target, is_part=parent is not None)
    draws = hasattr(asker, "generator") or baselines is not None
    drawn = make_generator(getattr(asker, "generator", None)) if draws else None
    if baselines is not None or feature_mask is not None:
        feature_mask = _check_uses(asker, data.structure, baselines, feature_mask)
    needs_layer = asker.layer_role == "read" or (asker.layer_role == "input" and layer is not None)
    layers = named_layers(model, asker, data) if needs_layer else ()
    runs = type(target) is not int and found_by_running(target)
    how = {"graph": asker.needs_gradient, "progress": asker.progress, "model": asker.model}
    most = 1 if (data.args or data.kwargs) and takes_one_row(data.args, data.kwargs) else asker.batch_size
    outer, label = None if parent is None else parent.batching, getattr(asker, "label", type(asker).__name__)
    beyond = baselines if isinstance(baselines, AtLayer) else None
    resolves = beyond is None and (asker.uses_baselines or (asker.takes_baselines and baselines is not None))
    problem = Problem(
        model=model,
        inputs=data,
        target=Target() if runs else Target.parse(target, len(first), first.device),
        batching=Batching(most, data.tensors, label=label, parent=outer, **how),
        x=data.tensors,
        baselines=_resolve_baselines(asker, data.tensors, data.structure, baselines, drawn, told) if resolves else (),
        baseline_weights=_weights_of(asker, data, baselines) if resolves and baselines is not None else None,
        feature_mask=feature_mask,
        read_layers=layers if asker.layer_role == "read" else (),
        generator=drawn or torch.Generator(),
        precision=PRECISIONS[asker.precision],
        tally=Tally() if parent is None else parent.tally,
        table=None if parent is None else parent.table,
        axes=told,
    )
    return _resolve_held(problem, asker, target, layers, beyond, runs=runs, is_tried=asker.check and parent is None)


def _resolve_held(
    problem: Problem,
    asker: Asker,
    target: TargetLike,
    layers: tuple[ResolvedLayer | None, ...],
    at_layer: AtLayer | None,
    *,
    runs: bool,
    is_tried: bool,
) -> Problem:
    """Return the problem, checked beside its model, with what it takes running this to know.

    Args:
        problem: without that.
        asker: see :func:`prepare_for`.
        target: as the caller gives it.
        layers: that are named; None where the model's run tells which one is meant.
        at_layer: baselines of the layers.
        runs: whether it takes the model's run to know the target.
        is_tried: whether the rows are tried on the model.
    """
    data, device = problem.inputs, problem.inputs.tensors[0].device
    held_already = state.held_here.models.get(id(problem.model))
    with freeze_parameters(problem.model) if held_already is None else nullcontext(held_already) as held:
        if held.noisy or held.device not in (None, device):
            _check_held(held, device)
        if not asker.needs_gradient and not all(map(all_finite, (*data.tensors, *problem.baselines))):
            check_takes_missing(problem)
        if is_tried and (len(data.tensors[0]) > 1 or data.args or data.kwargs) and not held.noisy:
            problem = try_rows(problem, getattr(asker, "owner", asker.model), target)
        if runs or None in layers or (layers and asker.layer_role == "input"):
            problem = _resolve_by_running(problem, asker, target, layers)
        if at_layer is not None:
            problem = _with_baselines_at_layer(problem, asker, at_layer)
        if held.may_draw and is_tried:
            notice_randomness(problem, held)
        return problem


def _prepare_for_sample_or_table(
    asker: Asker, inputs: object, target: TargetLike, given: tuple[object, ...], parent: Problem | None, axes: AxesLike
) -> Problem:
    """Return the problem of a sample, or of tables and arrays, which are tensors with something besides."""
    baselines, feature_mask, arguments = given
    if hasattr(inputs, "masked"):
        compares = getattr(asker, "compares_inputs", False)  # with another sample
        refuse_besides_sample(baselines=None if compares else baselines, feature_mask=feature_mask, arguments=arguments)
        asked = ask_about(asker, inputs, target, baselines)
        told = asked.features.sample.axes if axes is None else axes
        told = None if asked.features.is_game else told  # a game's tensor says which features are there
        return prepare_for(*asked[:-1], parent, told).replace(sample=asked.features, form=None)
    columns = column_names(inputs)
    if columns is not None and isinstance(feature_mask, Mapping):
        feature_mask, columns = mask_of_columns(feature_mask, columns)
    table = frame_form(inputs, baselines, getattr(asker, "plausible", None))
    model, inputs, baselines = as_tensors(asker.model, inputs, baselines, table)
    problem = prepare_for(with_model(asker, model), inputs, target, baselines, feature_mask, arguments, parent, axes)
    if table is not None and baselines is None and problem.baselines and table.categories:
        warn_of_labels(table)
    return problem.replace(columns=columns, table=table)


def _as_model(asker: Asker, target: TargetLike, *, is_part: bool) -> tuple[Model, TargetLike]:
    """Return a model that is no module as one that takes tensors, and the target by its columns, if that is not done yet."""
    model = as_model(function_with_places(asker.model, named_places(asker, target)), gradient=asker.needs_gradient)
    return model, target if is_part else columns_of_labels(model, target)


def _with_baselines_at_layer(problem: Problem, asker: Asker, given: AtLayer) -> Problem:
    """Return the problem with baselines that are those of its layers: what a gradient is multiplied by, or what is put in."""
    form = problem.form or flatten(asker.layer)[1]
    if asker.reads_gradient:
        return problem.replace(absence=form.match(given.value, "baselines"))
    return problem.replace(baselines=_resolve_baselines(asker, problem.x, form, given.value, problem.generator))


def _check_uses(asker: Asker, inputs: Structure, baselines: object, feature_mask: object) -> tuple | None:
    """Return the feature mask of each tensor that is explained; refuse baselines and masks of whom has no use for them."""
    if baselines is not None and not (asker.uses_baselines or asker.takes_baselines):
        raise TypeError(f"baselines: {type(asker).__name__} has no use for them; leave them out")
    if feature_mask is not None and not asker.uses_feature_mask:
        raise TypeError(f"feature_mask: {type(asker).__name__} has no use for them; leave them out")
    if isinstance(baselines, AtLayer) and (asker.layer is None or asker.layer_role != "input"):
        raise TypeError("baselines: tw.AtLayer is for methods that explain by a layer; give layer=")
    if feature_mask is None:
        return None
    at_layer = asker.layer is not None and asker.layer_role == "input"
    return (flatten(asker.layer)[1] if at_layer else inputs).match(feature_mask, "feature_mask")


def _check_held(held: HeldModel, device: torch.device) -> None:
    """Refuse a model on another device than the inputs', and warn of one in training mode."""
    if held.device not in (None, device):
        raise ValueError(f"inputs: on {device}, but the model is on {held.device}")
    warn_of_training(held.noisy)


def _resolve_by_running(
    problem: Problem, asker: Asker, target: TargetLike, layers: tuple[ResolvedLayer | None, ...]
) -> Problem:
    """Return the problem with its target and layers, where it takes the model's run to know them."""
    if found_by_running(target):
        problem = with_target(problem, target)
    if None in layers:
        problem = layers_by_running(problem, asker, layers)
        layers = problem.read_layers
    found = tuple(layer for layer in layers if layer is not None)
    if found and asker.layer_role == "input" and not asker.reads_gradient:
        return explain_by_layers(problem.replace(read_layers=()), found, asker)
    return problem.replace(read_layers=found)


def _resolve_baselines(
    asker: Asker,
    tensors: Sequence[Tensor],
    structure: Structure,
    given: object,
    generator: torch.Generator | None,
    told: tuple[Axes | None, ...] = (),
) -> tuple[Tensor, ...]:
    """Return baselines ``(K, N or 1, ...)`` for each tensor; zero, if none are given."""
    if given is None:
        return tuple(torch.zeros_like(x[:1])[None] for x in tensors)
    rows, each = asker.baselines_are_rows, structure.match(given, "baselines")
    lying = told or (None,) * len(tensors)
    found = same_number(
        [resolve_baseline(b, x, generator, distribution=rows, axes=a) for b, x, a in zip(each, tensors, lying)]
    )
    if asker.needs_gradient and not all(map(all_finite, found)):
        raise ValueError("baselines: NaN or infinite values")
    return found


def _weights_of(asker: Asker, data: ModelInputs, given: object) -> Tensor | None:
    """Return how much each baseline counts, ``(K,)``; None where all count alike."""
    each = data.structure.match(given, "baselines")
    k = max((len(b.data) for b in each if isinstance(b, Distribution)), default=1)
    weights = weights_of(each, k, data.tensors[0].device)
    if weights is not None and not getattr(asker, "takes_weights", False):
        raise TypeError(
            f"baselines: {getattr(asker, 'label', type(asker).__name__)} counts all rows alike; leave their weights out, or take "
            "ExpectedGradients, DeepSHAP or a Shapley method"
        )
    return weights


def _model_inputs(asker: Asker, inputs: object, extra: object, feature_mask: object, *, is_part: bool) -> ModelInputs:
    """Return the checked inputs and further arguments: real and finite inputs, where a gradient is wanted."""
    given, structure = flatten(inputs)
    forms: tuple[RowForm, ...] = ()
    if any(isinstance(part, Stacked) for part in given):
        forms = tuple(part.form if isinstance(part, Stacked) else None for part in given)
        given = tuple(part.rows if isinstance(part, Stacked) else part for part in given)
    if not given or not all(isinstance(t, Tensor) and t.layout is torch.strided for t in given):
        refuse_inputs(given)
    if any(t.is_nested or t.is_meta for t in given):
        refuse_inputs(given)
    sizes = {t.shape[:1] for t in given}
    if len(sizes) != 1 or sizes & NO_ROWS:
        raise ValueError(
            "inputs: every tensor needs the same number of rows, at least one, in its first dimension; got the "
            f"shapes {', '.join(str(tuple(t.shape)) for t in given)}"
        )
    if not all(t.numel() for t in given):
        raise ValueError(
            f"inputs: rows without elements, of the shapes {', '.join(str(tuple(t.shape)) for t in given)}"
        )
    tensors = tuple(t.detach().clone() if t.is_inference() else t.detach() for t in given)
    if asker.needs_gradient and not all(map(all_finite, tensors)):
        row = min(first_row(t) for t in tensors if not all_finite(t))
        raise ValueError(f"inputs: row {row:,} holds NaN or infinite values")
    floats = asker.needs_gradient if asker.needs_float_inputs is None else asker.needs_float_inputs
    if floats and asker.layer is None and not all(t.is_floating_point() for t in tensors):
        begins, else_ = asker.layer_role == "input" and not is_part, getattr(asker, "does_without", "")
        refuse_without_gradient(asker.model, tensors, begins_at_layer=begins, does_without=else_)
    if len(tensors) > 1 and asker.layer is None and (asker.uses_baselines or asker.layer_role == "input"):
        refuse_facts_about_tokens(tensors, structure.names or positional_names(asker.model), feature_mask)
    args, kwargs = ((), {}) if extra is None else read_further(extra, len(tensors[0]), asker.model, {}, len(tensors))
    return ModelInputs(tensors, structure.names, args, kwargs, forms, structure)


def with_target(problem: Problem, target: TargetLike) -> Problem:
    """Return the problem with a target as a caller gives it; some of these take running the model."""
    if isinstance(target, Neuron):
        neuron = resolve_layer(problem.model, target.layer)
        problem = problem.replace(neuron=neuron)
        with torch.no_grad():  # one row, to its end: does the layer run once?
            record_activations(problem.run.first_row, [neuron], stop=False)
    if needs_outputs(target):
        target = fill_in_predicted(target, partial(_read_outputs, problem))
    return problem.replace(target=Target.parse(target, problem.n, problem.inputs.tensors[0].device))


def all_outputs(problem: Problem) -> Tensor:
    """Return the model's outputs ``(N, ...)`` for what is explained."""
    return _read_outputs(problem, lambda output, rows: logits_per_row(output, len(rows)))


def _read_outputs(problem: Problem, read: Callable[[Output, Tensor], Tensor]) -> Tensor:
    """Return what ``read(output, rows)`` finds in the model's outputs for what is explained, for all rows."""

    if problem.n_targets > 1:  # the same for all of them
        x = tuple(x[:: problem.n_targets] for x in problem.x)
        return _read_outputs(problem.replace(n_targets=1, x=x), read).repeat_interleave(problem.n_targets, 0)

    def work(a: int, b: int) -> Tensor:
        rows = problem.rows[a:b]
        return read(problem.run.outputs(rows_between(problem.x, a, b), rows), rows)

    with torch.no_grad():
        return problem.run.concatenated(problem.n, work)
