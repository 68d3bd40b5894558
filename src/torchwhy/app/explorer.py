"""What a page for a running model asks for. Everything that comes from the page is checked here."""

from __future__ import annotations

import math
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import torchwhy as tw
from torchwhy.engine.structure import AnyModel, Keywords, flatten
from torchwhy.explanation.table import target_at
from torchwhy.viewable import table_as_html

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution
    from torchwhy.explanation import Explanation
    from torchwhy.samples.text import Text
    from torchwhy.targets import TargetLike

LONGEST_TEXT = 2000  # characters
LARGEST = 1e9  # absolute value of a number


@dataclass
class Explorer:
    """A model and rows that can be changed and explained anew.

    Args:
        model: a module or any callable.
        data: rows: a table ``(N, d)``, images ``(N, 1 or 3, H, W)``, or a :class:`torchwhy.Text`.
        methods: by their names.
        target: as for :meth:`torchwhy.Attribution.attribute`.
        names: of the columns of a table.
        classes: of the model's outputs.
        method_data: ``baselines`` or ``feature_mask`` for the methods that have a use for them.
        counterfactual: what looks for a row with another answer, for tables.
        concepts: with learnt vectors, to say along which of them the target rises.

    Raises:
        TypeError: data of another kind.
        ValueError: no method, another number of names than of columns, concepts that were not learnt.
    """

    model: AnyModel
    data: Tensor | Text
    methods: Mapping[str, Attribution]
    target: TargetLike = "predicted"
    names: Sequence[str] | None = None
    classes: Sequence[str] | None = None
    method_data: Keywords = field(default_factory=dict)
    counterfactual: tw.Counterfactual | None = None
    concepts: tw.TCAV | None = None

    def __post_init__(self) -> None:
        if not self.methods:
            raise ValueError("methods: none given")
        if self.concepts is not None and not self.concepts.cavs:
            raise ValueError("concepts: no vectors yet; call fit(concepts, random) or load(path) first")
        self.kind = self._kind_of_data()
        self.rows = self.data if isinstance(self.data, Tensor) else torch.zeros(0, 0)  # of tables and images
        if self.kind == "table":
            columns = self.rows.shape[1]
            self.names = [f"feature {i}" for i in range(columns)] if self.names is None else list(self.names)
            if len(self.names) != columns:
                raise ValueError(f"names: {len(self.names)} given for {columns} columns")

    def _kind_of_data(self) -> str:
        """Return ``"table"``, ``"image"`` or ``"text"``."""
        if isinstance(self.data, tw.Text) and len(self.data.texts[0]) == 1:
            return "text"
        if isinstance(self.data, Tensor) and len(self.data):
            if self.data.dim() == 2:
                return "table"
            if self.data.dim() == 4 and self.data.shape[1] in (1, 3):
                return "image"
        raise TypeError("data: expected a table (N, d), images (N, 1 or 3, H, W) or a tw.Text of single texts")

    def __len__(self) -> int:
        return len(self.data.texts) if isinstance(self.data, tw.Text) else len(self.data)

    def row(self, i: int) -> list[float] | str:
        """Return the values of a row of a table, or its text; of an image its size ``[height, width]``."""
        i = self._checked_row(i)
        if isinstance(self.data, tw.Text):
            return str(self.data.texts[i][0])
        return [float(v) for v in (self.data[i].shape[1:] if self.kind == "image" else self.data[i])]

    def explained(self, i: int, change: object, method: str) -> str:
        """Return a row with changes, explained, as a whole HTML page.

        Args:
            i: the row.
            change: of a table the values of all columns; of a text the new text; of an image a rectangle ``(left, top, right,
                bottom)``, shares of its width and height, that is covered by its mean colour, or None.
            method: the name of one.

        Raises:
            ValueError, LookupError: something that the page cannot have sent.
        """
        if method not in self.methods:
            raise LookupError(f"method: {method!r} is none of {', '.join(self.methods)}")
        chosen, given = self.methods[method], self.changed(i, change)
        data = {k: v for k, v in self.method_data.items() if getattr(chosen, f"uses_{k}", False)}
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            e: Explanation = chosen.explain(given, self.target, **data)
        names = self.names if self.kind == "table" and e.names is None else None
        e = e.with_names(names, self.classes)
        notes = "".join(f"<p class='note'>{escape(str(w.message))}</p>" for w in said)
        with tempfile.TemporaryDirectory() as folder:
            page = tw.visualize.page({method: e}, Path(folder) / "page.html", title=self._answer(e)).read_text("utf-8")
        return page.replace("<main ", f"{notes}<main ", 1)

    def changed(self, i: int, change: object) -> Tensor | Text:
        """Return one row with changes, checked, see :meth:`explained`."""
        i = self._checked_row(i)
        if isinstance(self.data, tw.Text):
            text = str(change)
            if not text.strip() or len(text) > LONGEST_TEXT:
                raise ValueError(f"text: between 1 and {LONGEST_TEXT} characters, got {len(text)}")
            old = self.data
            return tw.Text(old.tokenizer, text, units=old.units, absent=old.absent, skip=old.skip)
        if self.kind == "table":
            return self._row_of_table(change)
        return self._covered(self.rows[i : i + 1], change)

    def counterfactuals(self, i: int, change: object) -> str:
        """Return the nearest row of a table with another answer, beside the row itself, as an HTML table."""
        if self.kind != "table":
            raise ValueError("counterfactual: looked for in tables only")
        self._checked_row(i)
        given, (low, high) = self._row_of_table(change), self._bounds()
        bounds = torch.minimum(low, given[0]), torch.maximum(high, given[0])  # a row that was changed may lie outside
        method = self.counterfactual or tw.Counterfactual(self.model, bounds=bounds)
        found = method.generate(given)
        there = torch.as_tensor(found.counterfactuals)
        if found.found.dim() == 2:  # several: the nearest
            there = there[:, int(found.distance[0].nan_to_num(torch.inf).argmin())]
        if not bool(found.found.any()):
            return "<p>No row with another answer was found within the bounds of the data.</p>"
        lines: list[list[object]] = [
            [name, f"{before:.4g}", f"{after:.4g}", f"{after - before:+.4g}"]
            for name, before, after in zip(self.names or (), given[0].tolist(), there[0].tolist())
            if abs(after - before) > 1e-6 * max(1.0, abs(before))
        ]
        return table_as_html(["feature", "is", "would be", "change"], lines)

    def concept_derivatives(self, i: int, change: object) -> str:
        """Return how the target of a row changes along each concept's vector, layer by layer, as an HTML table.

        Raises:
            ValueError: there are no concepts; and what the page cannot have sent.
        """
        if self.concepts is None:
            raise ValueError("concepts: none given")
        found = flatten(self.concepts.attribute(self.changed(i, change), self.target))[0]
        lines: list[list[object]] = [
            [name, layer, f"{value:+.4g}", f"{accuracy:.2f}"]
            for (layer, cavs), values in zip(self.concepts.cavs.items(), found)
            for name, value, accuracy in zip(self.concepts.concepts, values[0].tolist(), cavs.accuracy.mean(1).tolist())
        ]
        return table_as_html(["concept", "layer", "change of f towards it", "accuracy"], lines)

    def _bounds(self) -> tuple[Tensor, Tensor]:
        """Return the smallest and largest value of each column."""
        low, high = self.rows.amin(0), self.rows.amax(0)
        return low, torch.where(high > low, high, low + 1)

    def _answer(self, e: Explanation) -> str:
        """Return what the model says, in words."""
        target = target_at(e, 0)
        words = (
            str(self.classes[target]) if self.classes is not None and isinstance(target, int) else f"target {target}"
        )
        if target is None:
            words = "the output"
        score = "" if e.scores is None else f", f = {float(e.scores.reshape(-1)[0]):.4g}"
        return words + score

    def _checked_row(self, i: object) -> int:
        if isinstance(i, bool) or not isinstance(i, (int, float)) or int(i) != i or not 0 <= i < len(self):
            raise ValueError(f"row: {i!r} is none of 0 to {len(self) - 1}")
        return int(i)

    def _row_of_table(self, change: object) -> Tensor:
        """Return numbers from the page as a row ``(1, d)``."""
        values = list(change) if isinstance(change, (list, tuple)) else []
        if len(values) != self.rows.shape[1]:
            raise ValueError(f"values: {len(values)} given for {self.rows.shape[1]} columns")
        numbers = []
        for name, value in zip(self.names or (), values):
            try:
                number = float(str(value))
            except ValueError:
                raise ValueError(f"{name}: {str(value)[:40]!r} is no number") from None
            if not math.isfinite(number) or abs(number) > LARGEST:
                raise ValueError(f"{name}: {number} is out of range")
            numbers.append(number)
        return torch.tensor([numbers], dtype=self.rows.dtype, device=self.rows.device)

    def _covered(self, image: Tensor, change: object) -> Tensor:
        """Return an image with a rectangle in its mean colour."""
        if change is None:
            return image
        try:
            left, top, right, bottom = (min(1.0, max(0.0, float(v))) for v in change)  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            raise ValueError("cover: expected four numbers between 0 and 1") from None
        image, (height, width) = image.clone(), image.shape[2:]
        mean = image.mean((2, 3), keepdim=True)
        image[..., int(top * height) : int(bottom * height), int(left * width) : int(right * width)] = mean
        return image
