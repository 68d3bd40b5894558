"""Attributions as one number for each feature, checked: what the metrics read from an explanation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.axes import axes_of
from torchwhy.engine.features.numbering import Features, number_features
from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.engine.structure import flatten
from torchwhy.explanation import Explanation
from torchwhy.problem import Problem

TensorOrArray = Tensor | np.ndarray
AttributionsLike = TensorOrArray | Explanation | Sequence[TensorOrArray] | Mapping[str, TensorOrArray]


def as_attributions(
    attributions: AttributionsLike,
) -> TensorOrArray | Sequence[TensorOrArray] | Mapping[str, TensorOrArray]:
    """Return what was given as attributions; of an explanation those that it shows."""
    return attributions.shown if isinstance(attributions, Explanation) else attributions


def tensors_of(attributions: AttributionsLike) -> tuple[Tensor, ...]:
    """Return the tensors of attributions, in at least single precision; arrays of NumPy become tensors.

    Raises:
        TypeError: something else than tensors.
        ValueError: NaN or infinite attributions, or different numbers of rows.
    """
    parts = flatten(as_attributions(attributions))[0]
    tensors = tuple(torch.as_tensor(t) if isinstance(t, np.ndarray) else t for t in parts)
    found = tuple(t for t in tensors if isinstance(t, Tensor) and t.dim())
    if not found or len(found) < len(tensors):
        raise TypeError("attributions: expected a tensor (N, ...), or a tuple or dict of them, as a method gives")
    for t in found:
        bad = (~t.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist() if t.dim() > 1 else []
        if bad or not bool(t.isfinite().all()):
            raise ValueError(f"attributions: NaN or infinite in row {(bad or [0])[0]:,}: there is nothing to measure")
    if len({len(t) for t in found}) != 1:
        raise ValueError(f"attributions: the tensors have {', '.join(str(len(t)) for t in found)} rows")
    return tuple(t.detach().to(torch.promote_types(t.dtype, torch.float)) for t in found)


def flatten_attributions(attributions: AttributionsLike) -> Tensor:
    """Return attributions as one matrix (N, d)."""
    return torch.cat([t.reshape(len(t), -1) for t in tensors_of(attributions)], 1)


@dataclass(frozen=True)
class FeatureScores:
    """Features, and the attribution of each.

    ``features``: d features; ``values`` (N, d).
    """

    features: Features
    values: Tensor

    @property
    def d(self) -> int:
        """The number of features."""
        return self.features.d

    def ranks(self, generator: torch.Generator) -> Tensor:
        """Return ranks (N, d): 0 for the feature with the largest value, 1 for the next, ...; ties in a random order."""
        # by a number for each feature, whatever others there are: a row of few is not shuffled by the company it is in
        shuffle = draw_uniform(self.d, generator=generator, dtype=torch.double).argsort().to(self.values.device)
        missing = torch.arange(self.d, device=self.values.device) >= self.features.count[:, None]
        values = self.values.masked_fill(missing, -torch.inf)[:, shuffle]
        order = shuffle[values.argsort(dim=1, descending=True, stable=True)]
        return order.argsort(dim=1)

    def ranks_at_elements(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Return the ranks on every element, for each input tensor; broadcastable to it."""
        ranks = self.ranks(generator)
        return self.features.element_masks(ranks, torch.arange(len(ranks), device=ranks.device))


def to_features(problem: Problem, attributions: AttributionsLike, *, reduce: Literal["sum", "mean"]) -> FeatureScores:
    """Return the attributions of a problem's features: of its ``feature_mask``, or one for each element of the attributions.

    Args:
        problem: what was explained.
        attributions: in the form of the inputs; sizes of 1 stand for a whole dimension, and so do missing channels of images.
        reduce: how the elements of a feature are put together.

    Raises:
        ValueError: attributions of another shape than the inputs, or of other names.
    """
    found = _in_the_form_of_inputs(problem, as_attributions(attributions))
    if problem.feature_mask is None:
        return FeatureScores(number_features(found), flatten_attributions(found))
    features = number_features(problem.x, problem.feature_mask)
    values = features.count.new_zeros(problem.n, features.d, dtype=flatten_attributions(found).dtype)
    number = torch.zeros_like(values)
    for t, ids, x in zip(found, features.ids, problem.x):
        index, value = ids.expand(x.shape).flatten(1), t.expand(x.shape).flatten(1).to(values)
        shared = x[0].numel() // t[0].numel() if reduce == "sum" else 1  # by so many elements that one value stands for
        values.scatter_add_(1, index, value / shared)
        number.scatter_add_(1, index, torch.ones_like(value))
    return FeatureScores(features, values / number.clamp(min=1) if reduce == "mean" else values)


def _in_the_form_of_inputs(problem: Problem, attributions: AttributionsLike) -> tuple[Tensor, ...]:
    """Return one tensor for each input, matched by name where there are names, on its device, broadcastable to it."""
    names, given = problem.inputs.names, flatten(as_attributions(attributions))[1].names
    found = tensors_of(attributions)
    if given is not None and names is not None:
        if set(given) != set(names):
            raise ValueError(f"attributions: of {', '.join(map(str, given))}; the inputs are {', '.join(names)}")
        found = tuple(found[given.index(name)] for name in names)
    if len(found) != len(problem.x):
        raise ValueError(f"attributions: {len(found)} tensors given for {len(problem.x)} inputs")
    found = tuple(_with_channels(problem, i, t) for i, t in enumerate(found))
    for t, x in zip(found, problem.x):
        if t.dim() != x.dim() or len(t) != len(x) or any(a not in (1, b) for a, b in zip(t.shape[1:], x.shape[1:])):
            raise ValueError(
                f"attributions: shape {tuple(t.shape)} does not fit the inputs' {tuple(x.shape)}; each size after the "
                "first must be that of the inputs or 1"
            )
    return tuple(t.to(x.device) for t, x in zip(found, problem.x))


def one_for_each_token(attributions: Tensor, inputs: Tensor) -> Tensor:
    """Return the attributions of token ids' embeddings ``(N, T, E)`` summed over these; others as they are."""
    of_embeddings = not inputs.is_floating_point() and attributions.shape[:-1] == inputs.shape
    return attributions.sum(-1) if of_embeddings else attributions


def _with_channels(problem: Problem, index: int, attributions: Tensor) -> Tensor:
    """Return attributions of pictures and videos with an axis of one channel, where they have none; of tokens one for each."""
    attributions = one_for_each_token(attributions, problem.x[index])
    dims = problem.x[index].dim()
    if attributions.dim() != dims - 1 or (dims < 4 and not problem.axes):
        return attributions
    channels = axes_of(problem, index).channels
    return attributions if channels is None else attributions.unsqueeze(channels)
