"""The pictures of prompts as a model takes them: pixel values beside the token ids, and the ids that stand for them.

A processor, as those of Hugging Face's models of text and pictures, is used by its call, ``tokenizer``, ``image_processor``,
``apply_chat_template`` and the token that stands for a picture, and by nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.engine.structure import Keywords, as_tuple
from torchwhy.samples.picture import PromptPicture
from torchwhy.samples.prompt_text import PromptText
from torchwhy.samples.sample import AnyGiven, Given
from torchwhy.samples.tokens import Encoding, encode
from torchwhy.samples.units import shorten

PIXELS = "pixel_values"  # what processors call the values whose units are explained


def read_pictures(given: AnyGiven, n: int) -> list[list[PromptPicture]]:
    """Return the pictures of each of n prompts.

    Raises:
        ValueError: another number of prompts.
    """
    of_rows = given if n > 1 or (_is_list(given) and given and _is_list(given[0])) else [given]
    if not _is_list(of_rows) or len(of_rows) != n:
        raise ValueError(f"pictures: expected a list with one, or a list of some, for each of {n} prompts")
    each = [as_tuple(row) for row in of_rows]
    return [[p if isinstance(p, PromptPicture) else PromptPicture(p) for p in row] for row in each]


def _is_list(value: Given) -> bool:
    return isinstance(value, (list, tuple))


@dataclass
class RowPictures:
    """The pictures of one row.

    Args:
        tensors: what the processor made of them, by name, one behind the other.
        units: the unit of each pixel value, from 0 over all pictures, −1 for none; of the shape of the pixel values.
        absent: what stands in the place of absent ones, of the same shape.
        names: of the units.
        shown: for drawing: each picture ``(3, H, W)`` with the unit of each pixel ``(H, W)``.
        runs: for each picture the tokens that stand for it: ids and further numbers, by name.
    """

    tensors: dict[str, Tensor]
    units: Tensor
    absent: Tensor
    names: list[str]
    shown: list[tuple[Tensor, Tensor]]
    runs: list[dict[str, list[int]]] = field(default_factory=list)

    @classmethod
    def read(cls, processor: Given, pictures: Sequence[PromptPicture]) -> RowPictures:
        """Return the pictures of a row through a processor; units that it leaves no pixel of are no units."""
        found, units, absent, shown = [], [], [], []
        names: list[str] = []
        for i, picture in enumerate(pictures):
            tensors, number, gone = picture.processed(processor)
            left = number[number >= 0].unique()
            place = torch.full((len(picture.names) + 1,), -1)
            place[left] = torch.arange(len(names), len(names) + len(left))  # the last one stays −1
            which = "picture" if len(pictures) == 1 else f"picture {i}"
            names += [which + picture.names[u] for u in left.tolist()]
            units.append(place[number])
            shown.append((picture.image, place[picture.units]))
            absent.append(torch.as_tensor(gone, dtype=tensors[PIXELS].dtype).expand(tensors[PIXELS].shape))
            found.append(tensors)
        together = {k: torch.cat([t[k] for t in found]) for k in found[0]}
        return cls(together, torch.cat(units), torch.cat(absent), names, shown)

    def expand(self, encoding: Encoding, image_id: int) -> Encoding:
        """Return the tokens of a text with those that stand for the pictures in the places of their marks.

        Raises:
            ValueError: more or fewer marks than pictures.
        """
        places = [i for i, token in enumerate(encoding.ids) if token == image_id]
        if len(places) != len(self.runs):
            raise ValueError(f"pictures: {len(self.runs)} given, but the text has marks for {len(places)}")
        extra = {k: list(v) for k, v in encoding.extra.items()}
        extra |= {k: [0] * len(encoding.ids) for run in self.runs for k in run if k != "input_ids" and k not in extra}
        ids, spans, sequence = list(encoding.ids), list(encoding.spans), list(encoding.sequence)
        for at, run in zip(reversed(places), reversed(self.runs)):
            n = len(run["input_ids"])
            ids[at : at + 1] = run["input_ids"]
            spans[at : at + 1] = [(spans[at][0], spans[at][0])] * n
            sequence[at : at + 1] = [-1] * n
            for k, v in extra.items():
                v[at : at + 1] = run.get(k, [v[at]] * n)
        return replace(encoding, ids=ids, spans=spans, sequence=sequence, extra=extra)


@dataclass
class PromptPictures:
    """The pictures of all rows.

    Args:
        rows: of each.
        image_id: the token that marks a picture in a text.
    """

    rows: list[RowPictures]
    image_id: int

    @classmethod
    def read(
        cls, processor: AnyGiven, texts: Sequence[PromptText], pictures: Sequence[Sequence[PromptPicture]]
    ) -> PromptPictures:
        """Return the pictures of prompts with these texts through a processor.

        Raises:
            ValueError: more or fewer pictures than a text has marks for, or tokens that do not follow the text.
        """
        token = str(getattr(processor, "image_token", "<image>"))
        image_id = getattr(processor, "image_token_id", None)
        if image_id is None:
            image_id = encode(processor.tokenizer, token, special=False).ids[-1]
        rows = []
        for text, given in zip(texts, pictures):
            row = RowPictures.read(processor, given)
            plain = encode(processor.tokenizer, text.text, special=text.special)
            if plain.ids.count(image_id) != len(given):
                raise ValueError(
                    f"pictures: {len(given)} given, but the prompt {shorten(text.text)!r} has {token!r}, which marks a picture, "
                    f"{plain.ids.count(image_id)} times"
                )
            images = [p.image.permute(1, 2, 0).numpy() for p in given]
            seen = processor(text=[text.text], images=images, add_special_tokens=text.special, return_tensors="pt")
            of_tokens = {k: v[0].tolist() for k, v in dict(seen).items() if v.shape == seen["input_ids"].shape}
            of_tokens.pop("attention_mask", None)
            row.runs = find_runs(plain.ids, of_tokens, int(image_id), text.text)
            rows.append(row)
        return cls(rows, int(image_id))

    def names(self) -> list[list[str]]:
        """Return the names of the units of each row."""
        return [row.names for row in self.rows]

    def sizes(self, name: str = PIXELS) -> list[int]:
        """Return how many rows the tensor of this name has for each prompt."""
        return [len(row.tensors[name]) for row in self.rows]

    def pixels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return pixel values, units and what stands for absence, a row for each prompt, filled up where they have fewer.

        Of prompts with one picture that is one row for the processor: as it is; else ``(N, the most, ...)``.
        """
        each = [(row.tensors[PIXELS], row.units, row.absent) for row in self.rows]
        if set(self.sizes()) == {1}:
            return torch.cat([e[0] for e in each]), torch.cat([e[1] for e in each]), torch.cat([e[2] for e in each])
        most = max(self.sizes())
        return (
            _filled([e[0] for e in each], most, 0),
            _filled([e[1] for e in each], most, -1),
            _filled([e[2] for e in each], most, 0),
        )

    def arguments(self) -> Keywords:
        """Return what else the processor makes of the pictures."""
        found: Keywords = {}
        for name in self.rows[0].tensors:
            if name != PIXELS:
                whole, sizes = torch.cat([row.tensors[name] for row in self.rows]), self.sizes(name)
                found[name] = whole if set(sizes) == {1} else Ragged(whole, sizes)
        return found

    def shown(self, first: Sequence[int]) -> dict[str, Tensor]:
        """Return the pictures ``(N, pictures, 3, H, W)`` and the unit of each of their pixels, −2 around smaller ones.

        Args:
            first: the number of the first unit of each row's pictures.
        """
        most = max(len(row.shown) for row in self.rows)
        height, width = (max(p.shape[k] for row in self.rows for p, _ in row.shown) for k in (1, 2))
        pictures = torch.zeros(len(self.rows), most, 3, height, width, dtype=torch.uint8)
        units = torch.full((len(self.rows), most, height, width), -2)
        for i, row in enumerate(self.rows):
            for j, (picture, number) in enumerate(row.shown):
                h, w = number.shape
                pictures[i, j, :, :h, :w] = picture
                units[i, j, :h, :w] = torch.where(number < 0, -1, number + first[i])
        return {"pictures": pictures, "picture_units": units}


def _filled(values: Sequence[Tensor], most: int, fill: int) -> Tensor:
    return torch.stack([torch.cat([v, v.new_full((most - len(v), *v.shape[1:]), fill)]) for v in values])


def find_runs(plain: Sequence[int], seen: dict[str, list[int]], image_id: int, text: str) -> list[dict[str, list[int]]]:
    """Return for each picture the tokens that a processor put in the place of its mark.

    Args:
        plain: the tokens of the text, a mark for each picture.
        seen: those of the processor, and further numbers for each.
        image_id: the mark.
        text: it.

    Raises:
        ValueError: the other tokens are not the same.
    """
    parts: list[list[int]] = [[]]
    for token in plain:
        if token == image_id:
            parts.append([])
        else:
            parts[-1].append(token)
    ids, at = seen["input_ids"], len(parts[0])
    runs: list[dict[str, list[int]]] = []
    fits = ids[:at] == parts[0]
    for part in parts[1:]:
        end = _find_part(ids, part, at, is_last=len(runs) == len(parts) - 2)
        fits = fits and end >= 0
        runs.append({name: values[at:end] for name, values in seen.items()})
        at = end + len(part)
    if not fits:
        raise ValueError(
            f"pictures: the processor makes other tokens of the text {shorten(text)!r} than its tokenizer; give the text as the "
            "processor's chat template makes it"
        )
    return runs


def _find_part(ids: list[int], part: list[int], at: int, *, is_last: bool) -> int:
    """Return where the text behind a picture begins, from ``at`` on, −1 if it is not there.

    Of pictures side by side the last one gets the tokens of all.
    """
    if is_last:
        begin = len(ids) - len(part)
        return begin if begin >= at and ids[begin:] == part else -1
    if not part:
        return at
    return next((i for i in range(at + 1, len(ids) - len(part) + 1) if ids[i : i + len(part)] == part), -1)
