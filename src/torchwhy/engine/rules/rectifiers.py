"""Rectifiers that a model spells by other operations: bounds, maxima with zero, selections by the sign of a signal."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.rules.mode import RuleMode
from torchwhy.engine.rules.operations import Operation, TorchFunction, operation
from torchwhy.engine.structure import AnyOutput, Keywords, carries_signal
from torchwhy.engine.torch_internals import version_of

# comparison of a signal with 0: whether it is true where the signal is positive
COMPARISONS = {"gt": True, "ge": True, "lt": False, "le": False}
NOT = ("invert", "logical_not")
CASTS = frozenset(("to", "float", "double", "half", "bfloat16", "type", "type_as"))
COPIES = ("clone", "detach")
BOUNDS = ("clamp", "clamp_min")
MAXIMA = ("maximum", "fmax", "max")
SELECTIONS = ("where", "masked_fill", "masked_scatter", "setitem", "index_put", "mul")


class HeldValue(NamedTuple):
    """A value: that of a tensor, when it had been written to so often. Its copies have the same one."""

    tensor: Tensor
    version: int

    def is_that(self, other: HeldValue) -> bool:
        """Return whether two are the same."""
        return self.tensor is other.tensor and self.version == other.version


class SignMask(NamedTuple):
    """A mask that a comparison of a value with zero made, true where it is positive, or where it is not."""

    of: HeldValue
    positive: bool


class RectifierRules(RuleMode):
    """Rules of rectifiers that hold for all of their spellings.

    These run as ``relu``: ``x.clamp(min=0)``, ``torch.maximum(x, zero)``, ``torch.where(x > 0, x, 0)``, ``x * (x > 0)``,
    ``x.masked_fill(x < 0, 0)``, ``x[x < 0] = 0``, ``x.index_put((x < 0,), zero)``, in place or not. ``x.clamp(a, b)`` runs as
    ``hardtanh``. A selection by a signal's own sign that is none of these is counted as an operation without a rule.
    """

    def __torch_function__(
        self, function: TorchFunction, types: object, args: tuple = (), kwargs: Keywords | None = None
    ) -> object:
        out = super().__torch_function__(function, types, args, kwargs)
        name = operation(function).name
        if name in COMPARISONS and len(args) == 2:
            self._note_comparison(out, COMPARISONS[name], *args)
        elif name in NOT and (mask := self.noted(args[0], "sign")) is not None:
            self.note(out, sign=mask._replace(positive=not mask.positive))
        return out

    def run_operation(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation by the rule of the rectifier that it is, if it is one."""
        if op.name in BOUNDS or op.name in MAXIMA:
            found = _bounded(op.name, args, kwargs)
        else:
            found = self._selected(op.name, args, kwargs) if op.name in SELECTIONS else None
        if found is not None:
            x, *bounds = found
            function, options = F.hardtanh if bounds else F.relu, {"inplace": op.in_place}
            out = super().run_operation(operation(function), function, (x, *bounds), options)
            return None if op.name == "setitem" else out
        copied = self._value_of(args[0]) if op.name in COPIES and args else None
        out = super().run_operation(op, function, args, kwargs)
        if copied is not None:
            self.note(out, value=copied)
        elif op.name in CASTS and (mask := self.noted(args[0], "sign")) is not None:
            self.note(out, sign=mask)
        return out

    def _value_of(self, tensor: Tensor) -> HeldValue:
        """Return what a tensor holds: the value that it is a copy of, or its own."""
        return self.noted(tensor, "value") or HeldValue(tensor, version_of(tensor))

    def _note_comparison(self, out: object, positive: bool, a: object, b: object) -> None:
        """Note of a comparison's result whose sign it tells."""
        if isinstance(a, Tensor) and _is_zero(b):
            self.note(out, sign=SignMask(self._value_of(a), positive))
        elif isinstance(b, Tensor) and _is_zero(a):
            self.note(out, sign=SignMask(self._value_of(b), not positive))

    def _selected(self, name: str, args: tuple, kwargs: Keywords) -> tuple[Tensor] | None:
        """Return the signal that a selection keeps where it is positive, with zero elsewhere; None where it is no such one."""
        if name == "mul":
            mask, kept, rest, when = *args[:2], 0, True
            if self.noted(mask, "sign") is None:
                mask, kept = kept, mask
        elif name == "where":
            mask, kept, rest = _bind(args, kwargs, "condition", "input", "other")
            if isinstance(mask, Tensor) and mask.dtype != torch.bool:  # the method of a tensor, x.where(mask, other)
                mask, kept = kept, mask
            when = not _is_zero(kept)
            kept, rest = (kept, rest) if when else (rest, kept)
        elif name == "index_put":
            kept, indices, rest, adds = _bind(args, kwargs, "input", "indices", "values", "accumulate")
            mask, when = (indices[0] if len(indices) == 1 and not adds else None), False
        else:
            kept, mask, rest = _bind(args, kwargs, "input", "mask", "source" if name == "masked_scatter" else "value")
            when = False
        sign = self.noted(mask, "sign")
        if sign is None or not carries_signal(kept):
            return None
        if sign.of.is_that(self._value_of(kept)) and sign.positive == when and _is_zero(rest):
            return (kept,)
        if carries_signal(sign.of.tensor):
            self.count_without_rule(f"{name} by sign", args, kwargs)
        return None


def _bounded(name: str, args: tuple, kwargs: Keywords) -> tuple[AnyOutput, ...] | None:
    """Return ``(x,)`` where an operation is max(x, 0), ``(x, low, high)`` where it bounds x by two numbers, else None."""
    if name in MAXIMA:
        a, b = _bind(args, kwargs, "input", "other")[:2]
        for x, other in ((a, b), (b, a)):
            if isinstance(other, Tensor) and carries_signal(x) and _is_zero(other) and _broadcasts_to(other, x):
                return (x,)
        return None
    x, low, high = _bind(args, kwargs, "input", "min", "max")
    if not carries_signal(x):
        return None
    if high is None:
        return (
            (x,)
            if low is not None and _is_zero(low) and (not isinstance(low, Tensor) or _broadcasts_to(low, x))
            else None
        )
    are_numbers = all(isinstance(bound, (int, float)) for bound in (low, high))
    return (x, float(low), float(high)) if are_numbers and low <= high else None


def _bind(args: tuple, kwargs: Keywords, *names: str) -> list[AnyOutput]:
    """Return arguments in the order of their names, None for those that are not there."""
    return [args[i] if i < len(args) else kwargs.get(name) for i, name in enumerate(names)]


def _is_zero(value: object) -> bool:
    """Return whether a value is the number 0, or a tensor of zeros that no gradient passes."""
    if isinstance(value, Tensor):
        return not value.requires_grad and not bool(value.any())
    return isinstance(value, (int, float)) and value == 0


def _broadcasts_to(bound: Tensor, x: Tensor) -> bool:
    """Return whether a bound has the type of x, and broadcasts to it without making it larger."""
    is_alike = bound.dtype == x.dtype or bound.dim() == 0
    return is_alike and torch.broadcast_shapes(bound.shape, x.shape) == x.shape
