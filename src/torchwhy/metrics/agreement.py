"""Faithfulness by agreement: do the attributions of changed features say how far the score moves?

All take :class:`torchwhy.metrics.Options`. With ``feature_mask`` a feature's attribution is the sum over its elements, or,
with ``whole_features``, what each of them has.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor
from typing_extensions import Unpack

from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Draws, draw_normal, draws_per_block
from torchwhy.engine.run.rows import index_rows, to_device
from torchwhy.engine.structure import as_tuple
from torchwhy.engine.tables import movable_columns
from torchwhy.input_types import Inputs
from torchwhy.metrics.correlation import pearson
from torchwhy.metrics.curve import Curve
from torchwhy.metrics.definition import metric
from torchwhy.metrics.feature_sets import FeatureSets, choose_sets
from torchwhy.metrics.features_of_attributions import AttributionsLike, FeatureScores, to_features
from torchwhy.metrics.scoring import ModelLike, Options, as_scores, problem_of, reduction, rounding
from torchwhy.problem import Problem
from torchwhy.settings import Bounds, Count, Positive
from torchwhy.targets import TargetLike

Sets = Annotated[int, Bounds(3)]  # how many, of which a correlation is
MIN_SET_TO_OVERSAMPLE = 10  # features of a set whose attribution is about normal


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1901.09392", sum_channels=False)
@torch_defaults()
def infidelity(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    perturb: Callable[[int, torch.Generator], Tensor | Sequence[Tensor]] | None = None,
    stdev: Positive = 0.1,
    n_samples: Count = 100,
    multiplied_by_inputs: bool = False,
    normalize: bool = False,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute how badly the attributions, as local coefficients, foretell the change of the score, shape (N,).

    :math:`\frac1S \sum_k \big(\beta\, I_k^T \phi_n - (f(x_n) - f(x_n - I_k))\big)^2`, in squared units of the score, β = 1.

    Args:
        model, inputs, target: as for a method.
        attributions: φ, in the inputs' form and shape; a size of 1 stands for a whole dimension.
        perturb: ``(count, generator)`` → that many perturbations I (count, \*), for one row and used for all; a tuple of
            them for several inputs. None: Gaussian noise, which leaves labels of a data frame as they are.
        stdev: the standard deviation of that noise, in the units of the inputs.
        n_samples: S.
        multiplied_by_inputs: the attributions are :math:`\phi (x - b)`, as those of integrated gradients: they are
            multiplied by :math:`I / (x - b)` in place of I, and by 0 where x = b.
        normalize: take for β the best factor for each row, :math:`\sum ab / \sum a^2`, a the forecast and b the change:
            blind to the scale of the attributions, for methods that have none.
        options: see :class:`Options`; the baselines b only matter with ``multiplied_by_inputs``.

    Paper: Yeh et al. 2019, arXiv:1901.09392, definition 2.1; β as in their appendix.
    """
    problem = problem_of(model, inputs, target, **options)
    if not all(x.is_floating_point() for x in problem.x):
        raise TypeError("inputs: integers cannot be moved a little; explain by an embedding layer's output")
    coefficients = _at_elements(to_features(problem, attributions, reduce=reduction(options)), problem)
    if multiplied_by_inputs:
        steps = [x - b.mean(0) for x, b in zip(problem.x, problem.baselines)]
        coefficients = tuple(torch.where(s == 0, 0, c / s) for c, s in zip(coefficients, steps))
    shapes, movable = [x.shape[1:] for x in problem.x], movable_columns(problem)

    def noise(count: int, g: torch.Generator) -> Tensor:
        drawn = stdev * draw_normal(count, sum(s.numel() for s in shapes), generator=g)
        return drawn if movable is None else drawn * movable

    def perturbations(count: int, g: torch.Generator) -> Tensor:
        made = as_tuple(perturb(count, g)) if perturb is not None else ()
        if [tuple(t.shape) for t in made] != [(count, *s) for s in shapes]:
            raise ValueError(
                f"perturb: gave shapes {[tuple(t.shape) for t in made]}, expected {[(count, *s) for s in shapes]}"
            )
        return torch.cat([t.flatten(1) for t in made], 1)

    elements = sum(s.numel() for s in shapes)
    draw, device = (noise, problem.x[0].device) if perturb is None else (perturbations, None)
    draws = Draws(draw, problem.generator, min(n_samples, draws_per_block(elements)), device)
    forecast, change = _forecasts(problem, coefficients, draws, n_samples)
    size = forecast.square().sum(0)
    beta = torch.where(size > 0, (forecast * change).sum(0) / size, 0) if normalize else 1.0
    return as_scores((beta * forecast - change).square().mean(0), problem)


@metric(higher_is_better=True, range=(-1, 1), paper="arXiv:2005.00631")
@torch_defaults()
def faithfulness_correlation(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    subset_size: Count | None = None,
    n_samples: Sets = 100,
    oversample: Count = 1,
    **options: Unpack[Options],
) -> Tensor:
    r"""Correlate the attributions of random sets of features with what the score loses without them, (N,).

    :math:`\operatorname{corr}_S\big(\sum_{i \in S} a_{ni},\; f(x_n) - f(x_n \setminus S)\big)` over ``n_samples`` sets S of one
    size, the same for all rows. NaN where either side does not vary, as for a constant map. If no more sets exist, each is
    taken once, and the value is exact; else its standard error is about :math:`(1 - r^2) / \sqrt{\text{n\_samples}}`.

    Args:
        model, inputs, target: as for a method.
        attributions: in the inputs' form and shape; a size of 1 stands for a whole dimension.
        subset_size: features in a set; None takes a tenth of them, at least 1.
        n_samples: sets, at least 3; each takes one evaluation of a row, and one more the whole input.
        oversample: c > 1 draws c times as many sets, evaluates the half of n_samples with the smallest and the half with the
            largest attributions, of each row its own, and corrects for their range (Thorndike 1949, case 2). With c = 10
            as accurate as 4 times the random sets where r is small, with c = 20 as 5 times, and as twice near 1. It takes
            the loss to be linear, on average, in the attribution of the set, as it nearly is for large sets; those of fewer
            than 10 features are refused.
        options: see :class:`Options`; features must be the same for all rows.

    Paper: Bhatt et al. 2020, arXiv:2005.00631, definition 3.
    """
    problem = problem_of(model, inputs, target, **options)
    by_feature = _shared_features(problem, attributions, options)
    size = max(1, by_feature.d // 10) if subset_size is None else subset_size
    if oversample > 1 and size < MIN_SET_TO_OVERSAMPLE:
        raise ValueError(
            f"oversample={oversample}: takes sets of at least {MIN_SET_TO_OVERSAMPLE} features, these have {size}"
        )
    return _set_correlations(problem, by_feature, [size], n_samples, oversample)[:, 0]


@metric(higher_is_better=True, range=(-1, 1), paper="arXiv:1711.06104")
@torch_defaults()
def sensitivity_n(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    sizes: Sequence[Count] | None = None,
    n_samples: Sets = 100,
    **options: Unpack[Options],
) -> Curve:
    """Compute the correlation of :func:`faithfulness_correlation` for sets of several sizes.

    Args:
        model, inputs, attributions, target, n_samples, options: as there.
        sizes: how many features the sets have, ascending, at least two sizes; None takes up to 10, from 1 to 80 % of
            the features, evenly on a logarithmic axis.

    Returns:
        A :class:`Curve`: the sizes as fractions of the features (S,), correlations (N, S); where nothing varies NaN.

    Paper: Ancona et al. 2018, arXiv:1711.06104, section 4.
    """
    problem = problem_of(model, inputs, target, **options)
    by_feature = _shared_features(problem, attributions, options)
    if sizes is None:
        largest = math.log10(max(2.0, 0.8 * by_feature.d))
        sizes = torch.logspace(0, largest, 10, dtype=torch.double).round().int().unique().tolist()
    if len(sizes) < 2 or any(a >= b for a, b in itertools.pairwise(sizes)):
        raise ValueError(f"sizes={list(sizes)!r}: expected at least two ascending sizes")
    scores = _set_correlations(problem, by_feature, sizes, n_samples, name="sizes")
    shares = torch.tensor(list(sizes), dtype=torch.double, device=scores.device) / by_feature.d
    return Curve(shares, scores, "fraction of the features in a set", (-1.0, 1.0))


@metric(higher_is_better=True, range=(-1, 1), paper="arXiv:1806.07538")
@torch_defaults()
def faithfulness_estimate(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    steps: Annotated[int, Bounds(3)] = 50,
    **options: Unpack[Options],
) -> Tensor:
    """Correlate the attributions of groups of features with what the score loses without each, (N,).

    The features, in the order of their attributions, are cut into ``steps`` groups, as equal as can be; each is replaced
    alone. Compared are groups of one size, or, where the sizes differ by one, the mean attribution and the loss per feature. With
    as many steps as features each is a group, as in the paper. NaN where either side does not vary.

    A feature of ``feature_mask`` counts as one, as the paper's do, with its whole attribution and its whole loss, however many
    elements it has: neither is divided by their number, which says nothing of columns of one-hot groups or of words. So of
    segments of different sizes the number also says whether large ones are worth more than small ones, and a map that is the
    same everywhere has the correlation of their sizes with their losses. To compare maps without that, take segments of one
    size, as :func:`torchwhy.patches` makes them, or no mask.

    Args:
        model, inputs, attributions, target, options: as for :func:`faithfulness_correlation`.
        steps: groups, at most the number of features, at least 3.

    Paper: Alvarez-Melis and Jaakkola 2018, arXiv:1806.07538, section 4.2.
    """
    problem = problem_of(model, inputs, target, **options)
    by_feature = _shared_features(problem, attributions, options)
    groups = min(steps, by_feature.d)
    group = by_feature.ranks(problem.generator) * groups // by_feature.d

    def masks(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return by_feature.features.element_masks(group[rows] != to_device(index - 1, rows.device)[:, None], rows)

    with problem.open():
        scores = evaluate_all(problem, masks, (0, groups + 1))
    means = by_feature.values.new_zeros(problem.n, groups, dtype=torch.double)
    means.scatter_reduce_(1, group, by_feature.values.double(), "mean", include_self=False)
    size = torch.zeros_like(means).scatter_add_(1, group, torch.ones_like(means[:, :1]).expand(group.shape))
    # a group of two features has twice the attribution and twice the loss, whatever the attributions say: per feature
    without = scores[0] - (scores[0] - scores[1:]) / size.T
    return as_scores(_correlation(means, scores[0], without, problem), problem)


def _shared_features(problem: Problem, attributions: AttributionsLike, options: Options) -> FeatureScores:
    """Return the attributions of features that are the same for all rows.

    Raises:
        ValueError: a feature mask with rows of its own, or fewer than 3 features.
    """
    by_feature = to_features(problem, attributions, reduce=reduction(options))
    if not by_feature.features.shared and problem.sample is not None:
        raise ValueError(
            f"inputs: the rows of this sample have {problem.sample.count.tolist()} features; sets of features are drawn for all "
            "rows at once, so give rows of as many, or one by one"
        )
    if not by_feature.features.shared:
        raise ValueError(
            "feature_mask: has rows of its own; sets of features are drawn for all rows at once, so give one (1, ...) for all"
        )
    if by_feature.d < 3:
        raise ValueError(f"attributions: {by_feature.d} features are too few for a correlation")
    return by_feature


def _set_correlations(
    problem: Problem,
    by_feature: FeatureScores,
    sizes: Sequence[int],
    n_samples: int,
    oversample: int = 1,
    name: str = "subset_size",
) -> Tensor:
    """Return correlations (N, len(sizes)) over sets of features."""
    for size in sizes:
        if size >= by_feature.d:
            raise ValueError(f"{name}={size}: a set needs fewer than all {by_feature.d} features")
    values = by_feature.values.double()
    with problem.open():
        whole = problem.run.all_scores(problem.x).double()
        chosen = (choose_sets(values, size, n_samples, oversample, problem.generator) for size in sizes)
        found = [_agreement(problem, by_feature, whole, sets) for sets in chosen]
    return as_scores(torch.stack(found, 1), problem)


def _agreement(problem: Problem, by_feature: FeatureScores, whole: Tensor, sets: FeatureSets) -> Tensor:
    """Correlate (N,) the attributions of sets with what the score ``whole`` (N,) loses without them."""

    def masks(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return by_feature.features.element_masks(sets.keep(index, rows), rows)

    r = _correlation(sets.sums.T, whole, evaluate_all(problem, masks, (0, len(sets.sums))), problem)
    if sets.spread is None:
        return r
    ratio = sets.spread / sets.sums.std(0)  # Thorndike 1949, case 2: from the chosen sets' range to that of all
    return r * ratio / (1 + r.square() * (ratio.square() - 1)).sqrt()


def _correlation(sums: Tensor, whole: Tensor, without: Tensor, problem: Problem) -> Tensor:
    """Correlate the attributions (N, S) of sets with what the score ``whole`` (N,) loses, given the scores ``without`` (S, N)."""
    floor = rounding(torch.cat([whole[None], without]).T, problem)
    return pearson(sums, (whole - without).T, floor=floor)


def _forecasts(problem: Problem, coefficients: Sequence[Tensor], draws: Draws, n: int) -> tuple[Tensor, Tensor]:
    """Return what the coefficients say of the change of the score under perturbations, and that change, (n, N) each."""
    sizes = [x[0].numel() for x in problem.x]

    def work(start: int, stop: int) -> Tensor:
        rows, k = problem.run.rows_and_samples(start, stop)
        moves = [m.to(x).view(-1, *x.shape[1:]) for m, x in zip(draws[k].to(rows.device).split(sizes, 1), problem.x)]
        terms = [(m.double() * index_rows(c, rows).double()).flatten(1).sum(1) for m, c in zip(moves, coefficients)]
        scores = problem.run.scores([index_rows(x, rows) - m for x, m in zip(problem.x, moves)], rows)
        return torch.stack([torch.stack(terms).sum(0), scores.double()])

    with problem.open():
        whole = problem.run.all_scores(problem.x).double()
        forecast, scores = torch.cat(list(problem.run.batches(n * problem.n, work)), 1).view(2, n, problem.n)
    return forecast, whole - scores


def _at_elements(by_feature: FeatureScores, problem: Problem) -> tuple[Tensor, ...]:
    """Return the attributions on every element of the inputs, a feature's shared equally among its elements."""
    number = torch.zeros_like(by_feature.values)
    for ids, x in zip(by_feature.features.ids, problem.x):
        index = ids.expand(x.shape).flatten(1)
        number.scatter_add_(1, index, torch.ones_like(index, dtype=number.dtype))
    each = by_feature.features.element_masks(by_feature.values / number.clamp(min=1), problem.rows)
    return tuple(e.expand(x.shape) for e, x in zip(each, problem.x))
