"""``torchwhy explain --csv``: the rows of a table, by the columns."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torchwhy.cli.arguments import say
from torchwhy.cli.outputs import check_outputs
from torchwhy.cli.texts_tables import explain_by_each, methods_named, outputs_asked_for, write_found

if TYPE_CHECKING:
    import pandas

    from torchwhy.engine.structure import Keywords, Model
    from torchwhy.explanation import Explanation

BACKGROUND_ROWS = 100


def explain_table(args: argparse.Namespace, settings: Keywords) -> None:
    """Explain the rows of the file that was given, and write what was found.

    Raises:
        ValueError: a mistake in what was asked for.
    """
    import torchwhy as tw

    outs = outputs_asked_for(args)
    check_outputs(outs, [args.csv, args.background, args.model])
    if args.model is None:
        raise ValueError("--model: name the file of the model, of scikit-learn or torch")
    model, labels = load_table_model(Path(args.model), args.trust)
    methods = methods_named(args.method, "table" if isinstance(model, _module()) else "black-box")
    whole = read_table(args.csv, args.drop)
    rows = _rows_asked_for(whole, args.rows)
    background = whole if args.background is None else read_background(args.background, whole)
    target = target_of_table(args, labels, model)
    found = explain_by_each(
        args,
        methods,
        model,
        settings,
        lambda method: method.explain(
            rows, target, baselines=tw.Distribution(background_rows(background)) if takes_several(method) else None
        ),
    )
    if args.classes:
        found = {name: _with_classes(e, args.classes) for name, e in found.items()}
    facts: list[Keywords] = [{"row": int(i), "target": args.target} for i in rows.index]
    for method, e in found.items():
        largest = e.to_dataframe().abs().mean().sort_values(ascending=False)
        say(args, method, *(f"{value:10.3g}  {name}" for name, value in largest.head(8).items()))
    write_found(args, found, facts, {"model": args.model, "columns": list(map(str, rows.columns))}, outs)


def _with_classes(e: Explanation, classes: list[str]) -> Explanation:
    """Return an explanation with names for the classes.

    Raises:
        ValueError: fewer names than a class that is explained needs.
    """
    from torchwhy.explanation.table import classes_asked

    targets = classes_asked(e)
    if max(targets, default=0) >= len(classes):
        raise ValueError(f"--classes: {len(classes)} names, and class {max(targets)} is explained, counted from 0")
    return e.with_names(classes=classes)


def background_rows(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return rows, spread over a table, that stand for what is absent."""
    return table.iloc[:: max(1, -(-len(table) // BACKGROUND_ROWS))]


def _module() -> type:
    from torch import nn

    return nn.Module


def takes_several(method: Any) -> bool:
    """Say whether a method takes rows that stand for what is absent."""
    return bool(method.uses_baselines) and type(method).__name__ not in ("GuidedIG", "IDGI")


def read_table(path: str, drop: list[str]) -> pandas.DataFrame:
    """Return a table from a file, ``.parquet`` or of comma-separated values, without some columns.

    Raises:
        ValueError: no such file or column, or no table.
        ImportError: there is no pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("tables are read by pandas: pip install pandas") from error
    is_parquet = Path(path).suffix.lower() == ".parquet"
    try:
        table = pandas.read_parquet(path) if is_parquet else pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, ValueError) as error:
        raise ValueError(f"'{path}' cannot be read as a table ({error})") from error
    missing = [column for column in drop if column not in table.columns]
    if missing:
        raise ValueError(f"--drop: '{path}' has no column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}")
    if not len(table):
        raise ValueError(f"'{path}' has no rows")
    return table.drop(columns=drop)


def read_background(path: str, like: pandas.DataFrame) -> pandas.DataFrame:
    """Return rows that stand for what is absent: the columns of the table that is explained, whatever else the file has.

    Raises:
        ValueError: as :func:`read_table`, or a column that the file has not.
    """
    table = read_table(path, [])
    missing = [column for column in like.columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"--background: '{path}' has no column {missing[0]!r}; it has {', '.join(map(repr, table.columns))}"
        )
    return table[list(like.columns)]


def _rows_asked_for(table: pandas.DataFrame, rows: str | None) -> pandas.DataFrame:
    """Return rows that are given as ``FROM:TO``, or as one number.

    Raises:
        ValueError: no such rows.
    """
    if rows is None:
        return table
    first, colon, last = rows.partition(":")
    try:
        start, stop = int(first or 0), int(last or len(table)) if colon else int(first or 0) + 1
    except ValueError:
        raise ValueError(f"--rows: expected FROM:TO, such as 0:10, got {rows!r}") from None
    if not 0 <= start < stop or start >= len(table):
        raise ValueError(f"--rows: {rows} of a table with {len(table)} rows")
    return table.iloc[start:stop]


def load_table_model(path: Path, trust: bool) -> tuple[Model, list[object]]:
    """Return a model from a file, and the labels of its classes, where it has any.

    Raises:
        ValueError: a file that cannot be read, or is not trusted.
    """
    from torchwhy.models.files import is_torch_file, read_model

    if not path.is_file():
        raise FileNotFoundError(f"--model: no file at '{path}'")
    if is_torch_file(path):
        try:
            return read_model(path, trust).eval(), []
        except ValueError as error:
            raise ValueError(str(error).replace("Pass trust=True", "Pass --trust")) from error
    if not trust:
        raise ValueError(f"'{path}': reading it runs code from the file. Pass --trust if you trust whoever made it")
    import joblib  # which scikit-learn brings

    try:
        model = joblib.load(path)
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, KeyError, IndexError) as error:
        raise ValueError(f"'{path}' cannot be read ({error})") from error
    if not (callable(model) or hasattr(model, "predict")):
        raise ValueError(f"'{path}' holds a {type(model).__name__}, not a model")
    return model, list(getattr(model, "classes_", []))


def target_of_table(args: argparse.Namespace, labels: list[Any], model: Model) -> int | str | None:
    """Return what ``--target`` is for the model: of a scikit-learn classifier one of its labels, of a regression nothing.

    Raises:
        ValueError: no such label.
    """
    from torchwhy.models import find_label

    if args.classes and hasattr(model, "predict"):
        raise ValueError(
            "--classes: is for models without names; this one has "
            + (", ".join(repr(str(v)) for v in labels) if labels else "no classes")
        )
    if args.target == "predicted":
        is_regression = hasattr(model, "predict") and not labels
        return None if is_regression else "predicted"
    if args.classes:
        return find_label(args.classes, args.target)
    if labels:
        found = [label for label in labels if str(label) == args.target]
        if not found:
            raise ValueError(
                f"--target: {args.target!r} is none of the labels {', '.join(repr(str(v)) for v in labels)}"
            )
        return found[0].item() if hasattr(found[0], "item") else found[0]
    try:
        return int(args.target)
    except ValueError:
        raise ValueError(
            f"--target: {args.target!r} is no number, and the model has no labels; --classes names them"
        ) from None
