"""Where a command writes: checked before anything slow."""

from __future__ import annotations

from pathlib import Path


def refuse_figure(out: Path) -> None:
    """Refuse a figure that could not be saved.

    Raises:
        ValueError: no such folder, or a kind of picture that is not known.
    """
    from matplotlib.figure import Figure

    if not out.parent.is_dir() or out.is_dir():
        raise ValueError(
            f"--out: '{out}' is " + ("a folder" if out.is_dir() else f"in '{out.parent}', which is no folder")
        )
    kinds = Figure().canvas.get_supported_filetypes()
    if out.suffix and out.suffix[1:].lower() not in kinds:
        raise ValueError(
            f"--out: '{out}' is of no known kind; expected one of {', '.join(f'.{k}' for k in sorted(kinds))}"
        )
