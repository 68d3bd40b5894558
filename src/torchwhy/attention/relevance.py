"""Attention weighted by the gradient of what is explained."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionMethod


class AttentionRelevance(AttentionMethod):
    r"""Attention weighted by its gradient: :math:`R \leftarrow R + \bar A_l R` from R = I, layer by layer, with
    :math:`\bar A = \mathbb{E}_h [\nabla_A f \odot A]^+`; the result is a row of R − I.

    Not negative, in units of the score to no fixed power: compare the tokens of a row. What speaks against the target is cut
    off. The identity, each token's share in itself, is left out.

    Paper: Chefer, Gur, Wolf 2021, arXiv:2103.15679, equations 5 and 6 (self-attention).
    """

    needs_gradient: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2103.15679"

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return the chosen rows of R − I: row · (I + A_L) ⋯ (I + A_1), from the last layer down."""
        size = attentions[0].shape[-1]
        start = torch.eye(size, dtype=attentions[0].dtype, device=attentions[0].device)[tokens]
        rows = start.expand(len(attentions[0]), -1, -1)
        for a, g in zip(reversed(attentions), reversed(gradients)):
            rows = rows + rows @ (g * a).clamp(min=0).mean(1)
        return (rows - start).mean(1)
