"""Shapley values of training rows in a nearest-neighbour classifier, exactly."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.influence.similarity import LayerFeatures, compare_features
from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.settings import Count


class KNNShapley(LayerFeatures):
    r"""The Shapley value of each training row in the game whose value is the share of a row's nearest neighbours that have its
    label: :math:`v(S) = \frac{1}{K} \sum_{k \le \min(K, |S|)} 1[y_{\alpha_k(S)} = y]`.

    Sorted by distance, the nearest first, :math:`s_n = 1[y_n = y] \min(K, n) / (K n)` and :math:`s_i = s_{i + 1} +
    \frac{1[y_i = y] - 1[y_{i+1} = y]}{K} \frac{\min(K, i)}{i}`: exact, in one sort. Shape ``(N, n_train)``, summing to the share
    of the label among the K nearest rows. It speaks of a nearest-neighbour classifier on what passes a layer, which stands in
    for the model: good for finding rows that harm, not for what this model learned. Rows at one distance count in their order.

    Measured by training again (linear datamodeling score and its 95 % interval, ``benchmarks/influence.py``): 0.57 (0.49 … 0.64)
    on a small CNN, where rows alike at a layer, without the labels, have 0.13 (0.02 … 0.22).

    Args:
        layer, pool: where distances are measured; None: between the inputs.
        n_neighbors: K.
        metric: the distance.

    Raises:
        ValueError: training rows or explained rows without one whole number as their label.

    Paper: Jia et al. 2019, arXiv:1908.08619, theorem 1; for n < K with the last row's share as above.
    """

    n_neighbors: Count = 5
    metric: Literal["euclidean", "cosine"] = "euclidean"

    paper: ClassVar[str] = "arXiv:1908.08619"

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        own, kept = self._pairs(rows)
        given, known = rows.labels(), self.training_labels
        for name, labels in (("labels", given), ("data", known)):
            if labels is None or labels.is_floating_point():
                raise ValueError(f"{name}: KNNShapley needs a whole number as the label of each row")
        order = compare_features(own, kept, self.metric).sort(dim=1, descending=True, stable=True).indices
        return self._values(order, known[order] == given[:, None])  # type: ignore[index]

    def _values(self, order: Tensor, agrees: Tensor) -> Tensor:
        """Return the values ``(N, n)`` of rows in ``order``, the nearest first, that have the label or not."""
        n, k = agrees.shape[1], self.n_neighbors
        hits = agrees.double()
        place = torch.arange(1, n + 1, dtype=torch.double)
        weights = place.clamp(max=k) / (k * place)
        steps = (hits[:, :-1] - hits[:, 1:]) * weights[:-1]
        last = hits[:, -1:] * weights[-1]
        values = torch.cat([steps, last], 1).flip(1).cumsum(1).flip(1)
        return torch.zeros_like(values).scatter_(1, order, values)
