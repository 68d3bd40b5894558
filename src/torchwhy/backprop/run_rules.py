"""What the methods of this family share: running a problem under rules, and saying what the rules met."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor

from torchwhy.engine.rules.mode import RuleMode, refuse_opaque_models
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem

Rules = TypeVar("Rules", bound=RuleMode)
Option = TypeVar("Option")


def run_with_rules(problem: Problem, make: Callable[[], Rules]) -> tuple[Tensor, Tensors, list[Rules]]:
    """Return scores ``(N,)``, what arrives at ``problem.x`` with the rules at work, and the rules of each model call."""
    refuse_opaque_models(problem.model)

    def work(start: int, stop: int) -> tuple[Rules, Tensor, Tensors]:
        z, rows = [t[start:stop] for t in problem.x], problem.rows[start:stop]
        with make() as rules:
            scores, signal = problem.run.gradients(z, rows)
        return rules, scores, signal

    used, scores, signals = zip(*problem.run.batches(problem.n, work))
    return torch.cat(scores), tuple(torch.cat(parts) for parts in zip(*signals)), list(used)


def count_operations(used: Iterable[RuleMode]) -> dict[str, dict[str, int]]:
    """Return how often operations ran by a rule and, non-linear ones, without: details for the explanation."""
    ruled: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    for rules in used:
        ruled |= rules.applied
        plain |= rules.without_rule
    return {"operations_with_rule": dict(ruled), "plain_operations": dict(plain)}


def warn_if_no_rule_ran(used: Iterable[RuleMode], method: str, changes: str) -> None:
    """Warn when no rule met its operation, so that the result is the plain gradient."""
    if not any(rules.applied for rules in used):
        warn(
            f"{method} changes {changes}, and this model runs none (above the layer that is explained): the result is the "
            "plain gradient",
        )


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
