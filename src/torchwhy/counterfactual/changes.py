"""What was changed to get another answer, drawn: images, or the row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption

MOST_PAIRS = 8  # of images on one figure


def draw_changes(
    before: Tensor,
    after: Tensor,
    found: Sequence[bool],
    pictures: ModuleType,
    row: int | None = None,
    **options: AnyOption,
) -> Figure:
    """Draw rows before and after, and the change between them: of images several, of tables one row.

    Args:
        before, after: ``(N, ...)``.
        found: for each row, whether it gets the wanted answer.
        pictures: :mod:`torchwhy.visualize`.
        row: which; None is the first 8 images, or the first row of a table, and that is said.
        options: handed to ``grid`` or ``before_after``.

    Raises:
        IndexError: a row that is not there.
    """
    n = len(before)
    if row is not None and not -n <= row < n:
        raise IndexError(f"row {row}: there are {n} rows, 0 to {n - 1}")
    if before.dim() == 4 and before.shape[1] in (1, 3):
        rows = list(range(min(n, MOST_PAIRS))) if row is None else [row % n]
        captions = ["" if found[i] else "not found" for i in rows]
        maps = {"counterfactual": after[rows], "change": (after - before)[rows]}
        shown = {"images": before[rows], "titles": [f"row {i}" for i in rows], "captions": {"counterfactual": captions}}
        return pictures.before_after_images(maps, **{**shown, **options})
    at = 0 if row is None else row % n
    some = f"row {at} of {n}" if n > 1 else ""
    title = f"{some}{'' if found[at] else ', not found: the last attempt'}".removeprefix(", ")
    return pictures.before_after(before[at].flatten(), after[at].flatten(), **{"title": title, **options})
