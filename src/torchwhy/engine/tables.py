"""NumPy arrays and data frames in the place of tensors: what a model gets of them, and what their columns are called."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from torchwhy.baselines import Distribution
from torchwhy.engine.axes import axes_in_words
from torchwhy.engine.run.black_box import BlackBox, as_model, labels_of
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import AnyForm, AnyModel, InForm, Keywords, Model, flatten, map_nested

if TYPE_CHECKING:
    from torchwhy.problem import Problem


class Frame(Protocol):
    """A data frame of pandas, or of another library that has its columns."""

    @property
    def columns(self) -> Iterable:
        """The names of the columns."""

    def __getitem__(self, name: Hashable, /) -> Any:
        """Return a column."""


def is_frame(value: object) -> TypeGuard[Frame]:
    """Say whether a value is a data frame, of pandas or another library that has its ``columns`` and ``to_numpy``."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy") and hasattr(value, "dtypes")


def holds_tables(inputs: object) -> bool:
    """Say whether inputs are, or hold, NumPy arrays or data frames."""
    if isinstance(inputs, (Tensor, nn.Module)) or hasattr(inputs, "masked"):
        return False
    return any(isinstance(v, np.ndarray) or is_frame(v) for v in flatten(inputs)[0])


def column_names(inputs: object) -> list[str] | None:
    """Return what the columns of a data frame are called; None of anything else."""
    return [str(c) for c in getattr(inputs, "columns", ())] if is_frame(inputs) else None


def class_names(model: Model) -> list[str] | None:
    """Return what the outputs of a classifier are called, where it has labels that are not their numbers."""
    classes = labels_of(model)
    return None if classes is None else list(map(str, classes))


def mask_of_columns(groups: Mapping[str, Sequence[str]], columns: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Return the number of the feature of each column ``(d,)``, and what the features are called, from columns in named groups.

    A column in no group is a feature by itself.

    Raises:
        ValueError: a column that there is not, or that is in two groups.

    >>> mask_of_columns({"person": ["age", "job"]}, ["age", "pay", "job"])
    (tensor([0, 1, 0]), ['person', 'pay'])
    """
    group: dict[str, str] = {}
    for name, members in groups.items():
        for column in [members] if isinstance(members, str) else members:
            if str(column) not in columns:
                raise ValueError(f"feature_mask: no column {column!r}; there are {', '.join(map(repr, columns))}")
            if str(column) in group:
                raise ValueError(f"feature_mask: column {column!r} is in two groups")
            group[str(column)] = str(name)
    called = [group.get(column, column) for column in columns]
    names = list(dict.fromkeys(called))
    return torch.tensor([names.index(name) for name in called]), names


def features_by_name(inputs: object, mask: InForm) -> tuple[AnyForm, list[str] | None]:
    """Return a feature mask as numbers, of a data frame also from columns in named groups, and what the features are called."""
    columns = column_names(inputs)
    if columns is not None and isinstance(mask, Mapping):
        return mask_of_columns(mask, columns)
    return mask, columns if mask is None else None


def explained_inputs(inputs: object, problem: Problem) -> InForm:
    """Return what was explained: the inputs as they were given, with tensors in the place of arrays, frames and samples."""
    if problem.sample is not None:
        return problem.sample.sample.tensors
    return flatten(inputs)[1].restore(problem.inputs.tensors) if holds_tables(inputs) else inputs


def facts_of_inputs(problem: Problem) -> Keywords:
    """Return unusual ``axes`` of the inputs, and the ``labels`` of columns of a data frame whose numbers stand for them."""
    categories = {} if problem.table is None else problem.table.categories
    labels = {str(name): [str(label) for label in known] for name, known in categories.items()}
    return axes_in_words(problem) | ({"labels": labels} if labels else {})


def explained_names(inputs: object, problem: Problem) -> AnyForm:
    """Return what the features are called, where the inputs say so: a sample's features, the columns of a data frame."""
    if problem.sample is not None:
        return problem.sample.names
    if problem.feature_mask is not None and problem.columns is not None:
        return problem.columns if problem.columns != column_names(inputs) else None  # those of its groups
    return column_names(inputs) if problem.feature_mask is None and not problem.input_layers else None


@dataclass(frozen=True)
class FrameForm:
    """How a data frame becomes numbers and back: a category is its number among the column's.

    Args:
        columns: the names.
        dtypes: the types, by name.
        categories: the labels of columns that are no numbers, by name.
    """

    columns: list[Hashable]
    dtypes: dict[Hashable, object]
    categories: dict[Hashable, list[Hashable]]

    @property
    def labels(self) -> dict[int, list[Hashable]]:
        """The labels of columns that are no numbers, by the column's number."""
        return {self.columns.index(name): labels for name, labels in self.categories.items()}

    @property
    def whole(self) -> list[int]:
        """The numbers of the columns whose type is one of whole numbers, or true and false."""
        return [i for i, name in enumerate(self.columns) if getattr(self.dtypes[name], "kind", "f") in "biu"]

    @property
    def texts(self) -> list[int]:
        """The numbers of the columns whose labels are no more than those that were seen."""
        return [i for i in self.labels if not hasattr(self.dtypes[self.columns[i]], "categories")]

    @property
    def movable(self) -> Tensor:
        """Which columns can be moved a little, ``(d,)``, 1 or 0: those of numbers, not labels nor true and false."""
        fixed = {i for i, name in enumerate(self.columns) if getattr(self.dtypes[name], "kind", "f") == "b"} | set(
            self.labels
        )
        return torch.tensor([i not in fixed for i in range(len(self.columns))], dtype=torch.float)

    def value(self, column: int, number: float) -> Hashable:
        """Return what a number of a column stands for: its label, None where it is missing, or the number itself."""
        if number != number:
            return None
        return self.labels[column][round(number)] if column in self.labels else number

    def numbers(self, value: AnyForm, missing: float) -> AnyForm:
        """Return a series with an entry for each column as a tensor ``(d,)``, labels as ``missing``; anything else as it is."""
        if not (hasattr(value, "index") and hasattr(value, "to_numpy")):
            return value
        there = [c for i, c in enumerate(self.columns) if i not in self.labels and c in value.index]
        return torch.tensor([float(value[c]) if c in there else missing for c in self.columns], dtype=torch.double)

    @classmethod
    def of(cls, frame: Frame, *others: Frame) -> FrameForm:
        """Return the form of a data frame; ``others`` have the same columns, and may hold further labels.

        Raises:
            ValueError: two columns of one name.
        """
        categories: dict[Hashable, list[Hashable]] = {}
        names = list(frame.columns)
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"inputs: column {twice!r} twice; give each a name of its own")
        others = tuple(other for other in others if list(other.columns) == names)  # others are refused by encode
        for name in names:
            kind = frame[name].dtype
            if hasattr(kind, "categories"):
                categories[name] = list(kind.categories)
            elif getattr(kind, "kind", "O") not in "biuf":
                seen = [v for f in (frame, *others) for v in f[name].tolist() if not _is_missing(v)]
                categories[name] = sorted(set(seen), key=str)
        return cls(list(frame.columns), {name: frame[name].dtype for name in frame.columns}, categories)

    def encode(self, frame: AnyForm, name: str) -> Tensor:
        """Return a data frame as numbers ``(N, d)``, missing values as NaN.

        Raises:
            ValueError: other columns, or a label that the first frame has not.
        """
        if list(frame.columns) != self.columns:
            raise ValueError(f"{name}: the columns are {list(frame.columns)}, those of the inputs {self.columns}")
        parts = []
        for column in self.columns:
            values = frame[column].tolist()
            if column in self.categories:
                number = {label: i for i, label in enumerate(self.categories[column])}
                unknown = [v for v in values if not _is_missing(v) and v not in number]
                if unknown:
                    raise ValueError(
                        f"{name}: {unknown[0]!r} in column {column!r}, where the inputs have {list(number)}"
                    )
                values = [number.get(v, float("nan")) for v in values]
            parts.append([float("nan") if _is_missing(v) else float(v) for v in values])
        return torch.tensor(parts, dtype=torch.double).T.contiguous()

    def decode(self, values: Tensor, like: object = None) -> AnyForm:
        """Return numbers ``(M, d)`` as a data frame of this form; ``like`` has the rows' names, each as often as it fits."""
        import pandas

        frame = {}
        for column, numbers in zip(self.columns, values.detach().double().cpu().T.numpy()):
            kind, there = self.dtypes[column], ~np.isnan(numbers)
            if column in self.categories:
                labels = np.array([*self.categories[column], None], dtype=object)
                index = np.where(there, numbers, len(labels) - 1).round().astype(int)
                wrong = index[there & ((index < 0) | (index >= len(labels) - 1))]
                if len(wrong):
                    raise ValueError(
                        f"inputs, baselines: column {column!r} holds labels, and none has the number {wrong[0]}; labels cannot "
                        "be moved, and what stands for an absent one is a label of a row"
                    )
                numbers = pandas.array(labels[index], dtype=kind) if hasattr(kind, "categories") else labels[index]
            elif getattr(kind, "kind", "f") in "biu" and (numbers == numbers.round())[there].all():
                if not isinstance(kind, np.dtype):  # those of pandas, which hold missing values
                    numbers = pandas.array(numbers.astype(object), dtype=kind)
                    numbers[~there] = pandas.NA
                elif there.all():
                    numbers = numbers.astype(kind)
            frame[column] = numbers
        index = getattr(like, "index", None)
        index = None if index is None else index.repeat(len(values) // len(index))
        return pandas.DataFrame(frame, columns=self.columns).set_axis(
            index if index is not None else range(len(values))
        )


def movable_columns(problem: Problem) -> Tensor | None:
    """Return which columns of a data frame noise is added to, ``(d,)``, 1 or 0; None where the inputs are none.

    Raises:
        TypeError: none of them is one of numbers.
    """
    movable = None if problem.table is None else problem.table.movable
    if movable is not None and not movable.any():
        raise TypeError("inputs: every column holds labels, or true and false, which cannot be moved a little")
    return movable


def frame_form(inputs: object, *others: object) -> FrameForm | None:
    """Return the form of a data frame, None of anything else; ``others``, if they are frames too, may hold further labels."""
    if not is_frame(inputs):
        return None
    data = [other.data if isinstance(other, Distribution) else other for other in others]
    return FrameForm.of(inputs, *(frame for frame in data if is_frame(frame)))


def warn_of_labels(form: FrameForm) -> None:
    """Warn that a column of labels has its first label where no baselines are given: no label stands for absence."""
    name, labels = next(iter(form.categories.items()))
    warn(
        f"baselines: column {name!r} holds labels, and what stands for an absent one is the first of them, "
        f"{str(next(iter(labels), None))!r}; give rows, tw.Distribution(frame) or one row of a frame"
    )


def as_tensors(
    model: Model, inputs: object, baselines: object = None, form: FrameForm | None = None
) -> tuple[AnyModel, AnyForm, AnyForm]:
    """Return the model, the inputs and the baselines, with tensors in the place of arrays and of data frames of a form.

    A module gets tensors of its parameters' type; other models get what was given: arrays, or data frames with the same
    columns, types and labels.
    """
    if form is not None:
        background = baselines.data if isinstance(baselines, Distribution) else baselines
        tensor = _in_type_of(model, form.encode(inputs, "inputs"))
        if is_frame(background):
            rows = form.encode(background, "baselines").to(tensor)
            baselines = replace(baselines, data=rows) if isinstance(baselines, Distribution) else rows
        if isinstance(model, nn.Module):
            return model, tensor, baselines
        box = as_model(model)
        return (
            (box if box.arrays is False else replace(_plain(box), arrays=True, to_call=form.decode)),
            tensor,
            baselines,
        )
    return model, _to_tensors(inputs, model), _to_tensors(baselines, model) if _holds_arrays(baselines) else baselines


def _plain(box: BlackBox) -> BlackBox:
    """Return a black box of the base class."""
    kept = {f.name: getattr(box, f.name) for f in fields(BlackBox)}
    return BlackBox(**kept)


def _to_tensors(value: object, model: Model) -> InForm:
    """Return what holds arrays with tensors in their place."""

    def of_part(part: object) -> object:
        is_array = isinstance(part, np.ndarray)
        return _in_type_of(model, torch.from_numpy(np.ascontiguousarray(part))) if is_array else part

    parts, structure = flatten(value)
    found = (map_nested(of_part, part) for part in parts)
    return structure.restore([tuple(part) if isinstance(part, list) else part for part in found])


def _holds_arrays(value: object) -> bool:
    return any(isinstance(v, np.ndarray) for v in flatten(value)[0])


def _in_type_of(model: Model, values: Tensor) -> Tensor:
    """Return floats in the type, and all on the device, of a module's parameters."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    like = next((p for p in parameters if p.is_floating_point()), None)
    if like is None:
        return values
    return values.to(like.device, like.dtype) if values.is_floating_point() else values.to(like.device)


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
