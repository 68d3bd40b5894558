"""Faithfulness by removing features in the order of their attributions.

All take :class:`torchwhy.metrics.Options` and run the model on the inputs with the features of the largest attributions, or
of the smallest, replaced. Features with equal attributions are taken in a random order (``generator``), so that a constant
map scores as a random one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import Unpack

from torchwhy.engine.axes import axes_of
from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.images.filters import inpaint_linearly
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import normal_draws
from torchwhy.engine.run.rows import expand_like, index_rows, to_device
from torchwhy.input_types import Inputs
from torchwhy.metrics.curve import Curve, check_fractions
from torchwhy.metrics.definition import metric
from torchwhy.metrics.features_of_attributions import AttributionsLike, to_features
from torchwhy.metrics.removal_curve import removal_curve
from torchwhy.metrics.scoring import ModelLike, Options, as_scores, bounds_of_scores, problem_of, reduction, rounding
from torchwhy.settings import Count, NotNegative, UnitShare
from torchwhy.targets import TargetLike

SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)


@metric(higher_is_better=False, range=(-math.inf, math.inf), paper="arXiv:1806.07421")
@torch_defaults()
def deletion(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    steps: Count = 50,
    **options: Unpack[Options],
) -> Curve:
    r"""Compute the score as features are replaced by the baseline, those with the largest attributions first.

    :math:`s_{nk} = f(x_n \text{ without its } \lfloor k d / K \rceil \text{ top features})`, k = 0, ..., K. A map that
    names the evidence makes the curve fall at once: its area ``.auc`` (in the units of the score) is small. It is no
    measure of the map's numbers, only of their order.

    Args:
        model, inputs, target: as for a method.
        attributions: in the inputs' form and shape; a size of 1 stands for a whole dimension.
        steps: K, at most the number of features.
        options: see :class:`Options`.

    Returns:
        A :class:`Curve`: fractions replaced (K + 1,), or (N, K + 1) where the rows have different numbers of features;
        scores (N, K + 1).

    Paper: Petsiuk et al. 2018, arXiv:1806.07421, algorithm 1, where the score is a probability (``softmax=True``); pixel
    flipping, Bach et al. 2015 (doi 10.1371/journal.pone.0130140), is the same curve.
    """
    problem = problem_of(model, inputs, target, **options)
    bounds = bounds_of_scores(problem, options)
    return removal_curve(problem, attributions, steps, remove="top", reduce=reduction(options), bounds=bounds)


@metric(higher_is_better=True, range=(-math.inf, math.inf), paper="arXiv:1806.07421")
@torch_defaults()
def insertion(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    steps: Count = 50,
    **options: Unpack[Options],
) -> Curve:
    """Compute the score as features are put back into the baseline, those with the largest attributions first.

    The curve of :func:`deletion` from the other side; a large area speaks for the map. For images the authors begin with a
    blurred one: ``baselines=tw.Blur(...)``.

    Paper: Petsiuk et al. 2018, arXiv:1806.07421, section 4.2.
    """
    problem = problem_of(model, inputs, target, **options)
    bounds = bounds_of_scores(problem, options)
    return removal_curve(problem, attributions, steps, remove="rest", reduce=reduction(options), bounds=bounds)


@metric(higher_is_better=True, range=(-math.inf, math.inf), paper="arXiv:2003.08747")
@torch_defaults()
def irof(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the area over the curve as whole segments are removed in the order of their mean attributions, shape (N,).

    :math:`1 - \frac1d \sum_k \frac{s_{n,k-1} + s_{nk}}{2 s_{n0}}`, one segment at a time: relative to the score of the
    whole input, which must be positive (``softmax=True`` makes it so).

    Args:
        model, inputs, attributions, target, options: as for :func:`deletion`; ``feature_mask`` holds the segments; of
            a sample they are its features.

    Raises:
        TypeError: no ``feature_mask``.
        ValueError: a score of the whole input that is not positive.

    Paper: Rieger and Hansen 2020, arXiv:2003.08747, equation 2; they fill with the mean colour (``baselines=tw.Mean()``).
    """
    if options.get("feature_mask") is None and not hasattr(inputs, "masked"):
        raise TypeError(
            "feature_mask: irof removes segments; give their numbers, integers that broadcast to the inputs"
        )
    problem = problem_of(model, inputs, target, **options)
    curve = removal_curve(problem, attributions, None, remove="top", reduce="mean")
    return 1 - curve.auc / _positive(curve.scores[:, 0])


@metric(
    higher_is_better=False,
    range=(-math.inf, math.inf),
    paper="arXiv:2202.00449",
    uses_baselines=False,
    flipped_by=("remove", "bottom"),
)
@torch_defaults()
def road(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    fractions: Sequence[UnitShare] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    remove: Literal["top", "bottom"] = "top",
    noise: NotNegative = 0.01,
    **options: Unpack[Options],
) -> Curve:
    r"""Compute the score as pixels are removed and imputed from their neighbours (ROAD).

    Removed pixels take the values that solve :math:`x_i = \sum_{j \in N(i)} w_{ij} x_j / \sum_j w_{ij}` over the 8
    neighbours, weights 1/6 beside and 1/12 across, plus Gaussian noise: the model sees neither holes nor their outline,
    so it cannot read the class from the shape of the mask. Of series steps are removed, and take the line between the kept
    ones; of videos places of a frame, with 26 neighbours in three frames, 1/18 at the corners: weights fall with the square
    of the distance.

    Args:
        model, inputs, attributions, target, options: as for :func:`deletion`; pictures (N, C, H, W), attributions
            (N, 1, H, W); series (N, C, L) or videos (N, C, T, H, W); or another layout, by the shape or ``axes``.
        fractions: the shares of the pixels to remove, ascending, below 1.
        remove: the pixels with the largest attributions (a low curve is good) or with the smallest (a high one is).
        noise: the standard deviation of the noise, in the units of the inputs.

    Raises:
        ValueError: inputs that are no images, series or videos, attributions of single channels, or baselines, which this has
            no use for.

    Paper: Rong et al. 2022, arXiv:2202.00449, section 4. They count right predictions; here the curve is the score.
    """
    if options.get("baselines") is not None:
        raise ValueError("baselines: road imputes from the neighbouring pixels; leave them out")
    problem = problem_of(model, inputs, target, **options)
    x = problem.x[0]
    have_places = x.dim() > (1 if problem.axes else 2) and x.is_floating_point()
    axes = axes_of(problem, 0) if len(problem.x) == 1 and have_places else None
    if axes is None or len(axes.spatial) > 3:
        raise ValueError(
            "inputs: road imputes images (N, C, H, W), series (N, C, L) or videos (N, C, T, H, W), one tensor, got "
            f"{', '.join(f'{tuple(t.shape)} of {t.dtype}' for t in problem.x)}; axes= says where channels and places are; "
            "of other inputs deletion takes any baselines"
        )
    shares = check_fractions(fractions, below=0.99)
    images = axes.channels_first(x)
    draws = normal_draws(images, problem.generator)

    def impute(index: Tensor, rows: Tensor, keep: Tensor) -> Tensor:
        keep = axes.channels_first(keep)
        if keep.shape[1] != 1:
            raise ValueError("attributions: road removes whole pixels; sum over the channels, .sum(1, keepdim=True)")
        return axes.restore(inpaint_linearly(index_rows(images, rows), keep) + noise * draws[index].to(x))

    reduce, bounds = reduction(options), bounds_of_scores(problem, options)
    return removal_curve(problem, attributions, shares, remove=remove, reduce=reduce, impute=impute, bounds=bounds)


@metric(higher_is_better=False, range=(-math.inf, math.inf), paper="arXiv:1911.03429")
@torch_defaults()
def sufficiency(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    fractions: Sequence[UnitShare] = SHARES,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute how much of the score is missing with the top features alone, shape (N,).

    :math:`\frac1K \sum_k f(x_n) - f(\text{only the top share } q_k \text{ of } x_n)`, in the units of the score; near 0,
    or below, where the top features suffice.

    Args:
        model, inputs, attributions, target, options: as for :func:`deletion`.
        fractions: the shares q.

    Paper: DeYoung et al. 2020, arXiv:1911.03429, equation 2, averaged over shares as in their section 4.2.
    """
    return _mean_drop(model, inputs, attributions, target, fractions, "rest", options)


@metric(higher_is_better=True, range=(-math.inf, math.inf), paper="arXiv:1911.03429")
@torch_defaults()
def comprehensiveness(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    fractions: Sequence[UnitShare] = SHARES,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute how much of the score is lost without the top features, shape (N,).

    :math:`\frac1K \sum_k f(x_n) - f(x_n \text{ without its top share } q_k)`, in the units of the score.
    Arguments as for :func:`sufficiency`.

    Paper: DeYoung et al. 2020, arXiv:1911.03429, equation 1.
    """
    return _mean_drop(model, inputs, attributions, target, fractions, "top", options)


@metric(higher_is_better=True, range=(0, 1), paper="arXiv:1909.03012")
@torch_defaults()
def monotonicity(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    steps: Count = 50,
    **options: Unpack[Options],
) -> Tensor:
    """Compute the share of the steps that do not lower the score as features are added to the baseline, smallest first, (N,).

    1 exactly where the paper's criterion (the score never falls, by more than rounding) holds. Arguments as for
    :func:`deletion`; give ``attributions.abs()`` to order by size alone.

    Paper: Arya et al. 2019, arXiv:1909.03012, section 5, after Luss et al.; there it is a yes or no.
    """
    problem = problem_of(model, inputs, target, **options)
    curve = removal_curve(problem, attributions, steps, remove="top", reduce=reduction(options))  # read from its end
    steps_taken = curve.fractions.diff(dim=-1) > 0  # a row of few features stands still between
    held = (curve.scores.diff(dim=1) <= rounding(curve.scores, problem)[:, None]) & steps_taken
    return as_scores(held.sum(1).double() / steps_taken.sum(-1), problem)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1710.11063")
@torch_defaults()
def average_drop(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute the share of the score that is lost when only what the map marks is shown: :math:`\max(0, y_n - o_n) / y_n`, (N,).

    :math:`o_n = f(b + a_n (x_n - b))` with the map's positive part brought to [0, 1] by its maximum; a map without a
    positive part shows nothing. Times 100, and averaged over rows, it is the paper's "average drop %". At most 1 where
    scores are not negative.

    Args:
        model, inputs, attributions, target, options: as for :func:`deletion`, but ``softmax=True`` unless told
            otherwise, as in the paper.

    Raises:
        ValueError: a score y that is not positive.

    Paper: Chattopadhay et al. 2018, arXiv:1710.11063, section 5.1.
    """
    whole, shown, _ = _visible_share(model, inputs, attributions, target, options)
    return (whole - shown).clamp(min=0) / _positive(whole)


@metric(higher_is_better=True, range=(0, 1), paper="arXiv:1710.11063", is_binary=True)
@torch_defaults()
def average_increase(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    **options: Unpack[Options],
) -> Tensor:
    """Return 1 where the score rises, by more than rounding, when only what the map marks is shown, 0 elsewhere, (N,).

    As :func:`average_drop`; its mean over rows is the paper's "increase in confidence".
    """
    whole, shown, rounded = _visible_share(model, inputs, attributions, target, options)
    return (shown - whole > rounded).to(whole)


def _positive(scores: Tensor) -> Tensor:
    """Return the scores (N,) of the whole inputs, to which the metric is relative.

    Raises:
        ValueError: one that is not positive.
    """
    bad = (scores <= 0).nonzero()[:, 0].tolist()
    if bad:
        raise ValueError(
            f"the score of the whole input is {float(scores[bad[0]]):.3g} in row {bad[0]}, and the metric is relative to "
            "it: choose a target with positive scores, or softmax=True"
        )
    return scores


def _mean_drop(
    model: ModelLike, inputs: Inputs, attributions: AttributionsLike, target: TargetLike, fractions: Sequence[float],
    remove: Literal["top", "rest"], options: Options,
) -> Tensor:  # fmt: skip
    """Return the mean loss of score (N,), over shares, without the top features, or with nothing else."""
    problem, shares = problem_of(model, inputs, target, **options), check_fractions(fractions)
    if shares[0] == 0:
        raise ValueError(f"fractions={fractions!r}: nothing is to be learnt from the share 0")
    whole = torch.tensor([0.0 if remove == "top" else 1.0], dtype=torch.double)
    shares = torch.cat([whole, shares] if remove == "top" else [shares, whole])
    scores = removal_curve(problem, attributions, shares, remove=remove, reduce=reduction(options)).scores
    if remove == "top":
        return (scores[:, :1] - scores[:, 1:]).mean(1)
    return (scores[:, -1:] - scores[:, :-1]).mean(1)


def _visible_share(
    model: ModelLike, inputs: Inputs, attributions: AttributionsLike, target: TargetLike, options: Options
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the scores of the inputs, of the inputs times their maps, and how far apart rounding may bring them, (N,) each."""
    problem = problem_of(model, inputs, target, **{"softmax": True, **options})  # type: ignore[arg-type]
    if not all(x.is_floating_point() for x in problem.x):
        raise TypeError("inputs: integers cannot be shown in part; explain by an embedding layer's output")
    by_feature = to_features(problem, attributions, reduce="mean")
    values = by_feature.values.clamp(min=0)
    values = values / values.amax(1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    every = by_feature.features.element_masks(values, problem.rows)

    def masks(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        first = to_device(index, rows.device) == 0
        return tuple(torch.where(expand_like(first, e).bool(), 1, index_rows(e, rows)) for e in every)

    with problem.open():
        whole, shown = evaluate_all(problem, masks, (0, 2))
    rounded = rounding(torch.stack([whole, shown], 1), problem)
    return as_scores(whole, problem), as_scores(shown, problem), rounded
