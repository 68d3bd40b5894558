"""The base of the methods that say what tokens are made of, through attention between sequences, too."""

from __future__ import annotations

from torch import Tensor

from torchwhy.attention.attention_method import AttentionMethod, AttentionRun, SequenceValues
from torchwhy.attention.selection import pick_rows
from torchwhy.attention.two_sequences import SharesOfSequences


class SharesMethod(AttentionMethod):
    """The base class of the methods in which each attention mixes what tokens were with what they read.

    Where attention goes from one sequence to another (an encoder and a decoder, two that look at each other), each sequence
    among the inputs has a result: what the answer's tokens are made of adds up to 1 over all sequences. ``token`` is then one of
    the sequence in which the answer is read, as the decoder; of two such sequences the mean is taken.
    """

    def shares(self, run: AttentionRun, number: int) -> tuple[Tensor, Tensor]:
        """Return what an attention keeps of each token ``(n, T)``, and what it reads ``(n, T, S)``: together 1 for each."""
        raise NotImplementedError

    def explain_sequences(self, run: AttentionRun, gradients: list[Tensor]) -> SequenceValues:
        """Return what the answer's tokens are made of, of each sequence ``(n, T)``."""
        found, numbers = run.map, sorted(run.numbers)
        if not any(found.is_cross(i) and found.is_foreign(i) for i in numbers):
            return super().explain_sequences(run, gradients)
        found.refuse_cross([i for i in numbers if not found.is_foreign(i)], type(self).__name__)
        each = {i: self.shares(run, i) for i in numbers}
        made_of = SharesOfSequences(found, run.n, each[numbers[0]][1])
        for number, (kept, read) in each.items():
            made_of.add(number, kept, read)
        answers = made_of.answering([i in each for i in range(len(found.rows))])
        total = {s: each[numbers[0]][1].new_zeros(run.n, s.tokens) for s in found.sequences}
        for answer in answers:
            own = [i for i in numbers if found.rows[i] is found.columns[i] is answer]
            attention = self.matrices(run, own[:1])[0] if own else None
            tokens = self.output_tokens(run, answer, attention)
            for s, r in made_of.last(answer).items():
                total[s] = total[s] + pick_rows(r, tokens).mean(1) / len(answers)
        return list(total.items())
