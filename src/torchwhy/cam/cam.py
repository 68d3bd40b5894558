"""The class activation map of a linear layer after global average pooling."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.layers.layer import ResolvedLayer
from torchwhy.problem import Problem


class CAM(ClassActivationMap):
    r"""Channels weighted by the class's weights in the linear layer that follows global average pooling:
    :math:`M_{nu} = \sum_c w_{kc} A_{ncu}`, k the target class.

    The mean of the map over the grid is the class's score less its bias. Signed by default, as in the paper. Between the layer
    and the pooling there may be a ReLU (as in DenseNet): A is then what it gives.

    Raises:
        ValueError: the model does not end in global average pooling of this layer and one linear layer, which is tried on the
            first row; :class:`GradCAM` is for those.
        TypeError: the target is no class.

    Paper: Zhou et al. 2016, arXiv:1512.04150, equation 2.
    """

    relu: bool = False

    needs_gradient: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:1512.04150"

    def maps(self, problem: Problem) -> list[Tensor]:
        """Return the maps whose weights are those of the class."""
        classes = self.target_classes(problem)
        found = []
        for a, layer in zip(self.activations(problem), problem.read_layers):
            head, rectified = _find_head(problem, a, layer)
            weights = head.weight.detach()[classes].to(a)
            found.append(weighted_sum(a.clamp(min=0) if rectified else a, weights))
        return found


def _find_head(problem: Problem, a: Tensor, layer: ResolvedLayer) -> tuple[nn.Linear, bool]:
    """Return the linear layer that makes the output of the means of ``a`` ``(N, C, *grid)``, and whether a ReLU is between.

    The row with the most below 0 is asked: a row with nothing there is the same with a ReLU and without.

    Raises:
        ValueError: there is none.
    """
    exact = problem.replace(precision=None)  # as the activations are
    row = problem.rows[a.flatten(1).clamp(max=0).sum(1).argmin()][None]
    a = a[row]
    passed = exact.run.trace([x[row] for x in problem.x], row)[1]
    output = passed[-1][1]
    for place, tensor in reversed(passed):
        head = place.module
        if isinstance(head, nn.Linear) and head.in_features == a.shape[1] and tensor.shape == output.shape:
            for rectified in (False, True):
                if _gives_output(head, a.clamp(min=0) if rectified else a, output):
                    return head, rectified
    raise ValueError(
        f"layer: {layer} is not followed by global average pooling and one linear layer that gives the output, as "
        "CAM asks for; GradCAM is for every model"
    )


def _gives_output(head: nn.Linear, a: Tensor, output: Tensor) -> bool:
    """Say whether a linear layer of the means of ``a`` ``(1, C, *grid)`` is the output, but for rounding."""
    y = F.linear(a.flatten(2).mean(2).to(head.weight), head.weight, head.bias)
    close = torch.finfo(output.dtype).eps ** 0.5 * float(output.detach().abs().max())
    return torch.allclose(y.to(output), output, rtol=0, atol=close)
