"""Important direction gradient integration: each step's change of the score, shared out along the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import torch

from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.run.rows import at_least_float32, expand_like, sum_per_row
from torchwhy.engine.run.runner import EvaluatedChunk
from torchwhy.engine.structure import Structure, Tensors
from torchwhy.gradient.blur_ig import BlurIG
from torchwhy.gradient.guided_ig import GuidedIG
from torchwhy.gradient.integrated_gradients import IntegratedGradients
from torchwhy.gradient.paths import StraightPath, neighbouring_points
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.wrapper import Wrapper

_FIXED_STEPS = {"method", "tolerance", "max_steps"}  # what only the equal steps of IntegratedGradients have
PathMethod = IntegratedGradients | BlurIG | GuidedIG


class IDGI(Wrapper[GivenLayer]):
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

    of: PathMethod | None = None  # type: ignore[assignment]  # of which the layer is the own one

    is_complete: ClassVar[bool] = True
    layer_role: ClassVar[LayerRole] = "input"
    baselines_are_rows: ClassVar[bool] = False  # type: ignore[assignment]
    uses_feature_mask: ClassVar[bool] = False  # type: ignore[assignment]
    paper: ClassVar[str] = "arXiv:2303.14242"

    @property
    def uses_baselines(self) -> bool:  # type: ignore[override]
        """Whether the path takes baselines; BlurIG's begins at a blurred input."""
        return not isinstance(self.of, BlurIG)

    def _check_settings(self) -> None:
        super()._check_settings()
        of = self.of
        if not isinstance(of, (IntegratedGradients, BlurIG, GuidedIG, type(None))):
            raise TypeError(f"of={of!r}: expected IntegratedGradients, BlurIG or GuidedIG")
        if of is not None and of.layer is not None:
            raise ValueError("of: give layer= to IDGI, which takes from the other method no more than its path")
        unused = _FIXED_STEPS & set(of.settings()) if isinstance(of, IntegratedGradients) else set()
        if unused:
            raise ValueError(
                f"of: {', '.join(sorted(unused))} given; the steps of IDGI are n_steps equal ones, leave it out"
            )

    def _attribute(self, problem: Problem) -> Result:
        of = self.of or IntegratedGradients(self.model)
        sums, (points, baselines) = RunningMoments(problem.rows), self._points(of, problem)
        for before, after in neighbouring_points(points, problem.n, of.n_steps + 1):
            # in half precision small squares are zero
            squares = [at_least_float32(g).square() for g in before.gradients]
            whole = sum_per_row(squares)
            share = torch.where(whole > 0, (after.scores - before.scores) / whole, 0)
            sums.add(before.rows, [expand_like(share, s) * s for s in squares])
        return Result(sums.mean(len(baselines[0])), baselines=baselines)

    @staticmethod
    def _points(of: PathMethod, problem: Problem) -> tuple[Iterator[EvaluatedChunk], Tensors]:
        """Return the points of the path, from its beginning to the input, evaluated, and where it begins."""
        if isinstance(of, GuidedIG):
            path = of.path(problem)
            return (point for k in range(problem.n_baselines) for point, _ in path.evaluate(k)), problem.baselines
        if isinstance(of, BlurIG):
            blurs = of.path(problem)
            return problem.run.evaluate_points(of.n_steps + 1, blurs.point), blurs.beginning()
        line = StraightPath(problem, torch.linspace(0, 1, of.n_steps + 1, dtype=torch.double))
        return problem.run.evaluate_points(line.n, line.point), problem.baselines

    def result_structure(self, inputs: Structure) -> Structure:
        """Return how the attributions are put together: as the inputs, or as ``layer=``."""
        return Attribution.result_structure(self, inputs)
