"""Attention by what it moves: the sizes of the vectors that tokens hand to each other."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionRun
from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.capture_projections import ProjectionCapture
from torchwhy.attention.selection import by_head, pick_rows
from torchwhy.attention.shares import SharesMethod
from torchwhy.engine.run.rows import at_least_float32


class ALTI(SharesMethod):
    r"""What tokens hand to each other, multiplied over the layers: :math:`C_L \cdots C_1` with
    :math:`C_{ij} \propto [\|y_i\|_1 - \|y_i - T_i(x_j)\|_1]^+`, rows adding up to 1.

    :math:`T_i(x_j) = \sum_h A^h_{ij} W_O^h v^h_j + 1_{i=j} x_i` is the vector that token j contributes to
    :math:`y_i = \sum_j T_i(x_j) + b_O`, so that values, projection and the way around the attention count by what they do, where
    rollout takes the weights and one half. In [0, 1], adding up to 1 over all tokens. It does not know the target.

    Between two sequences (ALTI+) :math:`T_i(x_j)` is what token j of the other sequence hands over, and what the token was,
    :math:`x_i`, has a share of its own by the same measure, :math:`[\|y_i\|_1 - \|y_i - x_i\|_1]^+`; all of them add up to 1.

    Paper: Ferrando, Gállego, Costa-jussà 2022, arXiv:2203.04212, equations 8 to 10; between two sequences, where the residual
    is one more contributor to these equations, Ferrando, Gállego, Alastruey, Escolano, Costa-jussà 2022, arXiv:2205.11631.
    The layer norm that follows in models of the BERT kind is left out; so are MLPs, those too that run beside the attention
    (after it, on the same input).

    Raises:
        ValueError: an attention whose projection, or what it is added to, is not seen.
    """

    paper: ClassVar[str] = "arXiv:2203.04212"
    capture: ClassVar[type[AttentionCapture]] = ProjectionCapture

    def matrices(self, run: AttentionRun, numbers: list[int]) -> list[Tensor]:
        """Return the contributions C ``(n, 1, T, T)`` of some attentions."""
        captured: Any = run.captured
        return [_contributions(captured, i, run.n)[1][:, None] for i in numbers]

    def shares(self, run: AttentionRun, number: int) -> tuple[Tensor, Tensor]:
        """Return the share of what a token was, and those of the tokens that it reads; within a sequence they are one."""
        captured: Any = run.captured
        return _contributions(captured, number, run.n, apart=run.map.is_cross(number))

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return the chosen rows of the product, from the last layer down."""
        found = pick_rows(attentions[-1][:, 0], tokens)
        for layer in reversed(attentions[:-1]):
            found = found @ layer[:, 0]
        return found.mean(1)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.heads is not None:
            raise ValueError("heads: the heads of ALTI are one vector; leave them out")


def _contributions(captured: ProjectionCapture, index: int, n: int, *, apart: bool = False) -> tuple[Tensor, Tensor]:
    """Return of one attention the shares of what tokens were ``(n, T)``, and C ``(n, T, S)``.

    Args:
        captured: the attentions.
        index: of the attention.
        n: how many rows.
        apart: what a token was is counted apart from what it reads, as of another sequence; else it is part of what the token
            hands to itself.

    Raises:
        ValueError: its projection, or what it is added to, was not seen, or its result was changed before.
    """
    if index not in captured.projections or index not in captured.residuals:
        raise ValueError(
            f"layers: of attention {index} the projection of the heads, or what its result is added to, was not seen; "
            "choose other layers=, or AttentionRollout"
        )
    residual = captured.residuals[index]
    a = by_head(captured.matrices[index].detach(), n)
    a = at_least_float32(a.to(torch.promote_types(a.dtype, residual[0].dtype)))
    v = by_head(captured.values[index].detach(), n)
    weight, bias = captured.projections[index]
    moved = torch.einsum("nhsd,ehd->nhse", v.to(a), weight.to(a).unflatten(1, (a.shape[1], -1)))
    result = torch.einsum("nhts,nhse->nte", a, moved) + (0 if bias is None else bias.to(a))
    near = max(1e-2, *(10 * torch.finfo(t.dtype).eps for t in residual))
    tokens_first = tuple(t.transpose(0, 1) for t in residual)
    for x, added in (residual, tokens_first):
        x, added = x.to(a), added.to(a)
        if added.shape == result.shape and bool((_peaks(added - result) <= near * _peaks(result)).all()):
            each = [_token_shares(a[k], moved[k], x[k], x[k] + added[k], apart=apart) for k in range(n)]
            return torch.stack([kept for kept, _ in each]), torch.stack([read for _, read in each])
    raise ValueError(
        f"layers: the result of attention {index} is scaled or changed before it is added to its input, so that the "
        "tokens' shares are not known; choose other layers=, or AttentionRollout"
    )


def _peaks(t: Tensor) -> Tensor:
    """Return the largest absolute value of each row, ``(n,)``."""
    return t.flatten(1).abs().amax(1)


def _token_shares(a: Tensor, moved: Tensor, x: Tensor, y: Tensor, *, apart: bool) -> tuple[Tensor, Tensor]:
    """Return of one row the shares of what tokens were ``(T,)``, zero where they are not counted apart, and C ``(T, S)``.

    Args:
        a: weights, ``(heads, T, S)``.
        moved: the values, projected, ``(heads, S, E)``.
        x, y: what the attention is added to, and the sum, ``(T, E)``.
        apart: as for :func:`_contributions`.
    """
    handed = torch.einsum("hts,hse->tse", a, moved)
    if not apart:
        handed.diagonal().add_(x.T)
    near = (y.abs().sum(1, keepdim=True) - (y[:, None] - handed).abs().sum(2)).clamp(min=0)
    kept = (y.abs().sum(1) - (y - x).abs().sum(1)).clamp(min=0) if apart else torch.zeros_like(near[:, 0])
    whole = (near.sum(1) + kept).clamp(min=torch.finfo(near.dtype).tiny)
    return kept / whole, near / whole[:, None]
