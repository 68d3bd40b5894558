"""A report: one page for a whole batch, to read, to print and to hand on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from torchwhy.engine.structure import Keywords, Model
from torchwhy.explanation.table import target_at
from torchwhy.visualize.explained import are_tokens, probability_in_words, say_rounding
from torchwhy.visualize.explanation_data import features_of, is_explanation
from torchwhy.visualize.export import to_html
from torchwhy.visualize.page import images_of

if TYPE_CHECKING:
    from torchwhy.comparison import MetricLike
    from torchwhy.comparison_table import Comparison
    from torchwhy.explanation import Explanation

MOST_BARS = 8  # features of a row; the others are one line
LARGE_GAP = 0.05  # of the change of the score, from which it is remarked
RED, BLUE = "232,71,43", "47,123,224"


class RowOfMethod(NamedTuple):
    """One row's part of a method's explanation.

    Args:
        method: what the method is called.
        e: the explanation of this row alone.
        measured: what was measured of it, by the metric's name.
        images: whether it explains an image.
    """

    method: str
    e: Explanation
    measured: dict[str, float]
    images: bool


def report(
    explanations: Explanation | Mapping[str, Explanation],
    path: str | Path,
    *,
    title: str = "Why?",
    rows: Sequence[str] | None = None,
    model: Model = None,
    metrics: Mapping[str, MetricLike] | Sequence[MetricLike] = (),
    notes: Sequence[Sequence[str]] | None = None,
    images: torch.Tensor | None = None,
) -> Path:
    """Write one HTML page with a section for each row: its picture, the prediction, what was measured, and what to beware of.

    The page is one file without scripts or requests, made to be printed too (a browser prints it to PDF, a section is not cut
    in two). It begins with a table of all rows. *To beware of* are facts about the numbers, not about the model's being right: a
    completeness gap above 5 % of the change of the score, attributions within the rounding of the score or within two standard
    errors, and what ``notes`` says.

    Args:
        explanations: of N rows; or several of the same rows, by their names.
        path: of the file.
        title: above everything.
        rows: N names, such as file names; None numbers them.
        model: for ``metrics``.
        metrics: as for :func:`torchwhy.compare`: each gives one number for each row.
        notes: for each row, sentences that are added to what is to beware of.
        images: ``(N, 1 or 3, H, W)`` that are shown in the place of the inputs, such as photos as they were before a model's
            preprocessing.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written.
        TypeError: something that is no explanation, or metrics without a model.
        ValueError: explanations of different numbers of rows, or another number of names or notes than of rows.

    >>> import tempfile, torch, torchwhy as tw
    >>> e = tw.InputXGradient(torch.nn.Linear(3, 2)).explain(torch.rand(4, 3), target=1)
    >>> tw.report(e, f"{tempfile.mkdtemp()}/report.html", rows=["Ann", "Bob", "Cem", "Dee"]).name
    'report.html'
    """
    if not is_explanation(explanations) and not isinstance(explanations, Mapping):
        raise TypeError(
            f"explanations: {type(explanations).__name__}; expected an explanation, or several of the same rows by their names, "
            "{name: explanation}; tw.concat joins those of other rows"
        )
    named = dict(explanations) if isinstance(explanations, Mapping) else {explanations.method: explanations}
    n = _check_rows(named, {"rows": rows, "notes": notes, "images": images})
    measured = _measure(named, model, metrics)
    if images is not None:
        named = {name: replace(e, inputs=images) for name, e in named.items()}
    names = [str(i) for i in range(n)] if rows is None else list(map(str, rows))
    parts = {name: (e, _are_images(e)) for name, e in named.items()}
    sections, lines = [], []
    for i, name in enumerate(names):
        of_row = [RowOfMethod(key, e[i], _measured_of(measured, key, i), images) for key, (e, images) in parts.items()]
        remarks = [remark for part in of_row for remark in remarks_on(part, several=len(parts) > 1)]
        remarks += [] if notes is None else list(notes[i])
        sections.append(_section(i, name, of_row, remarks))
        lines.append(_line_of_row(i, name, of_row, remarks))
    template = files("torchwhy.visualize").joinpath("report.html").read_text(encoding="utf-8")
    filled = {"TITLE": escape(title), "METHODS": _methods(named), "ROWS": "".join(lines), "SECTIONS": "".join(sections)}
    filled["HEADS"] = "".join(f"<th>{escape(h)}</th>" for h in _heads(named, measured))
    Path(path).write_text(re.sub("@([A-Z]+)@", lambda found: filled[found[1]], template), encoding="utf-8")
    return Path(path)


def _check_rows(named: Mapping[str, Explanation], per_row: Mapping[str, Sequence[object] | torch.Tensor | None]) -> int:
    """Return the number of rows, which all that is given has to have."""
    if not named:
        raise ValueError("explanations: none given")
    for name, e in named.items():
        if not is_explanation(e):
            raise TypeError(
                f"explanations[{name!r}]: expected an explanation, as method.explain gives, not {type(e).__name__}"
            )
    sizes = {name: len(e) for name, e in named.items()}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"explanations: of the same rows, expected; got {sizes}")
    n = next(iter(sizes.values()))
    for argument, given in per_row.items():
        if given is not None and len(given) != n:
            raise ValueError(f"{argument}: {len(given)} given for {n} rows")
    return n


def _measure(
    named: Mapping[str, Explanation],
    model: Model,
    metrics: Mapping[str, MetricLike] | Sequence[MetricLike],
) -> Comparison | None:
    """Return what metrics say of all rows, None without metrics."""
    if not metrics:
        return None
    if model is None:
        raise TypeError("metrics: they run the model; give model=")
    from torchwhy.comparison import compare

    first = next(iter(named.values()))
    return compare(model, first.inputs, first.target, named, metrics)


def _measured_of(found: Comparison | None, method: str, row: int) -> dict[str, float]:
    """Return what was measured of a row, by the metric's name."""
    return {} if found is None else {metric: float(by[method][row]) for metric, by in found.values.items()}


def _are_images(e: Explanation) -> bool:
    """Say whether an explanation is of images, drawn over them."""
    return isinstance(e.attributions, torch.Tensor) and e.attributions.dim() == 4 and not are_tokens(e)


def remarks_on(part: RowOfMethod, *, several: bool) -> list[str]:
    """Return what to beware of in one row of an explanation, in sentences; they begin with the method, if there are several."""
    e, found = part.e, []
    values = torch.cat([t.reshape(-1).double() for t in e.features()])
    largest = float(values.abs().max()) if len(values) else 0.0
    if e.rounding is not None and largest <= float(e.rounding[0]):
        found.append(f"nothing is larger than the rounding of the score, {float(e.rounding[0]):.1g}")
    if e.completeness_gap is not None and e.scores is not None and e.base_scores is not None:
        change, gap = float((e.scores - e.base_scores).abs().max()), float(e.completeness_gap.max())
        if gap > LARGE_GAP * change:
            share = f"{gap / change:.0%} of it" if change else "which is 0"
            found.append(
                f"the attributions miss the change of the score by {gap:.2g}, {share}: take more steps or samples"
            )
    errors = features_of(e).errors
    if errors is not None and len(errors) and largest:
        at = int(values.abs().argmax())
        if at < len(errors) and float(errors[at]) * 2 > largest:
            found.append("the largest attribution is within two standard errors of 0: take more samples")
    return [f"{part.method}: {remark}" for remark in found] if several else found


def _prediction(e: Explanation) -> str:
    """Return the target of a row, its score and probability, in words."""
    target = target_at(e, 0)
    words = "the output" if target is None else f"target {target}"
    words = str(e.classes[target]) if e.classes is not None and isinstance(target, int) else words
    if e.scores is not None and e.scores.dim() == 1:
        words += f" · score {float(e.scores[0]):.4g}"
        words += "" if e.base_scores is None else f" (baseline {float(e.base_scores[0]):.4g})"
    return words if e.probabilities is None else f"{words} · {probability_in_words(float(e.probabilities[0]))}"


def _section(i: int, name: str, parts: Sequence[RowOfMethod], remarks: Sequence[str]) -> str:
    """Return the section of a row."""
    pictures = "".join(
        f"<figure><figcaption>{escape(part.method)}</figcaption>{_picture(part)}{_numbers(part.measured)}</figure>"
        for part in parts
    )
    beware = "".join(f"<li>{escape(remark)}</li>" for remark in remarks)
    beware = f"<ul class=beware aria-label='to beware of'>{beware}</ul>" if beware else ""
    said = escape(_prediction(parts[0].e))
    return f"<section id=row-{i}><h2>{escape(name)}</h2><p>{said}</p><div>{pictures}</div>{beware}</section>\n"


def _picture(part: RowOfMethod) -> str:
    """Return the picture of a row: a photo and the map over it, a text in its order, bars, or what ``plot`` draws."""
    e = part.e
    if part.images:
        return _photo(e)
    if are_tokens(e) and e.features()[0].dim() == 1:
        return _text_of_row(e)
    flat = isinstance(e.attributions, torch.Tensor) and e.attributions.dim() <= 2
    if flat or not isinstance(e.attributions, torch.Tensor):
        return _bars(e)
    return to_html(e.plot(), alt=f"attributions by {part.method}")


def _photo(e: Explanation) -> str:
    """Return a photo beside the same photo under its map."""
    drawn = images_of(e, 0)
    width, height, full = drawn["width"], drawn["height"], drawn["scale"]
    photo = f"<img src='{drawn['photo']}' alt='the image' width={width} height={height}>"
    over = f"<img class=over src='{drawn['map']}' alt='attributions over the image' width={width} height={height}>"
    legend = f"full colour ±{full:.2g}; red speaks for the target, blue against it" if full else "nothing to draw"
    under = photo.replace("alt='the image'", "alt=''")
    return f"<div class=photos>{photo}<span class=layers>{under}{over}</span></div><p class=legend>{legend}</p>"


def _text_of_row(e: Explanation) -> str:
    """Return a text in its order, each unit in the colour of its attribution."""
    given = features_of(e)
    full = float(np.abs(given.values).max()) or 1.0
    words = "".join(
        f"<span style='background:rgba({RED if v > 0 else BLUE},{abs(v) / full * 0.7:.3f})' title='{v:+.3g}'>"
        f"{escape(name)}</span> "
        for name, v in zip(given.names, given.values)
    )
    note = f"; {say_rounding(given.floor)}" if given.floor else ""
    return f"<p class=text>{words}</p><p class=legend>full colour ±{full:.2g}{escape(note)}</p>"


def _bars(e: Explanation) -> str:
    """Return the largest features as bars, the others as one line."""
    given = features_of(e)
    order = np.argsort(-np.abs(given.values), kind="stable")
    full = float(np.abs(given.values).max()) or 1.0
    lines = [(given.names[j], float(given.values[j])) for j in order[:MOST_BARS]]
    if (rest := order[MOST_BARS:]).size:
        lines.append((f"sum of {rest.size} others", float(given.values[rest].sum())))
    bars = "".join(
        f"<tr><th>{escape(name)}</th><td class=number>{v:+.3g}</td><td class=bar><span style='"
        f"width:{min(1.0, abs(v) / full) * 100:.1f}%;background:rgb({RED if v > 0 else BLUE})'></span></td></tr>"
        for name, v in lines
    )
    note = f"<p class=legend>{escape(say_rounding(given.floor))}</p>" if given.floor else ""
    return f"<table class=bars>{bars}</table>{note}"


def _numbers(measured: Mapping[str, float]) -> str:
    """Return what was measured, as a list of names and numbers."""
    if not measured:
        return ""
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{v:.4g}</dd>" for k, v in measured.items()) + "</dl>"


def _heads(named: Mapping[str, Explanation], measured: Comparison | None) -> list[str]:
    """Return the heads of the table of all rows."""
    metrics = []
    if measured is not None:
        arrows = {True: " ↑", False: " ↓", None: ""}  # where better is
        metrics = [m + arrows[measured.better[m]] for m in measured.values]
    return [
        "row",
        "prediction",
        *(f"{m}, {key}" if len(named) > 1 else m for key in named for m in metrics),
        "to beware of",
    ]


def _line_of_row(i: int, name: str, parts: Sequence[RowOfMethod], remarks: Sequence[str]) -> str:
    """Return the line of a row in the table of all rows."""
    numbers = "".join(f"<td class=number>{v:.4g}</td>" for part in parts for v in part.measured.values())
    link = f"<th><a href='#row-{i}'>{escape(name)}</a></th>"
    return f"<tr>{link}<td>{escape(_prediction(parts[0].e))}</td>{numbers}<td class=number>{len(remarks) or ''}</td></tr>\n"


def _fact_in_words(name: str, value: object) -> str:
    """Return where rows come from in words; of joined batches that differ the span of dates, or the first and how many more."""
    if not isinstance(value, list):
        return str(value)
    known = [str(v) for v in value if v is not None]
    if name == "date":
        return f"{min(known)} to {max(known)}"
    return known[0] if len(known) == 1 else f"{known[0]} and {len(known) - 1} more"


def _methods(named: Mapping[str, Explanation]) -> str:
    """Return what was done, and with what: a line for each method."""
    lines = []
    for name, e in named.items():
        settings = ", ".join(f"{k}={v}" for k, v in e.settings.items())
        facts: Keywords = {"evaluations": e.evaluations, "seconds": f"{e.seconds:.3g}", **e.provenance}
        told = ", ".join(f"{k} {_fact_in_words(k, v)}" for k, v in facts.items() if v is not None)
        lines.append(
            f"<li><b>{escape(name)}</b> {escape(f'{e.method}({settings})')} <small>{escape(told)}</small></li>"
        )
    written = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    return f"<ul>{''.join(lines)}</ul><p><small>written {written}</small></p>"
