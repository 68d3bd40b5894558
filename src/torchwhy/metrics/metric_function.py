"""What the metrics share: their facts, the question they put to the model, attributions as one number per feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar

import numpy as np
import torch
from torch import Tensor

from torchwhy.attribution import Attribution, Inputs
from torchwhy.baselines import is_fixed
from torchwhy.engine.features.numbering import Features, number_features
from torchwhy.engine.prepare import prepare
from torchwhy.engine.run.device import cpu_default_device
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.structure import flatten
from torchwhy.explanation import Explanation
from torchwhy.problem import Problem
from torchwhy.targets import DerivedTarget, TargetLike, find_logits

if TYPE_CHECKING:
    from typing_extensions import Unpack

Needs = Literal["model", "maps", "mask", "method"]
F = TypeVar("F", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """What every metric that runs the model takes, by keyword.

    Args:
        baselines: the absence of a feature, as for :meth:`torchwhy.Attribution.attribute`; None is zero.
        feature_mask: which elements are one feature; None makes each element of the attributions one, so that a map
            ``(N, 1, H, W)`` of an image replaces whole pixels and one of ``(N, 3, H, W)`` single channels of pixels.
        whole_features: with ``feature_mask``, each element has its feature's whole attribution, as ablation, Shapley
            values and LIME give it; else a feature's attribution is the sum over its elements.
        additional_forward_args: further arguments of the model.
        softmax: score by the class probabilities, not by the model's output; an output that holds them is left as it
            is.
        batch_size: the most rows of one model call; None finds it. It does not change the numbers.
        generator: where random numbers come from, an int or a CPU ``torch.Generator``; 0 unless told, so that a
            metric gives the same value each time.
    """

    baselines: Any
    feature_mask: Any
    whole_features: bool
    additional_forward_args: Any
    softmax: bool
    batch_size: int | None
    generator: Seed


def metric(
    *,
    better: Literal["higher", "lower", "none"],
    span: tuple[float, float],
    needs: Needs,
    paper: str,
    elements: bool = False,
    uses_baselines: bool = True,
    turned_by: tuple[str, Any] | None = None,
    yes_or_no: bool = False,
) -> Callable[[F], F]:
    """Put a metric's facts on its function, and what makes it indifferent to the default device around it.

    Args:
        better: which values speak for an explanation; "none" where neither does.
        span: the smallest and the largest value it can take.
        needs: what it is called with: "model" (model, inputs, attributions, target), "maps" (attributions), "mask"
            (attributions, mask) or "method" (method, inputs, target).
        paper: where it comes from.
        elements: the attributions of single elements are wanted, where else those of an image's pixels do (the sums over
            its channels).
        uses_baselines: whether ``baselines`` are among its options; for those that need the model.
        turned_by: a setting under which the other values speak for an explanation.
        yes_or_no: whether it is 1 or 0, so that its mean is a share of the rows.
    """

    def add(function: F) -> F:
        facts: dict[str, Any] = {
            "higher_is_better": {"higher": True, "lower": False, "none": None}[better],
            "range": span,
        }
        facts |= {"needs": needs, "paper": paper, "elements": elements, "uses_baselines": uses_baselines}
        run = cpu_default_device()(function)
        for name, value in {**facts, "turned_by": turned_by, "yes_or_no": yes_or_no}.items():
            setattr(run, name, value)
        return run

    return add


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores along a horizontal axis, for each row.

    ``fractions`` (S,) ascending, or (N, S) where the rows have different numbers of features; ``scores`` (N, S). Drawn by
    :func:`torchwhy.visualize.curve`.

    >>> Curve(torch.tensor([0.0, 0.5, 1.0]), torch.tensor([[4.0, 2.0, 0.0]])).auc
    tensor([2.])
    """

    fractions: Tensor
    scores: Tensor

    @property
    def auc(self) -> Tensor:
        """The mean height (N,): the area by the trapezoidal rule over the length of the axis, in the unit of the scores.

        The mean score where the axis has no length.
        """
        width = self.fractions.diff(dim=-1).to(self.scores)
        length = width.sum(-1)
        area = ((self.scores[:, 1:] + self.scores[:, :-1]) / 2 * width).sum(1)
        return torch.where(length > 0, area / length, self.scores.mean(1))


@dataclass
class Probability(DerivedTarget):
    """A target scored by the softmax of the classes, or by the output where the first one holds probabilities."""

    shares: bool | None = None

    def select(self, output: Any, rows: Tensor) -> Tensor:
        """Probabilities (M,)."""
        out = find_logits(output)
        if self.target.index is None or self.target.neuron is not None or out.dim() != 2:
            raise ValueError(
                f"softmax=True: needs a class as the target and an output (N, classes), this one has shape "
                f"{tuple(out.shape)}; pass softmax=False"
            )
        if out.shape[1] == 1:
            raise ValueError("softmax=True: of an output (N, 1) it is 1 everywhere; pass softmax=False")
        if self.shares is None:  # once: a model's answers are of one kind
            off = (out.double().sum(1) - 1).abs()
            self.shares = bool((out >= 0).all()) and bool((off < max(1e-3, torch.finfo(out.dtype).eps)).all())
        return self.target.select(out if self.shares else out.softmax(1), rows)


def problem_of(
    model: Any, inputs: Inputs, target: TargetLike, *, like: Attribution | None = None, **options: Unpack[Options]
) -> Problem:
    """The checked problem; run the model within its ``open()``.

    ``like`` is the method by whose reading of ``baselines`` it goes.
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
        batch_size=options.get("batch_size"),
        generator=options.get("generator", 0),
        label="metric",
    )
    return problem.replace(target=Probability(problem.target)) if options.get("softmax") else problem


def as_attributions(attributions: Any) -> Any:
    """What was given as attributions; of an explanation those that it shows."""
    return attributions.shown if isinstance(attributions, Explanation) else attributions


def settled_baselines(baselines: Any, inputs: Inputs) -> Any:
    """The baselines, those that are drawn with a seed of their own: the same ones wherever they are used."""
    structure = flatten(inputs)[1]
    given = structure.match(baselines, "baselines")
    return structure.restore([is_fixed(b, seed) for seed, b in enumerate(given)])


def tensors_of(attributions: Any) -> tuple[Tensor, ...]:
    """The tensors of attributions, all of them finite, in at least single precision; arrays of NumPy become such.

    Raises:
        TypeError: something else than tensors.
        ValueError: NaN or infinite attributions, or different numbers of rows.
    """
    attributions = as_attributions(attributions)
    found = tuple(attributions.values()) if isinstance(attributions, Mapping) else attributions
    found = tuple(found) if isinstance(found, (tuple, list)) else (found,)
    found = tuple(torch.as_tensor(t) if isinstance(t, np.ndarray) else t for t in found)
    if not found or not all(isinstance(t, Tensor) and t.dim() for t in found):
        raise TypeError("attributions: expected a tensor (N, ...), or a tuple or dict of them, as a method gives")
    for t in found:
        bad = (~t.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist() if t.dim() > 1 else []
        if bad or not bool(t.isfinite().all()):
            raise ValueError(f"attributions: NaN or infinite in row {(bad or [0])[0]}: there is nothing to measure")
    if len({len(t) for t in found}) != 1:
        raise ValueError(f"attributions: the tensors have {', '.join(str(len(t)) for t in found)} rows")
    return tuple(t.detach().to(torch.promote_types(t.dtype, torch.float)) for t in found)


def flat(attributions: Any) -> Tensor:
    """Attributions as (N, d)."""
    return torch.cat([t.reshape(len(t), -1) for t in tensors_of(attributions)], 1)


@dataclass(frozen=True)
class FeatureScores:
    """Features with what an explanation says of each.

    ``features``: d features; ``values`` (N, d).
    """

    features: Features
    values: Tensor

    @property
    def d(self) -> int:
        """The number of features."""
        return self.features.d

    def ranks(self, generator: torch.Generator) -> Tensor:
        """0 for the feature with the largest value, 1 for the next, ...; ties in a random order.  Shape (N, d)."""
        # by a number for each feature, whatever others there are: a row of few is not shuffled by the company it is in
        shuffle = torch.rand(self.d, generator=generator, dtype=torch.double).argsort().to(self.values.device)
        missing = torch.arange(self.d, device=self.values.device) >= self.features.count[:, None]
        values = self.values.masked_fill(missing, -torch.inf)[:, shuffle]
        order = shuffle[values.argsort(dim=1, descending=True, stable=True)]
        return order.argsort(dim=1)

    def ranks_at_elements(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The ranks on every element, for each input tensor; broadcastable to it."""
        ranks = self.ranks(generator)
        return self.features.element_masks(ranks, torch.arange(len(ranks), device=ranks.device))


def reduction(options: Options) -> Literal["sum", "mean"]:
    """How the elements of a feature are put together into its attribution."""
    return "mean" if options.get("whole_features") else "sum"


def to_features(problem: Problem, attributions: Any, *, reduce: Literal["sum", "mean"]) -> FeatureScores:
    """The attributions of a problem's features: of its ``feature_mask``, or one for each element of the attributions.

    Args:
        problem: what was explained.
        attributions: in the form of the inputs; sizes of 1 stand for a whole dimension, and so do missing channels of images.
        reduce: how the elements of a feature are put together.

    Raises:
        ValueError: attributions of another shape than the inputs, or of other names.
    """
    names, attributions = problem.inputs.names, as_attributions(attributions)
    if isinstance(attributions, Mapping) and names is not None:
        if set(attributions) != set(names):
            raise ValueError(f"attributions: of {', '.join(map(str, attributions))}; the inputs are {', '.join(names)}")
        attributions = {name: attributions[name] for name in names}
    found = tensors_of(attributions)
    if len(found) != len(problem.x):
        raise ValueError(f"attributions: {len(found)} tensors given for {len(problem.x)} inputs")
    found = tuple(t[:, None] if t.dim() == 3 and x.dim() == 4 else t for t, x in zip(found, problem.x))
    for t, x in zip(found, problem.x):
        if t.dim() != x.dim() or len(t) != len(x) or any(a not in (1, b) for a, b in zip(t.shape[1:], x.shape[1:])):
            raise ValueError(
                f"attributions: shape {tuple(t.shape)} does not fit the inputs' {tuple(x.shape)}; each size after the "
                "first must be that of the inputs or 1"
            )
    found = tuple(t.to(x.device) for t, x in zip(found, problem.x))
    if problem.feature_mask is None:
        return FeatureScores(number_features(found), flat(found))
    features = number_features(problem.x, problem.feature_mask)
    values = features.count.new_zeros(problem.n, features.d, dtype=flat(found).dtype)
    number = torch.zeros_like(values)
    for t, ids, x in zip(found, features.ids, problem.x):
        index, value = ids.expand(x.shape).flatten(1), t.expand(x.shape).flatten(1).to(values)
        shared = x[0].numel() // t[0].numel() if reduce == "sum" else 1  # by so many elements that one value stands for
        values.scatter_add_(1, index, value / shared)
        number.scatter_add_(1, index, torch.ones_like(value))
    return FeatureScores(features, values / number.clamp(min=1) if reduce == "mean" else values)


def as_scores(values: Tensor, problem: Problem) -> Tensor:
    """Values in the type of the inputs, at least single precision."""
    kind = problem.x[0].dtype
    return values.to(torch.promote_types(kind, torch.float) if kind.is_floating_point else torch.float)


def rounding(scores: Tensor, problem: Problem) -> Tensor:
    """How far the scores (N, S) of a row may be apart for no reason but the rounding of the model's answers, (N,)."""
    eps = problem.tally.eps * (8 if problem.tally.eps < 1e-5 else 2)  # sums inside are in single precision at least
    return eps * scores.double().abs().amax(1)


def pearson(a: Tensor, b: Tensor, *, noise: float = 1e-6, floor: Tensor | float = 0.0) -> Tensor:
    """The correlation of (N, S) with (N, S), row by row, (N,).

    NaN where either varies by no more than ``noise`` times its size, or b by no more than ``floor`` (N,): rounding has no
    correlation with anything.
    """
    a, b = a.double(), b.double()
    least = [noise * a.abs().amax(1), torch.maximum(noise * b.abs().amax(1), torch.as_tensor(floor, device=b.device))]
    a, b = (t - t.mean(1, keepdim=True) for t in (a, b))
    steady = [t.abs().amax(1) <= size for t, size in zip((a, b), least)]
    norm = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(steady[0] | steady[1], torch.nan, (a * b).sum(1) / norm)


def average_ranks(values: Tensor) -> Tensor:
    """Ranks (N, d) from 0, rising with the values; equal values share the mean of theirs."""
    ordered = values.sort(1).values.contiguous()
    low, high = (torch.searchsorted(ordered, values.contiguous(), right=side) for side in (False, True))
    return (low + high - 1).double() / 2


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """The rank correlation of (N, d) with (N, d), row by row, (N,); NaN where either does not vary."""
    return pearson(average_ranks(a), average_ranks(b))


def fractions_of(values: Sequence[float], name: str = "fractions", *, below: float = 1.0) -> Tensor:
    """Checked ascending fractions, (S,)."""
    found = torch.as_tensor(values, dtype=torch.double)
    if found.dim() != 1 or not len(found) or bool((found.diff() <= 0).any()) or not 0 <= found[0] <= found[-1] <= below:
        raise ValueError(f"{name}={values!r}: expected ascending numbers from 0 to {below:g}")
    return found


__all__ = ["Curve", "Options", "metric", "problem_of"]
