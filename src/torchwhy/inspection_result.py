"""What a look at a model found: printed, as HTML, as a dict."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torchwhy.engine.structure import Keywords
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True)
class Verdict:
    """Whether a method applies.

    Args:
        method: its name.
        applies: whether it does.
        reason: why not.
        settings: what it needs besides its defaults.
        evaluations: rows that go through the model for each row that is explained, with the default settings.
        needs_gradient: whether the model is differentiated as well, which takes about twice more.
        features: how many features the inputs were taken for, where elements were put together.
        operations: how often operations ran by a rule of the method and, non-linear ones, without.
    """

    method: str
    applies: bool
    reason: str = ""
    settings: Keywords = field(default_factory=dict)
    evaluations: int | None = None
    needs_gradient: bool = False
    features: int | None = None
    operations: dict[str, dict[str, int]] | None = None

    def __str__(self) -> str:
        if not self.applies:
            return f"no: {self.reason}"
        cost = f"{self.evaluations} evaluations a row" + (", with gradients" if self.needs_gradient else "")
        with_settings = [f"{name}={value!r}" for name, value in self.settings.items()]
        if self.features is not None:
            with_settings.append(f"{self.features} features")
        return f"yes: {cost}" + (f" ({', '.join(with_settings)})" if with_settings else "")


@dataclass(frozen=True, repr=False)
class Inspection(Viewable):
    """What :func:`torchwhy.inspect` found.

    Args:
        model: its name.
        parameters: how many numbers they are.
        inputs: the shapes of the inputs.
        output: the shape of the output, or of the logits in it.
        target: what was explained.
        training: modules in training mode whose output is random or mixes rows.
        is_random: whether a second run gives other scores.
        rows_depend: whether the first row's score changes with the rows beside it; None where that cannot be seen.
        written_buffers: the buffers that a call changes; torchwhy puts them back.
        rows_per_call: how many rows a call of long work gets, for ``"scores"`` and for ``"gradients"``.
        layers: the names of the layers that ``"auto"`` and ``"embeddings"`` mean.
        operations: of methods with rules: how often operations ran by a rule, and, non-linear ones, without.
        methods: by name, whether it applies.
        warnings: what was said on the way.
    """

    model: str
    parameters: int
    inputs: tuple[tuple[int, ...], ...]
    output: tuple[int, ...]
    target: Any
    training: tuple[str, ...]
    is_random: bool
    rows_depend: bool | None
    written_buffers: tuple[str, ...]
    rows_per_call: dict[str, int]
    layers: dict[str, str]
    operations: dict[str, dict[str, dict[str, int]]]
    methods: dict[str, Verdict]
    warnings: tuple[str, ...] = ()

    def replace(self, **changes: Any) -> Inspection:
        """Return the inspection with other fields."""
        return replace(self, **changes)

    def to_dict(self) -> Keywords:
        """Return everything as dicts, lists, numbers and words."""
        found = asdict(self)
        plain = found["target"] if isinstance(found["target"], (int, str, type(None))) else str(found["target"])
        return {**found, "target": plain}

    def facts(self) -> dict[str, str]:
        """Return what was found of the model, in words."""
        depend = {None: "not known from one row, or from random scores", True: "yes: batch_size=1", False: "no"}
        plain = {name: counts["plain_operations"] for name, counts in self.operations.items()}
        without = [f"{name}: {', '.join(ops)}" for name, ops in plain.items() if ops]
        return {
            "model": f"{self.model}, {self.parameters:,} parameters",
            "inputs": ", ".join(map(str, self.inputs)),
            "output": str(self.output),
            "target": str(self.target),
            "in training mode": ", ".join(self.training) or "nothing that matters",
            "random": "yes: a second run gives other scores" if self.is_random else "no",
            "rows depend on one another": depend[self.rows_depend],
            "buffers that a call writes to": ", ".join(self.written_buffers) or "none",
            "rows of a call": ", ".join(f"{n} for {name}" for name, n in self.rows_per_call.items()),
            "layer": ", ".join(f"{word!r} is {name!r}" for word, name in self.layers.items()) or "none by a word",
            "operations without a rule": "; ".join(without) or "none",
        }

    def __str__(self) -> str:
        lines = [f"{name:30} {value}" for name, value in self.facts().items()]
        lines += ["", *(f"{name:22} {verdict}" for name, verdict in self.methods.items())]
        return "\n".join([*lines, *(["", *self.warnings] if self.warnings else [])])

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        """Return bars of what a row costs by each method that applies; a gradient takes about two evaluations more."""
        cost = {
            name: float(v.evaluations) for name, v in self.methods.items() if v.applies and v.evaluations is not None
        }
        if not cost:
            raise ValueError("methods: none applies, so that there is no cost to draw; print the inspection")
        shown = {"signed": False, "xlabel": "evaluations a row", "top": len(cost), "title": self.model}
        return pictures.bars(cost, **{**shown, **options})

    def _table(self) -> Table:
        """Return a line for each method."""
        lines: list[list[object]] = [
            [name, v.applies, v.evaluations, v.needs_gradient, v.features, v.reason] for name, v in self.methods.items()
        ]
        return ["method", "applies", "evaluations", "needs gradient", "features", "reason"], lines

    def _repr_html_(self) -> str:
        """Return two tables, of the model and of the methods."""
        of_methods = {name: str(v) for name, v in self.methods.items()}
        return _two_columns(self.facts()) + _two_columns(of_methods) + _list(self.warnings)


def _two_columns(rows: Mapping[str, str]) -> str:
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items()
    )
    return f"<table>{cells}</table>"


def _list(lines: tuple[str, ...]) -> str:
    return f"<ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""
