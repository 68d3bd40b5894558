"""Class activation maps whose weights come from the picture seen through each channel."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.images.filters import resize_maps
from torchwhy.engine.layers.grid_layout import image_input_index, spatial_shape
from torchwhy.engine.run.randomness import Draws, Seed, normal_draws
from torchwhy.engine.run.rows import expand_like, index_rows, to_device
from torchwhy.problem import Problem
from torchwhy.settings import Count


class ScoreCAM(ClassActivationMap):
    r"""Channels weighted by the score of the picture seen through them: :math:`w_{nc} = \mathrm{softmax}_c f(x_n \odot m_{nc})`,
    m the channel's activations brought to the input's size and to [0, 1].

    No gradients: C forward passes a row. A channel that is the same everywhere masks all; such channels share one pass.
    Removed pixels are 0. The paper subtracts the score of a baseline, which a softmax does not feel.

    Args:
        max_channels: only the channels with the largest sums of squares, the others having weight 0; None takes all.

    Paper: Wang et al. 2020, arXiv:1910.01279, equations 7 to 9.
    """

    max_channels: Count | None = None

    needs_gradient: ClassVar[bool] = False
    shares_constant: ClassVar[bool] = True  # channels without a pattern show the same picture
    paper: ClassVar[str] = "arXiv:1910.01279"

    @property
    def per_channel(self) -> int:
        """How many passes a channel takes."""
        return 1

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all."""
        if not problem.x[image_input_index(problem.x)].is_floating_point():
            raise TypeError(f"inputs: {type(self).__name__} masks a picture, and integers cannot be masked")
        return [weighted_sum(a, self._weights(problem, a)) for a in self.activations(problem)]

    def seen(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Pictures ``(M, ...)`` through masks that broadcast to them; ``sample`` ``(M,)`` counts a channel's passes."""
        return x * mask

    def draws(self, x: Tensor, problem: Problem) -> Draws | None:
        """The noise, one draw for each pass of each channel."""
        return None

    def _weights(self, problem: Problem, a: Tensor) -> Tensor:
        """Weights ``(N, C)`` for activations ``(N, C, *grid)``."""
        chosen = top_channels(a, self.max_channels)
        flat = a.flatten(2)
        shared = chosen & (flat.amax(2) == flat.amin(2)) & self.shares_constant
        first = shared & (shared.cumsum(1) == 1)
        scores = self._scores(problem, a, chosen & (~shared | first))
        scores = torch.where(shared, scores.where(first, 0).sum(1, keepdim=True), scores)
        return scores.masked_fill(~chosen, -torch.inf).softmax(1)

    def _scores(self, problem: Problem, a: Tensor, wanted: Tensor) -> Tensor:
        """The mean score ``(N, C)`` of the picture seen through each of the ``wanted`` ``(N, C)`` channels, 0 elsewhere."""
        picture, n = image_input_index(problem.x), self.per_channel
        size = spatial_shape(problem.x[picture])
        channels, rows = wanted.mT.nonzero().unbind(1)  # the rows of one channel together
        on_cpu, total, draws = channels.cpu(), a.new_zeros(wanted.shape), self.draws(problem.x[picture], problem)

        def work(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            sample, at = torch.arange(start, stop) // len(rows), torch.arange(start, stop) % len(rows)
            here = to_device(at, rows.device)
            k, row = channels[here], rows[here]
            z = [index_rows(x, row) for x in problem.x]
            mask = unit_range(a[row, k], size).to(z[picture])
            mask = mask[:, None] if z[picture].dim() > 2 else mask
            noise = 0.0 if draws is None else draws[sample * a.shape[1] + on_cpu[at]].to(mask)
            z[picture] = self.seen(z[picture], mask, sample, noise)
            return row, k, problem.run.scores(z, row)

        for row, k, scores in problem.run.batches(n * len(rows), work):
            total.index_put_((row, k), scores.to(total), accumulate=True)
        return total / n


class SSCAM(ScoreCAM):
    r"""Score-CAM with noise: :math:`w_{nc} = \mathrm{softmax}_c \frac1m \sum_i f(x_n \odot (m_{nc} + \sigma \epsilon_{ic}))`.

    Args:
        n_samples: the number m of noisy masks a channel; m · C forward passes a row.
        stdev: σ, in units of the mask or of the input.
        where: noise on the mask, or on the masked input, :math:`f(x_n \odot m_{nc} + \sigma \epsilon_{ic})`.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time. The rows share the draws.

    Other settings as for :class:`ScoreCAM`. Paper: Wang et al. 2020, arXiv:2006.14255.
    """

    n_samples: Count = 35
    stdev: float = 2.0
    where: Literal["mask", "input"] = "mask"
    generator: Seed = None

    shares_constant: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2006.14255"

    @property
    def per_channel(self) -> int:
        """The number of noisy masks."""
        return self.n_samples

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all."""
        if self.where not in ("mask", "input"):
            raise ValueError(f"where={self.where!r}: expected 'mask' or 'input'")
        if self.stdev < 0:
            raise ValueError(f"stdev={self.stdev!r}: a standard deviation cannot be negative")
        return super().maps(problem)

    def seen(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Pictures with noise on the mask, or on themselves."""
        return x * (mask + noise) if self.where == "mask" else x * mask + noise

    def draws(self, x: Tensor, problem: Problem) -> Draws:
        """Normal draws of the shape of a mask, or of a picture."""
        shape = x.shape[1:] if self.where == "input" or x.dim() < 3 else torch.Size([1, *x.shape[2:]])
        return normal_draws(x.new_empty(1, *shape), problem.generator).scaled(self.stdev)


class ISCAM(ScoreCAM):
    r"""Score-CAM along a line from nothing to the masked picture:
    :math:`w_{nc} = \mathrm{softmax}_c \frac1m \sum_{i=1}^m f(\tfrac{i}{m} \, x_n \odot m_{nc})`.

    Args:
        n_steps: the number m of points on the line; m · C forward passes a row.

    Other settings as for :class:`ScoreCAM`. Paper: Naidu et al. 2020, arXiv:2010.03023; the i / m are not added up on the way,
    which the formula as printed does.
    """

    n_steps: Count = 10

    paper: ClassVar[str] = "arXiv:2010.03023"

    @property
    def per_channel(self) -> int:
        """The number of points."""
        return self.n_steps

    def seen(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Masked pictures, scaled."""
        return expand_like(((sample + 1) / self.n_steps).to(x.device), x) * x * mask


def top_channels(a: Tensor, most: int | None) -> Tensor:
    """Which ``(N, C)`` of the channels of ``a`` ``(N, C, *grid)`` are among the ``most`` with the largest sums of squares."""
    energy = a.flatten(2).square().sum(2)
    if most is None or most >= energy.shape[1]:
        return torch.ones_like(energy, dtype=torch.bool)
    return torch.zeros_like(energy, dtype=torch.bool).scatter_(1, energy.topk(most, dim=1).indices, True)


def unit_range(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    """Maps ``(M, *grid)`` brought to ``size`` and to [0, 1]; those that are the same everywhere to 0."""
    flat, large = maps.flatten(1), resize_maps(maps[:, None], size)[:, 0]
    low, high = large.flatten(1).amin(1), large.flatten(1).amax(1)
    varies = (flat.amax(1) > flat.amin(1)) & (high > low)
    span = torch.where(varies, high - low, 1)
    return torch.where(expand_like(varies, large) > 0, (large - expand_like(low, large)) / expand_like(span, large), 0)
