"""What the classes of this library share: settings in the constructor, checked there, shown when printed."""

from __future__ import annotations

import difflib
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn
from typing_extensions import dataclass_transform

from torchwhy.engine.structure import AnyModel, Keywords


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting can be.

    Args:
        low, high: the smallest and the largest; None is none.
        open_low, open_high: these are excluded.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: Any) -> bool:
        """Say whether a number is within the bounds."""
        above = self.low is None or (value > self.low if self.open_low else value >= self.low)
        below = self.high is None or (value < self.high if self.open_high else value <= self.high)
        return bool(above and below)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f" in {'(' if self.open_low else '['}{self.low:g}, {self.high:g}{')' if self.open_high else ']'}"
        if self.low is not None:
            return f" {'above' if self.open_low else 'of at least'} {self.low:g}"
        if self.high is not None:
            return f" {'below' if self.open_high else 'of at most'} {self.high:g}"
        return ""


Count = Annotated[int, Bounds(1)]
Positive = Annotated[float, Bounds(0, open_low=True)]
NotNegative = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1, open_low=True, open_high=True)]


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class _DataclassByItself:
    """The base of classes whose subclasses are dataclasses without a decorator, which type checkers know by this one."""

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        dataclass(kw_only=True, repr=False, eq=False)(cls)


class Settings(_DataclassByItself):
    """The base of all classes that are made of a model and settings.

    A subclass is a dataclass by itself: its annotated attributes are its settings. They are checked when it is made, and when
    they are assigned, by their annotations (``bool``, ``int``, ``float``, ``str``, ``Literal``, :class:`Bounds`), and when it is
    made by ``_check_settings``.
    """

    model: AnyModel = field(kw_only=False)

    def __new__(cls, *args: object, **settings: object) -> Any:
        """Refuse settings that there are not, naming the nearest."""
        kind: Any = cls
        for name in settings:
            if name not in _setting_names(kind):
                raise TypeError(_no_such_setting(kind, name))
        if len(args) > 1:
            has_layer = "layer" in _setting_names(kind) and (isinstance(args[1], (nn.Module, str, list)))
            shown = "layer=..." if has_layer else "NAME=..."
            raise TypeError(
                f"{cls.__name__}: after the model, settings are given by name, {cls.__name__}(model, {shown}); got "
                f"{', '.join(type(a).__name__ for a in args[1:])}"
            )
        missing = [name for name in _needed_settings(kind) if name not in settings]
        if args and missing:  # without arguments it is a copy that is being made
            needed = ", ".join(f"{name}=..." for name in missing)
            raise TypeError(f"{cls.__name__}: {missing[0]} is needed, as {cls.__name__}(model, {needed})")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        self._check_settings()

    def _check_settings(self) -> None:
        """Refuse settings that make no sense together; called when they are all there."""

    def __setattr__(self, name: str, value: object) -> None:
        kind: Any = type(self)
        known = _setting_names(kind)
        if name not in known and difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            raise AttributeError(_no_such_setting(kind, name))  # a slip; other attributes are a subclass's own
        hint = _checked_hints(kind).get(name)
        if hint is not None and not _fits(value, hint):
            raise ValueError(f"{name}={value!r}: expected {_describe(hint)}")
        super().__setattr__(name, value)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(equal_settings(getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)

    def settings(self) -> Keywords:
        """Return the settings that differ from their defaults."""
        found = {}
        for f in fields(self):
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            value = getattr(self, f.name)
            if f.init and f.name != "model" and not (type(value) is type(default) and equal_settings(value, default)):
                found[f.name] = value
        return found

    def __repr__(self) -> str:
        name = getattr(self.model, "__name__", type(self.model).__name__)
        shown = {
            k: f"<{type(v).__name__}>" if isinstance(v, nn.Module) else repr(v) for k, v in self.settings().items()
        }
        return f"{type(self).__name__}({', '.join([name, *(f'{k}={v}' for k, v in shown.items())])})"


@cache
def _setting_names(cls: Any) -> frozenset[str]:
    return frozenset(f.name for f in fields(cls))


@cache
def _needed_settings(cls: Any) -> tuple[str, ...]:
    """Return the settings without a default."""
    return tuple(f.name for f in fields(cls) if f.kw_only and f.default is MISSING and f.default_factory is MISSING)


def _no_such_setting(cls: Any, name: str) -> str:
    near = difflib.get_close_matches(name, _setting_names(cls), n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(_setting_names(cls)))}"
    return f"{cls.__name__} has no setting {name!r}; {hint}"


@cache
def _checked_hints(cls: Any) -> Keywords:
    """Return the annotations of the settings that can be checked by them."""
    hints = get_type_hints(cls, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cls) if f.init and _is_plain(hints[f.name])}


def _is_plain(hint: object) -> bool:
    """Say whether all that a hint allows is plain: flags, numbers, words, None."""
    if get_origin(hint) is Annotated:
        return True
    if get_origin(hint) in (Union, UnionType):
        return all(map(_is_plain, get_args(hint)))
    return get_origin(hint) is Literal or hint in (bool, int, float, str, type(None))


def _fits(value: Any, hint: Any) -> bool:
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, *bounds = get_args(hint)
        return _fits(value, kind) and all(b.allows(value) for b in bounds)
    if get_origin(hint) is Literal:
        return isinstance(value, (str, int, type(None))) and value in get_args(hint)
    if hint in (int, float):
        return isinstance(value, Integral if hint is int else Real) and not isinstance(value, bool)
    return isinstance(value, hint)


def _describe(hint: Any) -> str:
    """Return what a hint allows, in words."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_describe(part) for part in get_args(hint))
    if get_origin(hint) is Annotated:
        kind, *bounds = get_args(hint)
        return _describe(kind) + "".join(map(str, bounds))
    if get_origin(hint) is Literal:
        *most, last = map(repr, get_args(hint))
        return f"{', '.join(most)} or {last}" if most else last
    return {bool: "True or False", int: "an int", float: "a number", str: "a string"}.get(hint, "None")


def equal_settings(a: Any, b: Any) -> bool:
    """Say whether two settings are equal: tensors and arrays where they have one shape and equal numbers."""
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(map(equal_settings, a, b))
    if any(hasattr(v, "__array__") and getattr(v, "shape", ()) != () for v in (a, b)):
        return a is b or (type(a) is type(b) and a.shape == b.shape and bool((a == b).all()))
    return a is b or bool(a == b)
