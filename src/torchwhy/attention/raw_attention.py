"""Attention as it is."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionMethod, Fusion, fuse_heads
from torchwhy.attention.selection import Indices


class RawAttention(AttentionMethod):
    r"""The attention that a token pays to each token: :math:`A_{ij}`, a row of a layer's matrix, fused over heads.

    In [0, 1], adding up to 1 over all tokens with ``head_fusion="mean"``. It does not know the target, and says where values
    were read from, not what they were worth. Of several layers the mean.

    Args:
        layers: the last one unless others are chosen; None is the mean of all.
        head_fusion: the mean, the largest or the smallest of the heads.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 1, the attention itself.
    """

    layers: Indices = -1
    head_fusion: Fusion = "mean"

    paper: ClassVar[str] = "arXiv:1706.03762"

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return the chosen rows."""
        return torch.stack([fuse_heads(a, self.head_fusion) for a in attentions]).mean(0)[:, tokens].mean(1)
