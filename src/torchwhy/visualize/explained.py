"""The picture of an explanation: what it holds decides which one, and what is drawn of it is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from torchwhy.explanation.features import feature_names, in_usual_layout
from torchwhy.explanation.table import classes_asked, target_at, tokens_of
from torchwhy.visualize.bars import bars
from torchwhy.visualize.explanation_data import above_rounding, features_of
from torchwhy.visualize.grid import grid
from torchwhy.visualize.kinds import OF_A_ROW, draw_kind
from torchwhy.visualize.maps import heatmap
from torchwhy.visualize.matrix import matrix
from torchwhy.visualize.scaling import as_array
from torchwhy.visualize.series import MOST_CHANNELS, series
from torchwhy.visualize.slices import slices
from torchwhy.visualize.text import text
from torchwhy.visualize.text_and_pictures import text_and_pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from torchwhy.engine.structure import AnyForm
    from torchwhy.explanation import Explanation
    from torchwhy.visualize.scaling import AnyOption, PictureOption

MAX_IMAGES = 16  # of one figure
MAX_CLASSES = 6  # maps of one image


def plot_explanation(
    e: Explanation,
    row: int | None = None,
    kind: str | None = None,
    names: Sequence[str] | None = None,
    tokens: Sequence[str] | None = None,
    title: str | None = None,
    **options: AnyOption,
) -> Figure:
    """Draw an explanation, see :func:`torchwhy.visualize.plot`."""
    e = in_usual_layout(e)
    names = tokens if names is None else names
    if names is not None:
        e = e.with_names(list(names))
    chosen = e if row is None else e[row]
    title = e.method if title is None else title
    if kind is not None:
        return draw_kind(e, kind, row, title_of_row(e, row or 0, title) if kind in OF_A_ROW else title, **options)
    parts = _parts(e.attributions)
    if len(parts) > 1:
        return _side_by_side(e, row or 0, title, **options)
    if isinstance(e.details.get("axes"), list):
        return _by_axes(e, 0 if row is None else row % len(e), title, **options)
    dims = parts[0][1].dim()
    if dims == 4 and not are_tokens(e):
        return _images(chosen, title, first=row or 0, **options)
    at = 0 if row is None else row % len(e)
    title = title_of_row(e, at, title)
    if are_tokens(e):
        return _text_in_order(e, at, title, **options)
    if dims == 5:
        return slices(e[at], _like(e.inputs, e.attributions, at), **options)
    if dims == 3 and e.names is not None and isinstance(e.target, str):  # of each token of a response
        return _each_token(e, at, title, **options)
    if dims == 3:
        return _series(e, at, title, **options)
    if dims <= 2:
        return bar_features(e, at, title, **options)
    raise ValueError(
        f"attributions: no picture for the shape {tuple(parts[0][1].shape)}; expected (N, C, D, H, W), (N, C, H, W), (N, C, T) "
        "or (N, d)"
    )


def _parts(value: Explanation) -> list[tuple[str, AnyForm]]:
    """Return the tensors of attributions or inputs, with their names."""
    if isinstance(value, torch.Tensor):
        return [("", value)]
    named = value.items() if hasattr(value, "items") else [(f"input {i}", t) for i, t in enumerate(value)]
    return [(str(k), t) for k, t in named]


def are_tokens(e: Explanation) -> bool:
    """Say whether the features of an explanation are the tokens or units of texts."""
    ids, maps = e.inputs, e.attributions
    if not isinstance(maps, torch.Tensor):
        return False
    if isinstance(ids, torch.Tensor) and not ids.is_floating_point() and ids.dim() == 2 and maps.dim() == 3:
        return tuple(maps.shape[:2]) == tuple(ids.shape)
    nested = e.names is not None and len(e.names) and not isinstance(e.names[0], str)
    numbers = isinstance(ids, torch.Tensor) and ids.is_floating_point()
    return bool(nested) and not numbers and maps.dim() == 2  # units of texts, each row its own


def _each_token(e: Explanation, row: int, title: str, **options: AnyOption) -> Figure:
    """Draw the tokens of a row's response against the units of its prompt."""
    values = e.features()[row]
    tokens, names = tokens_of(e, row, len(values)), feature_names(e, row)
    known: dict[str, AnyOption] = {"xlabel": "prompt", "ylabel": "response", "title": title}
    return matrix(values[: len(tokens)], tokens, names, **{**known, **options})


def _by_axes(e: Explanation, row: int, title: str, **options: AnyOption) -> Figure:
    """Draw what was found at each layer, whose names and axes are in the details: a matrix, or bars of one number each."""
    axes: list[str] = e.details["axes"]
    layers, columns = e.details.get("layers"), e.details.get("columns")
    values, title = as_array(e.attributions[row], "attributions"), title_of_row(e, row, title)
    if values.ndim == 1:
        return bars(values, layers, **{"title": title, "xlabel": "score", **options})
    known: dict[str, AnyOption] = {
        "xlabel": ", ".join(axes[1:]),
        "ylabel": axes[0],
        "title": title,
        "columns": columns,
    }
    return matrix(values.reshape(len(values), -1), layers, **{**known, **options})


def title_of_row(e: Explanation, row: int, title: str) -> str:
    """Return the title with the row, where there are several, and the class, where it has a name."""
    target = target_at(e, row)
    parts = [title] if title else []
    if len(e) > 1:
        parts.append(f"row {row} of {len(e)}")
    if e.classes is not None and isinstance(target, int):
        share = "" if e.probabilities is None else f", {probability_in_words(float(e.probabilities[row]))}"
        parts.append(f"{e.classes[target]}{share}")
    return " · ".join(parts)


def probability_in_words(p: float) -> str:
    """Write a probability with two digits, near 1 as what it exceeds."""
    return "p > 0.99" if p > 0.99 else f"p = {p:.2g}"


def say_rounding(floor: float) -> str:
    """Return what is said where nothing, or not all, is larger than the rounding of the scores."""
    return f"up to {floor:.1g} is the score's rounding, drawn as 0" if floor else ""


def bar_features(e: Explanation, row: int, title: str, **options: AnyOption) -> Figure:
    """Draw the features of a row as bars, see :func:`bars`."""
    given = features_of(e, row)
    note = say_rounding(given.floor)
    xlabel = f"attribution ({note})" if note else "attribution"
    return bars(given.values, given.names, **{"errors": given.errors, "title": title, "xlabel": xlabel, **options})


def _images(e: Explanation, title: str, first: int, **options: PictureOption) -> Figure:
    """Draw maps of images, each row's beside its image, or its maps of several classes."""
    total, images = len(e), e.inputs if isinstance(e.inputs, torch.Tensor) and e.inputs.dim() == 4 else None
    if total > MAX_IMAGES:
        title = f"{title}, {MAX_IMAGES} of {total}".lstrip(", ")
        e, images = e[:MAX_IMAGES], None if images is None else images[:MAX_IMAGES]
    images = images if images is not None and images.shape[1] in (1, 3) else None
    maps, lost = above_rounding(as_array(e.shown if e.maps is None else e.maps, "attributions"), e.rounding)
    n, k = maps.shape[:2]
    said = [say_rounding(floor) for floor in lost]
    known: dict[str, AnyOption] = {"images": images, "shared_scale": False, "across": _across(n, k)}
    if images is not None and total > 1:
        known["titles"] = [f"row {first + i}" for i in range(n)]
    if k > 1:
        return _class_maps(
            e, maps, title, {**known, "shared_scale": "absolute", "label": "attribution", "across": 1, **options}
        )
    if n == 1:
        known |= {"shared_scale": "absolute", "label": "attribution"}
    if any(said):
        known["captions"] = {title: said}
    elif images is None and total > 1:
        known["captions"] = {title: [f"row {first + i}" for i in range(n)]}
    return grid({title: maps}, **{**known, **options})


def _across(n: int, k: int) -> int:
    """Return how many images stand side by side: lines of six panels at most."""
    return 1 if n <= 3 or k > 1 else 2 + (n > 8)


def _class_maps(e: Explanation, maps: np.ndarray, title: str, options: dict[str, AnyOption]) -> Figure:
    """Draw a map for each class: those of the largest values, and the target's, in their order."""
    size = np.abs(maps).max((0, 2, 3))
    asked = classes_asked(e)
    order = sorted(range(len(size)), key=lambda c: (c not in asked, -size[c]))[:MAX_CLASSES]
    names = {c: str(e.classes[c]) if e.classes is not None else f"class {c}" for c in sorted(order)}
    some = f", {len(names)} of {len(size)} classes" if len(names) < len(size) else ""
    columns = {f"{title}{some} · {name}" if c == min(names) else name: maps[:, [c]] for c, name in names.items()}
    floors = [
        say_rounding(0.0 if e.rounding is None else float(f))
        for f in (e.rounding if e.rounding is not None else [0.0] * len(maps))
    ]
    said = {name: [f * (not m.any()) for f, m in zip(floors, column)] for name, column in columns.items()}
    return grid(columns, **{"captions": said, "max_columns": MAX_CLASSES + 1, **options})


def _like(inputs: AnyForm, attributions: torch.Tensor, row: int) -> torch.Tensor | None:
    """Return a row of the inputs where these lie under the attributions."""
    fits = isinstance(inputs, torch.Tensor) and inputs.dim() == attributions.dim()
    return inputs[row] if fits and inputs.shape[2:] == attributions.shape[2:] else None


def _series(e: Explanation, row: int, title: str, **options: AnyOption) -> Figure:
    """Draw a row of series: the lines in the colours of their attributions, or many channels as a matrix."""
    values, _ = above_rounding(
        as_array(e.shown[row : row + 1], "attributions"), None if e.rounding is None else e.rounding[[row]]
    )
    if values.shape[1] > MOST_CHANNELS:
        return matrix(values[0], **{"title": title, "xlabel": "time", "ylabel": "channel", **options})
    signal = _like(e.inputs, e.attributions, row)
    signal = values[0] if signal is None or signal.shape != values[0].shape else signal
    return series(signal, values[0], **{"title": title, "label": "attribution", **options})


def _text_in_order(e: Explanation, row: int, title: str, **options: AnyOption) -> Figure:
    """Draw a text in its order; token ids stand for tokens without names, and the scale is told in the title."""
    given = features_of(e, row)
    note = say_rounding(given.floor)
    if "picture_units" in e.details:
        units, pictures = e.details["picture_units"][row], e.details["pictures"][row]
        first = min((int(u[u >= 0].min()) for u in units if bool((u >= 0).any())), default=len(given.names))
        told = {"title": title, "label": f"attribution {note}".strip(), **options}
        return text_and_pictures(given.names[:first], given.values, pictures, units, **told)
    if e.names is not None:
        return text(given.names, given.values, **{"title": title, "label": f"attribution {note}".strip(), **options})
    from torchwhy.visualize import drawing as draw

    tokens = [str(i) for i in e.inputs[row].tolist()]
    largest = draw.signed_number(float(np.abs(given.values).max()), ".2g").replace("+", "±")
    title = f"{title} · full colour {largest}".removeprefix(" · ") + (f" · {note}" if note else "")
    return text(tokens, given.values, **{"title": title, "colorbar": False, **options})


def _side_by_side(e: Explanation, row: int, title: str, **options: PictureOption) -> Figure:
    """Draw a row of the attributions of several tensors, each in its own axes; numbers go together as one set of bars."""
    from torchwhy.visualize import drawing as draw

    parts = _parts(e.shown)
    if all(t.dim() <= 2 for _, t in parts):
        return bar_features(e, row, title_of_row(e, row, title), **options)
    inputs = dict(_parts(e.inputs)) if e.inputs is not None else {}
    numbers = {name: t[row].reshape(-1) for name, t in parts if t.dim() <= 2}
    others = [(name, t[row]) for name, t in parts if t.dim() > 2]
    figure = draw.Picture(figsize=(4.2 * (len(others) + bool(numbers)), 3.4), dpi=draw.DPI, layout="constrained")
    axes = list(figure.subplots(1, len(others) + bool(numbers), squeeze=False)[0])
    for ax, (name, t) in zip(axes, others):
        _one_tensor(ax, name, t, inputs.get(name))
    if numbers:
        named = {
            name if len(t) == 1 else f"{name}, {j}": float(v) for name, t in numbers.items() for j, v in enumerate(t)
        }
        bars(named, ax=axes[-1], title=", ".join(numbers))
    figure.suptitle(title_of_row(e, row, title), size=10.5)
    return figure


def _one_tensor(ax: Axes, name: str, values: torch.Tensor, given: torch.Tensor | None) -> None:
    """Draw one of several tensors of a row on its axes."""
    if values.dim() == 2 and given is not None and not given.is_floating_point():
        bars(values.sum(1), [f"{name}, {j}" for j in range(len(values))], ax=ax, title=name)
    elif values.dim() == 2:
        matrix(values, ax=ax, title=name, xlabel="time", ylabel="channel")
    elif values.dim() == 3:
        heatmap(values, ax=ax, title=name, label="attribution")
    else:
        raise ValueError(
            f"attributions[{name!r}]: no picture for a row of shape {tuple(values.shape)} beside others; pick one"
        )
