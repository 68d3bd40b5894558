"""From what users have to batches: loaders, datasets, tables, tensors, iterables."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.structure import AnyForm, InForm, flatten

ROWS = 32  # of a batch, where the data do not come in batches
LABELS = ("label", "labels")  # keys of a batch that is a mapping
DataSet = AnyForm  # a loader, a dataset, a table, tensors or an iterable, see `batches_of`
Collate = Callable[[InForm], InForm]


class Batch(NamedTuple):
    """Rows ``first_row``, ``first_row + 1``, ... of the data: batch ``number``, with the labels that came with it, if any."""

    number: int
    first_row: int
    rows: int
    inputs: AnyForm
    labels: AnyForm = None
    unreadable: Mapping[int, str] = {}  # rows of the batch that could not be read, and why


class PartlyRead(NamedTuple):
    """A batch's inputs with something of the right shape in the place of what could not be read: rows of the batch, and why."""

    inputs: AnyForm
    unreadable: Mapping[int, str]


def batches_of(data: DataSet, collate: Collate | None = None, batch_size: int | None = None) -> Iterator[Batch]:
    """Yield the batches of a data set, in its order.

    Args:
        data: a ``DataLoader``, whose batches are taken as they are; a dataset with ``len`` and rows by number (also of Hugging
            Face), or an iterable dataset, of which batches are made; a DataFrame; a tensor ``(N, ...)`` or a tuple or dict of
            them; or any iterable of batches or samples. A batch is what a method explains, or a tuple of that and labels; a
            tuple of more is several inputs and labels, a mapping may hold them as ``"label"`` or ``"labels"``.
        collate: for datasets, what makes a batch of a list of their rows (default: PyTorch's); for loaders and iterables,
            what makes a batch in this sense of one of theirs.
        batch_size: the rows of a batch, where the data do not come in batches.

    Raises:
        TypeError: none of these.
        ValueError: a batch without rows, or an empty data set.
    """
    first, number = 0, -1
    for number, given in enumerate(_as_batches(data, collate, batch_size)):
        unreadable: Mapping[int, str] = {}
        if isinstance(given, PartlyRead):
            given, unreadable = given
        inputs, labels = split_labels(given)
        rows = count_rows(inputs)
        if rows == 0:
            raise ValueError(f"data: batch {number} has no rows")
        yield Batch(number, first, rows, inputs, labels, unreadable)
        first += rows
    if number < 0:
        raise ValueError("data: there are no rows")


def _as_batches(data: DataSet, collate: Collate | None, batch_size: int | None) -> Iterable[InForm]:
    """Return what iterates over batches, in the form in which the user has them."""
    size = batch_size or ROWS
    if hasattr(data, "iloc"):
        return (data.iloc[a : a + size] for a in range(0, len(data), size))
    if isinstance(data, (Tensor, np.ndarray, tuple, Mapping)):
        return _slices(data, size)
    if isinstance(data, torch.utils.data.DataLoader):
        _refuse_shuffling(data)
        return _made_batches(data, collate, batch_size)
    is_dataset = hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (list, str))
    if is_dataset or isinstance(data, torch.utils.data.IterableDataset):
        return torch.utils.data.DataLoader(data, batch_size=size, collate_fn=collate)
    if isinstance(data, Iterable) and not isinstance(data, str):
        return _made_batches(data, collate, batch_size)
    raise TypeError(
        f"data: expected a DataLoader, a dataset, a table, tensors or an iterable, got {type(data).__name__}"
    )


def count_batches(data: DataSet, batch_size: int | None = None) -> int | None:
    """Return how many batches :func:`batches_of` yields, None where nothing says so before they are read."""
    if isinstance(data, (tuple, Mapping)):
        return count_batches(flatten(data)[0][0], batch_size) if len(data) else None
    try:
        n = len(data)
    except TypeError:
        return None
    is_cut = not hasattr(data, "__getitem__") or isinstance(data, (list, torch.utils.data.DataLoader))
    return n if is_cut else -(-n // (batch_size or ROWS))


def count_all_rows(data: DataSet) -> int | None:
    """Return how many rows a data set has, None where nothing says so before they are read."""
    if isinstance(data, (tuple, Mapping)):
        return count_all_rows(flatten(data)[0][0]) if len(data) else None
    if isinstance(data, torch.utils.data.DataLoader):
        return None if data.drop_last else count_all_rows(data.dataset)
    if isinstance(rows := getattr(data, "rows", None), int):
        return rows
    is_cut = isinstance(data, list) or not hasattr(data, "__getitem__") or not hasattr(data, "__len__")
    return None if is_cut else len(data)


def _slices(data: InForm, size: int) -> Iterator[InForm]:
    """Yield slices of tensors, whole rows."""
    parts, structure = flatten(data)
    parts = tuple(torch.as_tensor(part) for part in parts)
    lengths = {len(part) if part.dim() else 0 for part in parts}
    if len(lengths) != 1:
        raise ValueError(f"data: tensors of {', '.join(str(tuple(p.shape)) for p in parts)}; each needs as many rows")
    for a in range(0, lengths.pop(), size):
        yield structure.restore([part[a : a + size] for part in parts])


def _made_batches(data: Iterable[InForm], collate: Collate | None, batch_size: int | None) -> Iterable[InForm]:
    """Return batches that are made already, brought into our form by ``collate``."""
    if batch_size is not None:
        raise TypeError(f"batch_size: the batches of a {type(data).__name__} are made already; leave it out")
    return data if collate is None else map(collate, data)


def _refuse_shuffling(loader: object) -> None:
    """Refuse a loader that gives another order each time: what is finished could not be told."""
    if isinstance(getattr(loader, "sampler", None), torch.utils.data.RandomSampler):
        raise ValueError(
            "data: this DataLoader shuffles, so that no second run meets the same batches; build it with shuffle=False"
        )


def split_labels(batch: InForm) -> tuple[InForm, InForm]:
    """Return the inputs and the labels of a batch, None without any; see :func:`batches_of`."""
    if isinstance(batch, Mapping):
        label = next((key for key in LABELS if key in batch), None)
        if label is None:
            return batch, None
        return {key: value for key, value in batch.items() if key != label}, batch[label]
    if not isinstance(batch, (tuple, list)) or any(isinstance(part, str) for part in batch):
        return batch, None
    if len(batch) == 1:
        return batch[0], None
    return (batch[0] if len(batch) == 2 else tuple(batch[:-1])), batch[-1]


def count_rows(inputs: AnyForm) -> int:
    """Return the number of rows of a batch's inputs: a tensor, a tuple or dict of them, a table or a sample."""
    if hasattr(inputs, "masked"):
        if inputs.tensors is None:  # of texts, which become tensors when the model is known
            return len(getattr(inputs, "texts", "1"))
        inputs = inputs.tensors
    first = flatten(inputs)[0][0]
    return len(first) if getattr(first, "ndim", 1) else 0


def take_rows(value: InForm, rows: list[int], n: int) -> InForm:
    """Return some of the n rows of inputs or labels."""
    if hasattr(value, "iloc"):
        return value.iloc[rows]
    parts, structure = flatten(value)
    if all(isinstance(p, (int, float, str)) for p in parts):
        return [parts[i] for i in rows]
    return structure.restore([p[rows] if getattr(p, "ndim", 0) and len(p) == n else p for p in parts])


class _Digest(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...


def hash_of(value: InForm) -> str:
    """Return the SHA-256 of a batch's contents, in hexadecimal digits: types, shapes and bytes of tensors, names, numbers."""
    digest = hashlib.sha256()
    _update(digest, value, 0)
    return digest.hexdigest()


def _update(digest: _Digest, value: AnyForm, depth: int) -> None:
    if depth > 20:
        raise ValueError("data: a batch is nested more than 20 deep")
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        digest.update(f"tensor {plain.dtype} {tuple(plain.shape)};".encode())
        digest.update(plain.flatten().view(torch.uint8).numpy().data if plain.numel() else b"")
    elif isinstance(value, np.ndarray):
        digest.update(f"array {value.dtype} {value.shape};".encode())
        digest.update(value.tobytes() if value.dtype != object else repr(value.tolist()).encode())
    elif hasattr(value, "iloc"):
        digest.update(value.to_csv().encode())
    elif isinstance(value, Mapping):
        digest.update(f"mapping {len(value)};".encode())
        for key, part in value.items():
            digest.update(f"{key!r}:".encode())
            _update(digest, part, depth + 1)
    elif isinstance(value, (tuple, list)):
        digest.update(f"sequence {len(value)};".encode())
        for part in value:
            _update(digest, part, depth + 1)
    elif hasattr(value, "masked"):  # a sample
        parts = ("tensors", "arguments", "feature_mask", "names", "baselines", "absent", "skip", "texts", "responses")
        _update(digest, {name: getattr(value, name, None) for name in parts}, depth + 1)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        digest.update(f"{type(value).__name__} {value!r};".encode())
    else:
        digest.update(f"{type(value).__qualname__};".encode())
        _update(digest, getattr(value, "__dict__", {}), depth + 1)
