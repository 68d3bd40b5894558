"""Attention as it is."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.attention.attention_method import (
    AttentionMethod,
    AttentionRun,
    Fusion,
    Layers,
    SequenceValues,
    fuse_heads,
)
from torchwhy.attention.selection import matrices_by_head, pick_rows
from torchwhy.attention.tokens import TokenSetting, check_token_setting, named_tokens, real_tokens


class RawAttention(AttentionMethod):
    r"""The attention that a token pays to each token: :math:`A_{ij}`, a row of a layer's matrix, fused over heads; with ``key``
    the attention that each token pays to one, a column.

    Rows are in [0, 1], adding up to 1 over all tokens with ``head_fusion="mean"``. It does not know the target, and says where
    values were read from, not what they were worth. Of several layers the mean; of maps the mean at the picture's size.

    Between two sequences, ``layers="cross"``, a row is over the tokens that are read (the source of a translation, the words of
    a prompt), a column over those that read (the cells of a picture: who looks at this word).

    Args:
        layers: the last one, of each sequence, unless others are chosen; None is the mean of all, ``"cross"`` that of all between
            two sequences.
        head_fusion: the mean, the largest or the smallest of the heads.
        key: the token, or tokens, that are looked at, in the forms of ``token``: the result is who looks at them.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 1, the attention itself; Tang et al. 2023, arXiv:2210.04885, for
    columns of one step of diffusion.
    """

    layers: Layers = -1
    head_fusion: Fusion = "mean"
    key: TokenSetting = None

    averages_sequences: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1706.03762"

    def explain_sequences(self, run: AttentionRun, gradients: list[Tensor]) -> SequenceValues:
        """Return the chosen row, or column, of each chosen attention, over the tokens of the sequence that it is about."""
        found = []
        matrices = matrices_by_head([run.captured.matrices[i].detach() for i in run.numbers], self.heads, run.n)
        for number, matrix in zip(run.numbers, matrices):
            row, column = run.map.rows[number], run.map.columns[number]
            if row is not column and not run.map.is_foreign(number):
                run.map.refuse_cross(run.numbers, type(self).__name__)
            fused = fuse_heads(matrix, self.head_fusion)
            if self.key is None:
                tokens = self.output_tokens(run, row, matrix if row is column else None)
                found.append((column, pick_rows(fused, tokens).mean(1)))
                continue
            rows, problem = run.problem.given_rows(run.rows), run.problem
            real = real_tokens(problem, rows, run.input_of(column), column.tokens)
            keys = named_tokens("key", self.key, rows, problem.n // problem.n_targets, column.tokens, real)
            found.append((row, fused.mean(2) if keys is None else pick_rows(fused.mT, keys).mean(1)))
        return found

    def _check_settings(self) -> None:
        super()._check_settings()
        check_token_setting("key", self.key)
        if self.key is not None and self.token is not None:
            raise ValueError("key: a column of the matrix, where token is a row; give one of them")
