"""The result of a method: attributions with their context."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.engine.structure import Keywords

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(kw_only=True, eq=False)
class Explanation:
    """Attributions, and what can be said about them.

    Args:
        attributions: tensors in the form of the inputs, or of the layer.
        inputs: what was explained.
        target: the target as it was resolved.
        method: the method's name.
        settings: its settings that differ from the defaults.
        evaluations: rows that went through the model, of a forward pass with or without a backward pass, also to find a layer.
        seconds: wall-clock time.
        completeness_gap: ``(N,)``, \\|sum of the attributions − change of the score\\|, in the units of the score; None where
            a method promises no such sum.
        standard_error: of each attribution, in the attributions' form, for methods that sample; infinite or NaN where it is not
            known.
        details: further facts that a method reports; ``neutral`` is the value (N, maps) that stands for no influence in
            maps where that is not zero.
        names: of the features of a sample, a list for each row.
    """

    attributions: Any
    inputs: Any
    target: Any = None
    method: str = ""
    settings: Keywords = field(default_factory=dict)
    evaluations: int = 0
    seconds: float = 0.0
    completeness_gap: Tensor | None = None
    standard_error: Any = None
    details: Keywords = field(default_factory=dict)
    names: list[list[str]] | None = None

    def __repr__(self) -> str:
        return f"Explanation({', '.join(f'{k}={v}' for k, v in self.summary().items())})"

    def summary(self) -> Keywords:
        """Return the facts on one line each: method, target, shapes, evaluations, seconds, gap."""
        facts: Keywords = {"method": self.method, **self.settings, "target": _short(self.target)}
        facts["shape"] = ", ".join(str(tuple(t.shape)) for t in _tensors(self.attributions).values())
        facts["evaluations"], facts["seconds"] = self.evaluations, round(self.seconds, 3)
        if self.completeness_gap is not None:
            facts["completeness_gap"] = f"{float(self.completeness_gap.max()):.3g}"
        return facts

    @property
    def shown(self) -> Any:
        """The attributions as pictures show them: less the neutral value, where that is not zero."""
        neutral = self.details.get("neutral")
        if not isinstance(self.attributions, Tensor) or not isinstance(neutral, (Tensor, list)):
            return self.attributions
        maps = self.attributions
        return maps - torch.as_tensor(neutral).to(maps).view(*maps.shape[:2], *[1] * (maps.dim() - 2))

    def features(self) -> list[Tensor]:
        """Return for each row one number for each feature: of a sample those of its names, else all elements of the row."""
        if self.names is None:
            return list(torch.cat([t.flatten(1) for t in _tensors(self.attributions).values()], 1))
        return [row[..., : len(names)] for row, names in zip(self.attributions, self.names)]

    def plot(self, **options: object) -> Figure:
        """Draw what the attributions are: maps of images, lines of series, bars of features.

        Args:
            options: handed to the picture, see :func:`torchwhy.visualize.plot`.

        Raises:
            ValueError: several tensors, or attributions of a shape that no picture fits.
        """
        from torchwhy.visualize import plot

        error = _only(self.standard_error)
        known = None if error is None else error.nan_to_num(0.0, posinf=0.0)  # no error is drawn where it is not known
        return plot(_only(self.shown), _only(self.inputs), title=self.method, error=known, **options)

    def overlay(self, **options: Any) -> Figure:
        """Draw the first row's map over its image.

        Args:
            options: handed to :func:`torchwhy.visualize.overlay`.
        """
        from torchwhy.visualize import overlay

        return overlay(_only(self.inputs)[0], _only(self.shown)[0], **options)

    def _repr_html_(self) -> str:
        """Return the notebook view: the picture, where there is one, above the facts."""
        from torchwhy.visualize import to_html

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>"
            for k, v in self.summary().items()
        )
        table = f"<table>{rows}</table>"
        try:
            return to_html(self.plot(), alt=repr(self)) + table
        except (TypeError, ValueError):  # no picture for this shape: the facts alone
            return table

    def save(self, path: str | Path) -> None:
        """Write everything to a ``safetensors`` file.

        Targets and settings that are not plain data are kept as text.
        """
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {}
        forms = {}
        for name in ("attributions", "inputs", "completeness_gap", "standard_error"):
            value = getattr(self, name)
            kinds = {"dict": Mapping, "Tensor": Tensor}  # subclasses too, such as parameters
            forms[name] = next((k for k, kind in kinds.items() if isinstance(value, kind)), type(value).__name__)
            tensors |= {f"{name}.{k}": t.detach().contiguous().clone() for k, t in _tensors(value).items()}
        facts = {
            "target": self.target,
            "method": self.method,
            "settings": self.settings,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
            "details": self.details,
            "forms": forms,
        }
        save_file(tensors, str(path), metadata={"torchwhy": json.dumps(facts, default=_plain)})

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: the file was not written by :meth:`save`.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(path), framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("torchwhy", "null"))
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path}: not an explanation written by save() ({error})") from error
        if facts is None:
            raise ValueError(f"{path}: not an explanation written by save()")
        forms = facts.pop("forms")
        for name, form in forms.items():
            parts = {k.split(".", 1)[1]: t for k, t in tensors.items() if k.split(".", 1)[0] == name}
            facts[name] = _in_form(form, parts)
        return cls(**facts)


def _tensors(value: Tensor | tuple[Tensor, ...] | Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """Return the tensors of a result, by name."""
    if value is None:
        return {}
    if isinstance(value, Tensor):
        return {"0": value}
    return {str(k): t for k, t in (value.items() if isinstance(value, Mapping) else enumerate(value))}


def _in_form(form: str, parts: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...] | dict[str, Tensor] | None:
    """Return what :func:`_tensors` took apart: None, a tensor, a tuple or a dict, as the name of its class says."""
    if form == "NoneType":
        return None
    if form == "Tensor":
        return parts["0"]
    if form == "dict":
        return parts
    return tuple(parts[str(i)] for i in range(len(parts)))


def _only(value: Any) -> Any:
    """Return the only tensor of a result, or None where there is none.

    Raises:
        ValueError: there are several.
    """
    tensors = _tensors(value)
    if len(tensors) > 1:
        raise ValueError(f"a picture shows one tensor, this explanation has {len(tensors)}: pick one of .attributions")
    return next(iter(tensors.values()), None)


def _plain(value: object) -> object:
    """Return what JSON has no form for as numbers, if it is a small tensor, else as text."""
    return value.tolist() if isinstance(value, Tensor) and value.numel() < 1000 else repr(value)


def _short(target: object) -> str:
    """Return a target in less than 60 characters."""
    text = str(target.tolist() if isinstance(target, torch.Tensor) else target)
    return text if len(text) < 60 else text[:57] + "..."
