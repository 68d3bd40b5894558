"""Attention as it is, and rolled out over the layers."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionMethod, fuse, with_residual
from torchwhy.attention.capture import Which

Fusion = Literal["mean", "max", "min"]


class RawAttention(AttentionMethod):
    r"""The attention that a token pays to each token: :math:`A_{ij}`, a row of a layer's matrix, fused over heads.

    In [0, 1], adding up to 1 over all tokens with ``head_fusion="mean"``. It does not know the target, and says where values
    were read from, not what they were worth. Of several layers the mean.

    Args:
        layers: the last one unless others are chosen; None is the mean of all.
        head_fusion: the mean, the largest or the smallest of the heads.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 1, the attention itself.
    """

    layers: Which = -1
    head_fusion: Fusion = "mean"

    paper: ClassVar[str] = "arXiv:1706.03762"

    def mix(self, attentions: list[Tensor], slopes: list[Tensor], tokens: Tensor) -> Tensor:
        """The chosen rows."""
        return torch.stack([fuse(a, self.head_fusion) for a in attentions]).mean(0)[:, tokens].mean(1)


class AttentionRollout(AttentionMethod):
    r"""Attention multiplied over the layers: :math:`\tilde A_L \cdots \tilde A_1` with
    :math:`\tilde A_l = \frac{1}{2} (A_l + I)`, the I for the way around each attention.

    In [0, 1], adding up to 1 over all tokens. It does not know the target.

    Args:
        head_fusion: the mean, the largest or the smallest of the heads; rows are made to add up to 1 again.
        discard_ratio: the share of the smallest entries of each fused matrix that is set to 0 before I is added; not in the
            paper. That of the first token to itself stays.

    Paper: Abnar, Zuidema 2020, arXiv:2005.00928, section 3.
    """

    head_fusion: Fusion = "mean"
    discard_ratio: float = 0.0

    paper: ClassVar[str] = "arXiv:2005.00928"

    def mix(self, attentions: list[Tensor], slopes: list[Tensor], tokens: Tensor) -> Tensor:
        """The chosen rows of the product, from the last layer down."""
        if not 0 <= self.discard_ratio < 1:
            raise ValueError(f"discard_ratio={self.discard_ratio}: expected a share from 0 to below 1")
        layers = [with_residual(_discard(fuse(a, self.head_fusion), self.discard_ratio)) for a in attentions]
        found = layers[-1][:, tokens]
        for layer in reversed(layers[:-1]):
            found = found @ layer
        return found.mean(1)


def _discard(matrix: Tensor, ratio: float) -> Tensor:
    """The smallest entries of each matrix set to 0, but for the first token's own."""
    flat = matrix.flatten(1)
    smallest = flat.argsort(dim=1, stable=True)[:, : int(ratio * flat.shape[1])]
    kept = flat.scatter(1, smallest, 0)
    kept[:, 0] = flat[:, 0]
    return kept.view_as(matrix)
