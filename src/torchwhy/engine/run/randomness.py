"""Randomness: every draw follows from one generator, is shared by the rows and the same for every batch size."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from numbers import Integral

import torch
from torch import Tensor

Seed = int | torch.Generator | None
# devices that draw what is as large as an input themselves: to bring it takes longer than to use it
DEVICES_THAT_DRAW = ("cuda",)


def make_generator(seed: Seed) -> torch.Generator:
    """Return a generator on the CPU: a new one from an int, a fresh one from None (not repeatable), or the one given.

    Raises:
        TypeError: neither an int nor a CPU ``torch.Generator``.
    """
    if isinstance(seed, torch.Generator):
        if seed.device.type != "cpu":
            raise TypeError(
                f"generator: draws begin on the CPU, whatever the model is on; give a CPU generator, not one on {seed.device}"
            )
        return seed
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
        raise TypeError(f"generator={seed!r}: expected an int, a torch.Generator or None")
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(seed))
    return generator


def draw_seed(generator: torch.Generator) -> int:
    """Return a seed drawn from the generator, for draws that can be repeated."""
    return int(torch.randint(2**62, (), generator=make_generator(generator)))


def draw_uniform(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return numbers in [0, 1), on the generator's device, of a type that is no matter of ``torch.set_default_dtype``."""
    return torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)


def draw_normal(*shape: int, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return standard normal numbers, on the generator's device, likewise."""
    return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)


class Draws:
    """Draws ``0, 1, 2, ...`` of ``draw(count, generator)``, made in blocks that do not depend on who asks for how many.

    They have a generator of their own, seeded from the one given: two ``Draws`` asked in turn do not mix. Only the blocks in
    use are kept, so the numbers must be asked for in (roughly) rising order.

    Args:
        draw: gives ``count`` draws, shape ``(count, ...)``.
        generator: where the seed comes from.
        block: how many draws are made together.
        device: of what is drawn, if that is large: a GPU draws with its own generator, other numbers than the CPU's.
    """

    def __init__(
        self, draw: Callable[[int, torch.Generator], Tensor], generator: torch.Generator, block: int,
        device: torch.device | None = None,
    ) -> None:  # fmt: skip
        self.draw, self.block = draw, block
        there = device if device is not None and device.type in DEVICES_THAT_DRAW else "cpu"
        self.generator = torch.Generator(there).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        self.blocks: dict[int, Tensor] = {}
        self.made = 0

    def scaled(self, by: float | Tensor) -> Draws:
        """Return the same draws times a number."""
        draw = self.draw

        def draw_scaled(count: int, generator: torch.Generator) -> Tensor:
            return draw(count, generator) * by

        other = copy(self)
        other.draw, other.blocks = draw_scaled, {}
        return other

    def __getitem__(self, k: Tensor) -> Tensor:
        """Return the draws ``k`` ``(M,)``, rising numbers on the CPU, shape ``(M, ...)``."""
        first, last = int(k[0]) // self.block, int(k[-1]) // self.block
        while self.made <= last:
            self.blocks[self.made] = self.draw(self.block, self.generator)
            self.made += 1
        # the block before is kept: a chunk is asked for again after it ran out of memory
        self.blocks = {i: b for i, b in self.blocks.items() if i >= first - 1}
        drawn = torch.cat([self.blocks[i] for i in range(first, last + 1)]) if last > first else self.blocks[first]
        return drawn[k - first * self.block]


def draws_per_block(numel: int) -> int:
    """Return how many draws of ``numel`` numbers to make together: about a million numbers, at least 1, at most 64."""
    return max(1, min(64, 2**20 // max(1, numel)))


def normal_draws(x: Tensor, generator: torch.Generator) -> Draws:
    """Return standard normal draws ``(count, ...)`` of the shape of a row of ``x`` ``(N, ...)``, the same for all rows."""
    shape = x.shape[1:]  # in float32 for every type of x: the same draws for all
    return Draws(
        lambda count, g: draw_normal(count, *shape, generator=g).to(x.device),
        generator,
        draws_per_block(shape.numel()),
        x.device,
    )
