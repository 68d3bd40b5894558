"""A problem under rules: one run of the model for all its rows, what arrives at the inputs, and what was counted on the way."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from torchwhy.engine.rules.mode import RuleMode
from torchwhy.engine.rules.opaque import refuse_opaque_models
from torchwhy.engine.run.warn import warn

if TYPE_CHECKING:
    from torchwhy.problem import Problem

RuleModeType = TypeVar("RuleModeType", bound=RuleMode)


def run_with_rules(
    problem: Problem, make: Callable[[], RuleModeType]
) -> tuple[Tensor, tuple[Tensor, ...], list[RuleModeType]]:
    """Return scores ``(N,)``, what arrives at ``problem.x`` with rules at work, and the rules of each model call.

    Args:
        problem: whose scores are differentiated.
        make: returns the rules for one call.

    Raises:
        TypeError: a model whose operations Python does not see.
    """
    refuse_opaque_models(problem.model)
    rows, run = problem.rows, problem.run

    def work(start: int, stop: int) -> tuple[RuleModeType, Tensor, tuple[Tensor, ...]]:
        z = [t[start:stop] for t in problem.x]
        with make() as rules:
            scores, signal = run.gradients(z, rows[start:stop])
        return rules, scores, signal

    used, scores, signals = zip(*run.batches(len(rows), work))
    if any(rules.unreached for rules in used):
        names = ", ".join(sorted(frozenset().union(*(rules.unreached for rules in used))))
        warn(
            f"{problem.batching.label}: {names} kept the plain gradient, as rules do not reach what is inside autograd "
            "Functions and the transforms of torch.func, such as vmap: write it out in torch's operations"
        )
    return torch.cat(scores), tuple(torch.cat(parts) for parts in zip(*signals)), list(used)


def count_operations(used: Iterable[RuleMode]) -> dict[str, dict[str, int]]:
    """Return how often operations ran by a rule and, non-linear ones, without: details for the explanation."""
    ruled: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    for rules in used:
        ruled |= rules.applied
        plain |= rules.without_rule
    return {"operations_with_rule": dict(ruled), "plain_operations": dict(plain)}


def warn_if_without_rules(used: Sequence[RuleMode], label: str) -> None:
    """Warn of a method that no operation had a rule of, while some needed one: it is the plain gradient.

    Of what rules do not reach :func:`run_with_rules` has warned.
    """
    counts = count_operations(used)
    names = set(counts["plain_operations"]).difference(*(rules.unreached for rules in used))
    if names and not counts["operations_with_rule"]:
        plain = ", ".join(f"{name} ({counts['plain_operations'][name]} times)" for name in sorted(names))
        warn(
            f"{label}: no operation of the model has a rule, so that the result is the plain gradient; without: {plain}"
        )
