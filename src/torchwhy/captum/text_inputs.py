"""Captum's inputs of language models as prompts of ours."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

import torchwhy as tw
from torchwhy.engine.structure import AnyForm, InForm
from torchwhy.samples.tokens import TokenizerLike, TokenRow, encode


class InterpretableInput:
    """The base of Captum's inputs of language models.

    ``values`` are the names of the features.
    """

    values: list[str]

    def as_prompt(self, tokenizer: TokenizerLike, response: InForm, max_new_tokens: int) -> tw.Prompt:
        """Return the prompt with its response; None lets the model generate it."""
        raise NotImplementedError(f"torchwhy.captum: {type(self).__name__} has no counterpart; see tw.Sample")


class TextTokenInput(InterpretableInput):
    """A text whose features are its tokens.

    Args:
        text: the prompt.
        tokenizer: its tokenizer.
        baselines: what stands in the place of a token, its id or itself.
        skip_tokens: ids of tokens, or these themselves, that are never a feature.
    """

    def __init__(
        self, text: str, tokenizer: AnyForm, baselines: int | str = 0,
        skip_tokens: Sequence[int] | Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        self.text, self.tokenizer, self.skip_tokens = text, tokenizer, skip_tokens
        self.baselines = baselines if isinstance(baselines, int) else _ids(tokenizer, [baselines])[0]
        ids, skipped = encode(tokenizer, text).ids, set(_ids(tokenizer, skip_tokens or []))
        units, d = [], 0
        for i in ids:
            units.append(-1 if i in skipped else d)
            d += i not in skipped
        kept = [i for i, u in zip(ids, units) if u >= 0]
        self.values = list(tokenizer.convert_ids_to_tokens(kept))
        self.row = TokenRow(ids, units, self.values)

    def as_prompt(self, tokenizer: TokenizerLike, response: InForm, max_new_tokens: int) -> tw.Prompt:
        """Return the prompt with its response."""
        prompt = tw.Prompt(tokenizer, self.text, response, "token", self.baselines, max_new_tokens=max_new_tokens)
        prompt.rows, prompt.names = [self.row], [list(self.values)]
        return prompt


class TokenReferenceBase:
    """Baselines of token ids: one id everywhere.

    Args:
        reference_token_idx: the id, such as that of the padding token.
    """

    def __init__(self, reference_token_idx: int = 0) -> None:
        self.reference_token_idx = reference_token_idx

    def generate_reference(self, sequence_length: int, device: torch.device | str) -> Tensor:
        """Return the id repeated, ``(sequence_length,)``."""
        return torch.full((sequence_length,), self.reference_token_idx, device=device)


def _ids(tokenizer: AnyForm, tokens: Sequence[int] | Sequence[str]) -> list[int]:
    """Return the ids of tokens that may be ids already."""
    return [t if isinstance(t, int) else int(tokenizer.convert_tokens_to_ids([t])[0]) for t in tokens]


class TextTemplateInput(InterpretableInput):
    """A template whose features are the texts of its fields.

    Args:
        template: with ``{}``, ``{0}`` or ``{name}`` for the fields.
        values: the text of each field, a list or by name.
        baselines: the text in its place when it is absent, likewise; None is no text.
        mask: fields that are one feature: there is none here.

    Raises:
        NotImplementedError: a function as the template or the baselines, or a mask.
    """

    def __init__(
        self,
        template: AnyForm,
        values: Sequence[str] | Mapping[str, str],
        baselines: AnyForm = None,
        mask: AnyForm = None,
    ) -> None:
        if not isinstance(template, str) or mask is not None or callable(baselines):
            raise NotImplementedError(
                "torchwhy.captum: TextTemplateInput takes a string, and baselines of texts, without a mask; "
                "tw.Prompt(absent={field: [texts]}) averages over several baselines"
            )
        named = values if isinstance(values, Mapping) else {f"field{i}": v for i, v in enumerate(values)}
        absent = dict.fromkeys(named, "") if baselines is None else baselines
        if not isinstance(absent, Mapping):
            absent = dict(zip(named, absent))
        self.template = template if isinstance(values, Mapping) else _name_fields(template)
        self.present, self.absent, self.values = dict(named), dict(absent), list(named.values())

    def as_prompt(self, tokenizer: TokenizerLike, response: InForm, max_new_tokens: int) -> tw.Prompt:
        """Return the prompt with its response."""
        return tw.Prompt(
            tokenizer, self.template, response, self.present, self.absent, max_new_tokens=max_new_tokens
        )  # fmt: skip


def _name_fields(template: str) -> str:
    """Return a template whose fields are named by their numbers, ``field0`` and so on."""
    found, count = [], 0
    for text, field, _, _ in string.Formatter().parse(template):
        found.append(text.replace("{", "{{").replace("}", "}}"))
        if field is not None:
            found.append(f"{{field{field or count}}}")
            count += 1
    return "".join(found)
