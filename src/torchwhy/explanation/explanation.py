"""The result of a method: attributions with their context."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.engine.structure import AnyForm, InForm, Keywords, flatten, map_nested
from torchwhy.explanation.features import (
    Names,
    axes_of_explanation,
    check_names,
    feature_values,
    in_usual_layout,
    pixel_maps,
)
from torchwhy.explanation.files import SAVED_TENSORS, read_explanation, write_explanation
from torchwhy.explanation.rows import RowIndex, select_rows
from torchwhy.explanation.uneven import is_uneven, row_as_tensors, shape_in_words, tensors_by_name

if TYPE_CHECKING:
    import numpy as np
    import pandas
    from matplotlib.figure import Figure

    from torchwhy.provenance import ModelHash


@dataclass(kw_only=True, eq=False)
class Explanation:
    """Attributions, and what can be said about them.

    ``len(e)`` is the number of rows; ``e[3]``, ``e[3:7]``, ``e[[0, 4]]`` are explanations of these rows, and iterating gives
    one for each row; :func:`torchwhy.concat` puts them together. ``e - other`` is the difference of two of the same features.
    Rows that are picked have their share of the call's evaluations and seconds, the mean over its rows: exact where each row
    takes as many, as it does without a ``tolerance``.

    Args:
        attributions: tensors in the form of the inputs, or of the layer.
        inputs: what was explained; None where it was saved without.
        target: the target as it was resolved.
        method: the method's name.
        settings: its settings that differ from the defaults.
        evaluations: rows that went through the model for all rows here, of a forward pass with or without a backward pass,
            also to find a layer; of picked rows their share, rounded.
        seconds: wall-clock time for all rows here; of picked rows their share.
        completeness_gap: ``(N,)``, \\|sum of the attributions − change of the score\\|, in the units of the score; None where
            a method promises no such sum.
        standard_error: of each attribution, in the attributions' form, for methods that sample; infinite or NaN where it is not
            known.
        details: further facts that a method reports; ``neutral`` is the value (N, maps) that stands for no influence in
            maps where that is not zero.
        scores: ``(N,)``, what is explained: the model's score of each row.
        base_scores: ``(N,)``, the score at the baseline, the mean over several; None where a method takes no baselines.
        probabilities: ``(N,)``, of the class that is explained, by softmax over the outputs; None where the target is no
            class.
        rounding: ``(N,)``, how far scores of their size move by rounding alone, where attributions are differences of scores:
            pictures draw what is not larger as nothing.
        names: of the features: a list for all rows, or one for each row; see :meth:`with_names`.
        classes: names of the model's outputs.
        feature_mask: which elements are one feature, as it was given.
        whole_features: whether every element has the whole value of its feature, as in perturbation and Shapley methods,
            rather than a share of it, as in gradients.
        provenance: where this comes from: the versions of ``torchwhy`` and ``torch``, ``date`` (UTC), the class of the
            ``model``, ``baselines`` as given, in words, and the ``seed``: the one that was drawn, where none was given.
        parameters: what makes :attr:`model_hash`.

    Raises:
        ValueError: another number of names than of features.
    """

    attributions: AnyForm
    inputs: AnyForm = None
    target: Any = None
    method: str = ""
    settings: Keywords = field(default_factory=dict)
    evaluations: int = 0
    seconds: float = 0.0
    completeness_gap: Tensor | None = None
    standard_error: AnyForm = None
    details: Keywords = field(default_factory=dict)
    scores: Tensor | None = None
    base_scores: Tensor | None = None
    probabilities: Tensor | None = None
    rounding: Tensor | None = None
    names: Names = None
    classes: Sequence[str] | None = None
    feature_mask: AnyForm = None
    whole_features: bool = False
    provenance: Keywords = field(default_factory=dict)
    parameters: ModelHash | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.feature_mask is not None and not is_uneven(self.attributions):
            self.feature_mask = map_nested(torch.as_tensor, self.feature_mask)
        check_names(self)

    def __len__(self) -> int:
        return len(flatten(self.attributions)[0][0])

    def __getitem__(self, rows: RowIndex) -> Explanation:
        return select_rows(self, rows)

    def __iter__(self) -> Iterator[Explanation]:
        return (self[i] for i in range(len(self)))

    def __sub__(self, other: Explanation) -> Explanation:
        """Return the difference of two explanations of the same features: why this target, and not that one.

        Attributions, ``scores`` and ``base_scores`` are subtracted, and the completeness gap is that of the differences. Of
        a method that is linear in the score (gradients, Shapley values from the same coalitions, ablation) it is the
        explanation of the difference of the scores, of others the difference of two explanations and no more. Standard errors
        are added: no less than the error of the difference, whether both were drawn alike or not.

        Args:
            other: of the same method, settings, rows, names, feature mask and baselines; the target, the response and the
                model may differ.

        Raises:
            ValueError: one that is not, or rows of several shapes.

        >>> import torchwhy as tw
        >>> method = tw.InputXGradient(torch.nn.Identity())
        >>> x = torch.tensor([[1.0, 2.0]])
        >>> (method.explain(x, 1) - method.explain(x, 0)).attributions
        tensor([[-1.,  2.]])
        """
        from torchwhy.explanation.difference import subtract

        return subtract(self, other) if isinstance(other, Explanation) else NotImplemented

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        from torchwhy.explanation.table import as_array_of

        array = as_array_of(_only(self.attributions))
        return array if dtype is None else array.astype(dtype)

    def __repr__(self) -> str:
        return f"Explanation({', '.join(f'{k}={v}' for k, v in self.summary().items())})"

    def summary(self) -> Keywords:
        """Return the facts on one line each: method, target, shapes, evaluations, seconds, gap."""
        facts: Keywords = {"method": self.method, **self.settings, "target": _short(self.target)}
        if self.classes is not None and isinstance(self.target, int):
            facts["class"] = self.classes[self.target]
        facts["shape"] = ", ".join(map(shape_in_words, flatten(self.attributions)[0]))
        facts["evaluations"], facts["seconds"] = self.evaluations, round(self.seconds, 3)
        if self.completeness_gap is not None:
            facts["completeness_gap"] = f"{float(self.completeness_gap.max()):.3g}"
        return facts

    @property
    def shown(self) -> AnyForm:
        """The attributions as pictures show them: less the neutral value, where that is not zero."""
        neutral = self.details.get("neutral")
        if not isinstance(self.attributions, Tensor) or not isinstance(neutral, Tensor):
            return self.attributions
        maps, axes = self.attributions, axes_of_explanation(self)
        shape = [len(maps), -1, *[1] * (maps.dim() - 2)]
        return maps - neutral.to(maps).view(shape).movedim(1, 1 if axes is None else axes.channels or 1)

    @property
    def model_hash(self) -> str | None:
        """The SHA-256 of the model's parameters and buffers, made when it is first asked for, or saved.

        None for models that are no modules, and where the parameters were changed, or the model is gone, before that.
        """
        if "parameters" not in self.provenance and self.parameters is not None:
            self.provenance["parameters"] = self.parameters.value()
        return self.provenance.get("parameters")

    def features(self) -> list[Tensor]:
        """Return one number for each feature: for each row a tensor ``(d,)``, d being its number of features.

        With a feature mask, a feature's value is taken once, where all its elements have it (``whole_features``), else the
        shares of its elements are added up. Without, every element of the attributions is a feature; of tokens, whose
        embeddings are explained, every token. Less the neutral value, as :attr:`shown`.
        """
        return feature_values(self)

    def with_names(self, names: Names = None, classes: Sequence[str] | None = None) -> Explanation:
        """Return the explanation with names for its features, for the model's outputs, or both.

        Args:
            names: a string for each feature, or for each element where a feature mask groups them; or such a list for each
                row. None keeps those that there are.
            classes: a string for each output. None keeps those that there are.

        Raises:
            ValueError: another number of names than of features.
        """
        return replace(self, names=self.names if names is None else names, classes=classes or self.classes)

    def to(self, device: torch.device | str | int) -> Explanation:
        """Return the explanation with all its tensors on a device."""

        def move(value: object) -> object:
            return value.to(device) if isinstance(value, Tensor) else value

        moved = {name: _mapped(move, getattr(self, name)) for name in (*SAVED_TENSORS, "details", "target")}
        return replace(self, **moved)

    def numpy(self) -> AnyForm:
        """Return the attributions as NumPy arrays, in their form: an array, a tuple or a dict of them."""
        from torchwhy.explanation.table import as_arrays

        return _mapped(as_arrays, self.attributions)

    def to_dataframe(
        self, names: Names = None, *, long: bool = False, facts: bool = False, features: bool = True
    ) -> pandas.DataFrame:
        """Return the attributions of all :meth:`features` as a table of pandas, one line a row, the columns by name.

        Args:
            names: of the features; None takes :attr:`names`, and where there are none, their numbers. Where rows have
                names of their own, columns are numbered, and a row with fewer features ends in NaN.
            long: one line for each row and feature instead: ``row``, ``feature``, ``value`` (that of the input, where a
                feature is one number), ``attribution`` and ``standard_error`` (where there is one).
            facts: also ``target``, ``score``, ``base_score``, ``probability`` and ``gap`` (the completeness gap), where
                they are known.
            features: False leaves the attributions out: the facts alone, as to look for the worst rows of many images.

        Raises:
            ImportError: there is no pandas; :meth:`to_csv` does without.
            ValueError: another number of names than of features; a long table without features.
        """
        from torchwhy.explanation.table import to_dataframe

        return to_dataframe(self.with_names(names), long=long, facts=facts, features=features)

    def to_csv(
        self,
        path: str | Path,
        names: Names = None,
        *,
        long: bool = False,
        facts: bool = False,
        features: bool = True,
    ) -> None:
        """Write what :meth:`to_dataframe` returns to a file of comma-separated values.

        Raises:
            OSError: the file cannot be written.
            ValueError: another number of names than of features.
        """
        from torchwhy.explanation.table import write_csv

        write_csv(self.with_names(names), path, long=long, facts=facts, features=features)

    @property
    def maps(self) -> Tensor | None:
        """What pictures draw of images, ``(N, maps, ...)``: a map for each row, or for each class; None for several tensors.

        Channels are summed, and where one feature lies on several of them, its value counts once.
        """
        return pixel_maps(in_usual_layout(self))

    def plot(self, row: int | None = None, **options: Any) -> Figure:
        """Draw what the attributions are: maps of images, lines of series, bars of features, texts in their order.

        Args:
            row: the row that is drawn; None draws all images, or the first row of anything else, and says which.
            options: handed to the picture, see :func:`torchwhy.visualize.plot`; ``kind`` chooses one.

        Raises:
            IndexError: a row that is not there.
            ValueError: attributions of a shape that no picture fits.
        """
        from torchwhy.visualize import plot

        if is_uneven(self.attributions):
            return plot(row_as_tensors(self, row or 0), row=0, **options)
        return plot(self, row=row, **options)

    def overlay(self, row: int = 0, **options: Any) -> Figure:
        """Draw a row's map over its image.

        Args:
            row: which.
            options: handed to :func:`torchwhy.visualize.overlay`.
        """
        from torchwhy.visualize import overlay

        return overlay(_only(self.inputs)[row], self[row], **options)

    def to_html(self, path: str | Path, title: str | None = None) -> Path:
        """Write a page to look into the explanation with, one file without network; see :func:`torchwhy.visualize.page`.

        Args:
            path: of the file.
            title: above everything; None is the method's name.

        Raises:
            OSError: the file cannot be written.
        """
        from torchwhy.visualize import page

        return page({self.method or "attributions": self}, path, title=title or self.method or "Why?")

    def _repr_html_(self) -> str:
        """Return the notebook view: the picture, where there is one, above the facts."""
        from torchwhy.visualize import to_html

        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(str(k))}</th><td>{html.escape(str(v))}</td></tr>"
            for k, v in self.summary().items()
        )
        table = f"<table>{rows}</table>"
        try:
            return to_html(self.plot(), alt=repr(self)) + table
        except (TypeError, ValueError):  # no picture for this shape: the facts alone
            return table

    def save(self, path: str | Path, *, inputs: bool = True) -> None:
        """Write everything to a ``safetensors`` file, the model's hash too.

        Targets and settings that are not plain data are kept as text.

        Args:
            path: of the file.
            inputs: also write what was explained; False keeps it out, as for data of patients.

        Raises:
            OSError: the file cannot be written.
        """
        write_explanation(self, path, inputs=inputs)

    @classmethod
    def load(cls, path: str | Path) -> Explanation:
        """Read what :meth:`save` wrote.

        Raises:
            OSError: there is no such file.
            ValueError: the file was not written by :meth:`save`, or was damaged since.
        """
        fields = read_explanation(path)
        try:
            return cls(**fields)
        except (
            TypeError,
            ValueError,
            AttributeError,
            LookupError,
            RuntimeError,
        ) as error:  # parts that do not fit one another
            raise ValueError(f"{path}: not an explanation written by save() ({error})") from error


def _mapped(function: Callable[[object], object], value: object) -> AnyForm:
    """Return a result with the function applied to its tensors."""
    return map_nested(function, dict(value) if isinstance(value, Mapping) else value)


def _only(value: InForm) -> AnyForm:
    """Return the only tensor of a result, or None where there is none.

    Raises:
        ValueError: there are several.
    """
    tensors = tensors_by_name(value)
    if len(tensors) > 1:
        raise ValueError(f"a picture shows one tensor, this explanation has {len(tensors)}: pick one of .attributions")
    return next(iter(tensors.values()), None)


def _short(target: object) -> str:
    """Return a target in less than 60 characters."""
    text = str(target.tolist() if isinstance(target, torch.Tensor) else target)
    return text if len(text) < 60 else text[:57] + "..."
