"""Saliency: the gradient of the score."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from torch import Tensor

from torchwhy.engine.structure import Tensors
from torchwhy.gradient.single_gradient import GradientBased
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem

Channels = Literal["max", "norm", "sum"] | None


class Saliency(GradientBased[GivenLayer]):
    r"""The absolute gradient of the score: :math:`A_{nk} = |\partial f(x_n) / \partial x_{nk}|`.

    How much the score changes for a small change of each element: a slope, in units of score per input, not a share of the
    score. With ``channels="max"`` :math:`M_{nij} = \max_c |\partial f(x_n) / \partial x_{ncij}|`, the paper's map.

    Args:
        signed: keep the sign of the gradient.
        channels: make one map ``(N, 1, H, W)`` of the channels: the largest absolute value ("max"), the Euclidean norm
            ("norm") or the sum ("sum"); None keeps the shape ``(N, C, H, W)``.

    Paper: Simonyan, Vedaldi, Zisserman 2013, arXiv:1312.6034, section 3.

    >>> import torch
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> _ = torch.nn.init.constant_(net.weight, -3.0)
    >>> Saliency(net).attribute(torch.zeros(1, 2), target=0)
    tensor([[3., 3.]])
    """

    signed: bool = False
    channels: Channels = None

    paper: ClassVar[str] = "arXiv:1312.6034"

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the absolute gradients."""
        return postprocess_gradient(gradients, self.signed, self.channels)


def postprocess_gradient(gradients: Iterable[Tensor], signed: bool, channels: Channels) -> Tensors:
    """Return gradients ``(N, C, ...)`` without their sign and with their channels made one, as asked for."""
    found = tuple(g if signed else g.abs() for g in gradients)
    return found if channels is None else tuple(_join_channels(g, channels) for g in found)


def _join_channels(g: Tensor, channels: Channels) -> Tensor:
    """Return one map ``(N, 1, ...)`` of the channels of ``g`` ``(N, C, ...)``."""
    if channels == "max":
        return g.gather(1, g.abs().argmax(1, keepdim=True))
    if channels == "norm":
        return g.norm(dim=1, keepdim=True)
    return g.sum(1, keepdim=True)
