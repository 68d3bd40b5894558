"""Weights drawn at random, the same every time, without a trace on torch's global random state."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int = 0) -> Iterator[None]:
    """Let torch draw on the CPU from ``seed`` on inside the block; afterwards, from where it was before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also reseed the GPUs
        yield
