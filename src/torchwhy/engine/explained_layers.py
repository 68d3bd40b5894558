"""The layers that a question is explained by: from ``layer=`` to the tensors there, at the inputs and at the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.auto_layer import last_grid_layer
from torchwhy.engine.layers.embeddings import embeddings_of_inputs, find_embeddings
from torchwhy.engine.layers.layer import Layer, ResolvedLayer, resolve_layer
from torchwhy.engine.layers.row_axes import RowAxes
from torchwhy.engine.run.autograd import passes_states_besides
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Model, Structure, Tensors, flatten
from torchwhy.problem import ModelInputs, Problem
from torchwhy.settings import listed
from torchwhy.targets.target import Neuron, TargetLike

if TYPE_CHECKING:
    from torchwhy.engine.asker import Asker


def check_named_layers(asker: Asker) -> None:
    """Refuse a list of no layers, and no layer at all where a method explains by one.

    Raises:
        ValueError: it is so.
    """
    if listed(asker.layer) in ((), []):
        raise ValueError("layer: an empty list; give at least one layer, or None for the inputs")
    if asker.layer_role == "read" and asker.layer is None:
        raise ValueError(f"layer: {type(asker).__name__} explains by a layer; give layer=")


def named_places(asker: Asker, target: TargetLike) -> list[object]:
    """Return the layers that a question names, in the forms of ``layer=``: to explain by, of neurons, of components.

    A method that finds its layers by itself names the whole model, ``""``.
    """
    parts = [place for c in getattr(asker, "components", None) or () for place in (c.reads, c.writes)]
    neurons = [neuron for neuron in (target, getattr(asker, "neuron", None)) if isinstance(neuron, Neuron)]
    given = [] if asker.layer is None else list(flatten(asker.layer)[0])
    if not given and getattr(asker, "finds_layers", False):
        given = [""]
    return given + [neuron.layer for neuron in neurons] + [place for place in parts if place is not None]


def named_layers(model: Model, asker: Asker, inputs: ModelInputs) -> tuple[Any, ...]:
    """Return the layers that are named, None for what is found by running the model: ``"auto"``, and some ``"embeddings"``.

    None in a list of layers is an input: the one that is a tensor of floats.
    """
    if asker.layer is None:
        label = getattr(asker, "label", type(asker).__name__)
        raise ValueError(f"layer: {label} explains by a layer; give layer=")
    if not isinstance(model, nn.Module):
        raise TypeError(
            "layer: the model is a plain callable and has no layers; give the module itself, layer=net.fc, or a model that is one"
        )
    named = flatten(asker.layer)[0]
    if not named:
        raise ValueError("layer: an empty list; give at least one layer, or None for the inputs")
    several_ids = len(inputs.tensors) > 1 and sum(not t.is_floating_point() for t in inputs.tensors) > 1
    found: list[ResolvedLayer | None] = []
    for layer in named:
        if layer is None:
            found.append(resolve_layer(model, _input_of_floats(model, inputs)))
            continue
        if isinstance(layer, str) and layer == "embeddings":
            tables = find_embeddings(model)
            runs = len(tables) > 1 or several_ids
            found.append(None if runs else resolve_layer(model, tables[0].layer, input=asker.attribute_to_layer_input))
            continue
        auto = isinstance(layer, str) and layer == "auto"
        found.append(None if auto else resolve_layer(model, layer, input=asker.attribute_to_layer_input))
    return tuple(found)


def _input_of_floats(model: nn.Module, inputs: ModelInputs) -> Layer:
    """Return the place where the model takes its only input of floats.

    Raises:
        ValueError: it has several, or none.
    """
    names: Sequence[int | str] = inputs.names or range(len(inputs.tensors))
    keys = [key for key, t in zip(names, inputs.tensors) if t.is_floating_point()]
    if len(keys) != 1:
        raise ValueError(
            f"layer: None in a list is the input that is a tensor of floats, and there are {len(keys)}; name each as "
            "tw.Layer(model, input=True, output=position or keyword)"
        )
    return Layer(model, input=True, output=keys[0])


def layers_by_running(problem: Problem, asker: Asker, layers: tuple[ResolvedLayer | None, ...]) -> Problem:
    """Return the problem with the layers that are found by running the model as ``read_layers``; others as they are.

    ``"embeddings"`` of several inputs are as many layers, and what is found has the form of the inputs.
    """
    found: list[ResolvedLayer] = []
    for given, layer in zip(flatten(asker.layer)[0], layers):
        if layer is not None:
            found.append(layer)
        elif given == "auto":
            found.append(last_grid_layer(problem, input=asker.attribute_to_layer_input))
        else:
            tables, inputs = embeddings_of_inputs(problem, find_embeddings(problem.model))
            found += tables
            if len(tables) > 1:
                names, masks = problem.inputs.names, problem.feature_mask
                keys = None if names is None else tuple(names[i] for i in inputs if i is not None)
                form = Structure("tuple" if keys is None else "dict", keys, len(tables))
                problem = problem.replace(form=form)
                if masks is not None and len(masks) == 1:
                    problem = problem.replace(feature_mask=form.match(masks[0], "feature_mask"))
    if len(found) > len(layers) > 1:
        raise LookupError("layer: 'embeddings' is several layers here; name each of them, or give 'embeddings' alone")
    return problem.replace(read_layers=tuple(found))


def explain_by_layers(problem: Problem, layers: tuple[ResolvedLayer, ...], asker: Asker) -> Problem:
    """Return the problem in which the layers' tensors, at the inputs and at the baselines, are what is explained."""
    rows = problem.rows
    if len(layers) > 1 and not asker.layers_may_depend and (pair := problem.run.find_dependent_pair(layers)):
        raise ValueError(
            f"layer: {pair[1]} lies behind {pair[0]}; this method puts values of its own into each of its layers, and what is "
            f"put into {pair[1]} no longer depends on {pair[0]}: explain by each in its own call, or by all in one pass with a "
            "method that only reads them (InputXGradient, Saliency, LinearApproximation)"
        )
    axes = RowAxes(problem, layers)
    x = problem.run.activations(layers, problem.x, rows, axes)
    baselines = activations_at_baselines(problem, layers, axes) if problem.baselines else ()
    if problem.inputs.args or problem.inputs.kwargs:
        _warn_of_given_layers(layers, x, baselines)
    problem = problem.replace(x=x, baselines=baselines, input_layers=axes.placed())
    if not (asker.needs_gradient or asker.layers_may_depend):
        _warn_of_used_inside(problem)
    return problem


def _warn_of_given_layers(layers: tuple[ResolvedLayer, ...], x: Tensors, baselines: Tensors) -> None:
    """Warn of layers that pass the same at the baselines as at the inputs: they see further arguments, which stay."""
    for layer, at_inputs, at_baselines in zip(layers, x, baselines):
        if bool((at_inputs == at_baselines).all()):
            warn(
                f"{layer}: it passes the same at the baselines as at the inputs, and all attributions are zero there; what it "
                "sees are further arguments, which stay as they are: give them among the inputs"
            )


def _warn_of_used_inside(problem: Problem) -> None:
    """Warn of tensors that a layer hands back but uses inside, or that are not used: with others in their place nothing changes.

    Tried on the first row, where one of several tensors was chosen, or the steps of an LSTM, which passes its states besides.
    """
    aside, rows = problem.replace(tally=Tally(), check_finite=False), problem.rows[:1]
    z = [x[:1] for x in problem.x]
    for i, layer in enumerate(problem.input_layers):
        steps = passes_states_besides(layer)
        if (layer.output is None and not steps) or layer.input:
            continue
        other = [t + t.abs().max() + 1 if i == j else t for j, t in enumerate(z)]
        if torch.equal(aside.run.scores(z, rows), aside.run.scores(other, rows)):
            advice = (
                f"its last states are tw.Layer({layer.name!r}, output=(1, 0)) and (1, 1)"
                if steps
                else "what it uses inside, as attention matrices, can be read by gradients (InputXGradient, Conductance)"
            )
            warn(
                f"{layer}, output={0 if steps else layer.output!r}: the target does not depend on what it hands back, and all "
                f"attributions are zero there; {advice}"
            )


def activations_at_baselines(problem: Problem, layers: tuple[ResolvedLayer, ...], axes: RowAxes) -> tuple[Tensor, ...]:
    """Return what passes layers where the input is a baseline, tensors ``(K, N or 1, ...)``."""
    data, baselines = problem.inputs, problem.baselines
    k, m = len(baselines[0]), max(b.shape[1] for b in baselines)
    m = problem.n if data.args or data.kwargs else m
    z = [b.expand(k, m, *b.shape[2:]).flatten(0, 1) for b in baselines]
    at = problem.run.activations(layers, z, problem.rows[:m].repeat(k), axes)
    return tuple(t.unflatten(0, (k, m)) for t in at)
