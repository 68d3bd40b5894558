"""Leave one feature out: replaced by its value in another row."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import score_drops
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.features.statistics import RunningMean
from torchwhy.engine.run.randomness import Draws, Seed, draw_uniform, draws_per_block
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count


class FeaturePermutation(Attribution[GivenLayer]):
    r"""How far the score drops when a feature takes its value from another row of the batch:

    :math:`A_{ni} = \frac1R \sum_{r=1}^R f(x_n) - f(x_n \text{ with feature } i \text{ of } x_{\pi_{ri}(n)})`, π random
    permutations of the rows.

    In units of the score. Unlike in all other methods the rows are not independent: the batch is the distribution drawn
    from, so give a large one; the mean over its rows is the permutation importance of the feature for this score. Takes
    R d + 1 evaluations of a row.

    Args:
        n_repeats: the number R of permutations of each feature; above 1 the standard error over them is reported.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time.

    Raises:
        ValueError: a single row, or a feature mask that differs between rows.

    Paper: Breiman 2001, "Random Forests", section 10; Fisher et al. 2019, arXiv:1801.01489.
    """

    n_repeats: Count = 1
    generator: Seed = None

    needs_gradient: ClassVar[bool] = False
    uses_feature_mask: ClassVar[bool] = True
    rows_are_independent: ClassVar[bool] = False
    knows_pairs: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1801.01489"

    def _attribute(self, problem: Problem) -> Result:
        features, repeats, t = number_features(problem.x, problem.feature_mask), self.n_repeats, problem.n_targets
        n = problem.n // t
        if n < 2:
            raise ValueError("inputs: one row; a feature is permuted among the rows, give several")
        if not features.shared:
            raise ValueError("feature_mask: differs between rows; a feature is permuted among rows that share it")
        orders = row_orders(problem.generator, n)

        def masks(index: Tensor, rows: Tensor) -> Tensors:
            return features.leave_one_out_masks(torch.where(index > 0, (index - 1) % features.d + 1, 0), rows)

        def fill(index: Tensor, rows: Tensor) -> Tensors:
            source = orders[index][torch.arange(len(index)), rows.cpu() // t].to(rows.device) * t
            return tuple(x[source] for x in problem.x)

        mean = RunningMean()
        mean.add(score_drops(problem, masks, features.d * repeats, fill).view(problem.n, repeats, -1).transpose(0, 1))
        error = features.to_elements(mean.standard_error, problem.x) if repeats > 1 else None
        return Result(features.to_elements(mean.mean, problem.x), standard_error=error)


def row_orders(generator: torch.Generator, n: int) -> Draws:
    """Return random permutations of n rows by number: ``(M, n)``."""

    def draw(count: int, generator: torch.Generator) -> Tensor:
        return draw_uniform(count, n, generator=generator).argsort(1)

    return Draws(draw, generator, draws_per_block(n))
