"""What the classes of this library share: settings in the constructor, checked there, shown when printed."""

from __future__ import annotations

import difflib
import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from numbers import Integral, Real
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

import torch
from torch import nn
from typing_extensions import Unpack, dataclass_transform, is_typeddict

from torchwhy.engine.structure import PREDICTING, AnyModel, Keywords


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting can be: finite ones, and infinity where it is a bound.

    Args:
        low, high: the smallest and the largest; None is none.
        open_low, open_high: these are excluded.
    """

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    def allows(self, value: float) -> bool:
        """Say whether a number is within the bounds."""
        if not (math.isfinite(value) or value in (self.low, self.high)):
            return False
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
UnitShare = Annotated[float, Bounds(0, 1)]
ShareBelowOne = Annotated[float, Bounds(0, 1, open_high=True)]
LISTS = (Sequence, list, tuple)
LEAF_WORDS: dict[type, str] = {
    bool: "True or False",
    int: "an int",
    float: "a finite number",
    str: "a string",
    type(None): "None",
    nn.Module: "a module",
    torch.Generator: "a torch.Generator",
}


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(field,))
class _DataclassByItself:
    """The base of classes whose subclasses are dataclasses without a decorator, which type checkers know by this one."""

    makes_itself: ClassVar[bool] = False  # by an ``__init__`` of its own
    _setting_names: ClassVar[frozenset[str]] = frozenset()
    _needed_settings: ClassVar[tuple[str, ...]] = ()  # those without a default
    _checked_hints: ClassVar[dict[str, object] | None] = (
        None  # once one was asked for: the names in them may come later
    )

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        cls.makes_itself = "__init__" in vars(cls)
        dataclass(kw_only=True, repr=False, eq=False)(cls)
        # kept by the class itself: a cache of classes would keep those alive that nobody has any more
        own = fields(cls)  # type: ignore[arg-type]
        cls._setting_names = frozenset(f.name for f in own)
        cls._needed_settings = tuple(
            f.name for f in own if f.kw_only and f.default is MISSING and f.default_factory is MISSING
        )
        cls._checked_hints = None


class Settings(_DataclassByItself):
    """The base of all classes that are made of a model and settings.

    A subclass is a dataclass by itself: its annotated attributes are its settings. They are checked when it is made, and when
    they are assigned, by their annotations (``bool``, ``int``, ``float``, ``str``, ``Literal``, :class:`Bounds`, callables,
    modules, generators, layers, and sequences of these), and by ``_check_settings``. Other annotations, such
    as tensors, are not checked, nor are those that cannot be resolved. Numbers are finite, if :class:`Bounds` do not say
    otherwise. A subclass with an ``__init__`` of its own takes the arguments of that.
    """

    model: AnyModel = field(kw_only=False)

    _is_made: ClassVar[bool] = False  # all settings are there

    def __new__(cls, *args: object, **settings: object) -> Any:
        """Refuse settings that there are not, naming the nearest."""
        if cls.makes_itself:
            return super().__new__(cls)
        for name in settings:
            if name not in cls._setting_names:
                raise TypeError(_no_such_setting(cls, name))
        if len(args) > 1:
            has_layer = "layer" in cls._setting_names and (isinstance(args[1], (nn.Module, str, list)))
            shown = "layer=..." if has_layer else "NAME=..."
            raise TypeError(
                f"{cls.__name__}: after the model, settings are given by name, {cls.__name__}(model, {shown}); got "
                f"{', '.join(type(a).__name__ for a in args[1:])}"
            )
        missing = [name for name in cls._needed_settings if name not in settings]
        if args and missing:  # without arguments it is a copy that is being made
            needed = ", ".join(f"{name}=..." for name in missing)
            raise TypeError(f"{cls.__name__}: {missing[0]} is needed, as {cls.__name__}(model, {needed})")
        return super().__new__(cls)

    def __post_init__(self) -> None:
        check_model(self.model)
        self._check_settings()
        object.__setattr__(self, "_is_made", True)

    def _check_settings(self) -> None:
        """Refuse settings that make no sense together; called when they are all there."""

    def __setattr__(self, name: str, value: object) -> None:
        kind = type(self)
        known = kind._setting_names
        if name not in known and difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            raise AttributeError(_no_such_setting(kind, name))  # a slip; other attributes are a subclass's own
        if kind._checked_hints is None:
            kind._checked_hints = _find_checked_hints(kind)
        hint = kind._checked_hints.get(name)
        if hint is not None:
            check_setting(name, value, hint)
        before = vars(self).get(name)
        super().__setattr__(name, value)
        if self._is_made and name in known:
            try:
                self._check_settings()
            except Exception:
                super().__setattr__(name, before)
                raise

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        names = {f.name for f in fields(self) if f.compare}
        if self.makes_itself:  # what it was given may be anywhere
            names |= vars(self).keys() | vars(other).keys()
        return all(equal_settings(getattr(self, name, None), getattr(other, name, None)) for name in names)

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


def check_setting(name: str, value: object, hint: object) -> None:
    """Refuse a value that an annotation does not allow.

    Raises:
        ValueError: it does not.
        TypeError: it does not, and asks for a callable or an object.
    """
    if _fits(value, hint):
        return
    leaves = [*_leaves(hint)]
    is_kind = any(map(_is_object, leaves)) and not any(get_origin(leaf) is Literal for leaf in leaves)
    raise (TypeError if is_kind else ValueError)(f"{name}={value!r}: expected {_describe(hint)}")


def check_model(model: object) -> None:
    """Refuse what is no module, no callable and no estimator; None stands for a model that is not there yet.

    Raises:
        TypeError: it is none of these.
    """
    if model is not None and not callable(model) and not any(hasattr(model, name) for name in PREDICTING):
        raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")


def check_by_annotations(made: object) -> None:
    """Refuse fields of a dataclass that their annotations do not allow; its own defaults are what they are.

    Raises:
        TypeError, ValueError: as of :func:`check_setting`.
    """
    kind: Any = type(made)
    for f in fields(kind):
        value = getattr(made, f.name)
        if value is not f.default:
            for name, hint in _checkable({f.name: _resolve_hint(kind, f)}).items():
                check_setting(name, value, hint)


def _no_such_setting(cls: type[Settings], name: str) -> str:
    near = difflib.get_close_matches(name, cls._setting_names, n=3, cutoff=0.5)
    hint = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(sorted(cls._setting_names))}"
    return f"{cls.__name__} has no setting {name!r}; {hint}"


def _find_checked_hints(cls: type[Settings]) -> dict[str, object]:
    """Return the annotations of the settings that can be checked by them."""
    return _checkable({f.name: _resolve_hint(cls, f) for f in fields(cls) if f.init})


def _resolve_hint(cls: type, f: Field[Any]) -> object:
    """Return the annotation of a setting; None where it means nothing at run time, as an import for type checkers only."""
    home = next(base for base in reversed(cls.__mro__) if vars(base).get("__dataclass_fields__", {}).get(f.name) is f)
    module = vars(sys.modules.get(home.__module__, SimpleNamespace()))
    return _resolve(f.type, f.default, dict(vars(home)), module)


def checked_parameters(function: Callable[..., object]) -> dict[str, object]:
    """Return the annotations of a function's parameters that can be checked by them, by name, as those of settings are.

    With ``**options: Unpack[...]`` also those of the options. An annotation that the parameter's own default does not keep
    to, as in ``size: int = None``, says nothing and is left out.
    """
    module, found = getattr(inspect.unwrap(function), "__globals__", {}), dict[str, object]()
    for name, parameter in inspect.signature(function).parameters.items():
        hint, default = _resolve(parameter.annotation, parameter.default, module, {}), parameter.default
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= _unpacked(hint)
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            kept = _checkable({name: hint})
            found |= kept if kept and (default is inspect.Parameter.empty or _fits(default, hint)) else {}
    return found


def _unpacked(hint: object) -> dict[str, object]:
    """Return the annotations that can be checked of the options that ``Unpack[...]`` stands for."""
    (options,) = get_args(hint) if get_origin(hint) is Unpack else (None,)
    return _checkable(get_type_hints(options, include_extras=True)) if is_typeddict(options) else {}


def _resolve(written: object, default: object, home: Keywords, module: Keywords) -> object:
    """Return the annotation that is written, as an object or as text; None where it means nothing at run time."""
    try:
        holder = SimpleNamespace(__annotations__={"hint": written})
        hint = get_type_hints(holder, home, module, include_extras=True)["hint"]
    except Exception:  # whatever the text of an annotation raises
        return None
    is_endless = hint is float and isinstance(default, float) and not math.isfinite(default)
    return Annotated[float, Bounds(-math.inf, math.inf)] if is_endless else hint


def _checkable(hints: Mapping[str, object]) -> dict[str, object]:
    """Return the annotations that are checked: those that are made of what :func:`_fits` knows."""
    return {name: hint for name, hint in hints.items() if all(_is_plain(p) or _is_object(p) for p in _leaves(hint))}


def _leaves(hint: object) -> Iterator[object]:
    """Yield what a hint is made of: the alternatives, and the entries of lists."""
    if get_origin(hint) is Annotated:
        yield from _leaves(get_args(hint)[0])
    elif get_origin(hint) in (Union, UnionType, *LISTS):
        for part in get_args(hint):
            if part is not Ellipsis:
                yield from _leaves(part)
    else:
        yield hint


def _is_plain(leaf: object) -> bool:
    """Say whether a leaf of a hint is a flag, a number, a word or None."""
    return get_origin(leaf) is Literal or leaf in (bool, int, float, str, type(None))


def _is_object(leaf: object) -> bool:
    """Say whether a leaf of a hint is a callable, a module, a generator, or a small class of this library, such as a layer."""
    if get_origin(leaf) is Callable or leaf in (nn.Module, torch.Generator):
        return True
    if not isinstance(leaf, type) or get_origin(leaf) is not None or issubclass(leaf, Settings):
        return False
    return is_dataclass(leaf) and leaf.__module__.startswith(f"{__package__}.")


def _fits(value: Any, hint: Any) -> bool:
    """Say whether a hint allows a value."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if kind is Annotated:
        bounds = [b for b in parts[1:] if isinstance(b, Bounds)]
        is_number = parts[0] is float and bool(bounds) and _is_real(value)  # which may be infinite
        return (is_number or _fits(value, parts[0])) and all(b.allows(value) for b in bounds)
    if kind is Literal:
        return isinstance(value, (str, int, type(None))) and value in parts
    if kind in LISTS:
        values = listed(value)
        if values is None or (kind is tuple and Ellipsis not in parts and len(values) != len(parts)):
            return False
        each = parts if kind is tuple and Ellipsis not in parts else parts[:1] * len(values)
        return all(map(_fits, values, each))
    if kind is Callable:
        return callable(value)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    return _is_real(value) and math.isfinite(value) if hint is float else isinstance(value, hint)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def listed(value: Any) -> Sequence[Any] | None:
    """Return the entries of a list, tuple, array or tensor; None of anything else, such as a word."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def _describe(hint: object) -> str:
    """Return what a hint allows, in words."""
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType, Literal):
        *most, last = _alternatives(hint)
        return f"{', '.join(most)} or {last}" if most else last
    if kind is Annotated:
        return ("a number" if parts[0] is float else _describe(parts[0])) + "".join(
            str(b) for b in parts[1:] if isinstance(b, Bounds)
        )
    if kind is tuple and Ellipsis not in parts:
        return f"({', '.join(map(_describe, parts))})"
    if kind in LISTS:
        return f"a list of ({_describe(parts[0])})"
    if kind is Callable:
        return "a callable"
    name = getattr(hint, "__name__", "")
    return LEAF_WORDS[hint] if isinstance(hint, type) and hint in LEAF_WORDS else f"a {name}"


def _alternatives(hint: object) -> list[str]:
    """Return what a hint allows, in words, one by one."""
    if get_origin(hint) is Literal:
        return [repr(word) for word in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return [word for part in get_args(hint) for word in _alternatives(part)]
    return [_describe(hint)]


def equal_settings(a: Any, b: Any) -> bool:
    """Say whether two settings are equal: tensors and arrays where they have one shape and equal numbers."""
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(map(equal_settings, a, b))
    if any(hasattr(v, "__array__") and getattr(v, "shape", ()) != () for v in (a, b)):
        return a is b or (type(a) is type(b) and a.shape == b.shape and bool((a == b).all()))
    return a is b or bool(a == b)
