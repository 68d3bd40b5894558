"""Training rows that look alike to a layer."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.layers.layer import LayerLike, record_activations, resolve_layer
from torchwhy.influence.influence_method import InfluenceMethod
from torchwhy.influence.training_rows import RowsInBatches

Pool = Literal["grid", "tokens"] | None


class LayerFeatures(InfluenceMethod):
    """The base of methods that compare what passes a layer.

    Args:
        layer: where; None compares the inputs themselves.
        pool: average over places first: ``"grid"`` over all dimensions after the channels ``(N, C, ...)``, ``"tokens"`` over
            those before the last one ``(N, T, C)``; None flattens.
    """

    layer: LayerLike | None = None
    pool: Pool = None
    kept: Tensor | None = field(default=None, init=False, compare=False)

    def _fit(self, rows: RowsInBatches) -> None:
        self.kept = self._features(rows)

    def _features(self, rows: RowsInBatches) -> Tensor:
        """Return what passes the layer, ``(n, d)``."""
        place = None if self.layer is None else resolve_layer(self.model, self.layer)
        found = []
        for batch in self._steps(rows):
            if place is None:
                found.append(self._flat(batch.parts[0]))
                continue
            (passed,) = record_activations(lambda batch=batch: batch.call(self.model), [place])  # type: ignore[misc]
            if passed.dim() == 0 or len(passed) != batch.n_rows:
                raise ValueError(
                    f"layer: {place} passes {tuple(passed.shape)} for {batch.n_rows} rows, which come first"
                )
            found.append(self._flat(passed))
        return torch.cat(found)

    def _flat(self, passed: Tensor) -> Tensor:
        if self.pool is not None and passed.dim() > 2:
            passed = passed.flatten(2).mean(2) if self.pool == "grid" else passed.flatten(1, -2).mean(1)
        flat = passed.flatten(1)
        return flat if flat.is_floating_point() else flat.float()

    def _pairs(self, rows: RowsInBatches) -> tuple[Tensor, Tensor]:
        """Return the features of the explained rows and of the training rows.

        Raises:
            ValueError: they have not as many numbers.
        """
        own, kept = self._features(rows), self.kept
        if kept is None or own.shape[1] != kept.shape[1]:
            there = None if kept is None else kept.shape[1]
            raise ValueError(f"inputs: {own.shape[1]} numbers a row at the layer, the training rows have {there}")
        return own, kept


class SimilarityInfluence(LayerFeatures):
    r"""How alike an explained row and a training row are to a layer: :math:`A_{ni} = s(y(x_n), y(z_i))`.

    Shape ``(N, n_train)``, the larger the more alike: the cosine in [−1, 1], the product, or the Euclidean distance below zero.
    It does not know labels or losses, and says which rows look alike, not which ones made the answer so: the baseline that the
    other methods have to beat. One run over the training rows, in :meth:`fit`, which keeps their activations.

    Measured by training again (linear datamodeling score and its 95 % interval, ``benchmarks/influence.py``): 0.13 (0.02 … 0.22)
    on a small CNN; 0.06 (-0.04 … 0.15) on a tiny language model, where words in common (BM25) have 0.23 (0.12 … 0.33).

    Args:
        layer, pool: where, and whether over places; see above.
        metric: s.

    Paper: the comparison in Hanawa et al. 2021, arXiv:2006.04528; as of Captum.
    """

    metric: Literal["cosine", "dot", "euclidean"] = "cosine"

    paper: ClassVar[str] = "arXiv:2006.04528"

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        own, kept = self._pairs(rows)
        return compare_features(own, kept, self.metric)


def compare_features(a: Tensor, b: Tensor, metric: str) -> Tensor:
    """Return how alike rows ``(N, d)`` and ``(n, d)`` are, ``(N, n)``."""
    if metric == "euclidean":
        return -torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").cpu()
    if metric == "cosine":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    return (a @ b.T).cpu()
