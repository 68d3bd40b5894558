"""The explanations of a data set, read from their folder when they are asked for."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from torchwhy.datasets.store import FailedRow, Finished, Store
from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation
from torchwhy.explanation.rows import RowIndex, concat, find_rows

if TYPE_CHECKING:
    import pandas


def load_dataset(path: str | Path) -> ExplainedDataset:
    """Return the explanations that :func:`torchwhy.explain_dataset` wrote, as far as they are there.

    Raises:
        FileNotFoundError: there is no such folder, or nothing was written to it.
        ValueError: the folder holds something else.
    """
    store = Store(path)
    manifest = store.manifest()
    if manifest is None:
        raise FileNotFoundError(f"{path}: no explanations of a data set here")
    return ExplainedDataset(store.path, manifest, store.index())


class ExplainedDataset:
    """The explanations of a data set: ``len``, ``d[3]``, ``d[3:7]`` and ``d[[0, 4]]`` as of one explanation, read when asked for.

    Rows that could not be explained are left out, and are in ``failed``; ``rows`` are the numbers that the others have in the
    data. Only the files of the rows that are asked for are read.

    Attributes:
        path: of the folder.
        manifest: what was asked: method, settings, target, versions, the model's hash, the seed.
        failed: the rows that could not be explained, with their errors.
        rows: the number in the data of each row here.
    """

    def __init__(self, path: Path, manifest: Keywords, finished: list[Finished]) -> None:
        self.path, self.manifest = path, manifest
        self.failed: list[FailedRow] = [row for entry in finished for row in entry.failed]
        self._entries = [entry for entry in finished if entry.file is not None]
        self.rows = [row for entry in self._entries for row in entry.explained]
        self._ends = list(accumulate(len(entry.explained) for entry in self._entries))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        method = self.manifest["method"]
        return f"ExplainedDataset({str(self.path)!r}, method={method}, rows={len(self)}, failed={len(self.failed)})"

    def __getitem__(self, index: RowIndex) -> Explanation:
        rows = find_rows(index, len(self)).tolist()
        parts, begin = [], 0
        while begin < len(rows):  # runs of rows of one file
            file = bisect_right(self._ends, rows[begin])
            first = self._ends[file - 1] if file else 0
            end = begin
            while end < len(rows) and first <= rows[end] < self._ends[file]:
                end += 1
            parts.append(self._load(file)[[row - first for row in rows[begin:end]]])
            begin = end
        return parts[0] if len(parts) == 1 else concat(parts)

    def __iter__(self) -> Iterator[Explanation]:
        return (row for batch in self.batches() for row in batch)

    def _load(self, file: int) -> Explanation:
        return Explanation.load(self.path / str(self._entries[file].file))

    def batches(self) -> Iterator[Explanation]:
        """Yield the explanation of each file, one in memory at a time."""
        return (self._load(file) for file in range(len(self._entries)))

    def to_dataframe(self, *, long: bool = False, facts: bool = False) -> pandas.DataFrame:
        """Return the table of all rows, ``row`` being their number in the data; see :meth:`torchwhy.Explanation.to_dataframe`.

        Raises:
            ImportError: there is no pandas.
        """
        import pandas

        found, begin = [], 0
        for batch in self.batches():
            table = batch.to_dataframe(long=long, facts=facts)
            numbers = self.rows[begin : begin + len(batch)]
            if long:
                table["row"] = [numbers[row] for row in table["row"]]
            else:
                table.index = pandas.Index(numbers, name="row")
            found.append(table)
            begin += len(batch)
        return pandas.concat(found, ignore_index=long)

    def mean_absolute(self) -> Tensor:
        """Return the mean size of each feature's attribution over all rows, ``(d,)``, read file by file.

        Raises:
            ValueError: the rows have different numbers of features.
        """
        total, count = None, 0
        for batch in self.batches():
            for values in batch.features():
                if total is not None and total.shape != values.shape:
                    raise ValueError("mean_absolute: the rows have different numbers of features")
                total = values.abs().double() if total is None else total + values.abs()
                count += 1
        if total is None:
            raise ValueError("mean_absolute: there are no rows")
        return total / count
