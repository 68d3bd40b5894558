"""A prompt as a model takes it: prompt and response as token ids."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from torchwhy.engine.run.rows import index_rows
from torchwhy.engine.structure import Keywords, Model
from torchwhy.samples.prompt_pictures import PIXELS, PromptPictures
from torchwhy.samples.prompt_text import PromptText
from torchwhy.samples.response import as_target, is_encoder_decoder
from torchwhy.samples.sample import AnyGiven, Given, Sample, device_of, moved_to
from torchwhy.samples.token_sample import TokenSample
from torchwhy.samples.tokens import TokenRow, as_batch, parameters_of, special_id
from torchwhy.targets.of_classes import ClassTarget

if TYPE_CHECKING:
    from torchwhy.samples.prompt import Prompt

# methods of modules that number the tokens in a way of their own: in rows and columns, or beginning behind the padding's id
COUNTS_POSITIONS = ("get_rope_index", "create_position_ids_from_inputs_embeds")


class BoundPrompt(TokenSample):
    """A prompt for one model: the response is behind it, or goes to the decoder.

    Args:
        origin: the prompt.
        model: the language model.
        response: the ids of the response to each row, None for the prompt alone.
    """

    def __init__(self, origin: Prompt, model: nn.Module, response: list[list[int]] | None) -> None:
        self.is_decoder = is_encoder_decoder(model)
        absent = "remove" if origin.template is not None else origin.absent
        super().__init__(origin.tokenizer, absent, pad_left=not self.is_decoder)  # type: ignore[arg-type]
        self.origin, self.response, self.n_absences = origin, response, origin.n_absences
        if response is not None:
            self.details = {"response": [[self.tokenizer.decode([i]).strip() for i in row] for row in response]}
        self.fill_in([self.with_response(row, i) for i, row in enumerate(origin.rows)])
        extra: Keywords = {"use_cache": False}
        if self.is_decoder:
            told = getattr(getattr(model, "config", None), "decoder_start_token_id", None)
            start = int(special_id(self.tokenizer, "bos", "pad") or 0) if told is None else int(told)
            begun = [[start, *row[:-1]] for row in response] if response else [[start]] * len(origin.rows)
            extra["decoder_input_ids"] = as_batch(begun, self.padding)
        self.arguments = {**(self.arguments or {}), **extra}
        if response is not None:
            self.target = as_target(response, from_end=not self.is_decoder)
        self.fit(model)
        if origin.pictures is not None:
            self._add_pictures(origin.pictures)
        names = parameters_of(model)[0]
        own = any(hasattr(m, name) for m in model.modules() for name in COUNTS_POSITIONS)
        self.takes_positions, self.cuts_logits = "position_ids" in names and not own, "logits_to_keep" in names
        self.arguments = self.positioned(moved_to(self.arguments, device_of(model) or self.ids().device))
        self.tensors = moved_to(self.tensors, device_of(model) or self.ids().device)

    def _add_pictures(self, pictures: PromptPictures) -> None:
        """Put the pixel values beside the token ids, their units behind those of the text.

        Raises:
            ValueError: a model that takes ids without a name.
        """
        if self.positional:
            raise ValueError(f"pictures: the model takes no {self.ids_name} by name, to tell them from pixel values")
        first = [len(row.names) for row in self.origin.rows]
        pixels, units, absent = pictures.pixels()
        behind = torch.tensor(first).view(-1, *[1] * (units.dim() - 1))
        self.tensors |= {PIXELS: pixels}
        self.feature_mask |= {PIXELS: torch.where(units < 0, units, units + behind)}
        self.baselines = {**(self.baselines or {}), PIXELS: absent}
        self.arguments = {**(self.arguments or {}), **pictures.arguments()}
        if set(pictures.sizes()) != {1}:
            self.packed = {PIXELS: pictures.sizes()}
        self.names = self.origin.names
        self.details = {**self.details, **pictures.shown(first)}

    def with_response(self, row: TokenRow, i: int) -> TokenRow:
        """Return the tokens of a prompt and, for causal models, of the response to row i behind them."""
        return row if self.response is None or self.is_decoder else row + TokenRow(self.response[i])

    def seen_by_generate(self) -> dict[str, Tensor]:
        """Return what the model is given to go on from; the ids first, under no name where the model has none for them."""
        names: tuple[str, ...] = ("attention_mask", "position_ids") if self.takes_positions else ("attention_mask",)
        found = {"" if self.positional else self.ids_name: self.ids()}
        rows = torch.arange(len(self.ids()), device=self.ids().device)
        arguments, pictures = self.arguments_of(rows), {}
        if self.origin.pictures is not None:
            pictures = {PIXELS: self.pack(PIXELS, self.tensors[PIXELS], rows)}
            names = tuple(arguments)
        return found | {k: v for k, v in arguments.items() if k in names and isinstance(v, Tensor)} | pictures

    def bind(self, model: Model) -> Sample:
        """Return the prompt on the device of a model."""
        ready, device = copy.copy(self), device_of(model)
        if device is not None:
            ready.tensors, ready.arguments = moved_to(self.tensors, device), moved_to(self.arguments, device)
        return ready

    def asked(self, model: Model, target: Given) -> tuple[Sample, AnyGiven]:
        """Return the prompt for a target: without the response for one about a token, with the logits that it reads."""
        if isinstance(target, ClassTarget) and self.response is not None:
            return self.origin.asked(model, target)
        ready, last = self.bind(model), 0
        if target is None or target is self.target or (isinstance(target, str) and target == "each"):
            target, last = self.target if target is None else target, 1 + max(map(len, self.response or [[]]))
        elif isinstance(target, ClassTarget) and isinstance(target.position, int) and target.position < 0:
            last = -target.position
        if last and self.cuts_logits and not self.is_decoder:
            ready.arguments = {**(ready.arguments or {}), "logits_to_keep": last}
        return ready, target

    def each_target(self) -> list[AnyGiven]:
        """Return a target for each token of the response."""
        return super().each_target() if self.target is None else self.target.of_each_token()

    def masked(self, kept: Tensor, rows: Tensor, absence: Tensor | None = None) -> tuple[AnyGiven, Keywords]:
        """Return token ids and arguments with the units that are kept, the others replaced, cut out or of other texts."""
        if self.origin.template is not None:
            seen, arguments = self._filled(self.origin.template.filled(kept, rows, absence), rows)
        else:
            seen, arguments = super().masked(kept, rows)
            arguments = self.positioned(arguments) if self.absent == "remove" else arguments
        if self.origin.pictures is not None:
            pixels = seen[PIXELS] if PIXELS in seen else self.replaced(PIXELS, kept, rows)
            seen = {**seen, PIXELS: self.pack(PIXELS, pixels, rows)}
        return seen, arguments

    def _filled(self, texts: list[str], rows: Tensor) -> tuple[AnyGiven, Keywords]:
        """Return the token ids of texts, with the responses to rows ``(M,)`` behind them, and arguments."""
        made: dict[tuple[int, str], TokenRow] = {}
        for row, text in set(zip(rows.tolist(), texts)):
            encoding = self.origin.encoded(row, PromptText(text, ()))
            made[row, text] = TokenRow(encoding.ids, extra=encoding.extra)
        found = [self.with_response(made[row, text], row) for text, row in zip(texts, rows.tolist())]
        ids = as_batch([r.ids for r in found], self.padding, left=self.pad_left).to(rows.device)
        mask = as_batch([[1] * len(r.ids) for r in found], 0, left=self.pad_left).to(rows.device)
        arguments = self.arguments_of(rows)
        for name in found[0].extra.keys() & arguments.keys():
            arguments[name] = as_batch([r.extra[name] for r in found], 0, left=self.pad_left).to(rows.device)
        return (ids if self.positional else {self.ids_name: ids}), self.positioned(self.with_mask(arguments, mask))

    def positioned(self, arguments: Keywords) -> Keywords:
        """Return arguments with the positions of tokens behind padding, where a model takes them."""
        mask = arguments.get("attention_mask")
        if not self.takes_positions or self.is_decoder or mask is None:
            return arguments
        arguments = {k: v for k, v in arguments.items() if k != "position_ids"}
        return arguments if bool((mask > 0).all()) else {**arguments, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}

    def is_response(self, rows: Tensor, columns: int) -> Tensor:
        """Return which columns of rows ``(M,)`` hold their response, ``(M, columns)``."""
        length = torch.tensor([0 if self.is_decoder or self.response is None else len(r) for r in self.response or ()])
        if not len(length):
            return super().is_response(rows, columns)
        behind = torch.arange(columns, 0, -1, device=rows.device)
        return behind <= index_rows(length.to(rows.device), rows)[:, None]
