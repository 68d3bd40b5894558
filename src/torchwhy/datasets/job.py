"""The loop over a data set: a job that may be stopped at any moment and goes on where it was."""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from torchwhy.attribution import Attribution
from torchwhy.datasets.batches import (
    Batch,
    Collate,
    DataSet,
    batches_of,
    count_all_rows,
    count_batches,
    hash_of,
    take_rows,
)
from torchwhy.datasets.collection import ExplainedDataset, load_dataset
from torchwhy.datasets.manifest import VERSIONS, check_same_job, describe_job, with_seed
from torchwhy.datasets.recheck import ComesOutDifferently, check_again
from torchwhy.datasets.store import FailedRow, Finished, Store, checksum_of, write_contents
from torchwhy.datasets.workers import Workers, joined_workers
from torchwhy.engine.structure import Keywords
from torchwhy.explanation import Explanation
from torchwhy.explanation.files import explanation_as_bytes
from torchwhy.explanation.rows import concat
from torchwhy.provenance import is_spread
from torchwhy.targets import TargetLike

IN_FLIGHT = 4  # batches that are explained and not yet on the disk, at most
_BegunBatch = tuple[Batch, "Future[Finished] | None"]  # None: it was finished before
log = logging.getLogger("torchwhy")


class Progress(NamedTuple):
    """What a callback is told after each batch: how many rows were explained, failed, or were finished before."""

    batch: int
    explained: int
    failed: int
    finished_before: int


def explain_dataset(
    method: Attribution,
    data: DataSet,
    path: str | Path,
    *,
    target: TargetLike = None,
    collate: Collate | None = None,
    batch_size: int | None = None,
    on_error: Literal["raise", "record"] = "raise",
    resume: bool = True,
    inputs: bool = True,
    progress: bool = False,
    callback: Callable[[Progress], object] | None = None,
    **arguments: object,
) -> ExplainedDataset:
    """Explain every row of a data set, into a folder; a second call goes on where the first one stopped.

    Each batch becomes one file, which is there whole or not at all, whatever happens meanwhile. A second call with the same
    folder reads the data again, checks by hashes that they, the files, the method and the model are the same, explains one
    finished batch once more, which has to come out as it did, and computes only what is missing or broken. The bits are those
    of one undisturbed run: a method without a seed is given one, which is kept in ``manifest.json``.

    Under ``torchrun`` batch k goes to process k modulo how many there are, without padding, and process 0 joins the index.
    What happens is told to the logger ``torchwhy``.

    Args:
        method: what explains, with its settings and model.
        data: a DataLoader that does not shuffle, a dataset, a DataFrame, tensors, or an iterable of batches or samples; see
            :func:`torchwhy.datasets.batches.batches_of`.
        path: of the folder.
        target: as for :meth:`torchwhy.Attribution.explain`, the same for all rows, or ``"label"``: the labels in the data.
        collate: makes a batch of a dataset's rows, or of a batch of another form.
        batch_size: rows of a batch where the data are not cut into batches yet (32); not that of the model's calls, which is
            the method's setting.
        on_error: ``"raise"`` ends at the first row that cannot be explained; what was finished stays. ``"record"`` notes the
            row with its error and explains the others.
        resume: go on with what is in the folder; False refuses a folder that is not empty.
        inputs: keep the rows themselves in the files as well.
        progress: show a bar.
        callback: called with a :class:`Progress` after each batch.
        arguments: further arguments of each call of :meth:`torchwhy.Attribution.explain`: ``baselines``, ``feature_mask``.

    Raises:
        TypeError, ValueError: arguments that make no sense, a folder with another job, or data that have changed.
        RuntimeError: another process writes to the folder, or a process was lost.
        OSError: the folder cannot be written to. Nothing is half-written.
    """
    if not isinstance(method, Attribution):
        raise TypeError(
            f"method: expected a method with its model, such as tw.Saliency(model), got {type(method).__name__}"
        )
    if on_error not in ("raise", "record"):
        raise ValueError(f"on_error={on_error!r}: expected 'raise' or 'record'")
    with joined_workers() as workers:
        if workers.world_size > 1:
            _refuse_spread(method)
        store = Store(path, workers.rank)
        store.make()
        with store.locked():
            method, manifest = _begin(
                store, workers, method, target, arguments, resume,
                on_error=on_error, inputs=inputs, batches=count_batches(data, batch_size),
            )  # fmt: skip
            if there := sum(entry.rows for entry in store.finished().values()):
                log.info("%s: %d rows are there", store.path, there)
            job = _Job(method, store, workers, target, arguments, on_error, inputs, manifest["parameters"])
            with _bar(progress and workers.rank == 0, count_all_rows(data)) as advance:
                for report in job.run(batches_of(data, collate, batch_size)):
                    advance(report)
                    if callback is not None:
                        callback(report)
            workers.wait()
            if workers.rank == 0:
                job.join()
            workers.wait()
    return load_dataset(path)


def _refuse_spread(method: Attribution) -> None:
    """Refuse a model of which each process has a part."""
    if isinstance(method.model, nn.Module) and any(map(is_spread, method.model.parameters())):
        raise ValueError(
            "method: its model is spread over the processes, so that all of them run each batch together, and none can have "
            "batches of its own; call method.explain in every process, or give each the whole model"
        )


def _begin(
    store: Store,
    workers: Workers,
    method: Attribution,
    target: TargetLike,
    arguments: Keywords,
    resume: bool,
    **facts: object,
) -> tuple[Attribution, Keywords]:
    """Return the method, with a seed, and the manifest: that of the folder if there is one, else a new one, written there.

    A folder in which nothing was finished, as after an error at the first batch, is as good as a new one.
    """
    before, any_finished = store.manifest(), bool(store.finished())
    if before is None and workers.rank == 0 and any_finished:
        raise ValueError(
            f"path: {store.path} holds finished batches, and no manifest.json that would say of what; give another folder"
        )
    if before is not None and workers.rank == 0 and not any_finished:
        before = None
    if before is not None and not resume:
        raise ValueError(
            f"path: {store.path} holds explanations; give another folder, or resume=True to go on with them"
        )
    if workers.rank > 0:
        workers.wait()  # for the manifest
        before = store.manifest()
    seeded, seed = with_seed(method, None if before is None else before["seed"])
    now = describe_job(method, target, arguments, seed=seed, **facts)
    if before is not None:
        check_same_job(before, now, store.path)
        for name in VERSIONS:
            if name in before and before[name] != now[name]:
                log.warning("%s was begun with %s %s, and goes on with %s", store.path, name, before[name], now[name])
        if before.get("batches") != now["batches"] and workers.rank == 0:
            store.write_manifest({**before, "batches": now["batches"]})
    else:
        store.write_manifest(now)
    if workers.rank == 0:
        workers.wait()
    return seeded, now if before is None else before


@dataclass
class _Job:
    """One process's part of the work."""

    method: Attribution
    store: Store
    workers: Workers
    target: TargetLike
    arguments: Keywords
    on_error: str
    inputs: bool
    parameters: str | None
    batches: int = 0
    disk_failed: bool = False
    was_checked: bool = False
    written: list[Path] = field(default_factory=list)
    note: Callable[[Finished], None] = field(init=False)

    def run(self, batches: Iterator[Batch]) -> Iterator[Progress]:
        """Yield what was done after each batch, once it is on the disk: a thread sees to that while others are explained."""
        finished = self.store.finished()
        try:
            yield from self._run(batches, finished)
        except ComesOutDifferently:
            for file in self.written:  # of another model than the rest: made again by the next start
                file.unlink(missing_ok=True)
            raise
        beyond = [number for number in finished if number >= self.batches]
        if beyond:
            raise ValueError(
                f"data: {self.store.path} has {beyond[-1] + 1} batches finished, the data have {self.batches}"
            )

    def _run(self, batches: Iterator[Batch], finished: dict[int, Finished]) -> Iterator[Progress]:
        """Yield what was done after each batch."""
        explained = failed = before = 0
        with self.store.adding() as self.note, ThreadPoolExecutor(1) as disk:
            for batch, pending in _behind(self._begun(batch, finished, disk) for batch in self._own(batches)):
                if pending is None:
                    before += batch.rows
                else:
                    entry = pending.result()
                    explained, failed = explained + len(entry.explained), failed + len(entry.failed)
                yield Progress(batch.number, explained, failed, before)

    def _own(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Count the batches, and yield those that are this process's."""
        for batch in batches:
            self.batches += 1
            if self.workers.has(batch.number):
                yield batch

    def _begun(self, batch: Batch, finished: dict[int, Finished], disk: ThreadPoolExecutor) -> _BegunBatch:
        """Explain a batch, if it is not finished, and have it brought to the disk."""
        entry = finished.get(batch.number)
        if entry is not None and self._is_done(batch, entry):
            if entry.file is not None and not self.was_checked:
                now, failed = self._explain_rows(batch)
                rows = entry._replace(failed=tuple(failed)).explained
                check_again(batch.number, self.store.path / entry.file, entry.explained, now, rows)
                self.was_checked = True
            return batch, None
        return batch, self._explain(batch, disk)

    def _is_done(self, batch: Batch, entry: Finished) -> bool:
        """Say whether a batch is finished and its file intact.

        Raises:
            ValueError: it is another batch than it was.
        """
        if (entry.rows, entry.first_row, entry.data) != (batch.rows, batch.first_row, hash_of(batch[3:5])):
            raise ValueError(
                f"data: batch {batch.number} (rows from {batch.first_row}) is not what it was when {self.store.path} was "
                "begun: other data, another order or batches of another size; give another folder"
            )
        intact = self.store.is_intact(entry)
        if not intact:
            log.warning("%s is broken or gone and is made again", self.store.path / str(entry.file))
        return intact

    def _explain(self, batch: Batch, disk: ThreadPoolExecutor) -> Future[Finished]:
        """Explain a batch, and leave to the thread what it takes to bring it to the disk, for which the data are not needed."""
        begun = time.perf_counter()
        if self.target == "label" and batch.labels is None:
            raise ValueError("target='label': the data have no labels; a batch is to be a tuple (inputs, labels)")
        explanation, failed = self._explain_rows(batch)
        entry = Finished(*batch[:3], tuple(failed), hash_of(batch[3:5]), None, None, 0.0)
        contents = None if explanation is None else explanation_as_bytes(explanation, inputs=self.inputs)
        return disk.submit(self._finish, entry, contents, begun)

    def _finish(self, entry: Finished, contents: memoryview | None, begun: float) -> Finished:
        """Write a batch's file, and note that it is finished; nothing where one before could not be written."""
        if self.disk_failed:
            raise RuntimeError(f"batch {entry.batch} was not written, after an error of the disk")
        try:
            if contents is not None:
                file = self.store.file_of(entry.batch)
                write_contents(file, contents)
                self.written.append(file)
                entry = entry._replace(checksum=checksum_of(contents), file=file.name)
            entry = entry._replace(seconds=round(time.perf_counter() - begun, 3))
            self.note(entry)
        except BaseException:
            self.disk_failed = True
            raise
        log.info("batch %d: %d rows, %d failed, %.2f s", entry.batch, entry.rows, len(entry.failed), entry.seconds)
        return entry

    def _explain_rows(self, batch: Batch) -> tuple[Explanation | None, list[FailedRow]]:
        """Return the explanation of the rows that can be explained, None if none can, and the others."""
        rows = [i for i in range(batch.rows) if i not in batch.unreadable]
        failed = [FailedRow(batch.first_row + i, why) for i, why in batch.unreadable.items()]
        if not rows:
            return None, failed
        try:
            return self._call(batch, rows), failed
        except Exception as error:
            numbers = [batch.first_row + i for i in rows]
            if self.on_error == "raise":
                error.args = tuple(_with_rows_of_data(a, numbers) if isinstance(a, str) else a for a in error.args)
                log.error("batch %d (rows from %d): %s", batch.number, batch.first_row, error)
                raise
            if len(rows) == 1 or hasattr(batch.inputs, "masked"):
                failed += [FailedRow(number, _name_error(error, numbers)) for number in numbers]
                return None, sorted(failed)
        parts = []
        for i in rows:  # which of them is it?
            try:
                parts.append(self._call(batch, [i]))
            except Exception as error:
                number = batch.first_row + i
                failed.append(FailedRow(number, _name_error(error, [number])))
        return (concat(parts) if parts else None), sorted(failed)

    def _call(self, batch: Batch, rows: list[int]) -> Explanation:
        """Return the explanation of rows of a batch, without what differs from run to run: dates and seconds are in the lines."""
        inputs, labels = batch.inputs, batch.labels
        if len(rows) < batch.rows:
            inputs, labels = take_rows(inputs, rows, batch.rows), take_rows(labels, rows, batch.rows)
        target = labels if self.target == "label" else self.target
        e = self.method.explain(inputs, target, **self.arguments)
        facts = {name: value for name, value in e.provenance.items() if name != "date"}
        return replace(e, seconds=0.0, parameters=None, provenance={**facts, "parameters": self.parameters})

    def join(self) -> None:
        """Write the index of all batches.

        Raises:
            RuntimeError: some are missing, as where a process was lost.
        """
        finished = self.store.finished()
        missing = [number for number in range(self.batches) if number not in finished]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {self.batches} batches are missing, the first is {missing[0]}: a process was lost; "
                "start again, which does only these"
            )
        self.store.write_index(list(finished.values()))


def _behind(begun: Iterator[_BegunBatch]) -> Iterator[_BegunBatch]:
    """Yield the batches in their order, each when it is on the disk; not too many wait for that."""
    waiting: deque[_BegunBatch] = deque()
    try:
        for batch in begun:
            waiting.append(batch)
            while len(waiting) > IN_FLIGHT or (waiting and _is_settled(waiting[0][1])):
                yield waiting.popleft()
    except Exception:
        yield from waiting
        raise
    yield from waiting


def _is_settled(pending: Future[Finished] | None) -> bool:
    return pending is None or pending.done()


def _name_error(error: Exception, rows: list[int]) -> str:
    return f"{type(error).__name__}: {_with_rows_of_data(str(error), rows)}"


def _with_rows_of_data(text: str, rows: list[int]) -> str:
    """Return an error's words with the data's number of a row in the place of the batch's; of baselines it is their own."""
    if text.startswith(("baselines", "feature_mask")):
        return text

    def in_data(found: re.Match[str]) -> str:
        row = int(found[1].replace(",", ""))
        return f"row {rows[row]:,}" if row < len(rows) else found[0]

    return re.sub(r"\brow (\d[\d,]*)\b", in_data, text)


@contextmanager
def _bar(shown: bool, total: int | None) -> Iterator[Callable[[Progress], object]]:
    """Show a progress bar; yield what moves it."""
    if not shown:
        yield lambda report: None
        return
    from tqdm.auto import tqdm

    with tqdm(unit="row", total=total) as bar:

        def advance(report: Progress) -> None:
            bar.initial = report.finished_before  # they took no time
            bar.n = report.explained + report.failed + report.finished_before
            bar.refresh()

        yield advance
