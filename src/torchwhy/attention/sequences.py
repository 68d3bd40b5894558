"""The sequences of a model: which attentions act on which tokens, and read which."""

from __future__ import annotations

from dataclasses import dataclass, field

from torchwhy.attention.capture import AttentionCapture
from torchwhy.attention.lineage import Lineage
from torchwhy.attention.selection import Indices, select_items, select_numbers


@dataclass(eq=False)
class TokenSequence:
    """Tokens that attentions act on, one after the other.

    Args:
        lineage: of its tokens when the first attention met them.
        tokens: how many they are.
        attentions: the numbers of the attentions whose queries they are, in the model's order.
    """

    lineage: Lineage
    tokens: int
    attentions: list[int] = field(default_factory=list)

    def has(self, lineage: Lineage, tokens: int) -> bool:
        """Say whether tokens may be these."""
        return (self.lineage.source, self.tokens) == (lineage.source, tokens)


class SequenceMap:
    """The sequences of a run, in the order in which attentions first act on them or read them.

    ``rows[i]`` is the sequence whose tokens are the queries of attention i, ``columns[i]`` the one whose values it mixes.
    """

    def __init__(self, captured: AttentionCapture) -> None:
        self.captured = captured
        self.sequences: list[TokenSequence] = []
        self.rows: list[TokenSequence] = []
        self.columns: list[TokenSequence] = []
        self.joins: set[int] = set()  # the attentions at which sequences of one source come together again
        for i, matrix in enumerate(captured.matrices):
            query, key, (t, s) = captured.queries[i], captured.keys[i], tuple(matrix.shape[-2:])
            row = self._acted_on(i, query, t)
            same = key.source == query.source
            column = row if same and row.has(key, s) else self._read(key, s)
            row.attentions.append(i)
            self.rows.append(row)
            self.columns.append(column)

    def _acted_on(self, number: int, lineage: Lineage, tokens: int) -> TokenSequence:
        """Return the sequence that an attention goes on with: what acted last on it is behind its queries."""
        fitting = [s for s in self.sequences if s.has(lineage, tokens)]
        going_on = [s for s in fitting if not s.attentions or s.attentions[-1] in lineage.attentions]
        if len(going_on) > 1:
            self.joins.add(number)
        return going_on[-1] if going_on else self._new(lineage, tokens)

    def _read(self, lineage: Lineage, tokens: int) -> TokenSequence:
        """Return the sequence whose values an attention reads: also as they were some attentions ago."""
        fitting = [s for s in self.sequences if s.has(lineage, tokens)]
        most = max(fitting, key=lambda s: len(lineage.attentions.intersection(s.attentions)), default=None)
        return most or self._new(lineage, tokens)

    def _new(self, lineage: Lineage, tokens: int) -> TokenSequence:
        self.sequences.append(TokenSequence(lineage, tokens))
        return self.sequences[-1]

    def is_cross(self, number: int) -> bool:
        """Say whether an attention is between two sequences."""
        return self.rows[number] is not self.columns[number]

    def chosen(self, layers: Indices | str) -> list[int]:
        """Return the numbers of the chosen attentions.

        Numbers count all attentions of the model; where it has several sequences, those from the end, -1, count each one's own.

        Raises:
            ValueError: no attention at all, or none between two sequences where these are asked for.
            IndexError: no such attention.
        """
        count = len(self.rows)
        if not count:
            raise ValueError(
                "the model computes no attention, softmax(q kᵀ) v, that can be seen; use a gradient method, LRP or a CAM"
            )
        if layers == "cross":
            found = [i for i in range(count) if self.is_cross(i) and self.is_foreign(i)]
            if not found:
                raise ValueError("layers='cross': the model has no attention between two sequences")
            return found
        if layers == "own":
            own = [i for i in range(count) if not self.is_cross(i)]
            if not own:
                raise ValueError(
                    "layers='own': all attentions of the model are between two sequences; take AttentionRelevance, or "
                    "RawAttention(layers='cross')"
                )
            return own
        if isinstance(layers, str):
            raise ValueError(f"layers={layers!r}: expected numbers, 'own', 'cross', or None for all")
        numbers = select_numbers(count, layers, "layers")
        of_each = [[i for i in s.attentions if not self.is_cross(i)] for s in self.sequences]
        of_each = [of_one for of_one in of_each if of_one]
        if layers is None or len(of_each) < 2 or not all(i < 0 for i in _layer_numbers(layers)):
            return numbers
        return [i for of_one in of_each for i in select_items(of_one, layers, "layers")]

    def refuse_cross(self, numbers: list[int], method: str) -> None:
        """Refuse attentions that are not between the tokens of one sequence.

        Raises:
            ValueError: there are some; or sequences come together again.
        """
        shapes = {i: tuple(self.captured.matrices[i].shape[-2:]) for i in numbers}
        sizes = ", ".join(f"{t} × {s}" for t, s in sorted(set(shapes.values())))
        crossing = [i for i in numbers if self.is_cross(i)]
        if (
            crossing
            and all(not self.is_foreign(i) and shapes[i][0] < shapes[i][1] for i in crossing)
            and len(crossing) == len(numbers)
        ):
            raise ValueError(
                f"the attention matrices are {sizes}: there are keys that belong to none of the tokens, as "
                "with add_bias_kv and add_zero_attn, or to another sequence, and what they hold cannot be traced back; use a "
                "gradient method or LRP"
            )
        if crossing:
            all_cross = all(map(self.is_cross, range(len(self.rows))))
            own = "layers='own', each sequence's own attentions alone, layers= of one sequence, or "
            raise ValueError(
                f"layers: the attention matrices are {sizes}; {', '.join(map(str, crossing))} of 0 to "
                f"{len(self.rows) - 1} are not between the tokens of one sequence, as {method} asks for: choose "
                f"{'' if all_cross else own}AttentionRelevance or RawAttention(layers='cross')"
            )
        of_source: dict[int, set[int]] = {}
        for i in numbers:
            of_source.setdefault(self.rows[i].lineage.source, set()).add(self.rows[i].tokens)
        if any(len(tokens) > 1 for tokens in of_source.values()):
            raise ValueError(
                f"layers: the attention matrices are {sizes}; they must be square and of one size for each "
                f"sequence: choose layers= of one size, from 0 to {len(self.rows) - 1}"
            )
        if joined := self.joins.intersection(numbers):
            raise ValueError(
                f"layers: at attention {min(joined)} tokens come together that went through attentions beside one another; "
                "choose layers= of one sequence"
            )

    def is_foreign(self, number: int) -> bool:
        """Say whether the values of an attention come from elsewhere than its queries."""
        return self.rows[number].lineage.source != self.columns[number].lineage.source


def _layer_numbers(layers: Indices) -> list[int]:
    return [layers] if isinstance(layers, int) else list(layers or ())
