"""Values over all 2^d coalitions: Shapley, Banzhaf and pairwise interactions, for up to 20 features."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import coalitions_as_details, evaluate_all, note_coalitions
from torchwhy.engine.features.numbering import Features, number_features
from torchwhy.engine.run.rows import to_device
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result

MOST_KNOWN = 12  # features of which all coalitions are kept
MAX_FEATURES = 20  # features: 1,048,576 evaluations of a row


class ExactShapley(Attribution[GivenLayer]):
    r"""Shapley values from every coalition:
    :math:`\varphi_i = \sum_{S \not\ni i} \frac{|S|! (d - |S| - 1)!}{d!} [v(S \cup i) - v(S)]`.

    v(S) is the score with the features of S from the input and the others from the baseline; with K baselines the mean over
    them (interventional SHAP). In units of the score; the features sum to v(D) − v(∅); every element carries its feature's
    value. Takes :math:`K 2^d` evaluations of a row.

    Args:
        interactions: also put the pairwise Shapley interactions ``(N, d, d)`` into the explanation's ``details``
            (:func:`shapley_interactions`).

    Raises:
        ValueError: more than 20 features.

    Paper: Shapley 1953; Lundberg & Lee 2017, arXiv:1705.07874, equation 8.
    """

    interactions: bool = False

    needs_gradient: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    uses_feature_mask: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1705.07874"

    def _attribute(self, problem: Problem) -> Result:
        features = number_features(problem.x, problem.feature_mask)
        values = torch.zeros(problem.n, features.d, dtype=torch.double, device=problem.x[0].device)
        pairs = values.new_zeros(problem.n, features.d, features.d) if self.interactions else None
        gap = values.new_zeros(problem.n)
        for rows, d in features.groups():
            v = all_coalition_scores(problem, features, rows, d, type(self).__name__)
            values[rows, :d] = shapley_values(v)
            gap[rows] = (values[rows].sum(1) - (v[-1] - v[0])).abs()
            if pairs is not None:
                pairs[rows, :d, :d] = shapley_interactions(v)
        details = {} if pairs is None else {"interactions": pairs}
        details |= coalitions_as_details(problem.coalitions or [])
        return Result(features.to_elements(values, problem.x), gap, details=details)


def all_coalitions(index: Tensor, d: int) -> Tensor:
    """Return coalitions by number ``index`` ``(M,)`` as masks ``(M, d)``: bit i says whether feature i is in.

    >>> all_coalitions(torch.tensor([0, 1, 6]), 3).int().tolist()
    [[0, 0, 0], [1, 0, 0], [0, 1, 1]]
    """
    return (index[:, None] >> torch.arange(d, device=index.device)) & 1 == 1


def all_coalition_scores(problem: Problem, features: Features, rows: Tensor, d: int, method: str) -> Tensor:
    """Return the scores of all coalitions of d features, ``(2^d, N)``; the bits of a coalition's number are its members.

    Raises:
        ValueError: more than 20 features.
    """
    if d > MAX_FEATURES:
        raise ValueError(
            f"feature_mask: {method} evaluates all 2^{d} coalitions of {d} features, at most {MAX_FEATURES} are possible; "
            "group them with feature_mask, or sample with KernelSHAP or ShapleySampling"
        )

    def masks(index: Tensor, rows: Tensor) -> tuple[Tensor, ...]:
        return features.element_masks(all_coalitions(to_device(index, rows.device), d), rows)

    scores = evaluate_all(problem, masks, (0, 2**d), rows=rows)
    if problem.coalitions is not None and d <= MOST_KNOWN:
        note_coalitions(problem.coalitions, all_coalitions(torch.arange(2**d), d), scores, problem.n)
    return scores


def shapley_values(v: Tensor) -> Tensor:
    r"""Return Shapley values ``(N, d)`` of the games v ``(2^d, N)``.

    >>> shapley_values(torch.tensor([[0.0], [1.0], [2.0], [7.0]]))
    tensor([[3., 4.]])
    """
    d = (len(v) - 1).bit_length()
    by_size = v.new_tensor([1 / (d * math.comb(d - 1, s)) for s in range(d)])
    factor = by_size[_coalition_sizes(d - 1, v)]
    return torch.stack([(factor[:, None] * gain(v, i)).sum(0) for i in range(d)], 1)


def banzhaf_values(v: Tensor) -> Tensor:
    """Return Banzhaf values ``(N, d)`` of the games v ``(2^d, N)``: the mean gain over all coalitions."""
    return torch.stack([gain(v, i).mean(0) for i in range((len(v) - 1).bit_length())], 1)


def shapley_interactions(v: Tensor) -> Tensor:
    r"""Return pairwise Shapley interactions ``(N, d, d)`` of the games v ``(2^d, N)``, zero on the diagonal.

    :math:`I_{ij} = \sum_{S \not\ni i, j} \frac{|S|! (d - |S| - 2)!}{(d - 1)!} [v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)]`
    (Grabisch & Roubens 1999, equation 3).

    >>> shapley_interactions(torch.tensor([[0.0], [1.0], [2.0], [7.0]]))[0]
    tensor([[0., 4.],
            [4., 0.]])
    """
    d = (len(v) - 1).bit_length()
    out = v.new_zeros(v.shape[1], d, d)
    if d < 2:
        return out
    by_size = v.new_tensor([1 / ((d - 1) * math.comb(d - 2, s)) for s in range(d - 1)])
    factor = by_size[_coalition_sizes(d - 2, v)]
    for i in range(d):
        without = gain(v, i)  # a game of the other d - 1 features
        for j in range(i):  # those below i keep their number
            out[:, i, j] = out[:, j, i] = (factor[:, None] * gain(without, j)).sum(0)
    return out


def banzhaf_interactions(v: Tensor) -> Tensor:
    """Return pairwise Banzhaf interactions ``(N, d, d)`` of the games v ``(2^d, N)``, zero on the diagonal.

    They are the mean over all S of what :func:`shapley_interactions` weighs by size.
    """
    d = (len(v) - 1).bit_length()
    out = v.new_zeros(v.shape[1], d, d)
    for i in range(d):
        without = gain(v, i)
        for j in range(i):
            out[:, i, j] = out[:, j, i] = gain(without, j).mean(0)
    return out


def gain(v: Tensor, i: int) -> Tensor:
    """Return what feature i adds to each coalition of the others, ``(2^(d-1), N)``, from scores v ``(2^d, N)``."""
    split = v.view(-1, 2, 2**i, v.shape[1])
    return (split[:, 1] - split[:, 0]).flatten(0, 1)


def _coalition_sizes(d: int, like: Tensor) -> Tensor:
    """Return the number of members of each of the 2^d coalitions."""
    return all_coalitions(torch.arange(2**d, device=like.device), d).sum(1)
