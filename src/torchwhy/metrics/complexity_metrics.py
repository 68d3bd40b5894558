"""Complexity: is the explanation short? Read from the absolute attributions alone; no model is run.

A map of zeros has no complexity: NaN.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.metrics.definition import metric
from torchwhy.metrics.features_of_attributions import AttributionsLike, flatten_attributions
from torchwhy.settings import ShareBelowOne


@metric(higher_is_better=True, range=(0, 1), paper="arXiv:1810.06583")
@torch_defaults()
def sparseness(attributions: AttributionsLike) -> Tensor:
    r"""Compute the Gini index of the absolute attributions, (N,): 0 where all are equal, near 1 where one has everything.

    :math:`\sum_k (2k - d - 1) a_{(k)} / (d \sum_k a_{(k)})`, in ascending order, k = 1, ..., d; at most 1 − 1/d.

    Paper: Chalasani et al. 2020, arXiv:1810.06583, section 2.3.

    >>> sparseness(torch.tensor([[0.0, 0, 0, 5], [1, 1, 1, 1]]))
    tensor([0.7500, 0.0000])
    """
    a = _sizes(attributions).sort(1).values
    d = a.shape[1]
    weights = 2 * torch.arange(1, d + 1, device=a.device).to(a) - d - 1
    return (a * weights).sum(1) / (d * a.sum(1))


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:2005.00631")
@torch_defaults()
def complexity(attributions: AttributionsLike) -> Tensor:
    r"""Compute the entropy of the shares of the absolute attributions, (N,), in nats: 0 for one feature, ln d for d equal ones.

    :math:`-\sum_i p_i \ln p_i,\; p_i = |a_i| / \sum_j |a_j|`.

    Paper: Bhatt et al. 2020, arXiv:2005.00631, definition 4.
    """
    a = _sizes(attributions)
    p = a / a.sum(1, keepdim=True)
    return torch.special.entr(p).sum(1)


@metric(higher_is_better=False, range=(0, math.inf), paper="arXiv:2007.07584")
@torch_defaults()
def effective_complexity(attributions: AttributionsLike, *, epsilon: ShareBelowOne = 0.01) -> Tensor:
    """Count the features with an absolute attribution above ``epsilon`` times the row's largest, (N,).

    Paper: after Nguyen and Martinez 2020, arXiv:2007.07584, section 3.3, who ask how many features keep the score within a
    tolerance (for which see :func:`torchwhy.metrics.sufficiency`); the count does not depend on the scale.
    """
    a = flatten_attributions(attributions).abs()
    largest = a.amax(1, keepdim=True)
    return torch.where(largest[:, 0] > 0, (a > epsilon * largest).sum(1).to(a), torch.nan)


def _sizes(attributions: AttributionsLike) -> Tensor:
    """Return the absolute attributions (N, d) over the row's largest, so that their sum is finite."""
    a = flatten_attributions(attributions).abs()
    return a / a.amax(1, keepdim=True)
