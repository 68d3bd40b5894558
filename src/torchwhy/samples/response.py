"""What a language model answers: given or generated, and its log probability as a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from torchwhy.engine.structure import Output, as_tuple
from torchwhy.samples.sample import Given
from torchwhy.samples.tokens import TokenizerLike, as_batch, encode, special_id
from torchwhy.samples.units import shorten
from torchwhy.targets.score_target import ScoreTarget
from torchwhy.targets.target import logits_per_row


@dataclass(frozen=True, eq=False)
class ResponseLogProb(ScoreTarget):
    r"""The log probability of the response: :math:`\sum_t \log p(y_t \mid \text{prompt}, y_{<t})`, in nats.

    Args:
        ids: the response of each row, ``(N, T)``, filled up behind.
        length: its tokens, ``(N,)``.
        from_end: whether the response is at the end of what the model is given, as of causal models, where position p of the
            output is about token p + 1; of a decoder it is about token p.
        token: the number of one token of the response alone, 0 for rows that have fewer; None is the sum over all.
    """

    ids: Tensor
    length: Tensor
    from_end: bool
    token: int | None = None

    def __call__(self, output: Output, rows: Tensor) -> Tensor:
        """Return the log probabilities ``(M,)`` of the responses of rows ``(M,)``."""
        out = logits_per_row(output, len(rows))
        rows = rows.to(out.device)
        ids, length = self.ids.to(out.device)[rows], self.length.to(out.device)[rows, None]
        t = torch.arange(ids.shape[1], device=out.device)[None]
        if self.token is not None:
            ids, t = ids[:, [self.token]], t[:, [self.token]]
        if out.dim() != 3 or out.shape[1] < ids.shape[1]:
            raise ValueError(
                f"target: the log probability of a response needs logits (N, length, tokens), the model gave {tuple(out.shape)}; "
                "give a target of your own"
            )
        at = (out.shape[1] - 1 - length + t if self.from_end else t.expand(len(rows), -1)).clamp(max=out.shape[1] - 1)
        picked = out.gather(1, at[..., None].expand(-1, -1, out.shape[2]))
        picked = picked.float() if picked.dtype in (torch.half, torch.bfloat16) else picked
        found = picked.log_softmax(2).gather(2, ids[..., None])[..., 0]
        return torch.where(t < length, found, 0).sum(1)

    def of_each_token(self) -> list[ResponseLogProb]:
        """Return a target for each of the T tokens."""
        return [replace(self, token=t) for t in range(self.ids.shape[1])]


def check_responses(response: Given, n: int) -> list[str | list[int]]:
    """Return the response to each of n prompts, a text or ids.

    Raises:
        TypeError: neither texts nor ids.
        ValueError: another number of responses than prompts, or an empty one.
    """
    given = response.tolist() if isinstance(response, Tensor) else response
    if isinstance(given, str) or (isinstance(given, (list, tuple)) and given and isinstance(given[0], int)):
        given = [given] * n
    if not isinstance(given, (list, tuple)):
        raise TypeError(
            f"response: expected a text, ids of tokens, or one for each prompt; got {type(response).__name__}"
        )
    if len(given) != n:
        raise ValueError(f"response: {len(given)} given for {n} prompts; give one for each")
    for row in given:
        if not isinstance(row, (str, list, tuple)):
            raise TypeError(f"response: expected a text or ids of tokens, got {type(row).__name__}")
        if not row or (isinstance(row, str) and not row.strip()):
            raise ValueError("response: empty; there is nothing to explain")
    return [row if isinstance(row, str) else [int(i) for i in row] for row in given]


def response_ids(tokenizer: TokenizerLike, prompt: str, response: str | list[int]) -> list[int]:
    """Return the ids of a response: those that follow the prompt's where it begins with a blank, else its own.

    Raises:
        ValueError: a text that its tokens do not stand for.
    """
    if not isinstance(response, str):
        return response
    own = encode(tokenizer, response, special=False)
    unknown = special_id(tokenizer, "unk")
    told = {k for i, (a, b) in zip(own.ids, own.spans) if i != unknown for k in range(a, b)}
    lost = [c for k, c in enumerate(response) if k not in told and not c.isspace()]
    if lost or not own.ids:
        raise ValueError(
            f"response: {shorten(response)!r} cannot be aligned, the tokenizer has no tokens for {shorten(''.join(lost))!r}; "
            "give another text, or the ids of its tokens"
        )
    if response[0].isspace():
        both, before = (encode(tokenizer, text, special=False).ids for text in (prompt + response, prompt))
        if both[: len(before)] == before and len(both) > len(before):
            return both[len(before) :]
    return own.ids


def generate(
    model: nn.Module, seen: dict[str, Tensor], max_new_tokens: int, tokenizer: TokenizerLike
) -> list[list[int]]:
    """Return the most probable continuation of each row, token by token, without what ends it.

    A response that ends at once is the token that ends it.

    Args:
        model: the language model; without a ``generate`` of its own it is run once for each token.
        seen: what the model is given.
        max_new_tokens: the most tokens.
        tokenizer: knows the ids of special tokens.
    """
    ends = {special_id(tokenizer, "eos"), special_id(tokenizer, "pad")} - {None}
    config = getattr(model, "generation_config", None)
    told = getattr(config, "eos_token_id", None)
    ends |= set(as_tuple(told)) - {None}
    with torch.no_grad():
        own, decoder = getattr(model, "generate", None), is_encoder_decoder(model)
        if callable(own) and "" not in seen:
            known = {k: v for k, v in seen.items() if k != "position_ids"}  # which it finds by itself
            made = own(**known, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
            made = made[:, 1:] if decoder else made[:, next(iter(seen.values())).shape[1] :]
        else:
            made = _greedy(model, seen, max_new_tokens)
    cut = [next((k for k, token in enumerate(row) if token in ends), len(row)) for row in made.tolist()]
    return [row[: max(1, k)] for row, k in zip(made.tolist(), cut)]


def _greedy(model: nn.Module, seen: dict[str, Tensor], max_new_tokens: int) -> Tensor:
    """Return the most probable tokens ``(N, T)``, one after the other."""
    (name, ids), *others = seen.items()
    start, alike = ids.shape[1], ids.shape
    for _ in range(max_new_tokens):
        more = torch.arange(1, ids.shape[1] - start + 1, device=ids.device).expand(len(ids), -1)
        grown = {"attention_mask": torch.ones_like(more), "position_ids": seen.get("position_ids", ids)[:, -1:] + more}
        arguments = {k: torch.cat([v, grown.get(k, 0 * more)], 1) if v.shape == alike else v for k, v in others}
        out = logits_per_row(model(**{name: ids}, **arguments) if name else model(ids, **arguments), len(ids))
        ids = torch.cat([ids, out[:, -1].argmax(-1, keepdim=True)], 1)
    return ids[:, start:]


def is_encoder_decoder(model: nn.Module) -> bool:
    """Say whether a model has an encoder for the prompt and a decoder for the response."""
    return bool(getattr(getattr(model, "config", None), "is_encoder_decoder", False))


def as_target(ids: Sequence[Sequence[int]], *, from_end: bool) -> ResponseLogProb:
    """Return the target for responses given by their ids."""
    return ResponseLogProb(as_batch(ids, 0), torch.tensor([len(r) for r in ids]), from_end)
