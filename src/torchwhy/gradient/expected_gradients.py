"""Expected gradients: integrated gradients with the baseline and the point on the path drawn at random."""

from __future__ import annotations

from typing import ClassVar

import torch

from torchwhy.attribution import Attribution
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.run.randomness import Draws, Seed, draw_uniform
from torchwhy.gradient.paths import StraightPath
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count


class ExpectedGradients(Attribution[GivenLayer]):
    r"""The expected gradient between baselines and input: :math:`A_n = E_{b, \alpha} [(x_n - b) \nabla f(b + \alpha (x_n - b))]`,
    b drawn from the baselines, :math:`\alpha` from [0, 1].

    In units of the score; in expectation the attributions sum to f(x) minus the mean score of the baselines. The draws are
    shared by the rows.

    Args:
        n_samples: the number of draws; the explanation's ``standard_error`` falls with its square root.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time.

    ``baselines``: a tensor ``(K, ...)`` of rows to draw from, such as part of the training set, or anything else of
    :mod:`torchwhy.baselines`.

    Paper: Erion et al. 2021, arXiv:1906.10670, equation 2.
    """

    n_samples: Count = 64
    generator: Seed = None

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    baselines_are_rows: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1906.10670"

    def noise(self, problem: Problem) -> tuple[Draws, ...]:
        """Return what is added to the input: nothing."""
        return ()

    def _attribute(self, problem: Problem) -> Result:
        m = self.n_samples
        alphas = draw_uniform(m, generator=problem.generator, dtype=torch.double)
        if problem.baseline_weights is None:
            drawn = torch.randint(problem.n_baselines, (m,), generator=problem.generator)
        else:
            drawn = problem.baseline_weights.cpu().multinomial(m, replacement=True, generator=problem.generator)
        path = StraightPath(problem, alphas, drawn, self.noise(problem))
        sums = RunningMoments(problem.rows, square=True)
        for c in problem.run.evaluate_points(m, path.point):
            sums.add(c.rows, [g * v for g, v in zip(c.gradients, path.velocity(c.rows, c.k))])
        return Result(sums.mean(m), standard_error=sums.standard_error(m))
