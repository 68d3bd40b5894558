"""What the metrics that run the model share: their options, the question they put to the model, its scores and their rounding."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypedDict

import torch
from torch import Tensor
from typing_extensions import Unpack

from torchwhy.attribution import Attribution
from torchwhy.engine.axes import AxesLike
from torchwhy.engine.prepare import prepare
from torchwhy.engine.run.black_box import NO_PROBABILITIES, has_one_margin
from torchwhy.engine.run.randomness import Seed
from torchwhy.input_types import Baselines, FeatureMasks, Inputs
from torchwhy.problem import Problem, ScoreFunction
from torchwhy.settings import Count
from torchwhy.targets import Probability, Target, TargetLike

ModelLike = object  # a module, a function of tensors or arrays, or a scikit-learn estimator


class Options(TypedDict, total=False):
    """What every metric that runs the model takes, by keyword.

    Args:
        baselines: the absence of a feature, as for :meth:`torchwhy.Attribution.attribute`; None is zero.
        feature_mask: which elements are one feature; None makes each element of the attributions one, so that a map
            ``(N, 1, H, W)`` of an image replaces whole pixels and one of ``(N, 3, H, W)`` single channels of pixels.
        whole_features: with ``feature_mask``, each element has its feature's whole attribution, as ablation, Shapley
            values and LIME give it; else a feature's attribution is the sum over its elements.
        additional_forward_args: further arguments of the model.
        axes: what the axes of the inputs are, where their shape does not say it, as for a method.
        softmax: score by the class probabilities, not by the model's output; an output that holds them is left as it
            is.
        batch_size: the most rows of one model call; None finds it. It does not change the numbers.
        generator: where random numbers come from, an int or a CPU ``torch.Generator``; 0 unless told, so that a
            metric gives the same value each time.
    """

    baselines: Baselines
    feature_mask: FeatureMasks
    whole_features: bool
    additional_forward_args: object
    axes: AxesLike
    softmax: bool
    batch_size: Count | None
    generator: Seed


def reduction(options: Options) -> Literal["sum", "mean"]:
    """Return how the elements of a feature are put together into its attribution."""
    return "mean" if options.get("whole_features") else "sum"


def problem_of(
    model: ModelLike, inputs: Inputs, target: TargetLike, *, like: Attribution | None = None, **options: Unpack[Options]
) -> Problem:
    """Return the checked problem; run the model within its ``open()``.

    Args:
        model, inputs, target: as for a method.
        like: the method by whose reading of ``baselines`` it goes.
        options: see :class:`Options`.

    Raises:
        TypeError: an unknown option.
    """
    unknown = set(options) - set(Options.__annotations__)
    if unknown:
        raise TypeError(f"{', '.join(sorted(unknown))}: unknown; the options are {', '.join(Options.__annotations__)}")
    problem = prepare(
        model,
        inputs,
        target,
        baselines=options.get("baselines"),
        uses_baselines=True,
        baselines_are_rows=like is not None and like.baselines_are_rows,
        feature_mask=options.get("feature_mask"),
        additional_forward_args=options.get("additional_forward_args"),
        axes=options.get("axes"),
        batch_size=options.get("batch_size"),
        generator=options.get("generator", 0),
        label="metric",
    )
    return problem.replace(target=_as_probability(problem)) if options.get("softmax") else problem


def _as_probability(problem: Problem) -> ScoreFunction:
    """Return the target of a problem scored by the probability of its class."""
    target = problem.target
    if isinstance(target.given, Probability):
        return target
    if not isinstance(target, Target) or target.neuron is not None or len(target.largest) != 1 or target.index is None:
        raise ValueError("softmax=True: needs a class as the target; pass softmax=False")
    if has_one_margin(problem.model):
        raise ValueError(f"softmax=True: {NO_PROBABILITIES}; pass softmax=False")
    index = target.index[:, 0] if isinstance(target.index, Tensor) else target.index[0]
    return replace(Target.parse(Probability(index), problem.n, problem.rows.device), given=target.given)


def bounds_of_scores(problem: Problem, options: Options) -> tuple[float, float] | None:
    """Return 0 and 1 where the scores are probabilities, else None."""
    known = options.get("softmax") or isinstance(problem.target.given, Probability)
    return (0.0, 1.0) if known else None


def as_scores(values: Tensor, problem: Problem) -> Tensor:
    """Return values in the type of the inputs, at least single precision."""
    kind = problem.x[0].dtype
    return values.to(torch.promote_types(kind, torch.float) if kind.is_floating_point else torch.float)


def rounding(scores: Tensor, problem: Problem) -> Tensor:
    """Return how far the scores (N, S) of a row may be apart by the rounding of the model's answers alone, (N,)."""
    eps = problem.tally.eps * (8 if problem.tally.eps < 1e-5 else 2)  # sums inside are in single precision at least
    return eps * scores.double().abs().amax(1)
