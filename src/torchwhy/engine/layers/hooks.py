"""Hooks on layers: reading what passes them, putting something else in its place."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.resolve import ResolvedLayer
from torchwhy.engine.structure import parts_by_key, replace_part


@contextmanager
def hook_layers(places: Sequence[ResolvedLayer], act: Callable[[int, Tensor], Tensor | None]) -> Iterator[list[int]]:
    """While open, ``act(i, tensor)`` sees what passes ``places[i]``; what it returns, unless None, goes on instead.

    Yields the number of times that each place was passed. Other threads that run the same model see nothing.

    Raises:
        LookupError: a place is passed twice in one forward pass and its ``call`` was not chosen.
    """
    me, calls, handles = threading.get_ident(), [0] * len(places), []

    def watch(i: int, place: ResolvedLayer, value: Any) -> Any:
        calls[i] += 1
        if place.call is None and calls[i] > 1:
            raise LookupError(
                f"{place} runs more than once in one forward pass: choose the call with "
                f"tw.Layer({place.name!r}, call=0), call=1, ..."
            )
        if place.call is not None and calls[i] != place.call + 1:
            return None
        key, tensor = _select_tensor(place, value)
        new = act(i, tensor)
        return None if new is None else _replace_tensor(value, key, new)

    def before(i: int, place: ResolvedLayer) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> Any:
            new = watch(i, place, {**dict(enumerate(args)), **kwargs}) if threading.get_ident() == me else None
            return None if new is None else (tuple(new[k] for k in range(len(args))), {k: new[k] for k in kwargs})

        return hook

    def after(i: int, place: ResolvedLayer) -> Callable:
        return lambda module, args, output: watch(i, place, output) if threading.get_ident() == me else None

    try:
        for i, place in enumerate(places):
            handles.append(
                place.module.register_forward_pre_hook(before(i, place), with_kwargs=True)
                if place.input
                else place.module.register_forward_hook(after(i, place))
            )
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _select_tensor(place: ResolvedLayer, value: Any) -> tuple[int | str | None, Tensor]:
    """The tensor that is meant in a module's output (or arguments), and its key there."""
    if isinstance(value, Tensor):
        return None, value
    tensors = {k: v for k, v in parts_by_key(value).items() if isinstance(v, Tensor)}
    if place.output is not None:
        if place.output not in tensors:
            raise LookupError(f"{place}, output={place.output!r}: there is no such tensor; there are {list(tensors)}")
        return place.output, tensors[place.output]
    floats = {k: v for k, v in tensors.items() if v.is_floating_point()} or tensors
    if len(floats) != 1:
        found = f"{len(floats)} tensors ({', '.join(map(repr, floats))})" if floats else f"a {type(value).__name__}"
        raise LookupError(f"{place} passes {found}: choose one with tw.Layer({place.name!r}, output=...)")
    return next(iter(floats.items()))


def _replace_tensor(value: Any, key: int | str | None, new: Tensor) -> Any:
    """Return ``value`` with the tensor at ``key`` replaced, of the same type."""
    return new if key is None else replace_part(value, key, new)


class _StopForward(Exception):
    """All places were passed: the rest of the forward pass is not needed."""


def record_activations(run: Callable[[], Any], places: Sequence[ResolvedLayer], *, stop: bool = True) -> list[Tensor]:
    """What passes ``places`` while ``run()`` runs the model, which stops there (``stop=False``: runs to its end).

    Raises:
        LookupError: a place was not passed.
    """
    seen: dict[int, Tensor] = {}

    def act(i: int, tensor: Tensor) -> None:
        seen[i] = tensor
        if stop and len(seen) == len(places):
            raise _StopForward
        seen[i] = tensor.clone()  # what runs after it may work in place

    with hook_layers(places, act), suppress(_StopForward):
        run()
    return [seen[i] if i in seen else _raise_not_run(place) for i, place in enumerate(places)]


def _raise_not_run(place: ResolvedLayer, when: str = "") -> Tensor:
    which = "" if place.call is None else f" (call {place.call})"
    around = place.name.rpartition(".")[0]
    hint = (
        f"; if the module around it uses its parameters by itself, name that one, {around!r}"
        if around and not which
        else ""
    )
    raise LookupError(f"{place}{which} did not run {when or 'in the forward pass' + hint}")


@contextmanager
def replace_activations(
    places: Sequence[ResolvedLayer], values: Sequence[Tensor], goal: str = "the end of the forward pass"
) -> Iterator[None]:
    """While open, ``values[i]`` (as many rows as the model is run on) stands in for what passes ``places[i]``.

    Raises:
        LookupError: a place was not passed before ``goal`` was reached.
    """
    # a copy: the operations above may work in place, and a leaf of the graph may not be written to
    with hook_layers(places, lambda i, tensor: values[i].to(tensor.dtype, copy=True)) as calls:
        yield
    for place, n in zip(places, calls):
        if not n or (place.call is not None and n <= place.call):
            _raise_not_run(place, f"before {goal}: the target does not depend on it")


@contextmanager
def trace_modules(model: nn.Module) -> Iterator[list[tuple[ResolvedLayer, Tensor]]]:
    """While open, the tensor that each module passes is kept, in the order in which they finish, one entry a call.

    Modules that pass no tensor, or several, are left out. Where operations build a graph, it begins at the first module.
    """
    me, calls, kept, handles = threading.get_ident(), Counter[str](), [], []

    def keep(place: ResolvedLayer) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> Any:
            if threading.get_ident() != me:
                return None
            call, calls[place.name] = calls[place.name], calls[place.name] + 1
            new = None
            with suppress(LookupError):
                key, tensor = _select_tensor(place, output)
                if torch.is_grad_enabled() and tensor.is_floating_point() and not tensor.requires_grad:
                    tensor = tensor.detach().requires_grad_().clone()
                    new = _replace_tensor(output, key, tensor)
                kept.append((replace(place, call=call), tensor))
            return new

        return hook

    try:
        for name, module in model.named_modules():
            handles.append(module.register_forward_hook(keep(ResolvedLayer(name, module, None, None, False))))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def record_with_grad(places: Sequence[ResolvedLayer]) -> Iterator[dict[int, Tensor]]:
    """While open, what passes ``places`` is kept and can be differentiated by; nothing below the lowest is."""
    seen: dict[int, Tensor] = {}

    def act(i: int, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad:  # whole numbers have no gradient
            tensor = tensor.detach().requires_grad_(tensor.is_floating_point() or tensor.is_complex())
        seen[i] = tensor
        return tensor.clone()  # as in `replace_activations`

    with hook_layers(places, act):
        yield seen
    for i, place in enumerate(places):
        if i not in seen:
            _raise_not_run(place)


def find_dependent_pair(
    run: Callable[[], Any], places: Sequence[ResolvedLayer]
) -> tuple[ResolvedLayer, ResolvedLayer] | None:
    """Two of ``places``, the second of which passes what depends on the first, by the graph of ``run()``; or None."""
    with record_with_grad(places) as seen:
        run()
    for upper in [i for i in seen if seen[i].grad_fn is not None]:
        lower = [i for i in seen if i != upper and seen[i].requires_grad]
        wrt, ones = [seen[i] for i in lower], torch.ones_like(seen[upper])
        slopes = torch.autograd.grad(seen[upper], wrt, ones, allow_unused=True, retain_graph=True)
        found = next((i for i, slope in zip(lower, slopes) if slope is not None), None)
        if found is not None:
            return places[found], places[upper]
    return None


def check_rows_first(places: Sequence[ResolvedLayer], tensors: Sequence[Tensor], n: int) -> None:
    """Refuse layers that do not pass ``n`` rows."""
    for place, t in zip(places, tensors):
        if len(t) != n:
            shape = f"{place} passes a tensor of shape {tuple(t.shape)} for {n} rows"
            raise ValueError(f"{shape}: its first dimension must be the rows")
