"""Class activation maps whose weights are what the score loses without a channel."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.cam.score_cam import top_channels
from torchwhy.engine.layers.grid_layout import ToGrid
from torchwhy.engine.layers.window_layout import BatchAxis, find_batch_axis
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.engine.run.runner import skip_model_below
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem
from torchwhy.settings import Count


class AblationCAM(ClassActivationMap):
    r"""Channels weighted by the share of the score that is lost without them: :math:`w_{nc} = (f_n - f_{n \setminus c}) / f_n`.

    A channel is set to 0 on all cells of the grid; a class token keeps it. No gradients: C passes a row, through the part of
    the model above the layer only. Channels that are 0 anyway have weight 0 and take none. A negative score turns the signs, as
    the formula does.

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
        """As for all, one layer after the other."""
        layouts: list[tuple[ToGrid, BatchAxis]] = []  # of each layer

        def arrange(passed: Tensors, m: int) -> list[Tensor]:
            views = self.views(problem, passed, m)
            layouts[:] = [(view, find_batch_axis(view, t, m)) for view, t in zip(views, passed)]
            return [rows.split(t, m) for (_, rows), t in zip(layouts, passed)]

        found, tensors = [], problem.run.activations(problem.read_layers, problem.x, problem.rows, arrange)
        for place, tensor, (layout, rows) in zip(problem.read_layers, tensors, layouts):
            above = skip_model_below(
                problem.replace(input_layers=(place,), to_layer_layout=rows.join, read_layers=(), x=(tensor,))
            )
            view = partial(_of_rows, layout, rows)
            weights = self._weights(above, view)
            if not weights.any():  # an error where no path leads to the target
                read = problem.replace(read_layers=(place,))
                read.run.gradients_and_activations([x[:1] for x in problem.x], problem.rows[:1])
            found.append(weighted_sum(at_least_float32(view(tensor)), weights))
        return found

    def _weights(self, above: Problem, view: ToGrid) -> Tensor:
        """Weights ``(N, C)`` of the channels of what is explained."""
        tensor, scores = above.x[0], above.run.all_scores(above.x)
        if bool((scores == 0).any()):
            raise ValueError(
                f"target: the score of row {int((scores == 0).nonzero()[0])} is 0, and AblationCAM's weights are shares of it"
            )
        a, cells = view(tensor), cells_of(view, tensor)
        weights = at_least_float32(a.new_zeros(a.shape[:2]))
        channels, rows = (top_channels(a, self.max_channels) & a.flatten(2).any(2)).mT.nonzero().unbind(1)

        def work(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            k, row = channels[start:stop], rows[start:stop]
            without = tensor[row].flatten(1).scatter(1, cells[k], 0).view(-1, *tensor.shape[1:])
            return row, k, 1 - above.run.scores([without], row) / scores[row]

        for row, k, lost in above.run.batches(len(rows), work):
            weights[row, k] = lost.to(weights)
        return weights


def _of_rows(layout: ToGrid, rows: BatchAxis, tensor: Tensor) -> Tensor:
    """The grid ``(M, C, *grid)`` of rows ``(M, ...)``."""
    return layout(rows.join(tensor))


def cells_of(view: ToGrid, tensor: Tensor) -> Tensor:
    """Where in a row of the tensor ``(N, ...)`` the cells of each channel are, ``(C, cells)``.

    Raises:
        ValueError: the view is no rearrangement of the tensor.
    """
    index = torch.arange(tensor[0].numel(), device=tensor.device, dtype=torch.double).view(1, *tensor.shape[1:])
    found = view(index)[0].flatten(1).long()
    if found.max() >= index.numel() or not torch.equal(tensor.flatten(1)[:, found], view(tensor).flatten(2)):
        raise ValueError("reshape: AblationCAM sets channels to 0, so it must only rearrange the layer's tensor")
    return found
