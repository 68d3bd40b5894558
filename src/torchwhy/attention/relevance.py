"""Attention weighted by the gradient of what is explained."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.attention.attention_method import AttentionMethod, AttentionRun, SequenceValues
from torchwhy.attention.selection import matrices_by_head, pick_rows
from torchwhy.attention.two_sequences import RelevanceOfSequences


class AttentionRelevance(AttentionMethod):
    r"""Attention weighted by its gradient: :math:`R \leftarrow R + \bar A_l R` from R = I, layer by layer, with
    :math:`\bar A = \mathbb{E}_h [\nabla_A f \odot A]^+`; the result is a row of R − I.

    Not negative, in units of the score to no fixed power: compare the tokens of a row. What speaks against the target is cut
    off. The identity, each token's share in itself, is left out.

    Where attention goes from one sequence to another (an encoder and a decoder, two that look at each other), relevance does,
    too: each sequence among the inputs has a result, what the answer's tokens owe to its tokens. ``token`` is then one of the
    sequence in which the answer is read, as the decoder; of two such sequences the sum is taken.

    Paper: Chefer, Gur, Wolf 2021, arXiv:2103.15679, equations 5 and 6 (self-attention), 7 to 11 (two sequences).
    """

    needs_gradient: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2103.15679"

    def mix(self, attentions: list[Tensor], gradients: list[Tensor], tokens: Tensor) -> Tensor:
        """Return the chosen rows of R − I: row · (I + A_L) ⋯ (I + A_1), from the last layer down."""
        size = attentions[0].shape[-1]
        start = torch.eye(size, dtype=attentions[0].dtype, device=attentions[0].device)[tokens]
        rows = start
        for a, g in zip(reversed(attentions), reversed(gradients)):
            rows = rows + rows @ (g * a).clamp(min=0).mean(1)
        return (rows - start).mean(1)

    def explain_sequences(self, run: AttentionRun, gradients: list[Tensor]) -> SequenceValues:
        """Return what the answer's tokens owe to the tokens of each sequence."""
        found, numbers = run.map, sorted(run.numbers)
        if not any(found.is_cross(i) and found.is_foreign(i) for i in numbers):
            return super().explain_sequences(run, gradients)
        found.refuse_cross([i for i in numbers if not found.is_foreign(i)], type(self).__name__)
        attentions = self.matrices(run, numbers)
        slopes = matrices_by_head([gradients[i] for i in numbers], self.heads, run.n)
        relevance = RelevanceOfSequences(found, run.n, attentions[0])
        for number, a, g in zip(numbers, attentions, slopes):
            relevance.add(number, (g * a).clamp(min=0).mean(1))
        total = {s: attentions[0].new_zeros(run.n, s.tokens) for s in found.sequences}
        for answer in relevance.answering([bool(g.any()) for g in gradients]):
            own = [a for i, a in zip(numbers, attentions) if found.rows[i] is found.columns[i] is answer]
            tokens = self.output_tokens(run, answer, own[0] if own else None)
            for s, r in relevance.last(answer).items():
                r = r - torch.eye(s.tokens, dtype=r.dtype, device=r.device) if s is answer else r
                total[s] = total[s] + pick_rows(r, tokens).mean(1)
        return list(total.items())
