"""Containers of tensors: a tensor, a tuple or list, or a dict of them, taken apart and put together again.

This is the one place that asks what a container is: everywhere else there is a tuple of tensors and a :class:`Structure`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DEPTH = 8  # of objects within objects
PLAIN = (str, bytes, int, float, complex, type(None), type, torch.dtype, torch.device)
Tensors = tuple[Tensor, ...]
Model = object  # a module, a callable from tensors or arrays to such, or a scikit-learn estimator
Output = object  # what a model, a module or an operation returns: a tensor, or whatever holds some
InForm = object  # a tensor, or a tuple or dict of them: what goes in and comes out; None where there is none
# The same where it is used as what it must be, or was found to be, without a type that says so.
AnyModel = Any
PREDICTING = (
    "predict_proba",
    "decision_function",
    "predict",
)  # how models that cannot be called are asked, the best first
AnyOutput = Any
AnyForm = Any
Keywords = dict[str, Any]  # arguments, settings or facts by name


class RowList(list):
    """Rows that have shapes of their own, one tensor each: one part, and not as many as it has tensors."""


@dataclass(frozen=True)
class Structure:
    """How parts were put together.

    Args:
        kind: ``"single"`` part, ``"tuple"``, ``"dict"``, or a ``"sample"``, which is one part.
        names: the keys of a dict.
        n: how many parts there are.
    """

    kind: str
    names: tuple[str, ...] | None = None
    n: int = 1

    def restore(self, parts: Sequence[object]) -> Any:
        """Return parts put together in this way."""
        if self.kind in ("single", "sample"):
            return parts[0]
        return dict(zip(self.names, parts)) if self.names is not None else tuple(parts)

    def match(self, value: object, name: str) -> tuple[Any, ...]:
        """Return one value for each part; a single one stands for all, and a dict may leave some out (None).

        Args:
            value: what a caller gave.
            name: of the argument, for errors.

        Raises:
            ValueError: names that there are not, or another number of values.
        """
        if self.names is not None:
            if not isinstance(value, Mapping):
                return (value,) * self.n
            unknown = set(value) - set(self.names)
            if unknown:
                raise ValueError(f"{name}: no inputs are called {', '.join(map(repr, sorted(unknown)))}")
            return tuple(value.get(key) for key in self.names)
        if (
            isinstance(value, list)
            and self.kind == "single"
            and all(isinstance(v, (int, float, str, list)) for v in value)
        ):
            return (value if name == "feature_mask" else torch.tensor(value, dtype=torch.double),)
        if isinstance(value, (tuple, list)):
            if len(value) != self.n:
                raise ValueError(f"{name}: {len(value)} given for {self.n} input tensors or layers")
            return tuple(value)
        return (value,) * self.n


SINGLE = Structure("single")


def structure_of_some(names: Sequence[str] | None, n: int, numbers: Sequence[int]) -> Structure | None:
    """Return how results for some of n inputs are put together: one by itself, several as the inputs are.

    None: they are for all of them, and so in the form of the inputs.

    Args:
        names: the inputs' names, None where they have none.
        n: how many inputs there are.
        numbers: of those that have a result.
    """
    if len(numbers) == n:
        return None
    if len(numbers) == 1:
        return SINGLE
    if names is None:
        return Structure("tuple", n=len(numbers))
    return Structure("dict", tuple(names[i] for i in numbers), len(numbers))


def flatten(value: object) -> tuple[tuple[Any, ...], Structure]:
    """Return the parts of a tensor (itself), a tuple, a list or a mapping, and how to put such parts together."""
    if isinstance(value, Tensor):  # by far the most, and quickly told
        return (value,), SINGLE
    if isinstance(value, (tuple, list)) and not isinstance(value, RowList):
        return tuple(value), Structure("tuple", n=len(value))
    if isinstance(value, Mapping):
        return tuple(value.values()), Structure("dict", tuple(value), len(value))
    return (value,), Structure("sample") if hasattr(value, "masked") else SINGLE


def as_tuple(value: object) -> tuple[Any, ...]:
    """Return what is in a tuple or list; anything else, a mapping too, by itself."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def parts_by_key(value: Any) -> dict[int | str, object]:
    """Return the parts of a mapping by key, of a tuple or list by position; nothing for other objects."""
    if hasattr(value, "items"):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, (tuple, list)) else {}


def named_parts(value: object) -> dict[int | str, Any]:
    """Return the parts of a model's output by name: also of named tuples and of objects with attributes."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    return parts_by_key(value) or dict(getattr(value, "__dict__", {}))


def nested_tensors(value: object) -> dict[int | str | tuple[int | str, ...], Tensor]:
    """Return the tensors in a container by key or position, those of containers inside by a tuple of these."""
    found: dict[int | str | tuple[int | str, ...], Tensor] = {}
    for key, part in parts_by_key(value).items():
        if isinstance(part, Tensor):
            found[key] = part
            continue
        for inner, tensor in nested_tensors(part).items():
            found[(key, *inner) if isinstance(inner, tuple) else (key, inner)] = tensor
    return found


def replace_part(value: Any, key: int | str | tuple[int | str, ...], new: Any) -> object:
    """Return a container of the same type with the part at ``key`` replaced; a tuple leads through containers inside."""
    if isinstance(key, tuple):
        first, *inside = key
        if inside:
            new = replace_part(parts_by_key(value)[first], tuple(inside), new)
        key = first
    if hasattr(value, "items"):
        named = {**value, key: new}
        return named if type(value) is dict else type(value)(**named)
    items = [new if k == key else v for k, v in enumerate(value)]
    return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)


def index_output(output: Any, at: Tensor, m: int) -> Any:
    """Return the part of a model's output for m rows that belongs to the rows ``at``: of every tensor with m rows.

    A list of m things that are no tensors holds one for each row, as detectors give it. Objects are copied, not changed.
    """
    if isinstance(output, Tensor):
        return output[at.to(output.device)] if output.dim() and len(output) == m else output
    if isinstance(output, list) and len(output) == m and not any(isinstance(v, Tensor) for v in output):
        return [output[i] for i in at.tolist()]
    if isinstance(output, (tuple, list)):
        items = [index_output(v, at, m) for v in output]
        return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)
    parts = {k: v for k, v in named_parts(output).items() if isinstance(v, (Tensor, tuple, list, Mapping))}
    changed = {k: new for k, v in parts.items() if (new := index_output(v, at, m)) is not v}
    if not changed:
        return output
    found = copy.copy(output)
    if isinstance(output, Mapping):
        for key, value in changed.items():
            found[key] = value
    else:
        vars(found).update({str(key): value for key, value in changed.items()})
    return found


def map_nested(
    function: Callable[..., object], value: object, *others: Any, whole: type | tuple[type, ...] = ()
) -> Any:
    """Return ``value`` with the function applied to everything in its tuples, lists and dicts.

    Args:
        function: takes what is in ``value`` and, behind it, what the others have in its place.
        value: whose form the result has.
        others: of the same form.
        whole: kinds of containers that are handed to the function, and not taken apart.
    """
    if not isinstance(value, (tuple, list, dict)) or (whole and isinstance(value, whole)):
        return function(value, *others)
    if isinstance(value, dict):
        named = {k: map_nested(function, v, *[other[k] for other in others], whole=whole) for k, v in value.items()}
        if type(value) is dict:
            return named
        other = copy.copy(value)  # of its own kind, such as what an encoder of transformers returns
        for key, part in named.items():
            other[key] = part
        return other
    parts = [map_nested(function, *together, whole=whole) for together in zip(value, *others)]
    return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)


def carries_signal(*values: object) -> bool:
    """Return whether a gradient passes through any tensor among the values, and in their lists, tuples and dicts."""
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad:
                return torch.is_grad_enabled()
        elif isinstance(value, (tuple, list)):
            if carries_signal(*value):
                return True
        elif isinstance(value, dict) and carries_signal(*value.values()):
            return True
    return False


def tensors_and_modules(value: object, depth: int = DEPTH) -> Iterator[Tensor | nn.Module]:
    """Yield the tensors and modules in an object, in its attributes, and in the tuples, lists and dicts among them."""
    if isinstance(value, (Tensor, nn.Module)):
        yield value
        return
    if isinstance(value, PLAIN) or depth == 0:
        return
    parts: Iterable[object]
    if isinstance(value, (tuple, list)):
        parts = value
    else:
        parts = [*getattr(value, "__dict__", {}).values(), *(value.values() if isinstance(value, dict) else ())]
    for part in parts:
        yield from tensors_and_modules(part, depth - 1)


def tensors_in(values: Iterable[object]) -> list[Tensor]:
    """Return the tensors among values, and in the tuples and lists among them."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (tuple, list)):
            found += [v for v in value if isinstance(v, Tensor)]
    return found
