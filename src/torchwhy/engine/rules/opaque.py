"""What rules do not reach: the inside of autograd Functions, and what runs in a transform of ``torch.func``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from torchwhy.engine.run.warn import warn
from torchwhy.engine.torch_internals import unwrap_transformed


def outside_transforms(value: object) -> object:
    """Return a tensor as it is outside of the transforms of ``torch.func`` that are running; anything else as it is."""
    return unwrap_transformed(value) if isinstance(value, Tensor) else value


def warn_of_unreached(label: str, names: Iterable[str]) -> None:
    """Warn that a method kept the plain gradient of autograd Functions, or of operations in transforms, of these names."""
    warn(
        f"{label}: {', '.join(sorted(names))} kept the plain gradient, as rules do not reach what is inside autograd "
        "Functions and the transforms of torch.func, such as vmap: write it out in torch's operations"
    )


def warn_if_without_rules(label: str, counts: Mapping[str, Mapping[str, int]], unreached: Iterable[set[str]]) -> None:
    """Warn of a method that no operation had a rule of, while some needed one: it is the plain gradient.

    Args:
        label: the method.
        counts: how often operations ran by a rule and, non-linear ones, without, as ``count_operations`` gives them.
        unreached: the names, in each call, of what no rule reaches, of which there is a warning already.
    """
    plain = counts["plain_operations"]
    if not counts["operations_with_rule"] and set(plain).difference(*unreached):
        names = ", ".join(f"{name} ({n} times)" for name, n in sorted(plain.items()))
        warn(
            f"{label}: no operation of the model has a rule, so that the result is the plain gradient; without: {names}"
        )
