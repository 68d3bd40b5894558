"""The loss of each row: what was trained to be small."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional as F

from torchwhy.engine.structure import Output
from torchwhy.influence.training_rows import IGNORED, RowBatch
from torchwhy.targets import find_logits

LossFunction = Callable[[Tensor, Tensor], Tensor]


def standard_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss: cross-entropy for whole-number labels, squared error for others.

    Logits ``(N, T, tokens)`` with labels ``(N, T)`` are those of a causal language model: position t says token t + 1, and
    labels of −100 count nothing. Other logits have their classes in dimension 1.
    """
    if labels.is_floating_point():
        return F.mse_loss(logits.reshape(labels.shape), labels)
    if speaks_of_next_token(logits, labels):
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED)
    return F.cross_entropy(logits, labels)


def speaks_of_next_token(logits: Tensor, labels: Tensor) -> bool:
    """Say whether logits are those of a causal language model, by their shape."""
    return logits.dim() == 3 and labels.dim() == 2 and logits.shape[:2] == labels.shape


class RowLoss:
    """The loss of one row.

    Args:
        given: ``(output, labels) → loss``, the mean over a batch, as PyTorch has them; None is :func:`standard_loss`.
    """

    def __init__(self, given: LossFunction | None) -> None:
        self.given = given

    def __call__(self, output: Output, labels: Tensor) -> Tensor:
        """Return the loss of a batch of one row, a number.

        Raises:
            ValueError: it is not one number.
        """
        loss = (self.given or standard_loss)(find_logits(output), labels)
        if loss.numel() != 1:
            raise ValueError(f"loss: expected one number for a batch of one row, got shape {tuple(loss.shape)}")
        return loss.reshape(())

    def complete(self, batch: RowBatch) -> RowBatch:
        """Return a batch with labels: token ids are their own labels, padding left out.

        Raises:
            ValueError: there are none, or a row has no token to predict.
        """
        names = batch.structure.names or ()
        ids = dict(zip(names, batch.parts)).get("input_ids", batch.parts[0] if len(batch.parts) == 1 else None)
        if batch.labels is None:
            if ids is None or ids.is_floating_point() or ids.dim() != 2:
                raise ValueError(
                    "labels: there are none, and the loss needs them; give them, fit(x, y), or batches (x, y). Only token ids "
                    "(N, T) are their own labels"
                )
            mask = dict(zip(names, batch.parts)).get("attention_mask")
            batch = batch._replace(labels=ids if mask is None else ids.masked_fill(mask == 0, IGNORED))
        labels = batch.labels
        if labels is not None and ids is not None and labels.shape == ids.shape and not labels.is_floating_point():
            empty = (labels[:, 1:] == IGNORED).all(1).nonzero() if labels.dim() == 2 else labels.new_zeros(0)
            if len(empty):
                raise ValueError(f"labels: row {batch.first + int(empty[0])} has no token to predict")
        return batch
