"""Texts for encoders."""

from __future__ import annotations

from collections.abc import Sequence

from torchwhy.engine.structure import Model, as_tuple
from torchwhy.samples.sample import Sample
from torchwhy.samples.token_sample import ABSENT, TextUnits, TokenSample, check_absent, is_text_function
from torchwhy.samples.tokens import TokenizerLike, encode, token_row
from torchwhy.samples.units import check_skip


class Text(TokenSample):
    """Texts, or pairs of texts, for an encoder: a classifier, a tagger, a model of similarity.

    Takes the place of ``inputs`` in every method, metric and picture: attributions ``(N, units)``, one number for each unit, 0
    where a row has fewer; of methods of gradients the sum over the unit's tokens and the dimensions of their embeddings.
    Special tokens are never units. The model is given ``input_ids``, and what else the tokenizer makes that it takes.

    A model that is no module is a function of texts: a list of strings (of pairs two lists) to scores, such as a service; what
    is absent is removed then, and no tokenizer is needed.

    Args:
        tokenizer: gives token ids and the characters that each stands for, as those of Hugging Face do.
        texts: one text, or a list of N.
        pair: the second text of each, for models of two.
        units: ``"token"``, ``"word"`` (by blanks), ``"sentence"`` (up to and with ``.``, ``!`` or ``?`` and the blanks after it),
            or a regular expression whose matches are the units; the rest of the text always stays.
        absent: ``"mask"`` or ``"pad"``: each token of the unit is replaced by that one and stays attended; ``"remove"``: the
            tokens are cut out, rows are filled up on the right and the attention mask says so; or the id of a token.
        skip: texts that are never features, wherever they occur.

    Raises:
        TypeError: something else than texts.
        ValueError: no text, another number of pairs, a unit that matches nothing, a token that the tokenizer has not.
    """

    def __init__(
        self, tokenizer: TokenizerLike, texts: str | Sequence[str], pair: str | Sequence[str] | None = None, units: str = "word",
        absent: str | int = "mask", *, skip: str | Sequence[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(tokenizer, absent, pad_left=False)
        check_absent(absent, ABSENT)
        self.units, self.skip = units, check_skip(skip)
        firsts = check_texts(texts, "texts")
        seconds: list[str | None] = [None] * len(firsts)
        if pair is not None:
            seconds = list(check_texts(pair, "pair"))
            if len(seconds) != len(firsts):
                raise ValueError(f"pair: {len(seconds)} given for {len(firsts)} texts")
        self.texts = [(a,) if b is None else (a, b) for a, b in zip(firsts, seconds)]
        if tokenizer is not None:
            self.fill_in([token_row(encode(tokenizer, *row), row, units, self.skip) for row in self.texts])

    def bind(self, model: Model) -> Sample:
        """Return the text as the model takes it: tokens for a module, texts for a function.

        Raises:
            TypeError: a module and no tokenizer.
            ValueError: a function, and what is absent is not removed.
        """
        if not is_text_function(model):
            if self.tokenizer is None:
                raise TypeError("tokenizer: None, and a module takes token ids; give the tokenizer")
            return super().bind(model)
        return TextUnits.split(self.texts, check_for_function(self.absent, self.units), self.skip)


def check_texts(texts: object, name: str) -> list[str]:
    """Return texts as a list.

    Raises:
        TypeError: something else than texts.
        ValueError: none, or an empty one.
    """
    found = list(as_tuple(texts))
    for i, text in enumerate(found):
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected a text or a list of texts, got {type(text).__name__}")
        if not text.strip():
            raise ValueError(f"{name}: row {i} is empty")
    if not found:
        raise ValueError(f"{name}: none given")
    return found


def check_for_function(absent: object, units: str) -> str:
    """Return the units of a function of texts.

    Raises:
        ValueError: units that are tokens, or absence by a token.
    """
    if absent != "remove":
        raise ValueError(
            f"absent={absent!r}: the model is a function, which is given texts, not tokens; give absent='remove' (a module is "
            "given token ids)"
        )
    if units == "token":
        raise ValueError("units='token': a function is given texts; give 'word', 'sentence' or a regular expression")
    return units
