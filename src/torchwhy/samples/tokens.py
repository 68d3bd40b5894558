"""Tokens: what a tokenizer makes of a text, with the unit that each token belongs to.

A tokenizer is used by its call (with ``return_offsets_mapping``), ``decode``, ``apply_chat_template`` and the ids of its special
tokens, and by nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from torchwhy.engine.structure import Keywords, Model
from torchwhy.samples.sample import AnyGiven, Given
from torchwhy.samples.units import CharSpan, find_skipped, find_units, shorten, unit_at


class TokenizerLike(Protocol):
    """A tokenizer, as those of Hugging Face; a processor with one is used in the same way."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the tokens of texts by name: ``"input_ids"``, and ``"offset_mapping"`` where it is asked for."""

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Return the text of tokens."""


@dataclass
class TokenRow:
    """The tokens of one row.

    Args:
        ids: T token ids.
        units: the number of each token's unit, −1 for what is never a feature.
        names: of the units.
        extra: further numbers of each token, such as ``token_type_ids``.
    """

    ids: list[int]
    units: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    extra: dict[str, list[int]] = field(default_factory=dict)

    def __add__(self, other: TokenRow) -> TokenRow:
        """Return both behind one another; what comes behind has no units."""
        extra = {k: v + other.extra.get(k, [0] * len(other.ids)) for k, v in self.extra.items()}
        return TokenRow(self.ids + other.ids, self.units + [-1] * len(other.ids), self.names, extra)


@dataclass
class Encoding:
    """What a tokenizer made of a text, or of a pair of texts.

    Args:
        ids: T token ids.
        spans: the characters of each token, empty where it stands for none.
        sequence: 0, 1 for the second text of a pair, −1 for tokens that stand for no text, and for special tokens in one.
        extra: further numbers of each token.
    """

    ids: list[int]
    spans: list[CharSpan]
    sequence: list[int]
    extra: dict[str, list[int]]


def encode(tokenizer: TokenizerLike, text: str, pair: str | None = None, *, special: bool = True) -> Encoding:
    """Return the tokens of a text, or of a pair, and the characters that they stand for.

    Args:
        tokenizer: the tokenizer.
        text, pair: one text or two.
        special: with the special tokens that the tokenizer adds.

    Raises:
        ValueError: a tokenizer that cannot say which characters its tokens stand for.
    """
    texts = (text,) if pair is None else (text, pair)
    try:
        made = tokenizer(*texts, return_offsets_mapping=True, add_special_tokens=special)
        spans = [(int(a), int(b)) for a, b in _flat(made["offset_mapping"], depth=2)]
    except (NotImplementedError, KeyError):
        made = tokenizer(*texts, add_special_tokens=special)
        spans = _spans_by_decoding(tokenizer, text if pair is None else None, _flat(made["input_ids"]))
    ids = [int(i) for i in _flat(made["input_ids"])]
    extra = {k: _flat(v) for k, v in dict(made).items() if k not in ("input_ids", "attention_mask", "offset_mapping")}
    extra = {k: v for k, v in extra.items() if isinstance(v, list) and len(v) == len(ids)}
    never = {int(i) for i in getattr(tokenizer, "all_special_ids", ())} - {special_id(tokenizer, "unk")}
    sequence = _sequences(made, ids, spans, pair is not None)
    return Encoding(ids, spans, [-1 if i in never else s for i, s in zip(ids, sequence)], extra)


def _flat(value: AnyGiven, depth: int = 1) -> list:
    """Return a list that may be a tensor, or the only row of a batch."""
    value = value.tolist() if hasattr(value, "tolist") else list(value)
    first = value
    for _ in range(depth):
        first = first[0] if isinstance(first, (list, tuple)) and first else None
    return value[0] if isinstance(first, (list, tuple)) else value


def _spans_by_decoding(tokenizer: TokenizerLike, text: str | None, ids: Sequence[int]) -> list[CharSpan]:
    """Return the characters of each token of a tokenizer that does not say, by decoding one token more each time."""
    special = {int(i) for i in getattr(tokenizer, "all_special_ids", ())}
    ends, plain = [0], [i for i in ids if i not in special]
    for k in range(len(plain)):
        ends.append(len(tokenizer.decode(plain[: k + 1])))
    if text is None or tokenizer.decode(plain) != text:
        raise ValueError(
            "tokenizer: it does not say which characters its tokens stand for (offset_mapping), and decoding does not give the "
            "text back; give a fast tokenizer"
        )
    spans, k = [], 0
    for i in ids:
        spans.append((0, 0) if i in special else (ends[k], ends[k + 1]))
        k += i not in special
    return spans


def _sequences(made: Given, ids: Sequence[int], spans: Sequence[CharSpan], is_pair: bool) -> list[int]:
    """Return which text each token belongs to: 0 or 1, −1 for special tokens."""
    if hasattr(made, "sequence_ids"):
        told = made.sequence_ids(0)
        if any(s is not None for s in told):
            return [-1 if s is None or a == b else int(s) for s, (a, b) in zip(told, spans)]
    found, current, gap, last = [], 0, False, (0, 0)
    for a, b in spans:
        if a == b:
            gap = gap or last[1] > 0
            found.append(-1)
            continue
        if is_pair and not current and (gap or (a < last[1] and (a, b) != last)):
            current = 1
        found.append(current)
        last = (a, b)
    return found


def token_row(encoding: Encoding, texts: Sequence[str], units: str, skip: Sequence[str] = ()) -> TokenRow:
    """Return the tokens of a row with their units.

    Args:
        encoding: of one text, or of two.
        texts: these.
        units: ``"token"``, or as for :func:`find_units`.
        skip: texts that are never a feature.

    Raises:
        ValueError: a unit that matches nothing, or a text to skip that is not there.
    """
    for part in skip:
        if not any(part in text for text in texts):
            raise ValueError(f"skip={part!r}: not in the text {shorten(texts[0])!r}")
    found = [] if units == "token" else [find_units(text, units) for text in texts]
    return number_tokens(encoding, texts, found, [find_skipped(text, skip) for text in texts])


def number_tokens(
    encoding: Encoding, texts: Sequence[str], units: Sequence[Sequence[CharSpan]], skipped: Sequence[Sequence[CharSpan]]
) -> TokenRow:
    """Return the tokens of a row with the numbers of their units; without ``units`` each token is one.

    A token belongs to the unit of its first character that is no blank. Units without a token are left out.

    Raises:
        ValueError: no unit has a token.
    """
    keys: list[tuple[int, int] | None] = []
    for i, (s, (a, b)) in enumerate(zip(encoding.sequence, encoding.spans)):
        if s < 0:
            keys.append(None)
            continue
        text = texts[s]
        place = next((k for k in range(a, b) if not text[k].isspace()), a)
        unit = unit_at(units[s], place) if units else i
        keys.append(None if unit < 0 or unit_at(skipped[s], place) >= 0 else (s, unit))
    order = {key: n for n, key in enumerate(sorted({k for k in keys if k is not None}))}
    if not order:
        raise ValueError(f"units: nothing is left to explain of {shorten(texts[0])!r}")
    if units:
        names = [texts[s][slice(*units[s][u])].strip() for s, u in order]
    else:
        names = [texts[s][slice(*encoding.spans[i])].strip() or "␣" for s, i in order]
    return TokenRow(encoding.ids, [-1 if k is None else order[k] for k in keys], names, encoding.extra)


def as_batch(values: Sequence[Sequence[int]], fill: int, *, left: bool = False) -> Tensor:
    """Return lists of different lengths as a tensor ``(N, L)``, filled up behind them, or before them."""
    most = max(map(len, values))
    rows = [[fill] * (most - len(v)) + list(v) if left else list(v) + [fill] * (most - len(v)) for v in values]
    return torch.tensor(rows, dtype=torch.long)


def remove_absent(there: Tensor, tensors: Keywords, *, left: bool) -> tuple[dict[str, Tensor], Tensor]:
    """Return tensors ``(M, L)`` without the elements that are not there, closed up, and which elements are there then.

    Args:
        there: bool ``(M, L)``.
        tensors: by name.
        left: close up to the right, the padding on the left.
    """
    order = there.long().argsort(dim=1, stable=True) if left else (~there).long().argsort(dim=1, stable=True)
    most = max(1, int(there.sum(1).max()))
    order = order[:, -most:] if left else order[:, :most]
    return {k: t.gather(1, order) for k, t in tensors.items()}, there.gather(1, order)


def parameters_of(model: Model) -> tuple[set[str], bool]:
    """Return the names of a model's arguments, and whether it takes any others.

    Of a module that hands on whatever it is given they are those of the outermost module in it that names its token ids.
    """
    names, any_name = _parameters(model.forward if isinstance(model, nn.Module) else model)
    if any_name and isinstance(model, nn.Module) and "input_ids" not in names:
        inside = (_parameters(m.forward)[0] for m in model.modules())
        names |= next((found for found in inside if "input_ids" in found), set())
    return names, any_name


def _parameters(function: AnyGiven) -> tuple[set[str], bool]:
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(), True
    return {p.name for p in found}, any(p.kind is p.VAR_KEYWORD for p in found)


def special_id(tokenizer: TokenizerLike, *names: str) -> int | None:
    """Return the id of the first of several special tokens that a tokenizer has: ``"mask"``, ``"pad"``, ``"eos"``, ..."""
    found = (getattr(tokenizer, f"{name}_token_id", None) for name in names)
    return next((int(i) for i in found if i is not None), None)
