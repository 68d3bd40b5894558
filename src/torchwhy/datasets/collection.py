"""The explanations of a data set, read from their folder when they are asked for."""

from __future__ import annotations

import csv
import html
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from torchwhy.datasets.store import FailedRow, Finished, Store, checksum_of_file
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation
from torchwhy.explanation.rows import RowIndex, concat, find_rows

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption


def load_dataset(path: str | Path) -> ExplainedDataset:
    """Return the explanations that :func:`torchwhy.explain_dataset` wrote, as far as they are there.

    Those of a job that was stopped, or is still at work, say that they are unfinished.

    Raises:
        FileNotFoundError: there is no such folder, or nothing was written to it.
        ValueError: the folder holds something else.
    """
    store = Store(path)
    manifest = store.manifest()
    if manifest is None:
        raise FileNotFoundError(f"{path}: no explanations of a data set here")
    joined = store.index()
    complete = joined is not None and len(joined) >= (manifest.get("batches") or 0)
    finished = joined if joined is not None and complete else list(store.finished().values())
    return ExplainedDataset(store.path, manifest, finished, complete=complete)


class ExplainedDataset:
    """The explanations of a data set: ``len``, ``d[3]``, ``d[3:7]`` and ``d[[0, 4]]`` as of one explanation, read when asked for.

    Rows that could not be explained are left out, and are in ``failed``; ``rows`` are the numbers that the others have in the
    data. Only the files of the rows that are asked for are read. Of a job that is unfinished the rows that are there are read,
    and what goes over all of them warns.

    Attributes:
        path: of the folder.
        manifest: what was asked: method, settings, target, versions, the model's hash, the seed.
        failed: the rows that could not be explained, with their errors.
        rows: the number in the data of each row here.
        complete: whether the job was done to its end; otherwise the same call of :func:`torchwhy.explain_dataset` goes on.
    """

    def __init__(self, path: Path, manifest: Keywords, finished: list[Finished], *, complete: bool = True) -> None:
        self.path, self.manifest, self.complete = path, manifest, complete
        self._batches = len(finished)
        self.failed: list[FailedRow] = [row for entry in finished for row in entry.failed]
        self._entries = [entry for entry in finished if entry.file is not None]
        self.rows = [row for entry in self._entries for row in entry.explained]
        self._ends = list(accumulate(len(entry.explained) for entry in self._entries))

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        method = self.manifest["method"]
        said = f"{str(self.path)!r}, method={method}, rows={len(self)}, failed={len(self.failed)}"
        return f"ExplainedDataset({said}{'' if self.complete else f', unfinished: {self._progress()}'})"

    def _progress(self) -> str:
        """Return how far an unfinished job has come, in words."""
        planned = self.manifest.get("batches")
        return f"{self._batches} batches" if planned is None else f"{self._batches} of {planned} batches"

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
        entry = self._entries[file]
        path = self.path / str(entry.file)
        if path.is_file() and checksum_of_file(path) != entry.checksum:
            raise ValueError(f"{path}: not what was written there; run the job again, which makes it anew")
        return replace(Explanation.load(path), seconds=entry.seconds)

    def batches(self) -> Iterator[Explanation]:
        """Return the explanations of the files, one in memory at a time; of an unfinished job those there are, with a warning."""
        if not self.complete:
            warn(
                f"{self.path} is unfinished, {self._progress()}: what is said of all rows is said of the {len(self)} that are "
                "there; the same call of tw.explain_dataset goes on"
            )
        return (self._load(file) for file in range(len(self._entries)))

    def to_dataframe(self, *, long: bool = False, facts: bool = False, features: bool = True) -> pandas.DataFrame:
        """Return the table of all rows, ``row`` being their number in the data; see :meth:`torchwhy.Explanation.to_dataframe`.

        Raises:
            ImportError: there is no pandas.
        """
        import pandas

        found, begin = [], 0
        for batch in self.batches():
            table = batch.to_dataframe(long=long, facts=facts, features=features)
            numbers = self.rows[begin : begin + len(batch)]
            if long:
                table["row"] = [numbers[row] for row in table["row"]]
            else:
                table.index = pandas.Index(numbers, name="row")
            found.append(table)
            begin += len(batch)
        return pandas.concat(found, ignore_index=long)

    def to_csv(self, path: str | Path, *, long: bool = False, facts: bool = False, features: bool = True) -> None:
        """Write what :meth:`to_dataframe` returns to a file of comma-separated values, a file of explanations at a time.

        Raises:
            OSError: the file cannot be written.
            ValueError: the columns are not the same in all rows; a long table has a line for each.
        """
        from torchwhy.explanation.table import table_of

        begin, head = 0, None
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            for batch in self.batches():
                columns, lines = table_of(batch, long=long, facts=facts, features=features)
                numbers = self.rows[begin : begin + len(batch)]
                begin += len(batch)
                if columns[0] == "row":
                    lines = [[numbers[int(str(line[0]))], *line[1:]] for line in lines]
                else:
                    columns, lines = ["row", *columns], [[number, *line] for number, line in zip(numbers, lines)]
                if head is None:
                    writer.writerow(columns)
                elif columns != head:
                    raise ValueError(f"to_csv: the columns of row {numbers[0]} are not those before; give long=True")
                head = columns
                writer.writerows(lines)

    def plot(self, kind: str | None = None, **options: AnyOption) -> Figure:
        """Draw what matters over all rows, as the plot of :func:`torchwhy.summarize` does: mean sizes, swarms or dependence."""
        from torchwhy.global_view.summary import summarize

        return summarize(self).plot(kind, **options)

    def _repr_html_(self) -> str:
        """Return the notebook's view: what is here, and the first rows, of which alone files are read."""
        said = f"<p>{html.escape(repr(self))}</p>"
        return said + self[:1]._repr_html_() if len(self) else said

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
