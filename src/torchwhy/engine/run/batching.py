"""How many rows a model call gets, and whether its operations are optimized.

Long work, such as the 5000 masked images of one picture, is cut into calls. Many rows use the machine well, but what a call
keeps in memory grows with them. So the first call of long work is a short one in which the bytes of all new tensors are
counted (:class:`CallCost`): those of a row follow, and with them how many rows a fixed budget of bytes holds
(:data:`memory_budget`). The same call tells what kind of model it is, and so whether its operations are worth optimizing
(:func:`choose_optimizations`). Where the model's modules tell so before (:func:`foresee_optimizations`), it is optimized
already, and not so short.

Everything here follows from shapes, types and settings. No clock is read, nobody asks how much memory is free, and nothing
is remembered from one piece of work to the next: the same call is cut and run in the same way every time, and gives the same
bits. The one exception is a call that runs out of memory, which is repeated with half of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from torchwhy.engine.run.call_cost import CallCost
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.optimizations import (
    CallOptimizations,
    channels_last,
    choose_optimizations,
    foresee_optimizations,
)
from torchwhy.engine.structure import Keywords, Model

Outcome = TypeVar("Outcome")

#: Bytes that one model call may take, by type of device; more rows are no faster. Yours to change.
memory_budget: dict[str, int] = {"cpu": 2**30, "cuda": 2**33}

FEW_ROWS = 8  # work of less than twice as many rows is one call, and nothing is counted
FEW_ROWS_CUDA = 64  # the same on a GPU
LARGE_ROW = 2**22  # bytes of a row of inputs of which even two are counted: a long prompt, a volume
TOKEN_BYTES = 2**13  # that a token of a row counts for, which is an integer and becomes a vector
SMALL_ROWS = 64  # of work whose inputs take less than one part in SMALL_WORK of the budget: it is one call as well
SMALL_WORK = 2**10
MAX_ROWS = 4096  # of any call
ROWS_MULTIPLE = 8  # of which the rows of long calls are a multiple
CPU_TENSOR = 2**25  # bytes of one tensor; the C library gives larger ones back when freed, and to get them anew is slow
LIVE_TENSORS = 4  # of the largest size, that a call without a graph has at a time

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed", "cudnn_status_alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception says that memory ran out, on any device."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)


def budget_of(device: torch.device) -> int:
    """Return the bytes that one call may take on a device: :data:`memory_budget`, or half of a smaller GPU."""
    name = device.type if device.type in memory_budget else "cpu"
    budget = memory_budget[name]
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        raise ValueError(f"memory_budget[{name!r}]={budget!r}: expected an int of at least 1, a number of bytes")
    if device.type == "cuda":
        budget = min(budget, torch.cuda.get_device_properties(device).total_memory // 2)
    return budget


@dataclass
class CallPlan:
    """How the calls of one piece of work are made.

    Args:
        rows: the most rows of a call, None until a call was counted.
        optimizations: what the model runs under, None for the model as it is.
        is_decided: whether that was chosen already, for good.
        is_foreseen: whether the model's modules were asked already which optimizations pay.
        jobs: rows of the longest work so far.
    """

    rows: int | None = None
    optimizations: CallOptimizations | None = None
    is_decided: bool = False
    is_foreseen: bool = False
    jobs: int = 0


class Batching:
    """Cut long work into model calls.

    Args:
        batch_size: the most rows of a call; None finds it from what a row costs.
        inputs: of the model, on its device.
        graph: whether a call keeps its intermediate results for a backward pass.
        progress: show a ``tqdm`` bar.
        label: what the bar is called.
        parent: of which this work is part of a call: what was found there holds here, and the other way round.
        model: what is called.
    """

    def __init__(
        self, batch_size: int | None, inputs: Sequence[Tensor], *, graph: bool, progress: bool, label: str,
        parent: Batching | None = None, model: Model = None,
    ) -> None:  # fmt: skip
        batch_size = None if batch_size is None else check_count("batch_size", batch_size)
        self.device, self.graph, self.model = inputs[0].device, graph, model
        self.progress, self.label = progress, label
        n = inputs[0].shape[0]
        sizes = [t.nbytes if t.is_floating_point() else t.numel() * TOKEN_BYTES for t in inputs]
        self._few_rows = FEW_ROWS_CUDA if self.device.type == "cuda" else FEW_ROWS
        if sum(sizes) >= n * LARGE_ROW:
            self._few_rows = 1
        # of a row of the inputs; tokens, which are integers, may become much
        row = sum(t.nbytes if t.is_floating_point() else math.inf for t in inputs) / n
        self._row_bytes = max(row, 1.0)
        if parent is None:
            self.plan = CallPlan(batch_size)
        else:
            self.plan = parent.plan if batch_size is None else replace(parent.plan, rows=batch_size)

    def format(self, tensor: Tensor) -> Tensor:
        """Return ``tensor`` in the memory format that the model's images have."""
        optimizations = self.plan.optimizations
        return tensor if optimizations is None or not optimizations.channels_last else channels_last(tensor)

    @contextmanager
    def without_optimizations(self) -> Iterator[None]:
        """Run the model as it is, to the last bit, while open."""
        chosen, self.plan.optimizations = self.plan.optimizations, None
        try:
            yield
        finally:
            self.plan.optimizations = chosen

    @contextmanager
    def without_bar(self) -> Iterator[None]:
        """Show no bar while open, as where there is one of the steps that the calls are part of."""
        shown, self.progress = self.progress, False
        try:
            yield
        finally:
            self.progress = shown

    def run(self, total: int, work: Callable[[int, int], Outcome]) -> Iterator[Outcome]:
        """Yield ``work(start, stop)`` over consecutive chunks of ``range(total)``.

        ``work`` is called again, on a shorter range, after it ran out of memory, and on the same one where the model cannot
        be optimized; whatever it draws must follow from ``start`` and ``stop`` alone.

        Raises:
            Exception: what ``work`` raised, also an out-of-memory error with a single row.
        """
        start, self.plan.jobs = 0, max(self.plan.jobs, total)
        with self._bar(total) if self.progress else nullcontext(int) as advance:
            while start < total:
                left = total - start
                is_counted = left >= 2 * self._few_rows and not self.plan.is_decided and not self._is_small(left)
                cost = CallCost() if is_counted else None
                if cost is not None:
                    self._foresee(left, cost)
                whole = cost is None and left <= (self.plan.rows or left)
                size = left if whole else self._rows_of_call(left, is_counted=cost is not None)
                try:
                    with cost or nullcontext():
                        result = work(start, start + size)
                except Exception as error:
                    if not self._can_retry(error, size):
                        raise
                    continue
                if cost is not None:
                    self._decide(cost, size, left)
                start += size
                advance(size)
                yield result

    def _is_small(self, left: int) -> bool:
        """Say whether so many rows are one call anyway, by the size of their inputs."""
        return left <= SMALL_ROWS and left * self._row_bytes * SMALL_WORK <= budget_of(self.device)

    def _rows_of_call(self, left: int, *, is_counted: bool) -> int:
        """Return the rows of the next call, when so many are left."""
        most = min(left, self.plan.rows or left)
        if not is_counted:
            return -(-left // -(-left // most))  # equal calls: a short rest uses the machine badly
        # on a GPU few rows take as long as many
        if self.device.type == "cuda" or self.plan.optimizations is not None:
            return min(most, self._few_rows)
        # fewer, as it may take more memory than any other, and runs without optimizations
        return min(most, max(1, self._few_rows // 2), max(1, left // (4 * self._few_rows)))

    def _can_retry(self, error: Exception, size: int) -> bool:
        """Return whether the work can go on after an error: with fewer rows, or without optimizations."""
        if is_out_of_memory(error) and size > 1:
            self.plan.rows = size // 2
        elif self.plan.optimizations is not None and isinstance(error, RuntimeError):  # it uses .view on images, say
            self.plan.optimizations = None
        else:
            return False
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return True

    def _foresee(self, left: int, cost: CallCost) -> None:
        """Plan the call that ``cost`` counts by the model's modules, when so many rows are left."""
        plan = self.plan
        if not plan.is_foreseen:  # nor found to be impossible since
            plan.is_foreseen = True
            calls, images = -(-left // self._few_rows), self._few_rows * self._row_bytes
            plan.optimizations = foresee_optimizations(self.model, images, device=self.device, calls=calls)
        if plan.optimizations is not None:
            plan.optimizations.cost = cost

    def _decide(self, cost: CallCost, rows: int, left: int) -> None:
        """Plan the other calls by what one of ``rows`` rows cost, when so many were left."""
        plan = self.plan
        if plan.is_decided:  # by work inside of this call
            return
        plan.is_decided = True
        plan.rows = plan.rows or self.affordable_rows(cost, rows)
        of_call = min(plan.rows, left)
        how: Keywords = {"device": self.device, "graph": self.graph, "calls": -(-left // of_call)}
        plan.optimizations = choose_optimizations(self.model, cost, of_call / rows, foreseen=plan.optimizations, **how)

    def affordable_rows(self, cost: CallCost, rows: int) -> int:
        """Return how many rows a call can have, after one of ``rows`` rows had this cost."""
        # a graph keeps about what the forward half makes
        of_call = cost.total / 2 if self.graph else LIVE_TENSORS * cost.largest
        affordable = rows * budget_of(self.device) / max(of_call, 1)
        if self.device.type == "cpu":
            affordable = min(affordable, rows * CPU_TENSOR / max(cost.largest, 1))
        most = int(min(MAX_ROWS, max(1, affordable)))
        return most // ROWS_MULTIPLE * ROWS_MULTIPLE or most

    @contextmanager
    def _bar(self, total: int) -> Iterator[Callable[[int], Any]]:
        """Show a progress bar, only one at a time; yield what moves it by a number of rows."""
        from tqdm.auto import tqdm

        self.progress = False
        try:
            with tqdm(total=total, desc=self.label, unit="row", leave=False) as bar:
                yield bar.update
        finally:
            self.progress = True
