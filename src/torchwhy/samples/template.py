"""Templates: prompts whose fields have other texts where they are absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from torchwhy.engine.structure import Keywords
from torchwhy.samples.prompt_text import check_fields, fields_of, fill_template
from torchwhy.samples.sample import AnyGiven, Sample


class TemplateTexts(Sample):
    """Templates with a text for each field that is there, and other ones for when it is absent.

    Args:
        templates: N templates with the same fields.
        present: the text of each field.
        absent: the text, or K texts, in its place: the k-th ones of all fields belong together; a single one goes with all.

    Raises:
        TypeError: something else than texts.
        ValueError: a field without text, or different numbers of texts.
    """

    def __init__(
        self, templates: Sequence[str], present: Mapping[str, str], absent: Mapping[str, str | Sequence[str]]
    ) -> None:
        super().__init__()
        self.templates, self.present, self.absent = list(templates), dict(present), {}
        for template in templates:
            check_fields(template, present, "units")
            check_fields(template, absent, "absent")
        for field, texts in absent.items():
            self.absent[field] = [texts] if isinstance(texts, str) else list(texts)
            if not self.absent[field] or not all(isinstance(t, str) for t in self.absent[field]):
                raise TypeError(f"absent: expected a text or several for the field {field!r}, got {texts!r}")
        numbers = {field: len(texts) for field, texts in self.absent.items()}
        self.n_absences = max(numbers.values())
        if any(n not in (1, self.n_absences) for n in numbers.values()):
            raise ValueError(
                f"absent: the k-th texts of the fields go together; give as many for each, or one; got {numbers}"
            )
        self.fields = fields_of(templates[0])
        self.names = [list(self.fields) for _ in templates]

    def filled(self, kept: Tensor, rows: Tensor, absence: Tensor | None) -> list[str]:
        """Return the texts of rows ``(M,)`` where only some fields have the text that is there."""
        which = [0] * len(rows) if absence is None else absence.tolist()
        found = []
        for there, row, k in zip(kept.tolist(), rows.tolist(), which):
            other = {f: texts[k % len(texts)] for f, texts in self.absent.items()}
            chosen = {f: self.present[f] if t else other[f] for f, t in zip(self.fields, there)}
            found.append(fill_template(self.templates[row], chosen).text)
        return found

    def masked(self, kept: Tensor, rows: Tensor, absence: Tensor | None = None) -> tuple[AnyGiven, Keywords]:
        """Return a list of texts."""
        return (self.filled(kept, rows, absence),), {}
