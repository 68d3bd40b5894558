"""From a caller's arguments to a checked, frozen :class:`torchwhy.problem.Problem`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from torchwhy.baselines import resolve_baseline, same_number
from torchwhy.engine.layers.auto_layer import last_grid_layer
from torchwhy.engine.layers.hooks import check_rows_first, record_activations
from torchwhy.engine.layers.resolve import LayerLike, ResolvedLayer, resolve_layer
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.black_box import as_model
from torchwhy.engine.run.freeze import freeze_parameters
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.run.rows import all_finite
from torchwhy.engine.run.tally import Tally
from torchwhy.engine.run.warn import warn_of_training
from torchwhy.engine.structure import Structure, flatten
from torchwhy.problem import ModelInputs, Problem
from torchwhy.targets import Neuron, Target, TargetLike, logits_per_row

LayerRole = Literal["input", "read", "own"]
PRECISIONS = {None: None, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(
    model: Any,
    inputs: Any,
    target: TargetLike = None,
    *,
    needs_gradient: bool = False,
    needs_float_inputs: bool = False,
    baselines: Any = None,
    uses_baselines: bool = False,
    baselines_are_rows: bool = False,
    feature_mask: Any = None,
    additional_forward_args: Any = None,
    layer: LayerLike | Sequence[LayerLike] | None = None,
    layer_role: LayerRole = "own",
    layers_may_depend: bool = False,
    attribute_to_layer_input: bool = False,
    draws: bool = False,
    generator: Seed = None,
    batch_size: int | None = None,
    precision: str | None = None,
    progress: bool = False,
    label: str = "",
    parent: Problem | None = None,
) -> Problem:
    """Return the checked problem.

    Args:
        model, inputs, target, baselines, feature_mask, additional_forward_args: as a caller gives them, see
            :meth:`torchwhy.Attribution.attribute`.
        needs_gradient: whether the model is differentiated, and so must take tensors.
        needs_float_inputs: refuse inputs that have no gradient.
        uses_baselines: whether baselines are wanted, zero without any.
        baselines_are_rows: a tensor of baselines is K rows to draw from.
        layer, attribute_to_layer_input: see :class:`torchwhy.Attribution`.
        layer_role: the model begins at the layer (``"input"``), the layer is read while the model runs (``"read"``), or the
            method does with it what it likes (``"own"``).
        layers_may_depend: whether layers with the role ``"input"`` may lie behind one another.
        draws: whether the method draws random numbers.
        generator: where these come from.
        batch_size, precision, progress: how the model is run.
        label: what the progress bar is called.
        parent: the problem of which this one is a part: its batching and tally hold here too.

    Raises:
        TypeError, ValueError, LookupError: an argument that makes no sense; the message names it.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r}: expected 'bf16', 'fp16' or None")
    data, structure = _model_inputs(inputs, additional_forward_args)
    function = as_model(model, gradient=needs_gradient)
    if needs_float_inputs and layer is None:
        _check_float_inputs(function, data)
    drawn = make_generator(generator) if draws else None
    resolved: tuple[Tensor, ...] = ()
    if uses_baselines:
        given = structure.match(baselines, "baselines")
        each = [resolve_baseline(b, x, drawn, distribution=baselines_are_rows) for b, x in zip(given, data.tensors)]
        resolved = same_number(each)
    if feature_mask is not None:
        explained = flatten(layer)[1] if layer is not None and layer_role == "input" else structure
        feature_mask = explained.match(feature_mask, "feature_mask")
    batching = Batching(
        batch_size,
        data.tensors,
        graph=needs_gradient,
        progress=progress,
        label=label,
        parent=None if parent is None else parent.batching,
        model=model,
    )
    problem = Problem(
        model=function,
        inputs=data,
        target=Target(),
        batching=batching,
        x=data.tensors,
        baselines=resolved,
        feature_mask=feature_mask,
        generator=drawn or torch.Generator(),
        precision=PRECISIONS[precision],
        tally=Tally() if parent is None else parent.tally,
    )
    with freeze_parameters(function) as held:
        if held.device is not None and held.device != data.tensors[0].device:
            raise ValueError(f"inputs: on {data.tensors[0].device}, but the model is on {held.device}")
        warn_of_training(held.noisy)
        problem = with_target(problem, target)
        layers = [] if layer_role == "own" else _resolve_layers(problem, layer, attribute_to_layer_input)
        if layer_role == "read":
            if not layers:
                raise ValueError(f"{label} explains by a layer: give layer=")
            return problem.replace(read_layers=tuple(layers))
        return _explain_by_layers(problem, tuple(layers), layers_may_depend) if layers else problem


def _model_inputs(inputs: Any, extra: Any) -> tuple[ModelInputs, Structure]:
    """Return the checked inputs and further arguments, and the structure of the inputs."""
    tensors, structure = flatten(inputs)
    if not tensors or not all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(
            "inputs: expected a tensor (N, ...), or a tuple or dict of them; got "
            + (", ".join(type(t).__name__ for t in tensors) or "nothing")
        )
    sizes = {len(t) if t.dim() else None for t in tensors}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        raise ValueError(
            "inputs: every tensor needs the same number of rows, at least one, in its first dimension; got the "
            f"shapes {', '.join(str(tuple(t.shape)) for t in tensors)}"
        )
    for t in tensors:
        if not all_finite(t):
            raise ValueError("inputs: NaN or infinite values")
    tensors = tuple(t.detach().clone() if t.is_inference() else t.detach() for t in tensors)
    if extra is None or isinstance(extra, Mapping):
        return ModelInputs(tensors, structure.names, (), dict(extra or {})), structure
    return ModelInputs(tensors, structure.names, flatten(extra)[0], {}), structure


def _check_float_inputs(model: Any, data: ModelInputs) -> None:
    """Refuse inputs that have no gradient where one is needed."""
    if all(t.is_floating_point() for t in data.tensors):
        return
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    tables = [name for name, m in modules if isinstance(m, (nn.Embedding, nn.EmbeddingBag))]
    instead = f"explain by the embedding layer, layer={tables[0]!r}" if tables else "pass their embeddings"
    raise TypeError(f"inputs: integers have no gradient; {instead}, or give them as additional_forward_args")


def with_target(problem: Problem, target: TargetLike) -> Problem:
    """Return the problem with a target as a caller gives it; some of these take running the model."""
    if isinstance(target, Neuron):
        neuron = resolve_layer(problem.model, target.layer)
        problem = problem.replace(neuron=neuron)
        with torch.no_grad():  # one row, to its end: does the layer run once?
            record_activations(problem.run.first_row, [neuron], stop=False)
    if isinstance(target, str):
        target = _predicted_classes(problem, target)
    return problem.replace(target=Target.parse(target, problem.n, problem.inputs.tensors[0].device))


def _predicted_classes(problem: Problem, target: str) -> list[int]:
    """Return the largest output of each row."""
    if target != "predicted":
        raise ValueError(f"target={target!r}: the only word is 'predicted'")
    with torch.no_grad():
        out = all_outputs(problem)
    if out.dim() != 2:
        raise ValueError(f"target='predicted' needs an output (N, classes), this one has shape {tuple(out.shape)}")
    return out.argmax(1).tolist()


def all_outputs(problem: Problem) -> Tensor:
    """Return the model's outputs ``(N, ...)`` for what is explained."""

    def outputs(a: int, b: int) -> Tensor:
        return logits_per_row(problem.run.outputs([t[a:b] for t in problem.x], problem.rows[a:b]), b - a)

    return problem.run.concatenated(problem.n, outputs)


def _resolve_layers(
    problem: Problem, layer: LayerLike | Sequence[LayerLike] | None, to_input: bool
) -> list[ResolvedLayer]:
    """Return the layers of the model that are named."""
    if layer is None:
        return []
    if not isinstance(problem.model, nn.Module):
        raise TypeError("layer: the model is a plain callable and has no layers")
    layers = flatten(layer)[0]
    if not layers:
        raise ValueError("layer: an empty list; give at least one layer, or None for the inputs")
    found = []
    for one in layers:
        auto = isinstance(one, str) and one == "auto"
        found.append(
            last_grid_layer(problem, input=to_input) if auto else resolve_layer(problem.model, one, input=to_input)
        )
    return found


def _explain_by_layers(problem: Problem, layers: tuple[ResolvedLayer, ...], may_depend: bool) -> Problem:
    """Return the problem in which the layers' tensors, at the inputs and at the baselines, are what is explained."""
    data, rows = problem.inputs, problem.rows
    if len(layers) > 1 and not may_depend and (pair := problem.run.find_dependent_pair(layers)):
        raise ValueError(
            f"layer: {pair[1]} lies behind {pair[0]}: what is put there takes away what passes it; explain by "
            "each in its own call"
        )
    x = problem.run.activations(layers, data.tensors, rows)
    check_rows_first(layers, x, problem.n)
    baselines = problem.baselines
    if baselines:
        k, m = len(baselines[0]), max(b.shape[1] for b in baselines)
        m = problem.n if data.args or data.kwargs else m
        z = [b.expand(k, m, *b.shape[2:]).flatten(0, 1) for b in baselines]
        at = problem.run.activations(layers, z, rows[:m].repeat(k))
        baselines = tuple(t.unflatten(0, (k, m)) for t in at)
    return problem.replace(x=x, baselines=baselines, input_layers=layers)
