"""How many rows a model call gets: bounded by memory, halved when memory runs out, in the faster memory format."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from torchwhy.engine.rules.mode import rules_active
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.optimizations import MustNotWait, Shortcuts, last_format

Outcome = TypeVar("Outcome")

TRIAL_ROWS = 8  # rows of the first calls of a long run, which measure what a row costs
FIRST_CUDA = 64  # the same on a GPU, where few rows take as long as many
MAX_ROWS = 4096  # rows of any call
CLEARLY = 0.9  # of the time a row: what is remembered as the faster one
SLOW = 0.02  # seconds of a call from which shortcuts and another memory format are worth it
CUDA_SLOW = 0.15  # of that on a GPU
# bytes that one call may take on a GPU: more rows are no faster, and some operations count in 32 bits
CUDA_CALL = 2**33
CPU_GRAPH = 2**30  # bytes that one call may keep for its backward pass
CPU_TENSOR = 2**25  # bytes of one tensor; the C library gives larger ones back when freed, and to get them anew is slow
CPU_TENSOR_LAST = 2**26  # the same for gradients with channels last, where fewer are that large and long calls pay more

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")

_trials: WeakKeyDictionary[Any, dict[Hashable, int | None]] = WeakKeyDictionary()


def _known(model: Any) -> dict[Hashable, int | None]:
    """The kinds of work for which trials on a model found shortcuts clearly faster, with the rows of a call then.

    Kept for as long as the model is; no rows are kept where they depend on how much memory is free.
    """
    try:
        return _trials.setdefault(model, {})
    except TypeError:  # no weak reference, or no hash
        return {}


class _Bytes(TorchDispatchMode):
    """Counts the bytes that operations make: their sum, and the largest single one."""

    def __init__(self) -> None:
        super().__init__()
        self.total = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not any(r.alias_info for r in func._schema.returns):  # neither a view nor in place
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, Tensor):
                    size = t.numel() * t.element_size()
                    self.total, self.largest = self.total + size, max(self.largest, size)
        return out


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


class Batching:
    """Cuts long work into model calls.

    Args:
        batch_size: the most rows of a call; None finds it from what a row costs.
        inputs: of the model, on its device; those of 4 or 5 dimensions have a channels-last form.
        graph: whether a call keeps its intermediate results for a backward pass.
        progress: show a ``tqdm`` bar.
        label: what the bar is called.
        within: of which this work is one call: what was found there, of speed and of rows, holds here.
        model: for which it is remembered where shortcuts were clearly faster: the next such work needs no trial.
        kind: what else decides what a row costs.
    """

    def __init__(
        self, batch_size: int | None, inputs: Sequence[Tensor], *, graph: bool, progress: bool, label: str,
        within: Batching | None = None, model: Any = None, kind: Hashable = None,
    ) -> None:  # fmt: skip
        batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.batch_size, self.device, self.graph = batch_size, inputs[0].device, graph
        self.progress, self.label = progress, label
        self.limit = batch_size  # becomes known with the first call, and smaller when memory runs out
        self._outer = within
        # of work that is one call of this one: its rows, and whether all of it ran whole while a row was measured here
        self._inner_limit: int | None = None
        self._inner_whole: bool | None = None
        if within is not None:
            self.limit = batch_size or within._inner_limit
        self.shortcuts: Shortcuts = Shortcuts() if within is None else within.shortcuts
        self.fast: bool = within is not None and within.fast  # whether they are taken
        self._few = FIRST_CUDA if self.device.type == "cuda" else TRIAL_ROWS
        self._images = any(t.dim() in (4, 5) for t in inputs)
        self._known = _known(model)
        self._work = (
            label,
            graph,
            self.device,
            torch.get_num_threads(),
            kind,
            *((t.shape[1:], t.dtype) for t in inputs),
        )
        pays = not (graph and self.device.type == "cuda")  # gradients are no faster by them on a GPU
        self._undecided = within is None and pays and not torch.are_deterministic_algorithms_enabled()
        self._times: list[float] = []
        # on a CPU: kept for the backward pass, of the largest tensor
        self._row_bytes: tuple[float, float] | None = None
        self._depth = 0

    @property
    def channels_last(self) -> bool:
        """Whether images are handed to the model with their channels last in memory."""
        return self.fast and self.shortcuts.channels_last

    def format(self, tensor: Tensor) -> Tensor:
        """``tensor`` in the memory format that was found the faster one."""
        return last_format(tensor) if self.channels_last else tensor

    def faster(self) -> AbstractContextManager:
        """While open, the model takes the shortcuts that were found to pay."""
        if not self.fast or (rules_active() and not self.channels_last):
            return nullcontext()
        self.shortcuts.fold = not rules_active()  # rules are of the operations that the model runs by itself
        return self.shortcuts

    def run(self, total: int, work: Callable[[int, int], Outcome]) -> Iterator[Outcome]:
        """Yield ``work(start, stop)`` over consecutive chunks of ``range(total)``.

        ``work`` is called again, on a shorter range, after it ran out of memory; whatever it draws must follow from
        ``start`` and ``stop`` alone.

        Raises:
            Exception: what ``work`` raised, also an out-of-memory error with a single row.
        """
        if self._depth:  # inside a call that is itself a chunk: measured, timed and shown by the outer one
            yield from self._chunks(total, work, None)
            return
        self._depth += 1
        bar = _bar(total, self.label) if self.progress else None
        try:
            yield from self._chunks(total, work, bar)
        finally:
            self._depth -= 1
            if bar is not None:
                bar.close()

    def _chunks(self, total: int, work: Callable[[int, int], Outcome], bar: Any) -> Iterator[Outcome]:
        start = size = 0
        outer = self._outer
        # by what a row costs there
        covered = outer is not None and bool(outer._inner_whole) and outer.limit is not None
        while start < total:
            left = total - start
            trying = self._undecided and (bool(self._times) or self._is_long(left))
            known = trying and not self._times and self._work in self._known
            if known:
                self.fast, self.shortcuts.channels_last, self._undecided = True, True, False
                self.limit = self.limit or self._known[self._work]
            measure = self.limit is None and left > 2 * self._few and not covered
            if measure or (trying and not known):
                size = min(left, self._first(left), self.limit or left)
            else:
                size = min(left, self.limit or left)
                size = -(-left // -(-left // size))  # equal calls: a short rest uses the machine badly
            try:
                result = (
                    self._timed(work, start, start + size, measure) if measure or trying else work(start, start + size)
                )
            except Exception as error:
                if is_out_of_memory(error) and size > 1:
                    self.limit, self._row_bytes = size // 2, None
                    self._known.pop(self._work, None)
                elif self.fast and (isinstance(error, MustNotWait) or (isinstance(error, RuntimeError) and trying)):
                    self.fast = self._undecided = False  # it uses .view on images, say
                    self._known.pop(self._work, None)
                else:
                    raise
                _release(self.device)
                continue
            start += size
            if bar is not None:
                bar.update(size)
            yield result
        if outer is not None:
            outer._inner_limit = self.limit
            if outer.limit is None:
                outer._inner_whole = size == total and outer._inner_whole is not False

    def _is_long(self, left: int) -> bool:
        """Whether so many rows are worth the trial of what is faster, at their beginning."""
        least = (2 if self.device.type == "cpu" else 8) * self._few
        return left >= (least if self.limit is None else min(least, 3 * self.limit))

    def _first(self, left: int) -> int:
        """The rows of a call of a trial; the first one on a CPU is short: plain, it may take more memory than any other."""
        return (
            self._few if self._times or self.device.type != "cpu" else max(1, min(TRIAL_ROWS // 2, left // TRIAL_ROWS))
        )

    def _timed(self, work: Callable[[int, int], Outcome], start: int, stop: int, measure: bool) -> Outcome:
        """One call of a long run's beginning: the first is plain and measured, the second with what may be faster."""
        begun = _seconds(self.device)
        result = self._measured(work, start, stop) if measure else work(start, stop)
        took = _seconds(self.device) - begun
        self._times.append(took / (stop - start))
        first = len(self._times) == 1
        if first and took < SLOW * (CUDA_SLOW if self.device.type == "cuda" else 1):
            self._undecided = False
        if self._undecided:
            self.fast = True
            self.shortcuts.channels_last = self._images and (first or self._times[1] < 0.95 * self._times[0])
            self._undecided = first and self._images
            if not first and self._row_bytes is not None:
                self.limit = self._most()
            if not first and self._times[1] < CLEARLY * self._times[0]:
                self._known[self._work] = None if self._row_bytes is None else self.limit
        return result

    def _measured(self, work: Callable[[int, int], Outcome], start: int, stop: int) -> Outcome:
        """One call that finds what a row costs, and so how many rows the others get."""
        rows = stop - start
        if self.device.type == "cuda":
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            result = work(start, stop)
            unused = torch.cuda.memory_reserved(self.device) - before
            budget = min((torch.cuda.mem_get_info(self.device)[0] + unused) / 2, CUDA_CALL)
            self.limit = _whole(rows * budget / max(torch.cuda.max_memory_allocated(self.device) - before, 1))
        else:
            with _Bytes() as made:
                result = work(start, stop)
            kept = made.total / 2 if self.graph else 0  # a graph keeps about what the forward half made
            self._row_bytes = kept / rows, made.largest / rows
            self.limit = self._most()
        return result

    def _most(self) -> int:
        """The rows of a call on a CPU, by the bytes that a row takes."""
        kept, largest = self._row_bytes or (0.0, 0.0)
        of_one = CPU_TENSOR_LAST if self.graph and self.channels_last else CPU_TENSOR
        return _whole(1 / max(kept / CPU_GRAPH, largest / of_one, 1e-9))


def _whole(rows: float) -> int:
    """A number of rows within the bounds: long and short work in calls of one size."""
    most = int(min(MAX_ROWS, max(1, rows)))
    return most // TRIAL_ROWS * TRIAL_ROWS or most


def _bar(total: int, label: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=label, unit="row", leave=False)


def _release(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _seconds(device: torch.device) -> float:
    """A clock reading after all work on ``device`` is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
