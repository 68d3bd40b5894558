"""Chats as prompts: messages in a tokenizer's template, and where in the text their contents are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torchwhy.samples.picture import PromptPicture
from torchwhy.samples.prompt_text import PromptText
from torchwhy.samples.sample import AnyGiven
from torchwhy.samples.tokens import TokenizerLike
from torchwhy.samples.units import CharSpan, shorten

Message = Mapping[str, AnyGiven]


def is_chat(prompt: object) -> bool:
    """Say whether a prompt is a chat: a list of messages."""
    return isinstance(prompt, (list, tuple)) and bool(prompt) and all(isinstance(m, Mapping) for m in prompt)


def render_chat(tokenizer: TokenizerLike, messages: Sequence[Message], skip: Sequence[str]) -> PromptText:
    """Return the text of a chat, with the texts of its messages as the regions; those of skipped roles are none.

    The texts are found by rendering the chat once more with marks in their places.

    Args:
        tokenizer: or processor, with the chat template.
        messages: each with a ``role`` and a ``content``, a text or a list of parts.
        skip: roles.

    Raises:
        TypeError: messages that are none, or a tokenizer without a chat template.
        ValueError: a template that changes the texts.
    """
    if not hasattr(tokenizer, "apply_chat_template"):
        raise TypeError(f"prompt: a chat, and {type(tokenizer).__name__} has no chat template; give a text")
    parts = [(str(m["role"]), text) for m in messages for text in texts_of_message(m)]
    marks = [f"zqx{i}xqz" for i in range(len(parts))]
    text, rest = _render_messages(tokenizer, messages), iter(marks)
    marked = _render_messages(tokenizer, [_with_texts(m, rest) for m in messages])
    pieces: list[str] = []
    for mark in marks:
        before, found, marked = marked.partition(mark)
        if not found:
            raise ValueError("prompt: the chat template leaves out or moves a message; give the text that it makes")
        pieces.append(before)
    places = _find_contents(text, pieces, [content for _, content in parts])
    kept = [place for place, (role, _) in zip(places, parts) if role not in skip]
    return PromptText(text, tuple(kept), special=False)


def _find_contents(text: str, pieces: Sequence[str], contents: Sequence[str]) -> list[CharSpan]:
    """Return where in a rendered text the contents are, each behind a piece of markup.

    Raises:
        ValueError: a content that is not there as it was given.
    """
    places, at = [], 0
    for piece, content in zip(pieces, contents):
        at += len(piece)
        shown = next((c for c in (content, content.strip()) if text.startswith(c, at)), None)
        if shown is None or text[at - len(piece) : at] != piece:
            raise ValueError(
                f"prompt: the chat template changes the message {shorten(content)!r}; give the text that it makes"
            )
        places.append((at, at + len(shown)))
        at += len(shown)
    return places


def _render_messages(tokenizer: AnyGiven, messages: Sequence[Message]) -> str:
    return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)


def texts_of_message(message: object) -> list[str]:
    """Return the texts in the content of a message of a chat.

    Raises:
        TypeError: no message with a role and a text, or with parts that are texts and pictures.
    """
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise TypeError(f"prompt: expected messages with a role and a content, got {message!r}")
    content = message["content"]
    if isinstance(content, str):
        return [content]
    is_list = isinstance(content, (list, tuple)) and bool(content)
    if not is_list or not all(isinstance(part, Mapping) and part.get("type") in ("text", "image") for part in content):
        raise TypeError(
            "prompt: the content of a message is a text, or a list of parts with the type 'text' or 'image', not "
            f"{content if is_list else type(content).__name__}"
        )
    return [str(part["text"]) for part in content if part["type"] == "text"]


def _with_texts(message: Message, texts: AnyGiven) -> Message:
    """Return a message with other texts, the next ones of an iterator."""
    if isinstance(message["content"], str):
        return {**message, "content": next(texts)}
    parts = [{**part, "text": next(texts)} if part["type"] == "text" else part for part in message["content"]]
    return {**message, "content": parts}


def pictures_of_chat(messages: Sequence[Message]) -> list[PromptPicture]:
    """Return the pictures among the parts of the messages: ``{"type": "image", "image": ...}``."""
    parts = [part for m in messages if not isinstance(m["content"], str) for part in m["content"]]
    found = [part["image"] for part in parts if part["type"] == "image" and "image" in part]
    return [p if isinstance(p, PromptPicture) else PromptPicture(p) for p in found]
