"""Draw what every picture shares: the figure, colours, colour bars, plain axes and measured text.

The only file that needs matplotlib at import; the others import it inside their functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from torchwhy.engine.structure import Keywords
from torchwhy.visualize.export import screen_size, to_png
from torchwhy.visualize.scaling import LUMINANCE, AnyOption

DPI = 160
QUIET = "#6b6b6b"  # captions and other text of second rank
FRAME = "#c8c8c8"
SHADE_OF_MISSING = "#a8a8a8"  # of points whose value is not there
MOST_TICKS = 15  # with labels, of one axis
BLANK = "all 0"  # what stands in the place of a map without values
LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")  # Okabe and Ito (2008)
NEGATIVE, POSITIVE = "#2f7be0", "#e8472b"
_BLUE_WHITE_RED = ("#0a3596", NEGATIVE, "#a3c9f5", "#ffffff", "#ffb59b", POSITIVE, "#a6001a")


class Picture(Figure):
    """A figure that a notebook shows by itself, although pyplot does not know it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        width, height = screen_size(self)
        return to_png(self), {"width": width, "height": height}


def axes_for(ax: Axes | None, width: float, height: float) -> tuple[Figure, Axes]:
    """Return the figure and the axes to draw on: the given ones, or new ones of width by height inches."""
    if ax is None:
        ax = Picture(figsize=(width, height), dpi=DPI, layout="compressed").add_subplot()
    return ax.get_figure(), ax  # type: ignore[return-value]


def colormap(signed: bool, cmap: str | Colormap | None = None) -> Colormap:
    """Return the colours of a map: an odd number of them, so that zero is exactly the middle of a signed one."""
    if cmap is None:
        cmap = LinearSegmentedColormap.from_list("blue_white_red", _BLUE_WHITE_RED) if signed else "inferno"
    if isinstance(cmap, str) and cmap not in matplotlib.colormaps:
        raise ValueError(f"cmap {cmap!r} is not a colour map of matplotlib; 'RdBu_r' and 'inferno' are")
    return (matplotlib.colormaps[cmap] if isinstance(cmap, str) else cmap).resampled(257)


def to_rgb(unit: np.ndarray, signed: bool, cmap: str | Colormap | None = None) -> np.ndarray:
    """Return the colours (..., 3) of values in [-1, 1] if signed, else in [0, 1]."""
    return colormap(signed, cmap)((unit + 1) / 2 if signed else unit)[..., :3]


def ink_on(rgb: np.ndarray) -> str:
    """Return black or white, whichever has the larger contrast (WCAG) on a colour (3,)."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return "#ffffff" if linear @ np.array(LUMINANCE) < 0.179 else "#000000"


def mix_colors(
    unit: np.ndarray, under: np.ndarray, alpha: float, signed: bool, cmap: str | Colormap | None
) -> np.ndarray:
    """Return the colours (..., 3) of values laid over ``under``, (..., 3) or grey (...): the larger, the more opaque."""
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    opacity = alpha * np.abs(unit)[..., None]
    # what is weak is faint already: were it white or black too, it would bleach or dirty the photo
    first = 0.3 if signed else 0.1
    vivid = np.sign(unit) * (first + (1 - first) * np.abs(unit))
    under = under if under.ndim > unit.ndim else under[..., None]
    return (1 - opacity) * under + opacity * to_rgb(vivid, signed, cmap)


def mixed_colormap(alpha: float, signed: bool, cmap: str | Colormap | None) -> Colormap:
    """Return the colours of ``mix_colors`` over a photo of middle brightness, for its colour bar."""
    unit = np.linspace(-1 if signed else 0, 1, 257)
    return LinearSegmentedColormap.from_list("mixed", mix_colors(unit, np.full(257, 0.6), alpha, signed, cmap), N=257)


def scale_bar(
    axes: list[Axes], colors: Colormap, limit: float, signed: bool, *, label: str, clipped: bool, **place: AnyOption
) -> None:
    """Draw the colour bar of a scale, right of the axes or where ``place`` says; pointed where it clips."""
    limit = limit or 1.0  # a map of zeros has no scale of its own
    mappable = ScalarMappable(Normalize(-limit if signed else 0, limit), colors)
    ends = "neither"
    if clipped:
        ends = "both" if signed else "max"
    place = place if "cax" in place else {"ax": axes, "fraction": 0.045, "pad": 0.03, **place}
    figure = axes[0].get_figure()
    bar = figure.colorbar(mappable, extend=ends, **place)  # type: ignore[union-attr]
    ticks = [-limit, 0, limit] if signed else [0, limit / 2, limit]
    bar.set_ticks(ticks, labels=[signed_number(t) if signed else f"{t:.3g}" for t in ticks])
    bar.ax.tick_params(labelsize=8, length=2, width=0.6, color=FRAME)
    bar.outline.set(edgecolor=FRAME, linewidth=0.6)  # type: ignore[operator]
    lying = bar.orientation == "horizontal"
    side = figure.get_size_inches()[0 if lying else 1]  # type: ignore[union-attr]
    bar.set_label(wrap(label, (0.95 if lying else 0.75) * side, 8), size=8, parse_math=False)


def shades_of(values: np.ndarray, labels: Sequence[object] | None = None) -> tuple[np.ndarray, float, float]:
    """Return the colours ``(N, 4)`` of a feature's values, grey where they are missing, and between which values they go.

    Those are the 5th and the 95th percentile; of numbers of labels, the first and the last.
    """
    there = values[~np.isnan(values)]
    there = there if len(there) else np.zeros(1)
    low, high = (0.0, len(labels) - 1.0) if labels else np.percentile(there, [5, 95])
    unit = np.clip((values - low) / (high - low), 0, 1) if high > low else np.full(len(values), 0.5)
    shades = colormap(False, "viridis")(unit)
    shades[np.isnan(values)] = to_rgba(SHADE_OF_MISSING)
    return shades, float(low), float(high)


def name_ticks(axis: Axis, labels: Sequence[object], width: float, first: int = 0) -> None:
    """Write labels where an axis has their numbers, from ``first`` on, in ``width`` inches together; of many every so many."""
    shown = range(0, len(labels), -(-len(labels) // MOST_TICKS))
    names = [wrap(str(labels[k]), width / len(shown), 8.5) for k in shown]
    axis.set_ticks([first + k for k in shown], names, parse_math=False)


def signed_number(value: float, form: str = ".3g") -> str:
    """Write a number with its sign, a true minus, and no sign on zero."""
    return f"{value:+{form}}".replace("-", "−") if value else "0"  # the exponent's sign, too


def number_format(values: np.ndarray) -> str:
    """Return the format in which the largest of the numbers has three digits, and the others as many decimals."""
    largest = float(np.abs(values).max())
    decimals = 2 - int(np.floor(np.log10(largest))) if largest else 0
    return f".{max(decimals, 0)}f" if decimals <= 5 and largest < 1e6 else ".1e"


def number_format_of(value: float, error: float, values: np.ndarray) -> str:
    """Return the format of one of several numbers: as all have it, with more decimals where that says too little.

    Two digits of the number and one of its error are to be seen.
    """
    form = number_format(values)
    if form.endswith("e"):
        return form
    sizes = [(abs(value), 1), (error, 0)]
    needed = [digits - int(np.floor(np.log10(size))) for size, digits in sizes if size > 0]
    decimals = max([int(form[1:-1]), *needed])
    return f".{decimals}f" if decimals <= 6 else ".1e"


def say_blank(ax: Axes, text: str) -> None:
    """Write into the middle of a picture that there is nothing to see."""
    where = {"xycoords": "axes fraction", "ha": "center", "va": "center", "color": QUIET}
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    add_note(ax, text, (0.5, 0.5), (0, 0), **where, bbox=box, size=8)


def frame(ax: Axes) -> None:
    """Leave of a picture's axes a thin frame alone: a map that is white at its edge still shows where it ends."""
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(visible=True, color=FRAME, linewidth=0.6)


def plain(ax: Axes, xlabel: str, ylabel: str, title: str | None) -> None:
    """Give a chart two axes, a faint grid and its labels."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=QUIET, linewidth=0.8)
    ax.tick_params(labelsize=8.5, color=QUIET, width=0.8)
    ax.grid(True, color="#888888", alpha=0.2, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.set_xlabel(xlabel, size=9.5, parse_math=False)
    ax.set_ylabel(ylabel, size=9.5, parse_math=False)
    heading(ax, title)


def heading(ax: Axes, title: str | None, size: float = 10.5) -> None:
    """Write the title of one panel, as it is (a $ is a $), in as many lines as it needs."""
    if title:
        ax.set_title(wrap(title, axes_width(ax), size), size=size, parse_math=False)


def legend(ax: Axes) -> None:
    """Name the lines that have names, without a box, as they are written."""
    if ax.get_legend_handles_labels()[1]:
        for text in ax.legend(frameon=False, fontsize=8.5, handlelength=1.6).get_texts():
            text.set_parse_math(False)


def add_note(ax: Axes, text: str, at: tuple[float, float], shift: tuple[float, float], **style: AnyOption) -> None:
    """Write beside a point of the axes, ``shift`` printer's points away from it."""
    ax.annotate(text, at, xytext=shift, textcoords="offset points", parse_math=False, **{"size": 8.5, **style})


def line_style(index: int) -> Keywords:
    """Return colour and dashes of a line: another colour each, then the same colours dashed."""
    return {"color": LINES[index % len(LINES)], "linestyle": ("-", "--", ":")[index // len(LINES) % 3]}


def axes_width(ax: Axes) -> float:
    """Return the width of axes in inches, before the layout is made."""
    return ax.get_window_extent().width / ax.get_figure().dpi  # type: ignore[union-attr]


def text_width(text: str, size: float) -> float:
    """Return the width of one line of text in inches at ``size`` points."""
    return text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)[0] / 72


def wrap(text: str, width: float, size: float) -> str:
    """Break a text into lines no wider than ``width`` inches: at " · " if it has any, else at spaces."""
    lines: list[str] = []
    for paragraph in text.split("\n"):
        joint = " · " if " · " in paragraph else " "
        lines += _fill(paragraph.split(joint), joint, width, size)
    return "\n".join(lines)


def _fill(words: Iterable[str], joint: str, width: float, size: float) -> list[str]:
    lines: list[str] = []
    for word in words:
        longer = f"{lines[-1]}{joint}{word}" if lines else word
        if lines and text_width(longer, size) > width:
            lines.append(word)
        else:
            lines[-1:] = [longer]
    return lines


def shrunk(text: str, width: float, size: float) -> float:
    """Return the size in points, ``size`` at most, at which no line of the text is wider than ``width`` inches."""
    return size * min(1.0, width / max(text_width(line, size) or width for line in text.split("\n")))
