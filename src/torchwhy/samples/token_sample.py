"""What texts for encoders and prompts for language models have in common: rows of tokens with their units."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.rows import index_rows
from torchwhy.engine.structure import Keywords, Model, Tensors
from torchwhy.samples.sample import AnyGiven, Given, Sample, device_of, moved_to
from torchwhy.samples.tokens import TokenizerLike, TokenRow, as_batch, parameters_of, remove_absent, special_id
from torchwhy.samples.units import CharSpan, cut_text, find_skipped, find_units, unit_at
from torchwhy.targets.score_target import ScoreTarget

ABSENT = ("mask", "pad", "remove")


class TokenSample(Sample):
    """Rows of tokens with their units, and what stands for a unit that is absent.

    Args:
        tokenizer: see :mod:`torchwhy.samples.tokens`.
        absent: ``"mask"`` or ``"pad"``, that token in the place of each of the unit's tokens, which stay attended; ``"remove"``,
            the tokens are cut out; or the id of a token.
        pad_left: whether rows are filled up on the left.
    """

    ids_name = "input_ids"

    def __init__(self, tokenizer: TokenizerLike, absent: str | int, *, pad_left: bool) -> None:
        super().__init__()
        self.tokenizer, self.absent, self.pad_left = tokenizer, absent, pad_left
        self.positional = False  # the model takes the ids as its first argument, under another name
        self.is_bound, self.takes_mask = False, True
        self.attended = torch.ones(1, 1, dtype=torch.bool)

    def fill_in(self, rows: Sequence[TokenRow]) -> None:
        """Set the tensors, further arguments, features and names from rows of tokens."""
        left = self.pad_left
        self.tensors = {self.ids_name: as_batch([r.ids for r in rows], self.padding, left=left)}
        self.feature_mask = {self.ids_name: as_batch([r.units for r in rows], -1, left=left)}
        self.attended = as_batch([[1] * len(r.ids) for r in rows], 0, left=left) > 0
        self.arguments = {"attention_mask": self.attended.long()}
        for name in rows[0].extra:
            self.arguments[name] = as_batch([r.extra[name] for r in rows], 0, left=left)
        self.names = [list(r.names) for r in rows]
        if self.absent != "remove":
            self.baselines = {self.ids_name: self.absent_id()}

    def absent_id(self) -> int:
        """Return the id of the token that stands for what is absent.

        Raises:
            ValueError: the tokenizer has no such token.
        """
        if not isinstance(self.absent, str):
            return check_count("absent", self.absent, least=0)
        names = ("mask",) if self.absent == "mask" else ("pad", "eos")  # whoever has no padding pads with the end
        found = special_id(self.tokenizer, *names)
        if found is None:
            others = "'pad' or 'remove'" if self.absent == "mask" else "'remove'"
            raise ValueError(
                f"absent={self.absent!r}: the tokenizer has no such token; give its id, or absent={others}"
            )
        return found

    def bind(self, model: Model) -> Sample:
        """Return the sample for a model: on its device, with the arguments that it takes."""
        ready, device = copy.copy(self), device_of(model)
        if not self.is_bound:
            ready.fit(model)
        if device is not None:
            ready.tensors, ready.arguments = moved_to(ready.tensors, device), moved_to(ready.arguments, device)
        return ready

    def asked(self, model: Model, target: Given) -> tuple[Sample, AnyGiven]:
        """Return the sample, ready for a model, and the target with tokens in the place of texts."""
        if isinstance(target, ScoreTarget) and self.tokenizer is not None:
            target = target.resolve(self.tokenizer)
        return super().asked(model, target)

    def fit(self, model: Model) -> None:
        """Let the sample be what a model takes."""
        names, any_name = parameters_of(model)
        self.is_bound, self.positional = True, not any_name and self.ids_name not in names
        self.takes_mask = any_name or "attention_mask" in names
        given = {k: v for k, v in (self.arguments or {}).items() if k != "attention_mask"}
        if not any_name or names - {"args", "kwargs"}:
            given = {k: v for k, v in given.items() if k in names}
        self.arguments = self.with_mask(given, self.attended.long())
        if self.positional:
            self.tensors, self.feature_mask = self.tensors[self.ids_name], self.feature_mask[self.ids_name]
            self.baselines = None if self.baselines is None else self.baselines[self.ids_name]

    def ids(self) -> Tensor:
        """Return the token ids ``(N, L)``."""
        return self.tensors if self.positional else self.tensors[self.ids_name]

    def absent_tensors(self) -> Tensors:
        """Return the token that stands for what is absent.

        Raises:
            ValueError: what is absent is removed.
        """
        if self.absent == "remove":
            raise ValueError(
                "absent='remove': this method goes from one token to another and needs one in the place of what is absent; "
                "give absent='pad', or choose a method that masks, such as KernelSHAP or FeatureAblation"
            )
        return super().absent_tensors()

    @property
    def padding(self) -> int:
        """The id that rows are filled up with."""
        return special_id(self.tokenizer, "pad", "eos") or 0

    def masked(self, kept: Tensor, rows: Tensor) -> tuple[AnyGiven, Keywords]:
        """Return token ids and arguments with the units that are kept, the others replaced or cut out.

        Where nothing would be left of a row's text, the token for a beginning (or an end, or padding) is.
        """
        if self.absent != "remove":
            return super().masked(kept, rows)
        ids = index_rows(self.ids(), rows)
        units = (self.feature_mask if self.positional else self.feature_mask[self.ids_name]).to(ids.device)
        number = index_rows(units, rows)
        attended = index_rows(self.attended.to(ids.device), rows)
        there = (kept.gather(1, number.clamp(min=0)) | (number < 0)) & attended
        empty = ~(there & ~self.is_response(rows, ids.shape[1])).any(1, keepdim=True)
        if bool(empty.any()):
            first = attended & (attended.cumsum(1) == 1) & empty
            there, ids = there | first, ids.masked_fill(first, special_id(self.tokenizer, "bos", "eos", "pad") or 0)
        arguments = self.arguments_of(rows)
        by_token = {k: v for k, v in arguments.items() if isinstance(v, Tensor) and v.shape == there.shape}
        by_token.pop("decoder_input_ids", None)
        found, still = remove_absent(there, {**by_token, self.ids_name: ids}, left=self.pad_left)
        seen = found.pop(self.ids_name).masked_fill(~still, self.padding)
        arguments = self.with_mask({**arguments, **found}, still.long())
        return (seen if self.positional else {self.ids_name: seen}), arguments

    def is_response(self, rows: Tensor, columns: int) -> Tensor:
        """Return which columns of rows ``(M,)`` hold no part of the text, ``(M, columns)``."""
        return torch.zeros(len(rows), columns, dtype=torch.bool, device=rows.device)

    def with_mask(self, arguments: Keywords, mask: Tensor) -> Keywords:
        """Return arguments with an attention mask, where the model takes one.

        Raises:
            ValueError: it takes none, and rows differ in length.
        """
        if self.takes_mask:
            return {**arguments, "attention_mask": mask}
        if not bool((mask > 0).all()):
            raise ValueError(
                "inputs: rows of different lengths, and the model takes no attention_mask to say so; give them one by one, with "
                "batch_size=1 where what is absent is removed"
            )
        return arguments


class TextUnits(Sample):
    """The units of texts without a tokenizer, for functions of texts: ``masked`` gives the texts without what is absent.

    Args:
        texts: one tuple of texts for each row.
        spans: where the units of each are.
    """

    def __init__(self, texts: Sequence[tuple[str, ...]], spans: Sequence[Sequence[Sequence[CharSpan]]]) -> None:
        super().__init__()
        self.texts, self.spans = list(texts), spans
        self.names = [
            [text[a:b].strip() for text, units in zip(row, each) for a, b in units]
            for row, each in zip(self.texts, self.spans)
        ]

    @classmethod
    def split(cls, texts: Sequence[tuple[str, ...]], units: str, skip: Sequence[str]) -> TextUnits:
        """Return texts with the units of a kind, but those that begin in a skipped text."""
        found = []
        for row in texts:
            skipped = [find_skipped(text, skip) for text in row]
            each = [find_units(text, units) for text in row]
            found.append([[span for span in f if unit_at(k, span[0]) < 0] for f, k in zip(each, skipped)])
        return cls(texts, found)

    def masked(self, kept: Tensor, rows: Tensor) -> tuple[AnyGiven, Keywords]:
        """Return a list of texts; of pairs two lists."""
        columns: list[list[str]] = [[] for _ in self.texts[0]]
        for there, row in zip(kept.tolist(), rows.tolist()):
            first = 0
            for column, text, spans in zip(columns, self.texts[row], self.spans[row]):
                column.append(cut_text(text, spans, there[first : first + len(spans)]))
                first += len(spans)
        return tuple(columns), {}


def is_text_function(model: Model) -> bool:
    """Say whether a model is a function of texts: whatever is no module."""
    return not isinstance(model, nn.Module)


def check_absent(absent: object, words: Sequence[str]) -> None:
    """Refuse what is no way to be absent.

    Raises:
        ValueError: another word.
        TypeError: neither a word nor a token's id.
    """
    if isinstance(absent, bool) or not isinstance(absent, (str, int)):
        raise TypeError(f"absent={absent!r}: expected one of {', '.join(map(repr, words))}, or the id of a token")
    if isinstance(absent, str) and absent not in words:
        raise ValueError(f"absent={absent!r}: expected one of {', '.join(map(repr, words))}, or the id of a token")
