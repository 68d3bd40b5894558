"""Signatures written as text, and calls bound to them."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping, Sequence
from functools import cache

from torchwhy.engine.structure import Keywords


@cache
def signature_of(text: str) -> inspect.Signature:
    """Return the signature that a text such as ``"inputs, target=None, **kwargs"`` writes down.

    >>> signature_of("inputs, n_steps=50")
    <Signature (inputs, n_steps=50)>
    """
    (function,) = ast.parse(f"def f({text}): pass").body
    if not isinstance(function, ast.FunctionDef):
        raise TypeError(f"{text!r} is no signature")
    given = function.args
    none: list[ast.expr | None] = [None]
    defaults = none * (len(given.args) - len(given.defaults)) + list(given.defaults)
    place, rest = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_KEYWORD
    found = []
    for name, default in zip(given.args, defaults):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        found.append(inspect.Parameter(name.arg, place, default=value))
    if given.kwarg is not None:
        found.append(inspect.Parameter(given.kwarg.arg, rest))
    return inspect.Signature(found)


def bind(name: str, text: str, args: Sequence[object], kwargs: Mapping[str, object]) -> Keywords:
    """Return all arguments of a call by name, those that were left out by their defaults.

    Raises:
        TypeError: arguments that the signature has not, or that are missing.
    """
    try:
        bound = signature_of(text).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{name}: {error}; it takes ({text})") from None
    bound.apply_defaults()
    given = dict(bound.arguments)
    further = given.pop("kwargs", {})
    return given | further
