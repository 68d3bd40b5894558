"""Hashes of what a job is given: models, functions and tensors that are alike have the same one, also in another process.

What is hashed is what stays as it is while a job runs: contents of tensors, arrays and tables; a network's modules with what they
say of themselves, and its parameters; a function's code, with its defaults and what it takes from around it. Of any other object
it is the class alone. What is not seen here, a job sees by explaining a finished batch once more.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import hashlib
import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import CodeType, FunctionType, MethodType

import numpy as np
from torch import Tensor, nn

from torchwhy.attribution import Attribution
from torchwhy.datasets.batches import hash_of
from torchwhy.provenance import hash_parameters, is_elsewhere

LITERALS = (bool, int, float, complex, str, bytes, type(None), type(...))
LIBRARIES = (
    "site-packages",
    "dist-packages",
    "<frozen",
)  # in the names of files whose functions are known by their names
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def likeness_of(value: object, *, parameters: bool = True) -> str:
    """Return the SHA-256 of what a value is, in hexadecimal digits; equal in every process of one version of Python.

    Args:
        value: anything.
        parameters: of a network, whether its parameters are a part of it.

    >>> likeness_of(lambda z: z + 1) == likeness_of(lambda z: z + 1), likeness_of(lambda z: z + 1) == likeness_of(lambda z: z + 2)
    (True, False)
    """
    digest, walk = hashlib.sha256(), _Walk()
    parts = walk.module(value) if isinstance(value, nn.Module) and not parameters else walk.parts(value)
    for part in parts:
        digest.update(part.encode() + b";")
    return digest.hexdigest()


class _Walk:
    """What yields words for values; what may come back to itself, networks, functions and lists, is told once."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[int, object]] = {}  # by address; held, so that no other gets the address

    def parts(self, value: object) -> Iterator[str]:
        """Yield words for a value."""
        if id(value) in self.seen:
            yield f"again {self.seen[id(value)][0]}"
            return
        if isinstance(value, (nn.Module, FunctionType, Mapping, list)):
            self.seen[id(value)] = len(self.seen), value
        yield _full_name_of(type(value))
        if isinstance(value, LITERALS):
            yield repr(value)
        elif isinstance(value, (Tensor, np.ndarray)) or hasattr(value, "iloc"):
            yield "elsewhere" if getattr(value, "is_meta", False) else hash_of(value)
        elif isinstance(value, nn.Module):
            yield from self.module(value)
            yield "elsewhere" if is_elsewhere(value) else hash_parameters(value)
        elif isinstance(value, (Mapping, tuple, list, set, frozenset)):
            yield from self.container(value)
        else:
            yield from self.other(value)

    def other(self, value: object) -> Iterator[str]:
        """Yield words for what is neither data nor a network."""
        if isinstance(value, type):
            yield _full_name_of(value)
        elif isinstance(value, Attribution):
            yield from self.parts([value.settings(), value.model])
        elif isinstance(value, functools.partial):
            yield from self.parts([value.func, value.args, value.keywords])
        elif isinstance(value, MethodType):
            yield from self.parts([value.__self__, value.__func__])
        elif isinstance(value, FunctionType):
            yield from self.function(value)
        elif dataclasses.is_dataclass(value):
            yield from self.parts({f.name: getattr(value, f.name, None) for f in dataclasses.fields(value) if f.init})
        else:  # of what is written in C, its name
            yield str(getattr(value, "__qualname__", ""))

    def container(self, value: Mapping[object, object] | tuple | list | set | frozenset) -> Iterator[str]:
        """Yield words for what holds others; of a set in an order that is the same in every process."""
        yield str(len(value))
        if isinstance(value, (set, frozenset)):
            yield from sorted(" ".join(self.parts(part)) for part in value)
            return
        held = [part for pair in value.items() for part in pair] if isinstance(value, Mapping) else value
        for part in held:
            yield from self.parts(part)

    def module(self, module: nn.Module) -> Iterator[str]:
        """Yield words for a network: its modules, what they say of themselves, and functions among their attributes."""
        for name, part in module.named_modules():
            said = ADDRESS.sub("", part.extra_repr())
            yield f"{name}: {_full_name_of(type(part))} {getattr(part, 'original_name', '')} {said}"
            yield from self.parts(getattr(type(part), "forward", None))
            for attribute, held in sorted(vars(part).items()):
                if isinstance(held, FunctionType) or type(held) is type(len):
                    yield attribute
                    yield from self.parts(held)

    def function(self, function: FunctionType) -> Iterator[str]:
        """Yield words for a function: a library's name for it, else its code, its defaults and what it takes from around it."""
        code = function.__code__
        yield f"{function.__module__}.{function.__qualname__}"
        if any(library in code.co_filename for library in LIBRARIES):
            return
        yield from self.code(code)
        yield from self.parts([function.__defaults__, function.__kwdefaults__])
        written = {op.argval for op in dis.get_instructions(code) if op.opname in ("STORE_GLOBAL", "STORE_DEREF")}
        around: dict[str, object] = {}
        with suppress(ValueError):  # what it takes is not there yet
            found = inspect.getclosurevars(function)
            around = {**found.globals, **found.nonlocals}
        for name, held in sorted(around.items()):
            if name not in written and _stays(held):
                yield name
                yield from self.parts(held)

    def code(self, code: CodeType) -> Iterator[str]:
        """Yield words for code: what it does, its names and its constants, functions in it among these; not where it stands."""
        yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames} {code.co_freevars} {code.co_argcount}"
        for constant in code.co_consts:
            yield from self.code(constant) if isinstance(constant, CodeType) else self.parts(constant)


def _full_name_of(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _stays(value: object) -> bool:
    """Say whether what a function takes from around it is a part of what it is, and no notes that it makes, as in a list."""
    if isinstance(value, tuple):
        return all(map(_stays, value))
    return isinstance(
        value, (*LITERALS, Tensor, np.ndarray, nn.Module, FunctionType, MethodType, functools.partial, type)
    )
