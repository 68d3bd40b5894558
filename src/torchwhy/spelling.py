"""Which known names a misspelt one may stand for, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


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
