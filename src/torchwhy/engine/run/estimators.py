"""Estimators of scikit-learn's kind: which of their functions is explained, and what its numbers stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from torchwhy.engine.structure import AnyOutput, Output

OF_CLASSES = ("predict_proba", "predict_log_proba", "decision_function")


@dataclass(frozen=True)
class ScoresOfClasses:
    """A classifier's function with a score for each class, where it gives another form.

    Args:
        function: of rows.
        form: what it gives: a single margin of two classes, positive for the second; labels, of which the predicted one gets 1
            and the others 0; or several outputs.
        classes: the labels, of several outputs those of each.
    """

    function: Callable[..., Output]
    form: Literal["margin", "labels", "outputs"]
    classes: tuple[object, ...]

    def __call__(self, *args: object) -> AnyOutput:
        """Return scores ``(M, classes)``, of several outputs a tuple of them."""
        found = self.function(*args)
        if self.form == "labels":
            return self._one_of(np.asarray(found))
        if self.form == "outputs":
            return tuple(found) if isinstance(found, list) else found
        margins = found if isinstance(found, Tensor) else np.asarray(found)
        if margins.ndim != 1:
            return found
        return torch.stack([-margins, margins], 1) if isinstance(margins, Tensor) else np.stack([-margins, margins], 1)

    def _one_of(self, labels: np.ndarray) -> Output:
        if labels.ndim == 2:
            return tuple(_one_hot(column, known) for column, known in zip(labels.T, self.classes))
        return _one_hot(labels, self.classes)


def _one_hot(labels: np.ndarray, classes: object) -> np.ndarray:
    """Return 1 for the class of each label and 0 for the others, ``(M, classes)``."""
    return (labels[:, None] == np.asarray(classes)[None]).astype(np.float64)


@dataclass(frozen=True)
class OutputColumn:
    """The score of a label of one of several outputs, as a target.

    Args:
        output: its number.
        label: the class.
        column: the class's number.
        outputs: how many outputs there are.
    """

    output: int
    label: object
    column: int
    outputs: int

    def __call__(self, output: Output) -> Tensor:
        """Return the scores ``(M,)``.

        Raises:
            ValueError: the model does not give several outputs.
        """
        if isinstance(output, tuple) and len(output) == self.outputs:
            return output[self.output][:, self.column]
        if isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] == self.outputs and self.column < 2:
            second = output[:, self.output]  # the probability of the second of two classes
            return second if self.column else 1 - second
        raise ValueError(f"target: the model does not give {self.outputs} outputs with a score for each class")


def labels_of_estimator(owner: object, name: str) -> tuple[list[object] | None, list[list[object]] | None]:
    """Return the labels of a classifier's outputs, and those of each of several outputs; None where there are none.

    Args:
        owner: whose function it is.
        name: what the function is called.

    Raises:
        ValueError: its scores are of pairs of classes.
    """
    classes = getattr(owner, "classes_", None)
    if classes is None or name not in (*OF_CLASSES, "predict"):
        return None, None
    if isinstance(classes, list):
        return None, [np.asarray(c).tolist() for c in classes]
    found = np.asarray(classes).tolist()
    last = getattr(owner, "best_estimator_", owner)
    last = last.steps[-1][1] if hasattr(last, "steps") else last
    if name == "decision_function" and len(found) > 2 and getattr(last, "decision_function_shape", None) == "ovo":
        raise ValueError(
            "model: with decision_function_shape='ovo' decision_function has a score for each pair of classes, and none for a "
            "class; set it to 'ovr', or pass a function of rows, lambda rows: classifier.decision_function(rows)"
        )
    several = name == "decision_function" and len(found) == 2 and len(np.atleast_2d(getattr(last, "coef_", 0))) > 1
    return (None if several else found), None  # of several labels at a time the columns are these, each there or not


def form_of_scores(
    name: str, classes: Sequence[object] | None, outputs: Sequence[object] | None
) -> Literal["margin", "labels", "outputs"] | None:
    """Return what a classifier's function gives in the place of a score for each class; None where it gives these."""
    if name == "predict":
        return None if classes is None and outputs is None else "labels"
    if outputs is not None:
        return "outputs"
    return "margin" if name == "decision_function" and classes is not None and len(classes) == 2 else None


def of_outputs(outputs: Sequence[Sequence[object]], target: object) -> object:
    """Return a target with :class:`OutputColumn` in the place of the pairs of an output and its label.

    Raises:
        ValueError: an output or a label that there is not.
    """
    if isinstance(target, list):
        return [of_outputs(outputs, t) for t in target]
    if not isinstance(target, tuple) or len(target) != 2 or not isinstance(target[0], int):
        return target
    number, label = target
    if not 0 <= number < len(outputs) or label not in outputs[number]:
        raise ValueError(f"target={target!r}: (output, label), of the model's outputs with the classes {list(outputs)}")
    return _score_of_label(outputs, number, label)


def every_output(outputs: Sequence[Sequence[object]]) -> list[OutputColumn]:
    """Return the target of each label of each output."""
    return [_score_of_label(outputs, number, label) for number, labels in enumerate(outputs) for label in labels]


def _score_of_label(outputs: Sequence[Sequence[object]], number: int, label: object) -> OutputColumn:
    return OutputColumn(number, label, outputs[number].index(label), len(outputs))
