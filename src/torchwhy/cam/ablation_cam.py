"""Class activation maps whose weights are what the score loses without a channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.channels import top_channels
from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.layers.grid_layout import ToGrid
from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.engine.layers.window_layout import BatchAxis, find_batch_axis
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.engine.run.runner import skip_model_below
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem
from torchwhy.settings import Count


class AblationCAM(ClassActivationMap):
    r"""Channels weighted by the share of the score that is lost without them: :math:`w_{nc} = (f_n - f_{n \setminus c}) / f_n`.

    A channel is set to 0 on all cells of the grid; a class token keeps it. No gradients: C + 2 forward passes a row, and four
    in all to see whether the C may go through the part of the model above the layer only. Channels that are 0 anyway have weight
    0 and take none. A negative score turns the signs, as the formula does.

    Args:
        max_channels: only the channels with the largest sums of squares, the others having weight 0; None takes all.

    Raises:
        ValueError: a score is 0, so that no share of it can be lost; or the target does not depend on the layer.

    Paper: Desai and Ramaswamy 2020, Ablation-CAM, WACV, equation 3.
    """

    max_channels: Count | None = None

    needs_gradient: ClassVar[bool] = False
    paper: ClassVar[str] = "doi:10.1109/WACV45572.2020.9093360"

    def maps(self, problem: Problem) -> list[Tensor]:
        """Return the maps of the layers, one after the other."""
        layouts: list[ChannelLayout] = []  # of each layer

        def arrange(passed: Tensors, m: int) -> list[Tensor]:
            grids = self.grid_layouts(problem, passed, m)
            layouts[:] = [ChannelLayout(grid, find_batch_axis(grid, t, m)) for grid, t in zip(grids, passed)]
            return [layout.rows.split(t, m) for layout, t in zip(layouts, passed)]

        tensors = problem.run.activations(problem.read_layers, problem.x, problem.rows, arrange)
        return [self._map(problem, *one) for one in zip(problem.read_layers, layouts, tensors)]

    def _map(self, problem: Problem, layer: ResolvedLayer, layout: ChannelLayout, tensor: Tensor) -> Tensor:
        """Return the map ``(N, *grid)`` of a layer that gives ``tensor`` ``(N, ...)``."""
        above = skip_model_below(
            problem.replace(input_layers=(layer,), to_layer_layout=layout.rows.join, read_layers=(), x=(tensor,))
        )
        weights = self._lost_shares(above, layout)
        if not weights.any():  # an error where no path leads to the target
            read = problem.replace(read_layers=(layer,))
            read.run.gradients_and_activations([x[:1] for x in problem.x], problem.rows[:1])
        return weighted_sum(at_least_float32(layout(tensor)), weights)

    def _lost_shares(self, above: Problem, layout: ChannelLayout) -> Tensor:
        """Return the weights ``(N, C)``, of a problem whose inputs are the layer's tensor."""
        tensor, scores = above.x[0], above.run.all_scores(above.x)
        if bool((scores == 0).any()):
            raise ValueError(
                f"target: the score of row {int((scores == 0).nonzero()[0])} is 0, and AblationCAM's weights are shares of it"
            )
        a, places = layout(tensor), layout.places_of_channels(tensor)
        weights = at_least_float32(a.new_zeros(a.shape[:2]))
        channels, rows = (top_channels(a, self.max_channels) & a.flatten(2).any(2)).mT.nonzero().unbind(1)

        def work(start: int, stop: int) -> Tensor:
            c, row = channels[start:stop], rows[start:stop]
            without = tensor[row].flatten(1).scatter(1, places[c], 0).view(-1, *tensor.shape[1:])
            return 1 - above.run.scores([without], row) / scores[row]

        if len(rows):
            weights[rows, channels] = above.run.concatenated(len(rows), work).to(weights)
        return weights


@dataclass(frozen=True)
class ChannelLayout:
    """How rows of a layer's tensor lie on the grid.

    Args:
        grid: what the layer gives → ``(M, C, *grid)``.
        rows: where the rows are in what the layer gives.
    """

    grid: ToGrid
    rows: BatchAxis

    def __call__(self, tensor: Tensor) -> Tensor:
        """Return the grid ``(M, C, *grid)`` of rows ``(M, ...)``."""
        return self.grid(self.rows.join(tensor))

    def places_of_channels(self, tensor: Tensor) -> Tensor:
        """Return where in a flat row of the tensor ``(N, ...)`` the cells of each channel are, ``(C, cells)``.

        Raises:
            ValueError: the grid is no rearrangement of the tensor.
        """
        index = torch.arange(tensor[0].numel(), device=tensor.device, dtype=torch.double).view(1, *tensor.shape[1:])
        found = self(index)[0].flatten(1).long()
        if found.max() >= index.numel() or not torch.equal(tensor.flatten(1)[:, found], self(tensor).flatten(2)):
            raise ValueError("reshape: AblationCAM sets channels to 0, so it must only rearrange the layer's tensor")
        return found
