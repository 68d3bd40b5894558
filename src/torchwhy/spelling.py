"""Which known names a misspelt one may stand for, for error messages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from typing import NoReturn


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return the end of an error message: which of ``names`` may have been meant, or nothing where none is near.

    >>> did_you_mean("resnet81", ("resnet18", "alexnet"))
    "; did you mean 'resnet18'?"
    """
    near = nearest_names(name, names)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def nearest_names(name: str, names: Iterable[str], *, n: int = 3, cutoff: float = 0.6) -> list[str]:
    """Return the ``n`` nearest of ``names``, the nearest first, capitals not counting.

    Args:
        name: what was written.
        names: what there is.
        n: how many to return at most.
        cutoff: how alike they have to be, from 0 (anything) to 1 (the same letters).

    >>> nearest_names("gradcam", ["GradCAM", "LRP"])
    ['GradCAM']
    """
    by_folded = {known.casefold(): known for known in names}
    return [by_folded[c] for c in get_close_matches(name.casefold(), by_folded, n=n, cutoff=cutoff)]


def refusal_of(module: str, names: Collection[str] = ()) -> Callable[[str], NoReturn]:
    """Return a ``__getattr__`` for a module of ``torchwhy`` that says what may have been meant.

    Args:
        module: its ``__name__``.
        names: its public names.
    """
    room = module.partition(".")[2]

    def refuse(name: str) -> NoReturn:
        message = f"module {module!r} has no attribute {name!r}"
        if not name.startswith("_") and not _is_submodule(module, name):
            from torchwhy.other_libraries import hint_in_room

            message += hint_in_room(room, name, names)
        raise AttributeError(message)

    return refuse


def _is_submodule(module: str, name: str) -> bool:
    """Say whether a name is that of a submodule: ``from package import submodule`` asks the package first."""
    return (
        name.isidentifier() and hasattr(sys.modules[module], "__path__") and find_spec(f"{module}.{name}") is not None
    )
