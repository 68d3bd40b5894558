"""Rows and baselines with missing values (NaN): for models that take them, such as gradient-boosted trees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.run.rows import all_finite, baseline_at
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.structure import named_parts

if TYPE_CHECKING:
    from torchwhy.problem import Problem


def first_row(t: Tensor) -> int:
    """Return the first row of ``t`` ``(N, ...)`` that is not finite."""
    return int((~t.isfinite()).flatten(1).any(1).nonzero()[0])


def check_takes_missing(problem: Problem) -> None:
    """Try the model on the first row, and the first baseline, that is not finite; those that are finite cost nothing.

    Raises:
        ValueError: its output is not finite, or it refuses them.
    """
    for t in problem.inputs.tensors:
        if not all_finite(t):
            i = first_row(t)
            row = problem.rows[i : i + 1]
            _try(
                problem,
                tuple(x[i : i + 1] for x in problem.inputs.tensors),
                row,
                f"inputs: row {i:,} holds NaN or infinite values",
            )
    for b in problem.baselines:
        if not all_finite(b):
            k = first_row(b)
            row = problem.rows[:1] if b.shape[1] == 1 else problem.rows[first_row(b[k])][None]
            at = tuple(baseline_at(t, torch.tensor([k]), row) for t in problem.baselines)
            _try(problem, at, row, f"baselines: {'' if len(b) == 1 else f'row {k:,} holds '}NaN or infinite values")


def _try(problem: Problem, z: tuple[Tensor, ...], row: Tensor, what: str) -> None:
    """Refuse rows that the model does not take."""
    trial = problem.replace(check_finite=False, tally=Tally())
    try:
        with torch.no_grad():
            out = trial.run.outputs(z, row)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{what}; the model does not take them ({error})") from error
    parts = [out] if isinstance(out, Tensor) else [v for v in named_parts(out).values() if isinstance(v, Tensor)]
    if not all(map(all_finite, parts)):
        raise ValueError(what)
