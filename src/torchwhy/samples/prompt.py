"""Prompts for language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchwhy.engine.run.checks import check_count
from torchwhy.engine.structure import AnyModel, as_tuple
from torchwhy.samples.bound_prompt import BoundPrompt
from torchwhy.samples.chat import Message, is_chat, pictures_of_chat, render_chat
from torchwhy.samples.picture import PromptPicture
from torchwhy.samples.prompt_pictures import PromptPictures, read_pictures
from torchwhy.samples.prompt_text import PromptText, check_fields, fill_template
from torchwhy.samples.response import check_responses, generate, response_ids
from torchwhy.samples.sample import AnyGiven, Given, Sample
from torchwhy.samples.template import TemplateTexts
from torchwhy.samples.text import check_for_function, check_texts
from torchwhy.samples.token_sample import TextUnits, check_absent, is_text_function
from torchwhy.samples.tokens import Encoding, TokenizerLike, TokenRow, encode
from torchwhy.samples.units import check_skip
from torchwhy.targets.of_classes import ClassTarget

PromptLike = str | Sequence[str] | Sequence[Message] | Sequence[Sequence[Message]]
Units = str | Mapping[str, str] | None
AbsentTexts = Mapping[str, str | Sequence[str]]


class Prompt(Sample):
    """Prompts for a language model, and the response that is explained.

    Takes the place of ``inputs`` in every method, metric and picture: attributions ``(N, units)``, one number for each unit of
    the prompt. Without a target it is the log probability of the response that is explained, in nats;
    ``explain(prompt, target="each")`` explains each of its T tokens, ``(N, T, units)``. Special tokens and the markup of a
    chat are never units.

    A target of :mod:`torchwhy.targets` that is about a token (``LogProb``, ``Contrast``, ``Entropy``, ``Probability``) is shown
    the prompt alone, whose last position is about the token that comes next; its texts are tokens of the tokenizer. Any other
    target is shown the prompt, and the response behind it if one was given.

    A model that is no module is a function of texts: a list of strings to scores; what is absent is removed then.

    Pictures stand in the prompt where the processor's mark for them does, such as ``<image>``; their units, named
    ``picture[row, column]`` where they are patches, come behind those of the text, in one game. What is absent of a picture is
    painted over, also where absent text is removed.

    Args:
        tokenizer: gives token ids and the characters that each stands for, as those of Hugging Face do; for prompts with pictures
            the model's processor.
        prompt: a text; a list of N texts; a chat (a list of messages with ``role`` and ``content``) or a list of chats, in the
            tokenizer's template; with ``units`` a mapping, a template such as ``"{name} lives in {city}"``.
        response: a text, token ids, or one of these for each prompt; None lets the model generate it, by the most probable
            token each time.
        units: ``"token"``, ``"word"`` (by blanks), ``"sentence"`` (up to and with ``.``, ``!`` or ``?`` and the blanks after it),
            a regular expression, whose matches are the units; or the texts of a template's fields, by field. None, for prompts
            with pictures: the text is not explained.
        absent: ``"pad"``: each token of the unit is replaced by that for padding (that for the end, where there is none) and
            stays attended; ``"remove"``: the tokens are cut out, rows are filled up on the left and positions told; the id of
            a token; or, for a template, other texts for each field, ``{field: [texts]}``, over which scores are averaged:
            the first ones together, the second ones, ...
        skip: what is never a unit: texts, wherever they occur in the prompt, or the roles of a chat (``"system"``).
        max_new_tokens: the most tokens of a response that is generated.
        pictures: the picture of the prompt, a :class:`PromptPicture` or as PIL opens it, or several in their order; a list of
            these for each of several prompts. None takes those in the messages of a chat.

    Raises:
        TypeError: something else than texts or chats, or pictures without a processor.
        ValueError: a unit that matches nothing, a response that the tokenizer cannot align, a field without text, more or
            fewer pictures than marks.
    """

    def __init__(
        self, tokenizer: TokenizerLike, prompt: PromptLike, response: Given = None, units: Units = "word",
        absent: str | int | AbsentTexts = "pad", *, skip: str | Sequence[str] | None = None, max_new_tokens: int = 20,
        pictures: Given = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.processor = tokenizer if hasattr(tokenizer, "image_processor") else None
        self.tokenizer = tokenizer if self.processor is None else getattr(tokenizer, "tokenizer", tokenizer)
        self.prompt, self.units, self.absent = prompt, units, absent
        self.skip, self.max_new_tokens = check_skip(skip), check_count("max_new_tokens", max_new_tokens)
        self.template: TemplateTexts | None = None
        if not isinstance(absent, Mapping):
            check_absent(absent, ("pad", "remove"))
        elif not isinstance(units, Mapping):
            raise ValueError(
                "units: absent has other texts for the fields of a template; give their texts, units={field: text}"
            )
        else:
            self.template = TemplateTexts(check_texts(prompt, "prompt"), units, absent)
            self.n_absences = self.template.n_absences
        self.texts = self._texts()
        self.responses = None if response is None else check_responses(response, len(self.texts))
        self.pictures = self._read_pictures(pictures)
        self.rows: list[TokenRow] = []
        if tokenizer is not None:
            kind = "word" if isinstance(units, Mapping) else units
            encodings = [self.encoded(i, text) for i, text in enumerate(self.texts)]
            self.rows = [t.token_row(e, kind, self._texts_to_skip()) for t, e in zip(self.texts, encodings)]
            shown = [[] for _ in self.rows] if self.pictures is None else self.pictures.names()
            self.names = [row.names + names for row, names in zip(self.rows, shown)]
            self.response_ids()

    def encoded(self, row: int, text: PromptText) -> Encoding:
        """Return the tokens of a text in the place of a row's, with those that stand for the row's pictures."""
        plain = encode(self.tokenizer, text.text, special=text.special)
        return plain if self.pictures is None else self.pictures.rows[row].expand(plain, self.pictures.image_id)

    def _read_pictures(self, given: Given) -> PromptPictures | None:
        """Return the pictures through the processor, None without any.

        Raises:
            TypeError: pictures and no processor.
            ValueError: neither units of a text nor pictures, or another number of pictures than prompts and marks.
        """
        of_chats: list[list[PromptPicture]] = [pictures_of_chat(chat) for chat in self._chats()]
        each = of_chats if given is None else read_pictures(given, len(self.texts))
        if not any(each):
            if self.units is None:
                raise ValueError("units: None, and the prompt has no pictures; there is nothing to explain")
            return None
        if self.processor is None:
            raise TypeError(
                f"tokenizer: {type(self.tokenizer).__name__} is none for pictures; give the model's processor, as AutoProcessor "
                "loads it"
            )
        return PromptPictures.read(self.processor, self.texts, each)

    def _texts(self) -> list[PromptText]:
        """Return the text of each row.

        Raises:
            TypeError: something else than texts or chats.
            ValueError: a field without text.
        """
        if isinstance(self.units, Mapping):
            texts, given = check_texts(self.prompt, "prompt"), self.units
            check_texts(list(given.values()), "units")
            for text in texts:
                check_fields(text, given, "units")
            return [fill_template(text, given) for text in texts]
        if self._chats():
            renderer = self.tokenizer if self.processor is None else self.processor
            return [render_chat(renderer, chat, self.skip) for chat in self._chats()]
        return [PromptText(text, ((0, len(text)),)) for text in check_texts(self.prompt, "prompt")]

    def _chats(self) -> list[AnyGiven]:
        """Return the chats, none where the prompts are texts."""
        given: AnyGiven = self.prompt
        if is_chat(given):
            return [given]
        each = as_tuple(given)
        return list(each) if each and all(map(is_chat, each)) else []

    def _texts_to_skip(self) -> list[str]:
        """Return the skipped texts, without the roles of a chat."""
        roles = {message["role"] for chat in self._chats() for message in chat}
        return [part for part in self.skip if part not in roles]

    def response_ids(self) -> list[list[int]] | None:
        """Return the ids of the responses that were given; None without.

        Raises:
            ValueError: a text that its tokens do not stand for.
        """
        if self.responses is None:
            return None
        return [response_ids(self.tokenizer, t.text, r) for t, r in zip(self.texts, self.responses)]

    def bind(self, model: AnyModel) -> Sample:
        """Return the prompt with its response as the model takes it; the response is generated where none was given.

        Raises:
            TypeError: a module and no tokenizer.
            ValueError: a function, and what is absent is not removed.
        """
        if is_text_function(model):
            return self._for_function()
        self._check_tokenizer()
        response = self.response_ids()
        if response is None:
            alone = BoundPrompt(self, model, None)
            response = generate(model, alone.seen_by_generate(), self.max_new_tokens, self.tokenizer)
        return BoundPrompt(self, model, response)

    def asked(self, model: AnyModel, target: AnyGiven) -> tuple[Sample, AnyGiven]:
        """Return the prompt ready for a model and a target, and the target.

        Targets of one's own are shown the response if it was given; those about a token never.
        """
        if is_text_function(model):
            return self._for_function(), target
        if target is None or (isinstance(target, str) and target == "each"):
            return self.bind(model).asked(model, target)
        self._check_tokenizer()
        if isinstance(target, ClassTarget):
            return BoundPrompt(self, model, None).asked(model, target.resolve(self.tokenizer))
        return BoundPrompt(self, model, self.response_ids()), target

    def _check_tokenizer(self) -> None:
        """Refuse to make token ids without a tokenizer.

        Raises:
            TypeError: there is none.
        """
        if self.tokenizer is None:
            raise TypeError("tokenizer: None, and a module takes token ids; give the tokenizer")

    def _for_function(self) -> Sample:
        """Return the prompts as texts.

        Raises:
            ValueError: a chat, or what is absent is replaced by a token.
        """
        if self.template is not None:
            return self.template
        if self._chats():
            raise ValueError("prompt: a function is given texts, not chats; give the text of the chat")
        if self.pictures is not None:
            raise ValueError("pictures: a function is given texts; a model of text and pictures is a module")
        units = check_for_function(self.absent, self.units if isinstance(self.units, str) else "word")
        texts = [(text.text,) for text in self.texts]
        if isinstance(self.units, Mapping):
            return TextUnits(texts, [[text.regions] for text in self.texts])
        return TextUnits.split(texts, units, self.skip)
