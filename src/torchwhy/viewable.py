"""What results have in common: a picture, a table, and both in a notebook."""

from __future__ import annotations

import csv
import html
import math
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure

    from torchwhy.engine.structure import Keywords
    from torchwhy.visualize.scaling import AnyOption

Table = tuple[list[str], list[list[object]]]  # the names of the columns, and the lines
LINES_SHOWN = 10  # of a table in a notebook


class Viewable:
    """The base of results that show themselves: ``plot()``, ``to_dataframe()``, ``to_csv()``, and the notebook's view.

    A subclass writes ``_picture`` and ``_table``.
    """

    def _picture(self, pictures: ModuleType, **options: AnyOption) -> Figure:
        """Return the picture, drawn by a function of ``pictures``, which is :mod:`torchwhy.visualize`."""
        raise NotImplementedError

    def _table(self) -> Table:
        """Return the names of the columns, and the lines."""
        raise NotImplementedError

    def plot(self, **options: AnyOption) -> Figure:
        """Draw the result as a new matplotlib figure; options go to the function of :mod:`torchwhy.visualize` that draws."""
        from torchwhy import visualize

        return self._picture(visualize, **options)

    def to_dataframe(self) -> pandas.DataFrame:
        """Return the numbers as a table of pandas.

        Raises:
            ImportError: there is no pandas; :meth:`to_csv` does without.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError("to_dataframe() needs pandas: pip install pandas; to_csv() does without") from error
        columns, lines = self._table()
        return pandas.DataFrame(lines, columns=columns)

    def to_csv(self, path: str | Path) -> None:
        """Write the numbers as comma-separated values.

        Raises:
            OSError: the file cannot be written.
        """
        columns, lines = self._table()
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(lines)

    def _repr_html_(self) -> str:
        """Return the notebook's view: the picture above the first lines of the table."""
        from torchwhy.visualize import to_html

        table = table_as_html(*self._table())
        try:
            return to_html(self.plot(), alt=repr(self)) + table
        except (TypeError, ValueError):  # no picture for such numbers: the table alone
            return table

    def __repr__(self) -> str:
        shown: Keywords = {f.name: getattr(self, f.name) for f in fields(self)} if is_dataclass(self) else {}
        return f"{type(self).__name__}({', '.join(f'{k}={in_short(v)}' for k, v in shown.items())})"


def in_short(value: object) -> str:
    """Return a value in few letters: larger tensors by their shapes."""
    if isinstance(value, Tensor):
        return f"{value.tolist()}" if value.numel() <= 3 else f"tensor {tuple(value.shape)}"
    if isinstance(value, tuple) and any(isinstance(v, Tensor) for v in value):
        return f"({', '.join(map(in_short, value))})"
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def table_as_html(columns: list[str], lines: list[list[object]]) -> str:
    """Return the first lines of a table as HTML, and how many more there are."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell_text(v))}</td>" for v in line) + "</tr>"
        for line in lines[:LINES_SHOWN]
    )
    more = len(lines) - LINES_SHOWN
    said = f"<caption style='caption-side:bottom'>and {more} more</caption>" if more > 0 else ""
    return f"<table>{said}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell_text(value: object) -> str:
    if isinstance(value, float):
        return "—" if math.isnan(value) else f"{value:.4g}"
    return str(value)
