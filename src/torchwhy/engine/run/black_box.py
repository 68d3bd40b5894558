"""Models that are not modules: any callable from arrays to arrays, or an estimator of scikit-learn's kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from torchwhy.engine import state
from torchwhy.engine.copies import copy_holder
from torchwhy.engine.run.black_box_output import is_scores, output_to_tensors, same_scores
from torchwhy.engine.run.estimators import ScoresOfClasses, form_of_scores, labels_of_estimator, of_outputs
from torchwhy.engine.structure import PREDICTING, AnyModel, AnyOutput, Keywords, Model, Output
from torchwhy.engine.torch_internals import COMPILED_MARK
from torchwhy.targets.score_target import ScoreTarget


@dataclass
class BlackBox:
    """A callable that takes and gives NumPy arrays, or tensors, as a function of tensors.

    It is first called with tensors, and with some of the rows as an array: if it can take one of them only, it is called
    with that from then on. If it takes both, both must give the same.

    Args:
        function: the callable.
        arrays: whether it takes arrays; None until that was tried.
        classes: the labels of its outputs, of a classifier; None where they are numbered or not known.
        is_regressor: whether it says of itself that it is a regression.
        to_call: how a tensor becomes what it takes, in the place of an array.
        gradient: whether tensors alone will do, as gradients of the scores are wanted.
        compared: for how many rows tensors and arrays gave the same.
        outputs: the labels of each of several outputs, of a classifier that has several.
        margins: whether the scores are those of ``decision_function``, of which no probabilities follow.
    """

    function: Callable[..., Output]
    arrays: bool | None = None
    classes: list[object] | None = None
    is_regressor: bool = False
    to_call: Callable[[Tensor], object] | None = None
    gradient: bool = False
    compared: int = 0
    outputs: list[list[object]] | None = None
    margins: bool = False

    def __call__(self, *args: object, **kwargs: object) -> AnyOutput:
        """Return the function's output, arrays made tensors on the inputs' device."""
        first = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        m, device = (None, torch.device("cpu")) if first is None else (len(first), first.device)
        if self.arrays is None:
            self.arrays = _remembered(self.function)
        if self.arrays is None:
            return self._try_both(args, kwargs, m, device)
        if self.arrays:
            return output_to_tensors(self._with_arrays(args, kwargs), m, device)
        try:
            out = self._call(*args, **kwargs)
        except RuntimeError as error:
            if "numpy() on Tensor that requires grad" not in str(error):
                raise
            raise TypeError(NO_GRADIENT) from error
        return output_to_tensors(out, m, device)

    def _call(self, *args: object, **kwargs: object) -> Output:
        """Call the function; under rules as it was before ``torch.compile``, which would trace the rules, too."""
        function = self.function if state.rules.mode is None else getattr(self.function, COMPILED_MARK, self.function)
        return function(*args, **kwargs)

    def _with_arrays(self, args: tuple, kwargs: Keywords) -> Output:
        convert = self.to_call or _to_array
        args = tuple(convert(a) if isinstance(a, Tensor) else a for a in args)
        return self._call(*args, **{k: _to_array(v) for k, v in kwargs.items()})

    def _try_both(self, args: tuple, kwargs: Keywords, m: int | None, device: torch.device) -> Output:
        """Return the output, and find out what the function takes.

        Raises:
            ValueError: tensors and arrays give different scores.
        """
        few = None if m is None else min(m, ROWS_TRIED)
        some = (
            _first_rows(args, m),
            dict(zip(kwargs, _first_rows(tuple(kwargs.values()), m))),
        )  # before they are written to
        try:
            out = output_to_tensors(self._call(*args, **kwargs), m, device)
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as tensor_error:
            return self._after_tensors_failed(args, kwargs, m, device, tensor_error)
        try:
            with np.errstate(all="ignore"):
                other = output_to_tensors(self._with_arrays(*_copied(some)), few, device)
        except Exception:
            return self._decided(False, out)
        if not is_scores(other):
            return self._decided(False, out)
        if not is_scores(out) and not self.gradient:  # such as the pair that Tensor.max returns
            self._decided(True, None)
            return output_to_tensors(self._with_arrays(args, kwargs), m, device)
        if not is_scores(out) or same_scores(out, other) or not self._differ(some, other, few, device):
            self.compared += few or ROWS_TRIED
            return self._decided(False, out) if self.compared >= ROWS_TRIED else out
        raise ValueError(
            "model: the function takes tensors and NumPy arrays, and gives different scores for them (std, var, sort and others "
            "mean something else there); say which it is for: tw.NumPyModel(f) or tw.TorchModel(f)"
        )

    def _differ(self, some: tuple[tuple, Keywords], other: Output, few: int | None, device: torch.device) -> bool:
        """Say whether the same rows get other scores as tensors, and not by chance."""
        found = []
        for _ in range(2):
            args, kwargs = _copied(some)
            found.append(output_to_tensors(self.function(*args, **kwargs), few, device))
        return not same_scores(found[0], other) and same_scores(*found)

    def _after_tensors_failed(
        self, args: tuple, kwargs: Keywords, m: int | None, device: torch.device, tensor_error: Exception
    ) -> Output:
        """Return the output for arrays.

        Raises:
            Exception: of the type of the first error, with both.
        """
        if self.gradient and "numpy() on Tensor that requires grad" in str(tensor_error):
            raise TypeError(NO_GRADIENT) from tensor_error
        try:
            out = output_to_tensors(self._with_arrays(args, kwargs), m, device)
        except Exception as array_error:
            both = [f"{type(e).__name__}: {e}" for e in (tensor_error, array_error)]
            if both[0] == both[1] or type(tensor_error) not in PLAIN_ERRORS:
                raise tensor_error from None
            message = f"model: it runs neither on tensors ({both[0]}) nor on NumPy arrays ({both[1]})"
            raise type(tensor_error)(message) from array_error
        if self.gradient:
            raise TypeError(NO_GRADIENT) from tensor_error
        return self._decided(True, out)

    def _decided(self, arrays: bool, out: Output) -> Output:
        """Note what the function takes; return its output."""
        self.arrays = arrays
        with suppress(TypeError):  # no weak references to it
            state.take_arrays[self.function] = arrays
        return out


ROWS_TRIED = 16  # with both tensors and arrays: some functions agree on a row or two
PLAIN_ERRORS = (TypeError, AttributeError, ValueError, RuntimeError, IndexError, AssertionError)
NO_GRADIENT = (
    "model: it works on NumPy arrays, which have no gradient; choose a method that needs none, such as "
    "KernelSHAP, LIME or Occlusion"
)


class NumPyModel(BlackBox):
    """A function of NumPy arrays as a model: called with arrays, also where it would run on tensors.

    Args:
        function: from arrays ``(M, ...)`` to scores, an array, list or data frame ``(M,)`` or ``(M, classes)``.

    >>> import torch, torchwhy as tw
    >>> spread = tw.NumPyModel(lambda a: a.std(axis=1))
    >>> spread(torch.tensor([[1.0, 2.0, 6.0]]))
    tensor([2.1602])
    """

    def __init__(self, function: Callable[..., Output]) -> None:
        super().__init__(_checked(function), arrays=True)


class TorchModel(BlackBox):
    """A function of tensors as a model: called with tensors, also where it would run on NumPy arrays.

    Args:
        function: from tensors ``(M, ...)`` to scores.

    >>> import torch, torchwhy as tw
    >>> spread = tw.TorchModel(lambda t: t.std(1))
    >>> tw.FeatureAblation(spread).attribute(torch.tensor([[0.0, 0.0, 3.0]]))
    tensor([[0.0000, 0.0000, 1.7321]])
    """

    def __init__(self, function: Callable[..., Output]) -> None:
        super().__init__(_checked(function), arrays=False)


def _checked(function: Callable[..., Output]) -> Callable[..., Output]:
    if not callable(function):
        raise TypeError(f"function: expected a callable, got {type(function).__name__}")
    return function


def as_model(model: AnyModel, *, gradient: bool = False) -> AnyOutput:
    """Return ``model`` itself if it is a module, else as a :class:`BlackBox`; a scikit-learn estimator by its probabilities.

    Without these by its ``decision_function``, else by ``predict``; of two classes with one margin the first has its negative.
    With ``gradient`` it must take tensors.

    Raises:
        TypeError: it cannot be called, or works on arrays where a gradient is needed.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, BlackBox):
        if gradient and model.arrays:
            raise TypeError(NO_GRADIENT)
        return model
    chosen = not callable(model)
    if chosen:
        named = next((n for n in PREDICTING if hasattr(model, n)), None)
        if named is None:
            raise TypeError(f"model: expected a module or a callable, got {type(model).__name__}")
        model = getattr(model, named)
    owner, name = getattr(model, "__self__", None), getattr(model, "__name__", "")
    estimator = hasattr(owner, "get_params")
    if gradient and estimator:
        raise TypeError(NO_GRADIENT)
    known = chosen or name != "predict"  # labels that somebody asks for are numbers
    classes, outputs = labels_of_estimator(owner, name) if known else (None, None)
    form = form_of_scores(name, classes, outputs)
    return BlackBox(
        model if form is None else ScoresOfClasses(model, form, tuple(classes or outputs or ())),
        arrays=True if estimator else None,
        classes=classes,
        is_regressor=estimator and name == "predict" and form is None,
        gradient=gradient,
        outputs=outputs,
        margins=name == "decision_function" and classes is not None,
    )


def labels_of(model: Model) -> list[object] | None:
    """Return the labels of a classifier's outputs, where they are not their numbers."""
    classes = model.classes if isinstance(model, BlackBox) else None
    return None if classes is None or classes == list(range(len(classes))) else classes


def has_one_margin(model: Model) -> bool:
    """Say whether a model gives one margin of two classes, which is that of the second, and the negative one of the first."""
    return isinstance(model, BlackBox) and model.margins and len(model.classes or ()) == 2


class ClassColumn(int):
    """The number of an output, found from its label, so that it is not taken for a label again."""


def columns_of_labels(model: Model, target: object) -> Any:
    """Return a target with the numbers of a classifier's outputs in the place of its labels.

    Raises:
        ValueError: a label that it does not have, or a probability of one that has none.
    """
    if isinstance(model, BlackBox) and model.outputs is not None:
        return of_outputs(model.outputs, target)
    classes = model.classes if isinstance(model, BlackBox) else None
    if target is None and has_one_margin(model):
        return ClassColumn(1)
    if classes is None or target is None or isinstance(target, (tuple, ClassColumn)):
        return target
    if isinstance(target, ScoreTarget):
        if has_one_margin(model) and getattr(target, "is_of_probabilities", False):
            raise ValueError(f"target: {type(target).__name__}: {NO_PROBABILITIES}")
        return target if labels_of(model) is None else target.with_classes(partial(columns_of_labels, model))
    values = target.tolist() if hasattr(target, "tolist") else target
    if isinstance(values, list):
        return [columns_of_labels(model, v) for v in values]
    if callable(values) or (values == "predicted" and values not in classes):
        return values
    if type(values) is int and labels_of(model) is None:
        return values
    if not isinstance(values, (str, int, float, bool, *map(type, classes))):
        return target
    if values not in classes:
        raise ValueError(f"target={values!r}: the model's classes are {classes}")
    return ClassColumn(classes.index(values))


NO_PROBABILITIES = (
    "decision_function of two classes has one margin, of which no probabilities follow; give predict_proba, or a calibrated "
    "classifier, or explain the margin by target= a label"
)


def _remembered(function: object) -> bool | None:
    """Return whether a function was seen to take arrays."""
    try:
        return state.take_arrays.get(function)
    except TypeError:
        return None


def _first_rows(values: tuple, m: int | None) -> tuple:
    """Return copies of what belongs to the first of m rows."""
    return tuple(
        copy_holder(v[:ROWS_TRIED] if isinstance(v, Tensor) and v.dim() and len(v) == m else v) for v in values
    )


def _copied(some: tuple[tuple, Mapping[str, object]]) -> tuple[tuple, Keywords]:
    """Return arguments of their own: a function may work in place."""
    args, kwargs = some
    return tuple(map(copy_holder, args)), {k: copy_holder(v) for k, v in kwargs.items()}


def _to_array(value: object) -> Output:
    if not isinstance(value, Tensor):
        return value
    value = value.detach().cpu()
    return value.float().numpy() if value.dtype == torch.bfloat16 else value.numpy()
