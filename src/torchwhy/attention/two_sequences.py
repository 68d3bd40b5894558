r"""Relevance that goes through attention between two sequences.

For sequences s and q there is a matrix :math:`R^{sq}`, what each token of s owes to each of q; :math:`R^{ss} = I` and
:math:`R^{sq} = 0` at first. An attention of s to itself adds :math:`\bar A R^{sq}` to each of them. One whose queries are s and
whose values are q adds

.. math::

    R^{sq} \mathrel{+}= (\bar R^{ss})^T \bar A \bar R^{qq}, \quad R^{ss} \mathrel{+}= \bar A R^{qs}, \quad
    \bar R = \frac{R - I}{\sum_k (R - I)_k} + I,

where R is that of the tokens that the attention saw: two that look at each other at the same time both see them as they were
before. Chefer, Gur, Wolf 2021, arXiv:2103.15679, equations 5 to 11.
"""

from __future__ import annotations

import torch
from torch import Tensor

from torchwhy.attention.lineage import Lineage
from torchwhy.attention.sequences import SequenceMap, TokenSequence

Relevances = dict[TokenSequence, Tensor]  # of the tokens of one sequence, by those of each: (n, T, S)


class MatricesOfSequences:
    """The matrices R of the tokens of each sequence, after each attention.

    Args:
        found: the sequences.
        n: how many rows.
        like: a matrix of the type and on the device that R has.
    """

    def __init__(self, found: SequenceMap, n: int, like: Tensor) -> None:
        self.map = found
        self.states: dict[TokenSequence, list[tuple[int, Relevances]]] = {}  # after which attention
        for s in found.sequences:
            eye = torch.eye(s.tokens, dtype=like.dtype, device=like.device).expand(n, -1, -1)
            self.states[s] = [(-1, {s: eye})]

    def last(self, sequence: TokenSequence) -> Relevances:
        """Return what a sequence owes in the end."""
        return self.states[sequence][-1][1]

    def seen(self, sequence: TokenSequence, lineage: Lineage) -> Relevances:
        """Return what tokens of a sequence owed when they had this lineage."""
        states = self.states[sequence]
        return next(r for number, r in reversed(states) if number == -1 or number in lineage.attentions)

    def answering(self, counts: list[bool]) -> list[TokenSequence]:
        """Return the sequences in which the answer is read: no attention that counts reads what they are in the end.

        Of several those whose last attention counts.
        """
        found = []
        for s in self.map.sequences:
            last = self.states[s][-1][0]
            columns = enumerate(self.map.columns)
            reads = [i for i, c in columns if c is s and self.map.rows[i] is not s and counts[i]]
            if last >= 0 and not any(last in self.map.captured.keys[i].attentions for i in reads):
                found.append(s)
        return [s for s in found if counts[self.states[s][-1][0]]] or found


class SharesOfSequences(MatricesOfSequences):
    r"""What each token is made of: rows of R, which add up to 1.

    An attention makes of the tokens of s, whose values come from q, :math:`R^{so} \leftarrow \mathrm{diag}(k) R^{so} + B R^{qo}`
    for each sequence o: k is what is kept of them, B what is read, and :math:`k_i + \sum_j B_{ij} = 1`.
    """

    def add(self, number: int, kept: Tensor, read: Tensor) -> None:
        """Take in an attention, as what is kept ``(n, T)`` and what is read ``(n, T, S)``."""
        row, column = self.map.rows[number], self.map.columns[number]
        new = {other: kept[..., None] * r for other, r in self.last(row).items()}
        for other, r in self.seen(column, self.map.captured.keys[number]).items():
            new[other] = new.get(other, 0) + read @ r
        self.states[row].append((number, new))


class RelevanceOfSequences(MatricesOfSequences):
    """The matrices R of relevance."""

    def add(self, number: int, weighted: Tensor) -> None:
        """Take in an attention, as its matrices weighted by their gradients ``(n, T, S)``."""
        row, column = self.map.rows[number], self.map.columns[number]
        captured = self.map.captured
        new, read = dict(self.last(row)), self.seen(column, captured.keys[number])
        for other, r in read.items():
            if row is column or other is not column:
                new[other] = new.get(other, 0) + weighted @ r
        if row is not column:
            own = _normalized(self.seen(row, captured.queries[number])[row])
            new[column] = new.get(column, 0) + own.mT @ weighted @ _normalized(read[column])
        self.states[row].append((number, new))


def _normalized(r: Tensor) -> Tensor:
    """Return R − I, its rows divided by their sums, plus I; rows of zeros stay."""
    eye = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    others = r - eye
    sums = others.sum(-1, keepdim=True)
    return torch.where(sums > 0, others / sums.where(sums > 0, 1), 0) + eye
