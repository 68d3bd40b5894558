"""The text of a prompt and where in it units may be: plain text, a chat, a template."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torchwhy.samples.tokens import Encoding, TokenRow, number_tokens
from torchwhy.samples.units import CharSpan, find_skipped, find_units, shorten


@dataclass(frozen=True)
class PromptText:
    """The text of one row.

    Args:
        text: what the tokenizer is given.
        regions: the parts of it that may hold units.
        fields: the field of each region of a template; empty for other prompts.
        special: whether the tokenizer adds its special tokens; a chat's markup holds them.
    """

    text: str
    regions: tuple[CharSpan, ...]
    fields: tuple[str, ...] = ()
    special: bool = True

    def units(self, units: str, skip: Sequence[str]) -> list[CharSpan]:
        """Return where the units are, in order, those of the skipped texts left in.

        Raises:
            ValueError: a unit that matches nothing, or a text to skip that is not there.
        """
        parts = [(a, self.text[a:b]) for a, b in self.regions]
        for part in skip:
            if not any(part in text for _, text in parts):
                raise ValueError(f"skip={part!r}: not in the prompt {shorten(self.text)!r}")
        found, failed = [], None
        for a, text in parts:
            try:
                found += [(a + i, a + j) for i, j in find_units(text, units)]
            except ValueError as error:
                failed = error
        if not found and failed is not None:
            raise failed
        return found

    def skipped(self, skip: Sequence[str]) -> list[CharSpan]:
        """Return what is never a unit: what lies between the regions, and the skipped texts in them."""
        ends = [0, *(b for _, b in self.regions)]
        starts = [*(a for a, _ in self.regions), len(self.text)]
        between = [(a, b) for a, b in zip(ends, starts) if a < b]
        inside = [(a + i, a + j) for a, b in self.regions for i, j in find_skipped(self.text[a:b], skip)]
        return sorted(between + inside)

    def token_row(self, encoding: Encoding, units: str | None, skip: Sequence[str]) -> TokenRow:
        """Return the tokens of the text with their units, none for None."""
        if units is None:
            return TokenRow(encoding.ids, [-1] * len(encoding.ids), [], encoding.extra)
        if self.fields:
            return self._fields_of_tokens(number_tokens(encoding, [self.text], [self.regions], [[]]))
        found = [] if units == "token" else [self.units(units, skip)]
        return number_tokens(encoding, [self.text], found, [self.skipped(skip)])

    def _fields_of_tokens(self, row: TokenRow) -> TokenRow:
        """Return tokens whose units are the fields, one unit for all places of a field."""
        if len(row.names) != len(self.regions):
            raise ValueError(f"units: a field of {shorten(self.text)!r} has no token of its own")
        names = list(dict.fromkeys(self.fields))
        number = [names.index(field) for field in self.fields]
        return TokenRow(row.ids, [-1 if u < 0 else number[u] for u in row.units], names, row.extra)


def fields_of(template: str) -> list[str]:
    """Return the fields of a template, in order, each once.

    Raises:
        ValueError: braces that do not close, or a field without a name.
    """
    try:
        found = [field for _, field, _, _ in string.Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise ValueError(f"prompt: {shorten(template)!r} is no template ({error})") from None
    if not all(found):
        raise ValueError(f"prompt: a field without a name in {shorten(template)!r}; write {{name}}")
    return list(dict.fromkeys(found))


def check_fields(template: str, texts: Mapping[str, object], name: str) -> None:
    """Refuse texts that are not those of a template's fields.

    Raises:
        ValueError: a field without text, or a text without a field.
    """
    fields = fields_of(template)
    missing = [f for f in fields if f not in texts]
    unknown = [f for f in texts if f not in fields]
    if missing or not fields:
        what = f"the field {missing[0]!r} of the prompt has no text" if missing else "the prompt has no fields"
        raise ValueError(f"{name}: {what}; give one for each of {fields or '{field}'}")
    if unknown:
        raise ValueError(f"{name}: the prompt has no field {unknown[0]!r}, it has {fields}")


def fill_template(template: str, texts: Mapping[str, str]) -> PromptText:
    """Return a template with its fields filled in."""
    text, regions, fields = "", [], []
    for literal, field, _, _ in string.Formatter().parse(template):
        text += literal
        if field is not None:
            regions.append((len(text), len(text) + len(texts[field])))
            fields.append(field)
            text += texts[field]
    return PromptText(text, tuple(regions), tuple(fields))
