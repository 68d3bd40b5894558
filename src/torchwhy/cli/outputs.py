"""Where a command writes: checked before anything slow, and never over what it reads."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torchwhy.engine.structure import Keywords
    from torchwhy.explanation import Explanation

NUMBERS = (".npz", ".json")
PAGE = ".html"
DEFAULT_FIGURE = Path("explanation.png")


def is_figure(out: Path) -> bool:
    """Say whether a path is that of a figure, by its suffix; without one it is."""
    return out.suffix.lower() not in (*NUMBERS, PAGE, ".csv")


def check_outputs(outs: Sequence[Path], reads: Iterable[str | Path | None], *, folders: bool = False) -> None:
    """Refuse paths that could not be written, or that something is read from.

    Args:
        outs: where to write.
        reads: what the command reads, files or names of other things.
        folders: whether a folder may be given, for figures.

    Raises:
        ValueError: no such folder, a kind of file that is not known, a file that is read, a link, the same path twice.
    """
    from matplotlib.figure import Figure

    kinds = [f".{kind}" for kind in Figure().canvas.get_supported_filetypes()] + [*NUMBERS, PAGE, ".csv"]
    for out in outs:
        if out.is_dir() and not folders:
            raise ValueError(f"--out: '{out}' is a folder")
        if not out.is_dir() and not out.parent.is_dir():
            raise ValueError(f"--out: '{out}' is in '{out.parent}', which is no folder")
        if out.suffix and out.suffix.lower() not in kinds and not out.is_dir():
            raise ValueError(f"--out: '{out}' is of no known kind; expected one of {', '.join(sorted(kinds))}")
        if out.is_symlink() and out.resolve().is_file():
            raise ValueError(f"--out: '{out}' is a link to '{out.resolve()}', which would be overwritten")
        for read in reads:
            if read is not None and out.is_file() and Path(read).is_file() and out.samefile(read):
                raise ValueError(f"--out: '{out}' is what is read; it would be overwritten")
    if len({out.resolve() for out in outs}) < len(outs):
        raise ValueError("--out: the same path twice")


def write_numbers(path: Path, found: Mapping[str, Explanation], rows: Sequence[Keywords], facts: Keywords) -> None:
    """Write attributions as arrays (``.npz``) or text (``.json``).

    Args:
        path: of the file.
        found: explanations of the same rows, by method.
        rows: what is known of each row: its file, its target.
        facts: what is known of all.
    """
    if path.suffix.lower() == ".npz":
        _write_arrays(path, found, rows)
        return
    lines = [{**row, "methods": {name: _numbers_of(e[i]) for name, e in found.items()}} for i, row in enumerate(rows)]
    cost = {
        name: {"settings": e.settings, "evaluations": e.evaluations, "seconds": e.seconds} for name, e in found.items()
    }
    everything = {**facts, "methods": cost, "rows": lines}
    path.write_text(json.dumps(_finite(everything), default=str, ensure_ascii=False), encoding="utf-8")


def _numbers_of(e: Explanation) -> Keywords:
    """Return the numbers of one row."""
    numbers: Keywords = {"attributions": _as_lists(e.numpy(), 0)}
    for name in ("completeness_gap", "scores", "base_scores"):
        value = getattr(e, name)
        if value is not None:
            numbers[name.removesuffix("s")] = value[0].tolist()
    if e.standard_error is not None:
        numbers["standard_error"] = e.standard_error[0].tolist()
    if e.names:
        numbers["names"] = e.names
    return numbers


def _as_lists(value: object, row: int) -> object:
    """Return arrays, or a tuple or dict of them, as lists of one row's numbers."""
    if isinstance(value, Mapping):
        return {name: _as_lists(part, row) for name, part in value.items()}
    return [_as_lists(part, row) for part in value] if isinstance(value, tuple) else value[row].tolist()  # type: ignore[index]


def _finite(value: object) -> object:
    """Return data with None in the place of numbers that JSON has no form for."""
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_arrays(path: Path, found: Mapping[str, Explanation], rows: Sequence[Keywords]) -> None:
    import numpy as np

    from torchwhy.engine.structure import SINGLE, flatten, parts_by_key

    arrays: dict[str, np.ndarray] = {f"row.{name}": np.array([row.get(name) for row in rows]) for name in rows[0]}
    for method, e in found.items():
        attributions = e.numpy()
        parts = parts_by_key(attributions) or {"": attributions}
        arrays |= {f"{method}.{key}".rstrip("."): np.asarray(part) for key, part in parts.items()}
        for name in ("completeness_gap", "standard_error", "scores", "base_scores"):
            value = getattr(e, name)
            if value is not None and flatten(value)[1] is SINGLE:
                arrays[f"{method}.{name}"] = value.cpu().numpy()
        if e.names:
            arrays[f"{method}.names"] = np.array(json.dumps(e.names))
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
