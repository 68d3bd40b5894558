"""Attention rolled out over the layers."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionRun, Fusion, fuse_heads, with_residual
from torchwhy.attention.selection import pick_rows
from torchwhy.attention.shares import SharesMethod
from torchwhy.settings import ShareBelowOne


class AttentionRollout(SharesMethod):
    r"""Attention multiplied over the layers: :math:`\tilde A_L \cdots \tilde A_1` with
    :math:`\tilde A_l = \frac{1}{2} (A_l + I)`, the I for the way around each attention.

    In [0, 1], adding up to 1 over all tokens. It does not know the target. Attention between two sequences is rolled out by the
    same rule: half of a token is what it was, half what it reads of the other sequence.

    Args:
        head_fusion: the mean, the largest or the smallest of the heads; rows are made to add up to 1 again.
        discard_ratio: the share of the smallest entries of each fused matrix that is set to 0 before I is added; not in the
            paper. That of the first token to itself stays.

    Paper: Abnar, Zuidema 2020, arXiv:2005.00928, section 3.
    """

    head_fusion: Fusion = "mean"
    discard_ratio: ShareBelowOne = 0.0

    paper: ClassVar[str] = "arXiv:2005.00928"

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return the chosen rows of the product, from the last layer down."""
        layers = [
            with_residual(_discard_smallest(fuse_heads(a, self.head_fusion), self.discard_ratio)) for a in attentions
        ]
        found = pick_rows(layers[-1], tokens)
        for layer in reversed(layers[:-1]):
            found = found @ layer
        return found.mean(1)

    def shares(self, run: AttentionRun, number: int) -> tuple[Tensor, Tensor]:
        """Return one half, and half of the attention, of each token together 1."""
        (attention,) = self.matrices(run, [number])
        read = _discard_smallest(fuse_heads(attention, self.head_fusion), self.discard_ratio)
        whole = read.sum(2) + 1
        return 1 / whole, read / whole[..., None]


def _discard_smallest(matrix: Tensor, ratio: float) -> Tensor:
    """Return matrices with their smallest entries set to 0, but for the first token's own."""
    flat = matrix.flatten(1)
    smallest = _ranks(flat).argsort(dim=1, stable=True)[:, : int(ratio * flat.shape[1])]
    kept = flat.scatter(1, smallest, 0)
    kept[:, 0] = flat[:, 0]
    return kept.view_as(matrix)


def _ranks(values: Tensor) -> Tensor:
    """Return the rank of each of the values ``(N, d)`` in its row; what rounding alone sets apart has one rank."""
    ordered, at = values.sort(1)
    least = 16 * torch.finfo(values.dtype).eps * ordered[:, -1:].abs()
    apart = (ordered.diff(dim=1) > least).cumsum(1)
    return torch.zeros_like(at).scatter(1, at, torch.cat([torch.zeros_like(at[:, :1]), apart], 1))
