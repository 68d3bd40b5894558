"""What there is by a name, and an error that names the nearest where there is no such thing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

Option = TypeVar("Option")


def lookup(options: Mapping[str, Option], name: str, what: str) -> Option:
    """Return the option of a name.

    Args:
        options: what there is, by name.
        name: which one is meant.
        what: which argument it was given for.

    Raises:
        ValueError: there is no such one; the message names the nearest.
    """
    if name not in options:
        near = difflib.get_close_matches(str(name), options, n=3, cutoff=0.3) or list(options)
        raise ValueError(f"{what}={name!r}: there is no such one; the nearest are {', '.join(near)}")
    return options[name]
