"""The pictures of an explanation by their names: ``e.plot(kind="waterfall")``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torchwhy.visualize.additive import decision, force, waterfall
from torchwhy.visualize.bars import bars, beeswarm
from torchwhy.visualize.many_rows import importance, row_matrix, scatter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.explanation import Explanation
    from torchwhy.visualize.scaling import PictureOption

OF_A_ROW: dict[str, Callable[..., Figure]] = {"bars": bars, "waterfall": waterfall, "force": force}
OF_ALL_ROWS: dict[str, Callable[..., Figure]] = {
    "beeswarm": beeswarm,
    "decision": decision,
    "importance": importance,
    "heatmap": row_matrix,
    "scatter": scatter,
}


def draw_kind(e: Explanation, kind: str, row: int | None, title: str, **options: PictureOption) -> Figure:
    """Draw the features of an explanation in one of the ways that have names.

    Raises:
        ValueError: a name that there is not, or a row of a picture of all rows.
    """
    if kind in OF_A_ROW:
        return OF_A_ROW[kind](e[row or 0], **{"title": title, **options})
    if kind not in OF_ALL_ROWS:
        raise ValueError(f"kind={kind!r}: there is no such picture; they are {', '.join([*OF_A_ROW, *OF_ALL_ROWS])}")
    if row is not None:
        raise ValueError(f"row={row}: kind={kind!r} draws all rows; e[{row}:{row + 1}].plot(kind={kind!r}) draws one")
    return OF_ALL_ROWS[kind](e, **{"title": f"{title} · {len(e)} rows".removeprefix(" · "), **options})
