"""Axioms: properties that an explanation has or has not."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import Unpack

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.run.checks import finite_numbers
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.rows import Stacked, exact_tensor
from torchwhy.engine.structure import flatten
from torchwhy.input_types import Inputs
from torchwhy.metrics.definition import metric
from torchwhy.metrics.features_of_attributions import AttributionsLike, tensors_of, to_features
from torchwhy.metrics.reexplain import Data, copy_method, explain_again, make_deterministic, make_problem, relative
from torchwhy.metrics.scoring import ModelLike, Options, as_scores, problem_of, reduction, rounding
from torchwhy.provenance import measure_completeness_gap
from torchwhy.settings import ShareBelowOne
from torchwhy.targets import TargetLike


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1703.01365", sum_channels=False)
@torch_defaults()
def completeness_gap(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    **options: Unpack[Options],
) -> Tensor:
    r"""Compute how far the attributions are from adding up: :math:`|\sum_i a_{ni} - (f(x_n) - f(b_n))|`, (N,).

    In units of the score; the mean of f(b) for several baselines. Only methods whose fact ``is_complete`` holds promise a
    small one.

    Args:
        model, inputs, target: as for a method.
        attributions: their sum counts, whatever their shape; with ``whole_features``, that of the features.
        options: see :class:`Options`; the baselines must be those of the method.

    Paper: Sundararajan et al. 2017, arXiv:1703.01365, proposition 1.
    """
    problem = problem_of(model, inputs, target, **options)
    whole = options.get("whole_features")
    found = (to_features(problem, attributions, reduce="mean").values,) if whole else tensors_of(attributions)
    if len(found[0]) != problem.n:
        raise ValueError(f"attributions: {len(found[0])} rows for {problem.n} rows of inputs")
    with problem.open():
        return as_scores(measure_completeness_gap(problem, found), problem)


@metric(higher_is_better=False, range=(0, 1), paper="arXiv:2007.07584")
@torch_defaults()
def non_sensitivity(
    model: ModelLike,
    inputs: Inputs,
    attributions: AttributionsLike,
    target: TargetLike = None,
    *,
    tolerance: ShareBelowOne = 1e-3,
    **options: Unpack[Options],
) -> Tensor:
    """Compute the share of the features that have an attribution but no effect, or an effect but no attribution, (N,).

    The effect is how far the score moves when the feature alone is replaced by the baseline. Nothing is what is at most
    ``tolerance`` times the row's largest.

    Args:
        model, inputs, attributions, target, options: as for :func:`torchwhy.metrics.deletion`; the model is run once
            for every feature, so give images a ``feature_mask``.
        tolerance: a share.

    Paper: Nguyen and Martinez 2020, arXiv:2007.07584, section 3.2; there a count, of effects over many fillings.
    """
    problem = problem_of(model, inputs, target, **options)
    by_feature = to_features(problem, attributions, reduce=reduction(options))
    with problem.open():
        scores = evaluate_all(problem, by_feature.features.leave_one_out_masks, (0, by_feature.d + 1))
    effect, size = (scores[0] - scores[1:]).T.abs(), by_feature.values.abs().double()
    effect = torch.where(effect > rounding(scores.T, problem)[:, None], effect, 0)
    exists = torch.arange(by_feature.d, device=size.device) < by_feature.features.count[:, None]
    has_effect, has_size = (v > tolerance * v.amax(1, keepdim=True) for v in (effect, size))
    return as_scores(((has_effect ^ has_size) & exists).sum(1).double() / by_feature.features.count, problem)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:1711.00867")
@torch_defaults()
def input_invariance(
    method: Attribution, inputs: Inputs, target: TargetLike = None, *, shift: float | Tensor = 1.0, **data: Unpack[Data]
) -> Tensor:
    r"""Compute how far the explanation changes when inputs and network are shifted against each other, (N,).

    :math:`\|A'(x_n + s) - A(x_n)\| / \|A(x_n)\|`, A' the explanation of :math:`f'(x) = f(x - s)`, which has the same
    scores and gradients: nothing has changed. NaN where A(x) is all zero. Methods with a fixed baseline change, as its
    meaning does.

    Args:
        method, inputs, target, data: as for :func:`torchwhy.metrics.sensitivity_max`.
        shift: s, a number or a tensor that broadcasts to each input.

    Paper: Kindermans et al. 2017, arXiv:1711.00867, section 2.
    """
    finite_numbers("shift", shift)
    method, data = make_deterministic(method, inputs, data)
    other, aim = copy_method(method, target)
    tensors = make_problem(method, inputs, target, 0, data).x
    s = exact_tensor(shift, tensors[0].device)
    sizes = [(s.shape, (1,) * (s.dim() - x.dim()) + x[:1].shape) for x in tensors]
    if any(s.dim() > len(row) or any(a not in (1, b) for a, b in zip(own[::-1], row[::-1])) for own, row in sizes):
        raise ValueError(f"shift: shape {tuple(s.shape)} does not broadcast to a row of each input")
    plain, n = other.model.forward, len(tensors)
    names = flatten(inputs)[1].names or ()

    def forward(*args: Tensor, **kwargs: Tensor) -> object:
        moved = (t - s.to(t) for t in args[:n]) if not names else args[:n]
        return plain(*moved, *args[n:], **{k: v - s.to(v) if k in names else v for k, v in kwargs.items()})

    other.model.forward = forward
    shifted = _in_the_form_of(inputs, [x + s.to(x) for x in tensors])
    a, b = explain_again(method, inputs, target, data), explain_again(other, shifted, aim, data)
    return relative((b - a).norm(dim=1), a.norm(dim=1))


def _in_the_form_of(inputs: Inputs, tensors: Sequence[Tensor]) -> Inputs:
    """Return tensors as a tensor, a tuple or a dict, as the inputs are."""
    given, structure = flatten(inputs)
    return structure.restore([Stacked(t, g.form) if isinstance(g, Stacked) else t for t, g in zip(tensors, given)])
