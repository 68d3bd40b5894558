"""A figure as bytes, and as HTML that needs no other file."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCREEN_DPI = 100  # a page shows a figure at this many pixels an inch, drawn at the figure's own, finer dpi


def to_png(figure: Figure, dpi: float | None = None) -> bytes:
    """Return a figure as the bytes of a PNG file.

    Args:
        figure: any figure of matplotlib.
        dpi: pixels an inch; None takes the figure's own.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi or "figure")
    return buffer.getvalue()


def screen_size(figure: Figure) -> tuple[int, int]:
    """Return the width and height in pixels at which a page shows the figure."""
    width, height = figure.get_size_inches() * SCREEN_DPI
    return round(width), round(height)


def to_html(figure: Figure, alt: str = "") -> str:
    """Return a figure as one HTML image, the picture inside it.

    Args:
        figure: any figure of matplotlib.
        alt: what is read out in its place.
    """
    width, height = screen_size(figure)
    data = b64encode(to_png(figure)).decode()
    style = f"width:{width}px;max-width:100%;aspect-ratio:{width}/{height}"
    return f'<img alt="{escape(alt)}" style="{style}" src="data:image/png;base64,{data}">'
