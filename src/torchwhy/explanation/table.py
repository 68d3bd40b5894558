"""Explanations as tables: a line for each row, or for each row and feature."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.structure import Keywords
from torchwhy.explanation.features import feature_names, feature_values, is_nested

if TYPE_CHECKING:
    import numpy as np
    import pandas

    from torchwhy.explanation.explanation import Explanation

MANY_COLUMNS = 64  # of numbers, which pandas takes much longer for one by one than together
NOT_THERE = "missing"  # what a value that is not there is called
FACTS = {"score": "scores", "base_score": "base_scores", "probability": "probabilities", "gap": "completeness_gap"}


def table_of(e: Explanation, *, long: bool, facts: bool, features: bool = True) -> tuple[list[str], list[list[object]]]:
    """Return the names of the columns, and the lines.

    Raises:
        ValueError: a long table without features, of which it has a line for each.
    """
    if not features:
        if long:
            raise ValueError("features=False: a long table has a line for each feature; leave long=True out")
        each = [facts_of(e, i) for i in range(len(e))]
        return list(each[0]), [list(fact.values()) for fact in each]
    return _long_table(e, facts) if long else _wide_table(e, facts)


def _wide_table(e: Explanation, facts: bool) -> tuple[list[str], list[list[object]]]:
    if feature_values(e)[0].dim() == 2:  # a line for each token of a response
        return _wide_table_of_tokens(e)
    values = [v.tolist() for v in feature_values(e)]
    width = max(map(len, values))
    of_rows = range(len(e)) if is_nested(e.names) or len({len(row) for row in values}) > 1 else range(1)
    known = [feature_names(e, i) for i in of_rows]
    names = known[0] if all(n == known[0] for n in known) else [f"feature {j}" for j in range(width)]
    each = [facts_of(e, i) if facts else {} for i in range(len(e))]
    lines: list[list[object]] = [
        [*fact.values(), *row, *[float("nan")] * (width - len(row))] for fact, row in zip(each, values)
    ]
    return [*each[0], *names], lines


def _wide_table_of_tokens(e: Explanation) -> tuple[list[str], list[list[object]]]:
    values, known = feature_values(e), [feature_names(e, i) for i in range(len(e))]
    width = max(v.shape[1] for v in values)
    names = known[0] if all(n == known[0] for n in known) else [f"feature {j}" for j in range(width)]
    lines: list[list[object]] = []
    for i, of_row in enumerate(values):
        for token, row in zip(tokens_of(e, i, len(of_row)), of_row.tolist()):
            lines.append([i, token, *row, *[float("nan")] * (width - len(row))])
    return ["row", "token", *names], lines


def _long_table(e: Explanation, facts: bool) -> tuple[list[str], list[list[object]]]:
    lines = list(_long_lines(e, facts))
    return list(lines[0]), [list(line.values()) for line in lines]


def _long_lines(e: Explanation, facts: bool) -> Iterator[Keywords]:
    values, inputs, errors, labels = feature_values(e), input_values(e), feature_errors(e), column_labels(e)
    if values[0].dim() == 2:
        yield from _lines_of_tokens(e, values)
        return
    for i, row in enumerate(values):
        fact = facts_of(e, i) if facts else {}
        for j, name in enumerate(feature_names(e, i)[: len(row)]):
            line: Keywords = {"row": i, **fact, "feature": name}
            if inputs is not None:
                number = inputs[i][j].item()
                line["value"] = label_of(labels[j], number) if j in labels and number == number else number
            line["attribution"] = row[j].item()
            yield line | ({} if errors is None else {"standard_error": errors[i][j].item()})


def _lines_of_tokens(e: Explanation, values: list[Tensor]) -> Iterator[Keywords]:
    """Yield a line for each row, token of its response, and feature."""
    for i, of_row in enumerate(values):
        names = feature_names(e, i)
        for token, row in zip(tokens_of(e, i, len(of_row)), of_row.tolist()):
            for name, value in zip(names, row):
                yield {"row": i, "token": token, "feature": name, "attribution": value}


def tokens_of(e: Explanation, row: int, n: int) -> list[str]:
    """Return the tokens of a row's response, which are explained one by one; at most n."""
    said = e.details.get("response")
    return list(said[row])[:n] if isinstance(said, list) else [f"token {t}" for t in range(n)]


def target_at(e: Explanation, row: int) -> object:
    """Return the target of a row, a class as an int."""
    per_row = isinstance(e.target, (list, Tensor)) and len(e.target) == len(e)
    target = e.target[row] if per_row else e.target
    return target.item() if isinstance(target, Tensor) and not target.dim() else target


def classes_asked(e: Explanation) -> list[int]:
    """Return the classes that are explained, of one row or another."""
    return [t for t in (target_at(e, row) for row in range(len(e))) if isinstance(t, int)]


def facts_of(e: Explanation, row: int) -> Keywords:
    """Return what is known of a row besides its attributions, by name."""
    found: Keywords = {"target": target_at(e, row)}
    for name, field in FACTS.items():
        value = getattr(e, field)
        if isinstance(value, Tensor) and value.dim() == 1:
            found[name] = value[row].item()
    return found


def input_values(e: Explanation) -> list[Tensor] | None:
    """Return the inputs of each row as a row of features, where every feature is one number of them."""
    if e.feature_mask is not None or not isinstance(e.inputs, Tensor) or not isinstance(e.attributions, Tensor):
        return None
    width = feature_values(e)[0].numel()
    return list(e.inputs.reshape(len(e), -1)) if e.inputs[0].numel() == width else None


def column_labels(e: Explanation) -> dict[int, list[str]]:
    """Return the labels of columns of a data frame whose inputs are the labels' numbers, by the column's number."""
    known = e.details.get("labels")
    if not isinstance(known, Mapping) or e.names is None or is_nested(e.names) or input_values(e) is None:
        return {}
    return {j: list(known[name]) for j, name in enumerate(e.names) if name in known}


def label_of(labels: Sequence[object], number: float) -> str:
    """Return the label that a number stands for; of NaN that it is missing."""
    return str(labels[round(number)]) if number == number else NOT_THERE


def feature_errors(e: Explanation) -> list[Tensor] | None:
    """Return the standard errors of the features, where each has one."""
    if e.standard_error is None or (e.feature_mask is not None and not e.whole_features):
        return None
    shape = [t.shape for t in (e.attributions, e.standard_error) if isinstance(t, Tensor)]
    if len(shape) == 2 and shape[0] != shape[1]:
        return None
    return feature_values(e, e.standard_error)


def to_dataframe(e: Explanation, *, long: bool, facts: bool, features: bool) -> pandas.DataFrame:
    """Return the table as a DataFrame, see :meth:`torchwhy.Explanation.to_dataframe`."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("to_dataframe() needs pandas: pip install pandas; to_csv() does without") from error
    columns, lines = table_of(e, long=long, facts=facts, features=features)
    begin = next((k for k in range(len(columns)) if all(type(line[k]) is float for line in lines)), 0)
    if len(columns) - begin < MANY_COLUMNS or any(type(v) is not float for line in lines for v in line[begin:]):
        return pandas.DataFrame(lines, columns=columns)
    rest = pandas.DataFrame(torch.tensor([line[begin:] for line in lines], dtype=torch.double).numpy())
    whole = pandas.concat([pandas.DataFrame([line[:begin] for line in lines]), rest], axis=1)
    return whole.set_axis(columns, axis=1)


def write_csv(e: Explanation, path: str | Path, *, long: bool, facts: bool, features: bool) -> None:
    """Write the table as comma-separated values, see :meth:`torchwhy.Explanation.to_csv`."""
    columns, lines = table_of(e, long=long, facts=facts, features=features)
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(lines)


def as_arrays(value: object) -> object:
    """Return a tensor as an array of NumPy, on the CPU; half precision as single, which NumPy has."""
    return as_array_of(value) if isinstance(value, Tensor) else value


def as_array_of(tensor: Tensor) -> np.ndarray:
    """Return a tensor as an array, see :func:`as_arrays`."""
    t = tensor.detach().cpu()
    return (t.float() if t.dtype == torch.bfloat16 else t).numpy()
