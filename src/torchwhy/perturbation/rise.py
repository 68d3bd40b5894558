"""Random masks, weighed by the scores of what they leave visible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.engine.axes import axes_of, cells_along, check_one_for_each
from torchwhy.engine.features.masks import evaluate_masks
from torchwhy.engine.structure import Output
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.rise_masks import RandomGridMasks
from torchwhy.perturbation.rise_moments import PlainMoments, ReducedMoments
from torchwhy.perturbation.sampling import SamplingMethod
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Fraction
from torchwhy.targets import DerivedTarget, logits_per_row

MASKS_AT_ONCE = 64  # whose scores are summed up together


class RISE(SamplingMethod[GivenLayer]):
    r"""The mean score among the randomly masked inputs in which an element is visible:

    :math:`A_{nu} = \mathbb{E}[f(x_n \odot M)\, M_u] / \mathbb{E}[M_u]`.

    M is a coarse grid of random cells, enlarged bilinearly and shifted by a random part of a cell; what it hides takes the
    baseline. In units of the score; only differences within a map mean anything, as an element without influence gets the
    mean score of all masks, ``(N, maps)`` in ``details["neutral"]``: pictures show the difference from it. Maps are
    ``(N, 1, *spatial)``. The standard error is reported; ``tolerance`` is its share of the difference from the neutral value.
    Takes K n_samples evaluations of a row; reduced variance makes an odd ``n_samples`` even.

    Args:
        n_samples: the number m of masks; None is 1000.
        grid: cells along each axis of places, or one number for each of them in the tensor's order: ``(4, 7, 7)`` for the
            frames, rows and columns of a video. Where channels and places are, is read from ``axes=``, or the shape.
        keep_probability: the chance p of a cell to be visible.
        variance_reduced: use each grid with its opposite, centre, :math:`\overline f + \mathrm{cov}(f, M_u) / p`, and take
            out the noise of what is linear in the mask (:class:`ReducedMoments`): the same limit with far less noise.
            False is the estimator of the paper,
            :math:`\frac{1}{p m} \sum_k f(x \odot M_k) M_{ku}`.
        targets: ``"all"`` gives a map for every output ``(N, classes, *spatial)`` from one run, whatever the target.

    Raises:
        ValueError: several inputs, or one without spatial dimensions ``(N, C, ...)``; more cells than places.

    Paper: Petsiuk et al. 2018, arXiv:1806.07421, equations 5 and 6.
    """

    grid: Count | Sequence[Count] = 7
    keep_probability: Fraction = 0.5
    variance_reduced: bool = True
    targets: Literal["all"] | None = None

    paper: ClassVar[str] = "arXiv:1806.07421"

    def _attribute(self, problem: Problem) -> Result:
        self._check_inputs(problem)
        cells = cells_along(self.grid, axes_of(problem, 0).size_of(problem.x[0]))
        masks = RandomGridMasks(problem, cells, self.keep_probability, 2 if self.variance_reduced else 1)
        sums = ReducedMoments(masks) if self.variance_reduced else PlainMoments(self.keep_probability)
        m = 1000 if self.n_samples is None else self.n_samples
        if self.targets == "all":
            problem = problem.replace(target=EveryOutput(problem.target))
        for start, stop in self._rounds(-(-m // masks.unit), masks.unit * problem.n_baselines):
            span = start * masks.unit, stop * masks.unit
            for first, s in evaluate_masks(problem, masks.for_rows, span, unit=masks.unit):
                _add_scores(sums, masks, first, s)
            values, error = sums.summary()
            if self._enough(values - sums.mean_score()[:, None], error):
                break
        shape, axis = (problem.n, -1, *masks.shape), masks.axes.channels or 1
        neutral = sums.mean_score().view(problem.n, -1).to(problem.x[0].dtype)
        values, error = values.view(shape).movedim(1, axis), error.view(shape).movedim(1, axis).to(problem.x[0].dtype)
        return Result((values,), standard_error=(error,), details={"neutral": neutral})

    def _check_inputs(self, problem: Problem) -> None:
        """Refuse what has no grid to lay over it."""
        x = problem.x[0]
        told = bool(problem.axes) and x.dim() > 1
        if len(problem.x) != 1 or (x.dim() < 3 and not told) or not x.is_floating_point():
            raise ValueError(
                "inputs: RISE masks one tensor (N, C, ...) with spatial dimensions, got "
                f"{', '.join(f'{tuple(t.shape)} of {t.dtype}' for t in problem.x)}; LIME and KernelSHAP take any"
            )

    def _check_settings(self) -> None:
        super()._check_settings()
        check_one_for_each("grid", self.grid)


def _add_scores(sums: PlainMoments | ReducedMoments, masks: RandomGridMasks, first: int, s: Tensor) -> None:
    """Add the scores ``(m, N, ...)`` of masks ``first`` to ``first + m - 1``, which are made again, some at a time."""
    for a in range(0, len(s), MASKS_AT_ONCE):
        part = s[a : a + MASKS_AT_ONCE]
        sums.add(part.flatten(1), masks.make(torch.arange(first + a, first + a + len(part)), s.device))


@dataclass
class EveryOutput(DerivedTarget):
    """All outputs of a row, whatever the target."""

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return scores ``(M, classes)``."""
        return logits_per_row(output, len(rows)).reshape(len(rows), -1)
