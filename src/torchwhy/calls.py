"""How a method is called: inputs, the target, and everything else by name; what is said of a call that is not so."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping
from functools import wraps
from typing import NoReturn, TypeVar, cast

Call = TypeVar("Call", bound=Callable[..., object])

# arguments of Captum's calls that have another name or place here
ARGUMENTS = {
    "return_convergence_delta": "explain(...).completeness_gap is the size of that difference",
    "internal_batch_size": "batch_size= is a setting, found by itself if left out",
    "perturbations_per_eval": "batch_size= is a setting, found by itself if left out",
    "abs": "Saliency(model, signed=True) keeps the signs",
    "nt_type": "SmoothGrad, SquareGrad and VarGrad are methods of their own, with of=method",
    "nt_samples": "n_samples= is a setting of SmoothGrad, SquareGrad and VarGrad",
    "neuron_selector": "a neuron is a target: tw.Neuron(layer, index)",
    "return_input_shape": "explain(...).features() has one number for each feature",
    "show_progress": "progress=True is a setting",
}


def shown_with_target(call: Call) -> Call:
    """Return a function of ``(self, inputs, *second, target=None, ...)`` that shows ``target`` in its second place."""
    signature = inspect.signature(call)
    named = dict(signature.parameters)
    target, given = named.pop("target"), [p for p in named.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    later = [p for p in named.values() if p.kind is p.KEYWORD_ONLY]
    first = [*given, target.replace(kind=target.POSITIONAL_OR_KEYWORD)]
    call.__signature__ = signature.replace(parameters=[*first, *later])  # type: ignore[attr-defined]
    return call


def only_by_name(call: Call) -> Call:
    """Return a function of ``(self, inputs, target, *, ...)`` that says what is wrong with a call in words of its own."""
    named = tuple(inspect.signature(call).parameters)
    known = frozenset(named)

    @wraps(call)
    def checked(method: object, *given: object, **data: object) -> object:
        if len(given) > 2 or (len(given) > 1 and named[2] in data) or not known.issuperset(data):
            refuse_call(method, call.__name__, named[2], given, data, known)
        return call(method, *given, **data)

    return cast(Call, checked)


def refuse_second(
    method: object, second: tuple[object, ...], target: object, unknown: Mapping[str, object]
) -> NoReturn:
    """Refuse a call of ``attribute`` that has more in its second place than the target, or names that there are not.

    Raises:
        TypeError: always.
    """
    named = unknown if target is None or not second else {"target": target, **unknown}
    refuse_call(method, "attribute", "target", (None, *second), named, {"target"})


def refuse_call(
    method: object,
    call: str,
    target: str,
    given: tuple[object, ...],
    named: Mapping[str, object],
    known: Container[str],
) -> NoReturn:
    """Refuse arguments that a method's call does not take, and say where they belong.

    Args:
        method: the method.
        call: what is called, ``"attribute"``.
        target: what its second argument is called.
        given: the arguments without a name, the inputs first.
        named: those with one.
        known: the names that there are.

    Raises:
        TypeError: always.
    """
    kind = type(method).__name__
    unknown = next((name for name in named if name not in known), None)
    if len(given) > 1 and target in named:
        raise TypeError(
            f"{kind}.{call}: the second argument is {target}, and {target}= is given besides; baselines go by name: "
            f"{call}(inputs, {target}, baselines=...), and what a method is set to goes to {kind}(model, ...)"
        )
    if unknown is None:
        raise TypeError(
            f"{kind}.{call}: after inputs and {target} everything is given by name: "
            f"{call}(inputs, {target}, baselines=..., additional_forward_args=...)"
        )
    hint = ARGUMENTS.get(unknown, f"there are inputs, {target}, baselines, feature_mask and additional_forward_args")
    if unknown in getattr(type(method), "__dataclass_fields__", {}):
        hint = f"it is a setting: {kind}(model, {unknown}=...).{call}(inputs, {target})"
    elif unknown in ("target", "targets"):
        hint = f"it is {target}= here"
    raise TypeError(f"{kind}.{call}: no argument {unknown!r}; {hint}")
