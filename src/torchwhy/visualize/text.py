"""Tokens on the colour of their attribution: as HTML and as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from torchwhy.visualize.scaling import as_array, find_scale, is_clipped, to_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array

STARTS = ("Ġ", "▁")  # how byte-pair and SentencePiece tokens mark the space before them; the former writes "Ċ" for "\n"
BLOCK = "background:#fff;color:#000;padding:.5em .7em;border-radius:.3em;line-height:2;white-space:pre-wrap"
SIZE, LINE = 11.0, 0.3  # of the figure's text: points, and inches from line to line


class _Piece(NamedTuple):
    word: str
    space: bool  # a space before it
    score: float
    back: str
    front: str


def colored_text(
    tokens: Sequence[str],
    scores: Array,
    *,
    percentile: float = 100.0,
    cmap: str | Colormap | None = None,
    limit: float | None = None,
) -> str:
    r"""Return HTML of a text, each token on the colour of its score: red for, blue against, the number on hover.

    0 is white. Letters are black or white, whichever reads better. Tokens are escaped, and word pieces joined: ``##ing``
    goes on, ``Ġthe`` and ``▁the`` begin a word; tokens without such marks are set apart by spaces, unless they bring their
    own.

    Args:
        tokens: T strings.
        scores: ``(T,)`` or ``(1, T)``.
        percentile: of the absolute scores; gets the full colour.
        cmap: a colour map of matplotlib, or its name.
        limit: the size that gets the full colour, in the place of the percentile: the same for several texts.

    Raises:
        ValueError: lengths differ, or a score is NaN.

    >>> print(colored_text(["a<b"], [2.0]))
    <div style="..."><span style="..." title="a&lt;b: +2">a&lt;b</span></div>
    """
    from torchwhy.visualize import drawing as draw

    spans = []
    for p in _pieces(tokens, scores, percentile, cmap, limit):
        style = f"background:{p.back};color:{p.front};padding:.18em .1em;border-radius:.2em"
        tip = escape(f"{p.word}: {draw.signed_number(p.score)}")
        spans.append(f'{" " * p.space}<span style="{style}" title="{tip}">{escape(p.word)}</span>')
    return f'<div style="{BLOCK}">{"".join(spans)}</div>'


def text(
    tokens: Sequence[str],
    scores: Array,
    *,
    ax: Axes | None = None,
    percentile: float = 100.0,
    cmap: str | Colormap | None = None,
    colorbar: bool = True,
    title: str | None = None,
    label: str = "",
    limit: float | None = None,
) -> Figure:
    """Draw a text, each token on the colour of its score, as :func:`colored_text` does, for print.

    Lines break at the width of the figure, 6.5 inches, or at that of ``ax``, from the top down: a text too long for
    ``ax`` runs out of it below.

    Args:
        tokens, scores, percentile, cmap, limit: as of :func:`colored_text`.
        ax: the axes to draw on.
        colorbar: draw the colour bar.
        title: the text above.
        label: the text at the colour bar.

    Raises:
        ValueError: as :func:`colored_text`.
    """
    from torchwhy.visualize import drawing as draw

    pieces = _pieces(tokens, scores, percentile, cmap, limit)
    values = as_array(scores, "scores")
    limit = find_scale(values, percentile, True)[0] if limit is None else limit
    width = 6.5 if ax is None else draw.axes_width(ax)
    room = width - 0.2 - 0.9 * colorbar
    places, lines = _flow(pieces, room)
    figure, ax = draw.axes_for(ax, width, max(LINE * (lines + 0.3), 0.9 * colorbar) + 0.3 * bool(title))
    for p, (x, y) in zip(pieces, places):
        box = {"facecolor": p.back, "edgecolor": "none", "boxstyle": "round,pad=0.12,rounding_size=0.18"}
        shift = ((x + 0.06) * 72, -(y + 0.72) * LINE * 72)
        style = {"size": SIZE, "color": p.front, "bbox": box, "in_layout": False}
        draw.add_note(ax, p.word.replace("\n", "↵"), (0, 1), shift, xycoords="axes fraction", **style)
    ax.set_axis_off()
    draw.heading(ax, title)
    if colorbar:
        clipped = is_clipped(values, limit, True)
        draw.scale_bar([ax], draw.colormap(True, cmap), limit, True, label=label, clipped=clipped)
    return figure


def _pieces(
    tokens: Sequence[str], scores: Array, percentile: float, cmap: str | Colormap | None, limit: float | None = None
) -> list[_Piece]:
    """Return what is written: words without their marks, whether a space comes before, and both colours."""
    from matplotlib.colors import to_hex

    from torchwhy.visualize import drawing as draw

    if len(tokens) and not isinstance(tokens[0], str) and not isinstance(tokens, str):
        raise ValueError("tokens must be the strings of one text, not lists of them; text_table shows several")
    values = as_array(scores, "scores", ndim=(1, 2)).reshape(-1)
    if isinstance(tokens, str) or len(tokens) != len(values):
        raise ValueError(f"tokens must be {len(values)} strings, one for each score, not {len(tokens)}")
    limit = find_scale(values, percentile, True)[0] if limit is None else limit
    unit = to_unit(values, limit, True)
    colors = draw.to_rgb(unit, True, cmap)
    marked, own = any(t.startswith(STARTS) for t in tokens), any(t != t.strip() for t in tokens)
    pieces = []
    for i, token in enumerate(tokens):
        word, begins = _byte_pair(token) if marked else _word_piece(token, own)
        pieces.append(_Piece(word, begins and i > 0, float(values[i]), to_hex(colors[i]), draw.ink_on(colors[i])))
    return pieces


def _byte_pair(token: str) -> tuple[str, bool]:
    """Return the word in a token that is marked where a word begins, and whether one does."""
    begins = token.startswith(STARTS)
    return token[begins:].replace("Ċ", "\n"), begins


def _word_piece(token: str, spaced: bool) -> tuple[str, bool]:
    """Return the word in a token that is marked where a word goes on, and whether one begins.

    Args:
        token: what the tokenizer made.
        spaced: the tokens bring their own spaces.
    """
    if token.startswith("##") and len(token) > 2:
        return token[2:], False
    return token, not spaced


def _flow(pieces: list[_Piece], room: float) -> tuple[list[tuple[float, int]], int]:
    """Return where each piece begins (inches, line), words unbroken where they fit, and the number of lines."""
    from torchwhy.visualize import drawing as draw

    space = draw.text_width("a a", SIZE) - draw.text_width("aa", SIZE)
    wide = [draw.text_width(p.word.replace("\n", "↵"), SIZE) + 0.03 for p in pieces]
    places: list[tuple[float, int]] = []
    x, line = 0.0, 0
    for i, p in enumerate(pieces):
        x += space * p.space
        end = next((j for j in range(i + 1, len(pieces)) if pieces[j].space), len(pieces)) if p.space else i + 1
        if x > 0 and (x + sum(wide[i:end]) > room or x + wide[i] > room):
            x, line = 0.0, line + 1
        places.append((x, line))
        x += wide[i]
        if p.word.endswith("\n"):
            x, line = 0.0, line + 1
    return places, line + 1
