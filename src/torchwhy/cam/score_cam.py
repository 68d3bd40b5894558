"""Class activation maps whose weights come from the picture seen through each channel."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.channels import broadcast_to_picture, top_channels, unit_range_masks
from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.layers.grid_layout import InputPicture, picture_of
from torchwhy.engine.run.randomness import Draws
from torchwhy.engine.run.rows import index_rows, to_device
from torchwhy.problem import Problem
from torchwhy.settings import Count


class ScoreCAM(ClassActivationMap):
    r"""Channels weighted by the score of the picture seen through them: :math:`w_{nc} = \mathrm{softmax}_c f(x_n \odot m_{nc})`,
    m the channel's activations brought to the input's size and to [0, 1].

    No gradients: C + 1 forward passes a row, the first to read the layer. A channel that is the same everywhere masks all; such
    channels share one pass.
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
    def passes_per_channel(self) -> int:
        """How many passes a channel takes."""
        return 1

    def apply_mask(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Return pictures ``(M, ...)`` seen through masks that broadcast to them.

        Args:
            x, mask: the pictures and the masks.
            sample: ``(M,)``, which of a channel's passes each one is.
            noise: what :meth:`mask_noise` drew for it, 0 where it draws nothing.
        """
        return x * mask

    def mask_noise(self, x: Tensor, channels: int | None, problem: Problem) -> Draws | None:
        """Return noise by number, one draw for each pass of each channel; None for none."""
        return None

    def maps(self, problem: Problem) -> list[Tensor]:
        """Return the maps whose weights are softmaxes of scores."""
        pictures = [picture_of(problem, layer) for layer in problem.read_layers]
        if not all(problem.x[p.number].is_floating_point() for p in pictures):
            raise TypeError(f"inputs: {type(self).__name__} masks a picture, and integers cannot be masked")
        each = zip(self.activations(problem), pictures)
        return [weighted_sum(a, self._score_weights(problem, picture, a)) for a, picture in each]

    def _score_weights(self, problem: Problem, picture: InputPicture, a: Tensor) -> Tensor:
        """Return weights ``(N, C)`` for activations ``(N, C, *grid)``."""
        chosen = top_channels(a, self.max_channels)
        flat = a.flatten(2)
        constant = chosen & (flat.amax(2) == flat.amin(2)) & self.shares_constant
        first = constant & (constant.cumsum(1) == 1)  # is evaluated for all of its row
        scores = self._mean_scores(problem, picture, a, chosen & (~constant | first))
        scores = torch.where(constant, scores.where(first, 0).sum(1, keepdim=True), scores)
        return scores.masked_fill(~chosen, -torch.inf).softmax(1)

    def _mean_scores(self, problem: Problem, picture: InputPicture, a: Tensor, wanted: Tensor) -> Tensor:
        """Return the mean scores ``(N, C)`` of the picture seen through the ``wanted`` ``(N, C)`` channels, 0 elsewhere."""
        n, x = self.passes_per_channel, problem.x[picture.number]
        channels, rows = wanted.mT.nonzero().unbind(1)  # the rows of one channel together
        on_cpu, total, noise = channels.cpu(), a.new_zeros(wanted.shape), self.mask_noise(x, picture.channels, problem)

        def work(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            sample, at = torch.arange(start, stop) // len(rows), torch.arange(start, stop) % len(rows)
            here = to_device(at, rows.device)
            channel, row = channels[here], rows[here]
            z = [index_rows(t, row) for t in problem.x]
            mask = broadcast_to_picture(unit_range_masks(a[row, channel], picture.size), x, picture.channels)
            drawn = 0.0 if noise is None else noise[sample * a.shape[1] + on_cpu[at]].to(mask)
            z[picture.number] = self.apply_mask(z[picture.number], mask, sample, drawn)
            return row, channel, problem.run.scores(z, row)

        for row, channel, scores in problem.run.batches(n * len(rows), work):
            total.index_put_((row, channel), scores.to(total), accumulate=True)
        return total / n
