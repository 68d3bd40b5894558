"""Several texts, each with what the model said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from torchwhy.visualize.scaling import as_array, find_scale
from torchwhy.visualize.text import colored_text

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

    from torchwhy.visualize.scaling import Array


def text_table(
    tokens: Sequence[Sequence[str]],
    scores: Sequence[Array],
    *,
    facts: Mapping[str, Sequence[object]] | None = None,
    percentile: float = 100.0,
    cmap: str | Colormap | None = None,
) -> str:
    """Return HTML of several texts, one a row, all on one scale of colours, with a column for each fact.

    Args:
        tokens: N texts, each the strings of its tokens.
        scores: N times one number for each token.
        facts: columns by name, N values each: the label, the prediction, its probability.
        percentile: of the absolute scores of all texts; gets the full colour.
        cmap: a colour map of matplotlib, or its name.

    Raises:
        ValueError: lengths differ, or a score is NaN.

    >>> "<th>label</th>" in text_table([["a"], ["b", "c"]], [[1.0], [0.0, -1.0]], facts={"label": ["yes", "no"]})
    True
    """
    facts = facts or {}
    for name, column in {"scores": scores, **facts}.items():
        if len(column) != len(tokens):
            raise ValueError(f"{name} has {len(column)} entries, but there are {len(tokens)} texts")
    rows = [as_array(s, f"scores[{i}]", ndim=(1,)) for i, s in enumerate(scores)]
    limit = find_scale(np.concatenate(rows), percentile, True)[0] if rows else 0.0
    head = "".join(f"<th>{escape(str(name))}</th>" for name in (*facts, "text"))
    lines = []
    for i, words in enumerate(tokens):
        cells = "".join(f"<td>{escape(_written(column[i]))}</td>" for column in facts.values())
        lines.append(f"<tr>{cells}<td>{colored_text(words, rows[i], limit=limit, cmap=cmap)}</td></tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _written(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
