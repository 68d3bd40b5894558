"""Hooks on layers: reading what passes them, putting something else in its layer."""

from __future__ import annotations

import difflib
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from torchwhy.engine import state
from torchwhy.engine.refusals import refuse_layer_in_transform, refuse_layer_of_graph, refuse_torchscript
from torchwhy.engine.run.autograd import UNCHANGED
from torchwhy.engine.run.shortcuts import without_compiled_code, without_nested_tensors
from torchwhy.engine.structure import Keywords, Output, nested_tensors, parts_by_key, replace_part
from torchwhy.engine.torch_internals import is_graph, transforms_are_active

if TYPE_CHECKING:
    from torchwhy.engine.layers.window_layout import BatchAxis


class Autoencoder(Protocol):
    """From tensors to codes, and back."""

    def encode(self, x: Tensor, /) -> Tensor:
        """Return the codes ``(..., latents)``."""

    def decode(self, codes: Tensor, /) -> Tensor:
        """Return what the codes stand for, ``(..., width)``."""


OutputKey = int | str | tuple[int | str, ...]


@dataclass(frozen=True)
class Layer:
    """A place in a model: one module, one of its calls, one of its tensors.

    Args:
        module: the module, or its dotted name (``"layer4.1.conv2"``).
        call: which call of a module that runs several times in one forward pass, from 0.
        output: which of several tensors: an index or key of its output, or of its arguments with ``input=True``; a tuple of
            them for one in a container inside, as ``(1, 0)`` for the last hidden state of an LSTM.
        input: the tensor that goes into the module, not the one that comes out.
        latents: an autoencoder, with ``encode`` and ``decode``, of which the codes of that tensor are meant. Where codes are
            replaced, what the autoencoder leaves out of the tensor stays.
    """

    module: nn.Module | str
    call: int | None = None
    output: OutputKey | None = None
    input: bool = False
    latents: Autoencoder | None = None


LayerLike = nn.Module | str | Layer


@dataclass(frozen=True)
class ResolvedLayer:
    """A :class:`Layer` found in a model; ``rows``: where its tensor has its rows, None where they come first."""

    name: str
    module: nn.Module
    call: int | None
    output: OutputKey | None
    input: bool
    rows: BatchAxis | None = None
    latents: Autoencoder | None = None

    def __str__(self) -> str:
        if not self.name:
            return f"the model's {'input' if self.input else 'output'} {'' if self.output is None else repr(self.output)}".strip()
        return f"{'latents of ' if self.latents else ''}{'the input of ' if self.input else ''}layer {self.name!r}"


def resolve_layer(model: nn.Module, layer: LayerLike, *, input: bool = False) -> ResolvedLayer:
    """Return the place that ``layer`` names in ``model``; ``"embeddings"`` is where token ids become vectors, if that is one.

    Raises:
        LookupError: no such layer (with the nearest names), or a module that is not part of the model.
        TypeError: a model that is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            "layer: the model is a plain callable and has no layers; give the module, with a callable target where the function "
            "picks something of its output, or a module that holds both"
        )
    if isinstance(model, torch.jit.ScriptModule):
        refuse_torchscript()
    where = layer if isinstance(layer, Layer) else Layer(layer)
    if isinstance(where.module, str):
        name = where.module
        if name == "embeddings":
            from torchwhy.engine.layers.embeddings import only_embeddings

            name = only_embeddings(model)
        if (graph := graph_around(model, name)) is not None:
            refuse_layer_of_graph(name, graph)
        try:
            module = model.get_submodule(name)
        except AttributeError:
            names = [n for n, _ in model.named_modules() if n]
            near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[-5:]
            raise LookupError(
                f"layer={name!r}: the model has no such layer; the nearest names are {', '.join(near)}"
            ) from None
    elif isinstance(where.module, nn.Module):
        module = where.module
        held = state.held_here.models.get(id(model))
        known = {m: n for n, m in model.named_modules()} if held is None else held.modules
        name = known.get(module, "")
        if module is not model and not name:
            raise LookupError(f"layer={type(module).__name__}(...): this module is not part of the model")
    else:
        raise TypeError(f"layer={where.module!r}: expected a module, its dotted name or tw.Layer")
    for part in ("encode", "decode"):
        if where.latents is not None and not callable(getattr(where.latents, part, None)):
            raise TypeError(
                f"latents: {type(where.latents).__name__} has no {part}; an autoencoder has encode and decode"
            )
    return ResolvedLayer(name, module, where.call, where.output, where.input or input, latents=where.latents)


def graph_around(model: nn.Module, name: str) -> str | None:
    """Return the name of the graph that a layer would run in without its module being called; None where it is called."""
    module: object = model
    parts = name.split(".") if name else []
    for i in range(len(parts) + 1):
        scripted = isinstance(module, torch.jit.RecursiveScriptModule)  # which takes no hooks
        may_be = i < len(parts) and isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule))
        if scripted or (may_be and is_graph(module)):
            return ".".join(parts[:i])
        module = getattr(module, parts[i], None) if i < len(parts) else None
    return None


@contextmanager
def hook_layers(
    layers: Sequence[ResolvedLayer], act: Callable[[int, Tensor], Tensor | None], *, own: bool = False
) -> Iterator[list[int]]:
    """Let ``act(i, tensor)`` see what passes ``layers[i]`` while open; what it returns, unless None, goes on instead.

    Yields the number of times that each layer was passed. Other threads that run the same model see nothing. What hooks of the
    user made of a layer's result is seen, or with ``own`` its own result.

    Raises:
        LookupError: a layer runs twice in one forward pass and its ``call`` was not chosen.
    """
    me, calls, handles = threading.get_ident(), [0] * len(layers), []

    def watch(i: int, layer: ResolvedLayer, module: nn.Module, args: tuple, value: object) -> Any:
        if threading.get_ident() != me:
            return None
        if transforms_are_active():
            refuse_layer_in_transform(layer)
        calls[i] += 1
        if layer.call is None and calls[i] > 1:
            raise LookupError(
                f"{layer} runs more than once in one forward pass: choose the call with "
                f"tw.Layer({layer.name!r}, call=0), call=1, ..."
            )
        if layer.call is not None and calls[i] != layer.call + 1:
            return None
        see = partial(act, i) if layer.latents is None else partial(_act_on_codes, layer.latents, partial(act, i))
        if isinstance(value, Tensor):
            if layer.output:  # 0 and None are the tensor itself
                raise LookupError(f"{layer}, output={layer.output!r}: the layer passes one tensor; leave output out")
            return see(value)
        key, tensor = _select_tensor(layer, value)
        new = see(tensor)
        return None if new is None else replace_part(value, key, new)

    def before(i: int, layer: ResolvedLayer, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        new = watch(i, layer, module, args, {**dict(enumerate(args)), **kwargs})
        return None if new is None else (tuple(new[k] for k in range(len(args))), {k: new[k] for k in kwargs})

    try:
        for i, layer in enumerate(layers):
            if layer.input:
                handle = layer.module.register_forward_pre_hook(partial(before, i, layer), with_kwargs=True)
            else:
                handle = layer.module.register_forward_hook(partial(watch, i, layer), prepend=own)
            handles.append(handle)
        models = state.held_here.models.values()
        nests, compiled = any([held.nests for held in models]), any([held.compiled for held in models])
        with without_nested_tensors() if nests else UNCHANGED, without_compiled_code() if compiled else UNCHANGED:
            yield calls
    finally:
        for handle in handles:
            handle.remove()


def _act_on_codes(latents: Autoencoder, act: Callable[[Tensor], Tensor | None], tensor: Tensor) -> Tensor | None:
    """Let ``act`` see the codes of a tensor; return the tensor with those that it gives, what is not in the codes as it was."""
    new = act(latents.encode(tensor))
    if new is None:
        return None
    left_out = tensor - latents.decode(latents.encode(tensor))  # encoded anew: no part of it depends on the codes seen
    return latents.decode(new) + left_out


def _select_tensor(layer: ResolvedLayer, value: object) -> tuple[OutputKey, Tensor]:
    """Return the tensor that is meant among those that a module passes, and its key there."""
    if layer.output is not None:
        each = nested_tensors(value)
        if layer.output not in each:
            raise LookupError(f"{layer}, output={layer.output!r}: there is no such tensor; there are {list(each)}")
        return layer.output, each[layer.output]
    tensors: dict[OutputKey, Tensor] = {k: v for k, v in parts_by_key(value).items() if isinstance(v, Tensor)}
    floats = {k: v for k, v in tensors.items() if v.is_floating_point()} or tensors
    if len(floats) != 1:
        floats = floats or nested_tensors(value)
        found = f"{len(floats)} tensors ({', '.join(map(repr, floats))})" if floats else f"a {type(value).__name__}"
        raise LookupError(f"{layer} passes {found}: choose one with tw.Layer({layer.name!r}, output=...)")
    return next(iter(floats.items()))


class _StopForward(Exception):
    """All layers were passed: the rest of the forward pass is not needed."""


def record_activations(
    run: Callable[[], object], layers: Sequence[ResolvedLayer], *, stop: bool = True
) -> list[Tensor]:
    """Return what passes ``layers`` while ``run()`` runs the model, which stops there (``stop=False``: runs to its end).

    Raises:
        LookupError: a layer was not passed.
    """
    seen: dict[int, Tensor] = {}

    def act(i: int, tensor: Tensor) -> None:
        seen[i] = tensor
        if stop and len(seen) == len(layers):
            raise _StopForward
        seen[i] = tensor.clone()  # what runs after it may work in layer

    with hook_layers(layers, act), suppress(_StopForward):
        run()
    found = [seen[i] if i in seen else _raise_not_run(layer) for i, layer in enumerate(layers)]
    return [t.clone() if t.is_inference() else t for t in found]  # a copy has a version, and can get a gradient


def _raise_not_run(layer: ResolvedLayer, when: str = "") -> Tensor:
    which = "" if layer.call is None else f" (call {layer.call})"
    around = layer.name.rpartition(".")[0]
    hint = (
        f"; if the module around it uses its parameters by itself, name that one, {around!r}"
        if around and not which
        else ""
    )
    raise LookupError(f"{layer}{which} did not run {when or 'in the forward pass' + hint}")


@contextmanager
def replace_activations(
    layers: Sequence[ResolvedLayer], values: Sequence[Tensor], goal: str = "the end of the forward pass"
) -> Iterator[None]:
    """Put ``values[i]`` (as many rows as the model is run on) in the place of what passes ``layers[i]`` while open.

    Raises:
        LookupError: a layer was not passed before ``goal`` was reached.
    """
    # a copy: the operations above may work in layer, and a leaf of the graph may not be written to
    with hook_layers(layers, lambda i, tensor: values[i].to(tensor.dtype, copy=True)) as calls:
        yield
    for layer, n in zip(layers, calls):
        if not n or (layer.call is not None and n <= layer.call):
            _raise_not_run(layer, f"before {goal}: the target does not depend on it")


@contextmanager
def trace_modules(model: nn.Module, *, complete: bool = False) -> Iterator[list[tuple[ResolvedLayer, Tensor]]]:
    """Keep the tensor that each module passes while open, in the order in which they finish, one entry a call.

    Modules that pass no tensor, or several, are left out, and such that run inside of a transform of ``torch.func``, which are
    refused if all must be seen (``complete``). Where operations build a graph, it begins at the first module
    inside of the model.
    """
    me, calls, kept, handles = threading.get_ident(), Counter[str](), [], []

    def keep(layer: ResolvedLayer) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Output) -> object:
            if threading.get_ident() != me:
                return None
            if transforms_are_active():
                return refuse_layer_in_transform(layer) if complete else None
            if not layer.name and not isinstance(output, Tensor) and len(nested_tensors(output)) != 1:
                return None  # which of them the answer is, nobody knows
            call, calls[layer.name] = calls[layer.name], calls[layer.name] + 1
            new = None
            with suppress(LookupError):
                key, tensor = (None, output) if isinstance(output, Tensor) else _select_tensor(layer, output)
                leaf = tensor.is_floating_point() and not tensor.requires_grad and not tensor.is_inference()
                if torch.is_grad_enabled() and leaf and layer.name:
                    tensor = tensor.detach().requires_grad_().clone()
                    new = tensor if key is None else replace_part(output, key, tensor)
                kept.append((replace(layer, call=call), tensor))
            return new

        return hook

    if isinstance(model, torch.jit.ScriptModule):
        refuse_torchscript()
    try:
        for name, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # which takes no hook
            handles.append(module.register_forward_hook(keep(ResolvedLayer(name, module, None, None, False))))
        held = state.held_here.models[id(model)]
        with (
            without_nested_tensors() if held.nests else UNCHANGED,
            without_compiled_code() if held.compiled else UNCHANGED,
        ):
            yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_with_grad(
    layers: Sequence[ResolvedLayer], goal: str = "", *, own: bool = False
) -> Iterator[dict[int, Tensor]]:
    """Keep what passes ``layers`` while open, so that it can be differentiated by; nothing below the lowest is.

    A tensor that is one of several may be used inside its module, as attention matrices are: there the graph begins at what goes
    into the module. With ``own`` it is what the layers give before hooks of the user change it.

    Raises:
        LookupError: a layer was not passed before ``goal`` was reached.
    """
    seen: dict[int, Tensor] = {}

    def act(i: int, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:  # whole numbers have no gradient
            tensor = tensor.detach().requires_grad_(tensor.is_floating_point() or tensor.is_complex())
        elif layers[i].input:  # as it goes in here, not where else it goes
            tensor = tensor.clone()
        seen[i] = tensor
        return tensor.clone()  # as in `replace_activations`

    inside = [layer for layer in layers if layer.output is not None and not layer.input]
    with hook_layers(layers, act, own=own), begin_graph_at(inside) if inside else UNCHANGED:
        yield seen
    for i, layer in enumerate(layers):
        if i not in seen:
            _raise_not_run(layer, f"before {goal}: the target does not depend on it" if goal else "")


@contextmanager
def begin_graph_at(layers: Sequence[ResolvedLayer]) -> Iterator[None]:
    """Let a graph begin at the first tensor of floats that goes into modules, where there is none yet, while open."""
    me, handles = threading.get_ident(), []

    def begin(module: nn.Module, args: tuple, kwargs: Keywords) -> tuple[tuple, Keywords] | None:
        given: dict[int | str, object] = dict(enumerate(args))
        given.update(kwargs)
        floats = (k for k, v in given.items() if isinstance(v, Tensor) and v.is_floating_point())
        first = next(floats, None)
        if first is None or threading.get_ident() != me or not torch.is_grad_enabled():
            return None
        tensor = given[first]
        if isinstance(tensor, Tensor) and not tensor.requires_grad:
            given[first] = tensor.detach().requires_grad_().clone()
        return tuple(given[k] for k in range(len(args))), {k: given[k] for k in kwargs}

    try:
        for module in {layer.module for layer in layers}:
            handles.append(module.register_forward_pre_hook(begin, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_dependent_pair(
    run: Callable[[], object], layers: Sequence[ResolvedLayer]
) -> tuple[ResolvedLayer, ResolvedLayer] | None:
    """Return two of ``layers``, the second of which depends on the first, by the graph of ``run()``; None without such."""
    with record_with_grad(layers) as seen:
        run()
    for upper in [i for i in seen if seen[i].grad_fn is not None]:
        lower = [i for i in seen if i != upper and seen[i].requires_grad]
        wrt, ones = [seen[i] for i in lower], torch.ones_like(seen[upper])
        slopes = torch.autograd.grad(seen[upper], wrt, ones, allow_unused=True, retain_graph=True)
        found = next((i for i, slope in zip(lower, slopes) if slope is not None), None)
        if found is not None:
            return layers[found], layers[upper]
    return None
