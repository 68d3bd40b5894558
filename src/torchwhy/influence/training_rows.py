"""Rows that come in batches, gone through as often as needed, so that only a batch of them is in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from torchwhy.datasets.batches import batches_of
from torchwhy.engine.run.batching import budget_of
from torchwhy.engine.structure import AnyOutput, InForm, Output, Structure, flatten

SLICE, SMALLEST_SLICE = 256, 8  # rows of a batch of tensors
INPUTS_SHARE = 64  # of the memory, of which their inputs take one
IGNORED = -100  # the label of a token that counts nothing, as in PyTorch's cross-entropy


class RowBatch(NamedTuple):
    """Rows ``first``, ``first + 1``, ...: input tensors ``(m, ...)``, how the model takes them, labels ``(m, ...)`` or None."""

    first: int
    parts: tuple[Tensor, ...]
    structure: Structure
    labels: Tensor | None

    @property
    def n_rows(self) -> int:
        """How many rows there are."""
        return len(self.parts[0])

    def call(self, model: nn.Module) -> AnyOutput:
        """Return what the model makes of the rows."""
        return call_on_parts(model, self.parts, self.structure)

    def pieces(self, size: int) -> Iterator[RowBatch]:
        """Yield the rows in smaller batches."""
        for a in range(0, self.n_rows, size):
            labels = None if self.labels is None else self.labels[a : a + size]
            yield RowBatch(self.first + a, tuple(p[a : a + size] for p in self.parts), self.structure, labels)


def call_on_parts(model: nn.Module, parts: Sequence[Tensor], structure: Structure) -> Output:
    """Return what a model makes of inputs: the parts of a dict by name, others in their order."""
    return model(*parts) if structure.names is None else model(**structure.restore(parts))


class RowsInBatches:
    """Rows of data, a batch at a time, in an order that is the same each time.

    Args:
        data: as :func:`torchwhy.datasets.batches.batches_of` takes it: a loader, a dataset, a table, tensors, batches.
        labels: those of tensors, ``(N, ...)``, where ``data`` does not hold them.
        device: where the model is.
        batch_size: the most rows of a batch.

    Raises:
        TypeError: data of another kind, or an iterator, which can be gone through once only.
    """

    def __init__(
        self, data: InForm, labels: InForm = None, device: torch.device | None = None, batch_size: int | None = None
    ) -> None:
        if isinstance(data, Iterator):
            raise TypeError(
                f"data: a {type(data).__name__} can be gone through once only; give a list of batches, a dataset or a loader"
            )
        self.data = data if labels is None else _join(data, labels)
        self.device, self.batch_size = device or torch.device("cpu"), batch_size
        self.n: int | None = None

    def __repr__(self) -> str:
        return f"<{'?' if self.n is None else self.n} rows>"

    def __iter__(self) -> Iterator[RowBatch]:
        """Yield the batches.

        Raises:
            ValueError: no rows, other numbers of them in the tensors of a batch, or another number than the last time.
        """
        total, size = 0, self._slice() if isinstance(self.data, (Tensor, tuple, Mapping)) else None
        for batch in batches_of(self.data, None, size):
            parts, structure = flatten(batch.inputs)
            tensors = tuple(self._tensor(p, f"inputs of batch {batch.number}") for p in parts)
            labels = None if batch.labels is None else self._tensor(batch.labels, f"labels of batch {batch.number}")
            sizes = {len(t) if t.dim() else 0 for t in (*tensors, *(() if labels is None else (labels,)))}
            if len(sizes) != 1:
                raise ValueError(f"data: batch {batch.number} has tensors of {sorted(sizes)} rows; each needs as many")
            total += batch.rows
            found = RowBatch(batch.first_row, tensors, structure, labels)
            yield from found.pieces(self.batch_size or batch.rows)
        if self.n is not None and total != self.n:
            raise ValueError(f"data: {self.n} rows when they were counted, {total} now; the rows must stay the same")
        self.n = total

    def _slice(self) -> int:
        """Return how many rows of tensors make a batch: fewer of large ones."""
        parts = [part for part in flatten(self.data)[0] if isinstance(part, Tensor) and part.dim() and len(part)]
        bytes_of_row = sum(part.nbytes // len(part) for part in parts)
        return max(SMALLEST_SLICE, min(SLICE, budget_of(self.device) // (INPUTS_SHARE * max(1, bytes_of_row))))

    def _tensor(self, value: InForm, name: str) -> Tensor:
        """Return a tensor on the model's device."""
        try:
            return torch.as_tensor(value).to(self.device)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"data: the {name} are a {type(value).__name__}, no tensor ({error})") from None

    def count(self) -> int:
        """Return how many rows there are, after going through them the first time."""
        if self.n is None:
            for _ in self:
                pass
        return self.n or 0

    def labels(self) -> Tensor | None:
        """Return the labels of all rows where each has one number, ``(n,)``, else None."""
        found = []
        for batch in self:
            if batch.labels is None or batch.labels.numel() != batch.n_rows:
                self.count()
                return None
            found.append(batch.labels.reshape(-1).cpu())
        return torch.cat(found)

    def take(self, wanted: Sequence[int]) -> list[Tensor]:
        """Return the first input of some rows, by going through the rows up to the last of them."""
        found: dict[int, Tensor] = {}
        for batch in self:
            found.update(
                {i: batch.parts[0][i - batch.first].cpu() for i in wanted if 0 <= i - batch.first < batch.n_rows}
            )
            if len(found) == len(set(wanted)):
                break
        return [found[i] for i in wanted]


def _join(data: InForm, labels: InForm) -> InForm:
    """Return tensors together with their labels, in the form in which a data set holds both."""
    if isinstance(data, (Tensor, np.ndarray)):
        return (data, labels)
    if isinstance(data, tuple):
        return (*data, labels)
    if isinstance(data, Mapping):
        return {**data, "labels": labels}
    kind = type(data).__name__
    raise TypeError(
        f"labels: a {kind} holds its labels itself, in pairs (x, y); they are given beside tensors and arrays"
    )
