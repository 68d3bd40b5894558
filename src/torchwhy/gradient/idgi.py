"""Important direction gradient integration: each step's change of the score, shared out along the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from torchwhy.attribution import Attribution
from torchwhy.gradient.blur_ig import BlurIG
from torchwhy.gradient.guided_ig import GuidedIG
from torchwhy.gradient.integrated_gradients import IntegratedGradients
from torchwhy.gradient.paths import StraightPath, neighbouring_points, sum_per_row
from torchwhy.problem import EvaluatedChunk, Problem, RunningMoments, Tensors, expand_like


@dataclass(kw_only=True, repr=False)
class IDGI(Attribution):
    r"""The change of the score in each step of a path, shared out by squared gradients:
    :math:`A_{ni} = \sum_k (f(z_{k+1}) - f(z_k)) \, \frac{g_{ki}^2}{\sum_j g_{kj}^2}`, :math:`g_k = \nabla f(z_k)`.

    In units of the score. Always sums to f(x) minus the score at the beginning of the path: a gap of zero says nothing about
    the number of steps here. Not multiplied by x − b: on a linear model it is :math:`w_i^2 / |w|^2` of the change, not
    :math:`w_i (x_i - b_i)`.

    Args:
        of: a path method whose points are used: :class:`IntegratedGradients` (``n_steps`` equal steps), :class:`BlurIG` or
            :class:`GuidedIG`; None is 50 equal steps on the straight line.

    Paper: Yang, Wang, Bilgic 2023, arXiv:2303.14242, algorithm 1. A step with a zero gradient adds nothing.
    """

    of: IntegratedGradients | BlurIG | GuidedIG | None = None

    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2303.14242"

    @property
    def uses_baselines(self) -> bool:  # type: ignore[override]
        """Those of the path: that of blurs begins at a blurred input."""
        return not isinstance(self.of, BlurIG)

    def _attribute(self, problem: Problem) -> Tensors:
        of = self.of or IntegratedGradients(self.model)
        if not isinstance(of, (IntegratedGradients, BlurIG, GuidedIG)):
            raise TypeError(f"of={of!r}: expected IntegratedGradients, BlurIG or GuidedIG")
        if of.layer is not None:
            raise ValueError("of: give layer= to IDGI, which takes from the other method no more than its path")
        unused = (
            {"method", "tolerance", "max_steps"} & set(of.settings()) if isinstance(of, IntegratedGradients) else set()
        )
        if unused:
            raise ValueError(
                f"of: {', '.join(sorted(unused))} given; the steps of IDGI are n_steps equal ones, leave it out"
            )
        sums = RunningMoments(problem.n)
        for before, after in neighbouring_points(self._walk(of, problem), problem.n, of.n_steps + 1):
            # in half precision small squares are zero
            squares = [g.to(torch.promote_types(g.dtype, torch.float)).square() for g in before.gradients]
            whole = sum_per_row(squares)
            share = torch.where(whole > 0, (after.scores - before.scores) / whole, 0)
            sums.add(before.rows, [expand_like(share, s) * s for s in squares])
        return sums.mean(len(problem.baselines[0]))

    @staticmethod
    def _walk(of: IntegratedGradients | BlurIG | GuidedIG, problem: Problem) -> Iterator[EvaluatedChunk]:
        """The points of the path, from its beginning to the input, evaluated."""
        if isinstance(of, GuidedIG):
            return (point for k in range(len(problem.baselines[0])) for point, _ in of.path(problem).walk(k))
        if isinstance(of, BlurIG):
            path = of.path(problem)
            problem.baselines = tuple(
                t[None] for t in path.point(problem.rows, torch.zeros(problem.n, dtype=torch.long))
            )
            return problem.walk(of.n_steps + 1, path.point)
        line = StraightPath(problem, torch.linspace(0, 1, of.n_steps + 1, dtype=torch.double))
        return problem.walk(line.n, line.point)
