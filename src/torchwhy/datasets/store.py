"""The folder of a data set's explanations: files that are there whole or not at all, and what of the work is finished.

* ``manifest.json``: what was asked: method, settings, target, versions, the model's hash. Written first.
* ``batch-00000042.safetensors``: the explanation of the rows of batch 42 that could be explained.
* ``finished-0.jsonl``: a line for each batch that process 0 finished: rows, failed rows, a hash of the data, the file's checksum.
  A line is written after its file, so that what has no line is done again; a line that was cut off is none.
* ``index.json``: all lines in one, in the order of the batches, made when nothing is missing.
* ``lock-0``: held by process 0 while it works; the system lets go of it when a process ends, in whatever way.
"""

from __future__ import annotations

import json
import os
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from torchwhy.engine.structure import Keywords

MANIFEST, INDEX = "manifest.json", "index.json"
CHECKSUM_OF_NOTHING = "00000000"
SECONDS_UNSYNCED = 1.0  # that finished lines wait for the disk, at most
FORM = 2  # of the folder; another one is refused


class FailedRow(NamedTuple):
    """A row of the data that could not be explained, and the error."""

    row: int
    error: str


class Finished(NamedTuple):
    """What is known of a batch that is finished.

    ``file`` is None where no row could be explained. ``data`` is the SHA-256 of the batch, ``checksum`` the CRC-32 of the file.
    """

    batch: int
    first_row: int
    rows: int
    failed: tuple[FailedRow, ...]
    data: str
    file: str | None
    checksum: str | None
    seconds: float

    @property
    def explained(self) -> list[int]:
        """The rows that were explained, as the data number them."""
        failed = {row for row, _ in self.failed}
        return [row for row in range(self.first_row, self.first_row + self.rows) if row not in failed]


def write_whole(path: Path, contents: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all, also after a crash or on a full disk.

    Raises:
        OSError: it cannot be written; what was there before is there still.
    """
    write_contents(path, contents)
    _sync_folder(path.parent)


def write_contents(path: Path, contents: bytes | memoryview) -> None:
    """Write a file as :func:`write_whole` does, but for its name, which may get to the disk later than its contents.

    Raises:
        OSError: as :func:`write_whole`.
    """
    part = path.with_name(f".{path.name}.part")  # one name: what a killed process left is written over by the next one
    try:
        with open(part, "wb", buffering=0) as file:
            rest = memoryview(contents)
            while rest:  # one call takes two gigabytes at most
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror or error}: nothing was written", str(path)) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the system write a folder's list of files, where it can be asked to."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def checksum_of(contents: bytes | memoryview, before: str = CHECKSUM_OF_NOTHING) -> str:
    """Return the CRC-32 of bytes, in hexadecimal digits, where ``before`` is that of what stands before them."""
    return f"{zlib.crc32(contents, int(before, 16)):08x}"


def checksum_of_file(path: Path) -> str:
    """Return the CRC-32 of a file, in hexadecimal digits."""
    found = CHECKSUM_OF_NOTHING
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            found = checksum_of(block, found)
    return found


class Store:
    """One process's view of the folder.

    Args:
        path: of the folder; it is made if it is not there.
        rank: the number of the process that writes.
    """

    def __init__(self, path: str | Path, rank: int = 0) -> None:
        self.path, self.rank = Path(path), rank

    def make(self) -> None:
        """Make the folder.

        Raises:
            OSError: it cannot be made, or is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise NotADirectoryError(f"path: {self.path} is a file; give a folder")
        self.path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold this process's lock while open.

        Raises:
            RuntimeError: another process has it.
        """
        file = open(self.path / f"lock-{self.rank}", "a+b")  # noqa: SIM115
        _close_in_children(file)
        try:
            if not _lock(file):
                raise RuntimeError(
                    f"path: another process is writing to {self.path}; wait for it, or give another folder"
                )
            yield
        finally:
            file.close()

    def manifest(self) -> Keywords | None:
        """Return the manifest, None where there is none yet.

        Raises:
            ValueError: it is none of ours, or in another form.
        """
        path = self.path / MANIFEST
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text("utf-8"))
            form = found["form"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: not the manifest of a data set's explanations") from error
        if form != FORM:
            raise ValueError(f"{path}: written in form {form}, this version reads form {FORM}")
        return found

    def _write(self, name: str, facts: Keywords) -> None:
        text = json.dumps({"form": FORM, **facts}, indent=1, sort_keys=True) + "\n"
        write_whole(self.path / name, text.encode())

    def write_manifest(self, facts: Keywords) -> None:
        """Write the manifest."""
        self._write(MANIFEST, facts)

    def finished(self) -> dict[int, Finished]:
        """Return what is finished, by batch, as far as lines say; of several lines the last one whose file is intact."""
        found: dict[int, Finished] = {}
        for path in sorted(self.path.glob("finished-*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                with suppress(ValueError, TypeError, KeyError):  # cut off by a crash
                    entry = _entry_from_json(json.loads(line))
                    if entry.batch not in found or self.is_intact(entry):
                        found[entry.batch] = entry
        return dict(sorted(found.items()))

    def is_intact(self, entry: Finished) -> bool:
        """Say whether the file of a finished batch is what was written."""
        if entry.file is None:
            return True
        path = self.path / entry.file
        return path.is_file() and checksum_of_file(path) == entry.checksum

    @contextmanager
    def adding(self) -> Iterator[Callable[[Finished], None]]:
        """Open the lines; yield what notes that a batch is finished, whose file is there already.

        Lines, and the names of files, are brought to the disk every second or so, and at the end: a process that is killed loses
        nothing, and after a power failure the batches of the last second are done again.
        """
        path = self.path / f"finished-{self.rank}.jsonl"
        with open(path, "a+b") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a line that was cut off
                    file.write(b"\n")
            synced = time.monotonic()

            def bring_to_disk() -> None:
                os.fsync(file.fileno())
                _sync_folder(self.path)

            def add(entry: Finished) -> None:
                nonlocal synced
                file.write(json.dumps(_entry_as_json(entry)).encode() + b"\n")
                file.flush()
                if time.monotonic() - synced > SECONDS_UNSYNCED:
                    bring_to_disk()
                    synced = time.monotonic()

            try:
                yield add
            finally:
                bring_to_disk()

    def write_index(self, entries: list[Finished]) -> None:
        """Write all that is finished into one file."""
        self._write(INDEX, {"batches": [_entry_as_json(entry) for entry in entries]})

    def index(self) -> list[Finished] | None:
        """Return all batches of a job that was done to its end, None of one that never was.

        Raises:
            ValueError: the file is cut off, or none of ours.
        """
        path = self.path / INDEX
        if not path.exists():
            return None
        try:
            return [_entry_from_json(entry) for entry in json.loads(path.read_text("utf-8"))["batches"]]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{path}: not an index of batches; run the job again, which writes it anew") from error

    def file_of(self, batch: int) -> Path:
        """Return the path of a batch's file."""
        return self.path / f"batch-{batch:08d}.safetensors"


def _close_in_children(file: IO[bytes]) -> None:
    """Keep a file to this process: a loader's workers, which outlive it by seconds when it is killed, would hold the lock."""
    held = weakref.ref(file)

    def close() -> None:
        if (inherited := held()) is not None:
            inherited.close()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=close)


def _lock(file: IO[bytes]) -> bool:
    """Lock a file for this process, without waiting; return whether it could be."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _entry_as_json(entry: Finished) -> Keywords:
    return {**entry._asdict(), "failed": [list(row) for row in entry.failed]}


def _entry_from_json(facts: Keywords) -> Finished:
    return Finished(**{**facts, "failed": tuple(FailedRow(*row) for row in facts["failed"])})
