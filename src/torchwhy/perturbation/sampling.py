"""What the methods that sample have in common: how much, when it is enough, and a value for each feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import coalitions_as_details, evaluate_all, note_coalitions
from torchwhy.engine.features.numbering import Features, number_features
from torchwhy.engine.features.statistics import relative_error, sampling_rounds
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.run.rows import to_device
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Positive

MOST_SOLVED = 5000  # features: solving for them all takes memory with their square, time with their cube


class SamplingMethod(Attribution[GivenLayer]):
    """A method that estimates by sampling; the draws are shared by the rows.

    Args:
        n_samples: how many samples to take (what a sample is, each method says); None is the method's default.
        tolerance: go on, with half as many samples again each time, until the standard error of every row is at most this
            share of its attribution (both in the Euclidean norm). The rows of a batch then stop together.
        max_evaluations: with ``tolerance``, the most evaluations of a row; None is ten times those of ``n_samples``.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time.
    """

    n_samples: Count | None = None
    tolerance: Positive | None = None
    max_evaluations: Count | None = None
    generator: Seed = None

    needs_gradient: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.max_evaluations is not None and self.tolerance is None:
            raise ValueError("max_evaluations: bounds the sampling until a tolerance; give tolerance= or n_samples=")

    def _rounds(self, first: int, cost: float, spent: int = 0) -> Iterator[tuple[int, int]]:
        """Return the spans of samples to take, ``first`` to begin with.

        Each sample costs ``cost`` evaluations of a row, and ``spent`` are needed besides.
        """
        if self.tolerance is None:
            return iter([(0, first)])
        most = 10 * first if self.max_evaluations is None else int((self.max_evaluations - spent) / cost)
        if most < first:
            raise ValueError(
                f"max_evaluations={self.max_evaluations}: the first samples alone take {first * cost + spent:g}; "
                "raise it or lower n_samples"
            )
        return sampling_rounds(first, most)

    def _enough(self, values: Tensor, standard_error: Tensor) -> bool:
        """Say whether the error of values ``(N, ...)`` is within the tolerance."""
        return self.tolerance is not None and relative_error(values, standard_error) <= self.tolerance


class SampledEstimate(NamedTuple):
    """What sampling found for N rows of d features.

    Args:
        values, error: the values and their standard errors, ``(N, d)``.
        total: what the values should sum to, ``(N,)``, where they should.
        r_squared: the share of the scores' variance that a fit explains, ``(N,)``, where there is one.
        pairs, pairs_error: pairwise interactions and their standard errors, ``(N, d, d)``, where they were asked for.
    """

    values: Tensor
    error: Tensor
    total: Tensor | None = None
    r_squared: Tensor | None = None
    pairs: Tensor | None = None
    pairs_error: Tensor | None = None


class SampledFeatureMethod(SamplingMethod[GivenLayer]):
    """A sampling method that gives every feature one value."""

    uses_feature_mask: ClassVar[bool] = True

    def _attribute(self, problem: Problem) -> Result:
        features = number_features(problem.x, problem.feature_mask)
        like = problem.x[0].new_empty(0, dtype=torch.double)
        whole: dict[str, Tensor] = {}  # of all rows; features that a row lacks have 0
        state = problem.generator.get_state()
        for rows, d in features.groups():
            problem.generator.set_state(state)  # a row gets the draws that it gets alone
            for name, value in self._estimate(problem, features, rows, d)._asdict().items():
                if value is not None:
                    if name not in whole:
                        whole[name] = like.new_zeros(problem.n, *(features.d for _ in value.shape[1:]))
                    place: tuple[Tensor | slice, ...] = (rows, *(slice(d) for _ in value.shape[1:]))
                    whole[name][place] = value
        found = SampledEstimate(**whole)
        gap = None if found.total is None else (found.values.sum(1) - found.total).abs()
        named = {"r_squared": found.r_squared, "interactions": found.pairs, "interactions_error": found.pairs_error}
        known = coalitions_as_details(problem.coalitions) if problem.coalitions else {}
        return Result(
            features.to_elements(found.values, problem.x),
            gap,
            features.to_elements(found.error, problem.x),
            {name: value for name, value in named.items() if value is not None} | known,
        )

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:
        """Return what is found for the rows ``(N,)``, which have d features."""
        raise NotImplementedError


def score_coalitions(problem: Problem, features: Features, z: Tensor, rows: Tensor) -> Tensor:
    """Return scores ``(m, N)`` of rows ``(N,)`` in which only the features of each coalition z ``(m, d)`` come from the input."""

    def masks(index: Tensor, rows: Tensor) -> Tensors:
        return features.element_masks(to_device(z[index], rows.device), rows)

    scores = evaluate_all(problem, masks, (0, len(z)), rows=rows)
    if problem.coalitions is not None:
        note_coalitions(problem.coalitions, z, scores, problem.n)
    return scores


def check_solvable(method: Attribution, d: int) -> None:
    """Refuse more features than can be solved for together.

    Raises:
        ValueError: there are more.
    """
    if d > MOST_SOLVED:
        raise ValueError(
            f"feature_mask: {type(method).__name__} solves for all {d} features at once, at most {MOST_SOLVED} are possible; "
            "group them with feature_mask, as tw.superpixels or tw.patches do for images"
        )
