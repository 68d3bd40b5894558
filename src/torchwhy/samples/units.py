"""Units: the parts of a text that are features, as spans of its characters."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence

from torchwhy.engine.structure import as_tuple
from torchwhy.spelling import did_you_mean

CharSpan = tuple[int, int]  # the first character, and the one after the last

UNIT_PATTERNS = {"word": r"\S+", "sentence": r"[^.!?]*[.!?]+\s*|[^.!?]+"}


def find_units(text: str, units: str) -> list[CharSpan]:
    r"""Return where the units of a text are.

    Args:
        text: the text.
        units: ``"word"`` (by blanks), ``"sentence"`` (up to and with ``.``, ``!`` or ``?`` and the blanks after it), or a
            regular expression, whose matches are the units.

    Raises:
        TypeError: no string.
        ValueError: no regular expression, or one that matches nothing.

    >>> find_units("Go on. Now!", "word")
    [(0, 2), (3, 6), (7, 11)]
    >>> find_units("Go on. Now!", "sentence")
    [(0, 7), (7, 11)]
    """
    if not isinstance(units, str):
        raise TypeError(f"units={units!r}: expected 'token', 'word', 'sentence' or a regular expression")
    try:
        matches = list(re.finditer(UNIT_PATTERNS.get(units, units), text))
    except re.error as error:
        raise ValueError(f"units={units!r}: no regular expression ({error})") from None
    found = [m.span() for m in matches if m.group().strip()]
    if not found:
        meant = did_you_mean(units, ("word", "sentence", "token")) if units.isidentifier() else ""
        raise ValueError(f"units={units!r}: matches nothing in {shorten(text)!r}{meant}")
    return found


def find_skipped(text: str, skip: Sequence[str]) -> list[CharSpan]:
    """Return where the texts to skip are, all of their occurrences."""
    return sorted(m.span() for part in skip for m in re.finditer(re.escape(part), text))


def check_skip(skip: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return what is skipped as a tuple of texts.

    Raises:
        TypeError: something else than texts.
    """
    parts = () if skip is None else as_tuple(skip)
    if not all(isinstance(p, str) and p for p in parts):
        raise TypeError(f"skip={skip!r}: expected a text that is never a feature, or several")
    return parts


def unit_at(spans: Sequence[CharSpan], place: int) -> int:
    """Return the number of the span that holds a character, −1 for none; the spans are in order.

    >>> [unit_at([(0, 2), (3, 6)], i) for i in (0, 2, 3)]
    [0, -1, 1]
    """
    i = bisect_right(spans, place, key=lambda span: span[0]) - 1
    return i if i >= 0 and place < spans[i][1] else -1


def cut_text(text: str, spans: Sequence[CharSpan], kept: Sequence[bool]) -> str:
    """Return a text without the spans that are not kept and the blanks behind them.

    >>> cut_text("one two three", [(0, 3), (4, 7), (8, 13)], [True, True, False])
    'one two'
    """
    pieces, end = [], 0
    for (a, b), there in zip(spans, kept):
        pieces.append(text[end:a])
        end = b
        if there:
            pieces.append(text[a:b])
        else:
            while end < len(text) and text[end].isspace():
                end += 1
    pieces.append(text[end:])
    cut = "".join(pieces)
    return cut if text[-1:].isspace() else cut.rstrip()


def shorten(text: str, most: int = 40) -> str:
    """Return a text in at most so many characters."""
    return text if len(text) <= most else text[: most - 3] + "..."
