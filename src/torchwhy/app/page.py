"""The page of a running model, for one user on one machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING

from torchwhy.app.explorer import LONGEST_TEXT, Explorer
from torchwhy.engine.structure import AnyOutput, InForm, Keywords, Model

if TYPE_CHECKING:
    from torch import Tensor

    from torchwhy.attribution import Attribution
    from torchwhy.concept.tcav import TCAV
    from torchwhy.counterfactual.counterfactual import Counterfactual
    from torchwhy.samples.text import Text
    from torchwhy.targets import TargetLike

HERE = "127.0.0.1"


def explore(
    model: Model,
    data: Tensor | Text,
    methods: Mapping[str, Attribution] | Sequence[Attribution],
    *,
    target: TargetLike = "predicted",
    names: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    port: int | None = None,
    launch: bool = True,
    method_data: Keywords | None = None,
    counterfactual: Counterfactual | None = None,
    concepts: TCAV | None = None,
) -> AnyOutput:
    """Open a page on which rows are changed and explained anew, with a small server on this machine.

    For one user on one machine: it listens to 127.0.0.1 only, hands out no files, takes none, and limits what is typed. It is no
    service: there are no accounts and no queue. Numbers of a table and texts are edited, a rectangle of an image is covered;
    of tables a counterfactual is looked for, and concepts say along which of them the target rises. Needs Gradio:
    ``pip install "torchwhy[app]"``.

    Args:
        model: a module or any callable.
        data: rows: a table ``(N, d)``, images ``(N, 1 or 3, H, W)``, or a :class:`torchwhy.Text`.
        methods: with their settings, by name or in a list.
        target: as for :meth:`torchwhy.Attribution.attribute`.
        names: of the columns of a table.
        classes: of the model's outputs.
        port: of the server; None takes one that is free.
        launch: serve until interrupted; False returns the page without a server.
        method_data: ``baselines`` or ``feature_mask`` for the methods that have a use for them.
        counterfactual: what looks for a row with another answer; None is :class:`torchwhy.Counterfactual` within the
            columns' ranges.
        concepts: a :class:`torchwhy.TCAV` with learnt vectors.

    Returns:
        The ``gradio.Blocks``.

    Raises:
        ImportError: Gradio is not installed.
        TypeError, ValueError: data of another kind, no method, another number of names than of columns, concepts that were
            not learnt.
    """
    named = methods if isinstance(methods, Mapping) else {type(m).__name__: m for m in methods}
    explorer = Explorer(model, data, named, target, names, classes, method_data or {}, counterfactual, concepts)
    try:
        import gradio
    except ImportError as error:
        raise ImportError('explore() needs Gradio: pip install "torchwhy[app]"') from error
    page = build_page(gradio, explorer)
    if launch:
        page.queue(default_concurrency_limit=1)
        page.launch(server_name=HERE, server_port=port, share=False, allowed_paths=[], max_file_size=0)
    return page


def build_page(gradio: ModuleType, explorer: Explorer) -> AnyOutput:
    """Return the page: the row and its changes on the left, what explains it on the right."""
    theme = gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # asks no other server
    with gradio.Blocks(title="Why?", analytics_enabled=False) as page:
        page.theme = theme
        with gradio.Row():
            with gradio.Column(scale=1):
                last = len(explorer) - 1
                row = gradio.Slider(0, max(last, 1), value=0, step=1, label="row", visible=last > 0, elem_id="row")
                method = gradio.Dropdown(list(explorer.methods), value=next(iter(explorer.methods)), label="method")
                explain = gradio.Button("Explain", variant="primary")
                other = gradio.Button("What would change the answer?", visible=explorer.kind == "table")
                found = gradio.HTML()
                along = gradio.Button("Which concepts raise it?", visible=explorer.concepts is not None)
                raised = gradio.HTML()
                change, read = _editor(gradio, explorer)
            with gradio.Column(scale=2):
                shown = gradio.HTML()

        def explain_row(i: float, name: str, *given: object) -> str:
            return in_frame(_or_shown_error(gradio, explorer.explained, i, read(given), name))

        def change_answer(i: float, *given: object) -> str:
            return _or_shown_error(gradio, explorer.counterfactuals, i, read(given))

        def try_concepts(i: float, *given: object) -> str:
            return _or_shown_error(gradio, explorer.concept_derivatives, i, read(given))

        def show_row(i: float) -> list[InForm]:
            return _values(explorer, explorer.row(int(i)))

        row.release(show_row, row, change)
        explain.click(explain_row, [row, method, *change], shown)
        other.click(change_answer, [row, *change], found)
        along.click(try_concepts, [row, *change], raised)
        page.load(explain_row, [row, method, *change], shown)
    return page


def _or_shown_error(gradio: ModuleType, function: Callable[..., str], *given: object) -> str:
    """Return what a function gives; what it refuses is shown on the page."""
    try:
        return function(*given)
    except (ValueError, LookupError, TypeError, FloatingPointError) as error:
        raise gradio.Error(str(error)) from error


def in_frame(page: str) -> str:
    """Return a page within a page: its script runs apart from all else, and asks nobody."""
    return f'<iframe sandbox="allow-scripts" style="width:100%;height:46em;border:0" srcdoc="{escape(page)}"></iframe>'


def _editor(gradio: ModuleType, explorer: Explorer) -> tuple[list[InForm], Callable[[Sequence[object]], object]]:
    """Return the components that change a row, and what makes the change of their values."""
    values = _values(explorer, explorer.row(0))
    if explorer.kind == "text":
        return [gradio.Textbox(values[0], label="text", lines=6, max_length=LONGEST_TEXT)], _only_value
    if explorer.kind == "image":
        sides = ("left", "top", "right", "bottom")
        return [gradio.Slider(0, 1, value=v, step=0.01, label=f"cover: {s}") for s, v in zip(sides, values)], list
    numbers = [gradio.Textbox(v, label=name, max_length=24) for name, v in zip(explorer.names or (), values)]
    return numbers, list


def _only_value(given: Sequence[object]) -> object:
    return given[0]


def _values(explorer: Explorer, row: list[float] | str) -> list[InForm]:
    """Return what the components show of a row."""
    if isinstance(row, str):
        return [row]
    return [0.0] * 4 if explorer.kind == "image" else [f"{v:.7g}" for v in row]
