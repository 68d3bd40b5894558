"""The class activation map that keeps the score highest when the picture is seen through it."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.cam.channels import broadcast_to_picture, unit_range_masks
from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.layers.grid_layout import InputPicture, picture_of
from torchwhy.engine.run.autograd import compute_gradients, enable_grad_for
from torchwhy.problem import Problem
from torchwhy.settings import Count, Positive


class OptiCAM(ClassActivationMap):
    r"""Channels weighted so that the picture seen through the map scores highest:
    :math:`w_n = \mathrm{softmax}(u_n)`, :math:`u_n = \arg\max_u f(x_n \odot \mathrm{norm}(\sum_c \mathrm{softmax}(u)_c A_{nc}))`.

    ``norm`` brings the map to the input's size and to [0, 1]. Gradient ascent with Adam from equal weights; the last u is used.
    A row takes ``n_steps`` forward and backward passes through the whole model, and a forward pass before, to read the layer; and
    so does each of several targets.

    Args:
        n_steps: steps of the ascent.
        lr: their learning rate.

    Paper: Zhang et al. 2024, arXiv:2301.07002, equations 7 to 11, with the score itself as the objective.
    """

    n_steps: Count = 100
    lr: Positive = 0.1

    searches: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2301.07002"

    def maps(self, problem: Problem) -> list[Tensor]:
        """Return the maps at the end of the ascent; the layer is read once."""
        pictures = [picture_of(problem, layer) for layer in problem.read_layers]
        if not all(problem.x[p.number].is_floating_point() for p in pictures):
            raise TypeError("inputs: OptiCAM masks a picture, and integers cannot be masked")
        return [
            problem.run.concatenated(problem.n, partial(self._maps_of_rows, problem, picture, a))
            for a, picture in zip(self.activations(problem), pictures)
        ]

    def _maps_of_rows(self, problem: Problem, picture: InputPicture, a: Tensor, start: int, stop: int) -> Tensor:
        """Return the maps ``(M, *grid)`` of rows ``start`` to ``stop - 1``, for activations ``(N, C, *grid)``."""
        a, rows = a[start:stop], problem.rows[start:stop]
        z = [x[rows] for x in problem.x]
        x = z[picture.number]
        u = a.new_zeros(a.shape[:2]).requires_grad_()
        adam = torch.optim.Adam([u], lr=self.lr, maximize=True)
        for _ in range(self.n_steps):
            with enable_grad_for(problem.model, x.device):
                masks = unit_range_masks(weighted_sum(a, u.softmax(1)), picture.size)
                z[picture.number] = x * broadcast_to_picture(masks, x, picture.channels)
                scores = problem.run.scores_with_graph([t.clone() for t in z], rows)  # the model may work in place
                (u.grad,) = compute_gradients(scores, [u], what=problem.input_name)
            adam.step()
        return weighted_sum(a, u.detach().softmax(1))
