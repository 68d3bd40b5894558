"""The processes that share the work: batch k goes to the process with the number k modulo how many there are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as distributed

LONGEST_WAIT = timedelta(days=7)  # for the others to finish their part; a lost process ends the wait at once


class Workers(NamedTuple):
    """This process's number, and how many there are."""

    rank: int = 0
    world_size: int = 1

    def has(self, batch: int) -> bool:
        """Say whether a batch is this process's."""
        return batch % self.world_size == self.rank

    def wait(self) -> None:
        """Wait until all processes have come here.

        Raises:
            RuntimeError: one of them was lost.
        """
        if self.world_size == 1:
            return
        try:
            distributed.barrier()
        except Exception as error:
            raise RuntimeError(
                "a process was lost before it finished its part; what is finished stays, and the next start does the rest"
            ) from error


@contextmanager
def joined_workers() -> Iterator[Workers]:
    """Yield the processes that ``torchrun`` started, or of the process group that there is; one, where there is neither.

    A process group is made (``gloo``, which needs no GPU: only waiting is done by it) and left again where there is none.
    """
    if distributed.is_available() and distributed.is_initialized():
        yield Workers(distributed.get_rank(), distributed.get_world_size())
        return
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or not distributed.is_available():
        yield Workers()
        return
    distributed.init_process_group("gloo", timeout=LONGEST_WAIT)
    try:
        yield Workers(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
