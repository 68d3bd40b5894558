"""What a metric is: a function that measures explanations row by row, together with what is known about it."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Generic, Literal, ParamSpec, TypeVar, cast, overload

from torchwhy.arguments import Ragged
from torchwhy.engine.structure import RowList
from torchwhy.settings import Bounds, check_setting, checked_parameters

Arguments = ParamSpec("Arguments")
Measured = TypeVar("Measured")
Needs = Literal["model", "maps", "mask", "method"]
Limit = Annotated[float, Bounds(-math.inf, math.inf)]  # of a metric's values
CALL_DATA = (
    "baselines",
    "feature_mask",
    "additional_forward_args",
    "axes",
)  # what methods and metrics are given besides
ASKED = ("model", "inputs", "attributions", "target", "method", "mask", *CALL_DATA)  # what a metric may ask for by name
UNEVEN = (Ragged, RowList, list, tuple, Mapping)  # that may hold rows of shapes of their own


@dataclass(eq=False, repr=False)
class Metric(Generic[Arguments, Measured]):
    """A function that measures explanations, and what is known about it. Made by :func:`metric`; called as the function.

    Args:
        function: what is called.
        higher_is_better: whether larger values speak for an explanation; None where neither does, or nobody knows.
        range: the smallest and the largest value that it can take.
        paper: where it comes from, ``"arXiv:..."`` or ``"doi:..."``.
        is_binary: whether each value is 1 or 0, so that their mean is a share of the rows.
        sum_channels: whether :func:`torchwhy.compare` sums an image's attributions over the channels first, so that
            methods with and without channels answer one question.
        uses_baselines: whether it has a use for ``baselines``; of a metric that runs the model.
        flipped_by: the setting (name, value) with which the other values speak for an explanation.

    ``parameters`` are those of the function. ``needs`` is what it is called with: ``"method"`` where the method explains
    again, else ``"model"`` where the model is run, else ``"mask"`` where the evidence must be known, else ``"maps"``.
    """

    function: Callable[Arguments, Measured]
    higher_is_better: bool | None
    range: tuple[float, float]
    paper: str
    is_binary: bool
    sum_channels: bool
    uses_baselines: bool
    flipped_by: tuple[str, object] | None
    parameters: Mapping[str, inspect.Parameter] = field(init=False)
    needs: Needs = field(init=False)

    def __post_init__(self) -> None:
        check_setting("higher_is_better", self.higher_is_better, bool | None)
        check_setting("range", self.range, tuple[Limit, Limit])
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range={self.range!r}: expected the smallest value and the largest")
        check_setting("paper", self.paper, str)
        for name in ("is_binary", "sum_channels", "uses_baselines"):
            check_setting(name, getattr(self, name), bool)
        functools.update_wrapper(self, self.function)
        self.parameters = inspect.signature(self.function).parameters
        kinds: tuple[Needs, ...] = ("method", "model", "mask")
        self.needs = next((kind for kind in kinds if kind in self.parameters), "maps")

    def __call__(self, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Measured:
        """Measure: one value for each row, or a :class:`Curve`; rows of shapes of their own as each is alone.

        Raises:
            TypeError, ValueError: settings that their annotations do not allow; and what the function raises.
        """
        given = dict(zip(self.parameters, args)) | kwargs
        for name, hint in self.checked_settings.items():
            if name in given:
                check_setting(name, given[name], hint)
        if any(isinstance(given.get(name), UNEVEN) for name in ("inputs", "attributions")):
            from torchwhy.metrics.uneven_rows import measure_uneven

            found = measure_uneven(self.function, given)
            if found is not None:
                return cast(Measured, found)
        return self.function(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Measured]:
        # a function in a class is a method; and this is what help() knows a function by
        return self if instance is None else types.MethodType(self, instance)

    def __reduce__(self) -> str:
        return self.function.__qualname__  # pickled by its name, as a function is

    def __repr__(self) -> str:
        return f"<metric {self.name}>"

    @property
    def name(self) -> str:
        """The name of the function."""
        return self.function.__name__

    @functools.cached_property
    def checked_settings(self) -> Mapping[str, object]:
        """The annotations by which settings are checked at a call, as those of a method are when it is made."""
        return {name: hint for name, hint in checked_parameters(self.function).items() if name not in ASKED}

    @property
    def takes_any(self) -> bool:
        """Whether the function has ``**options``."""
        return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in self.parameters.values())

    @property
    def required(self) -> list[str]:
        """The parameters that have no default."""
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        return [
            name
            for name, p in self.parameters.items()
            if p.default is inspect.Parameter.empty and p.kind not in variadic
        ]

    def higher_is_better_with(self, settings: Mapping[str, object]) -> bool | None:
        """Tell whether larger values speak for an explanation when the metric is called with these settings."""
        if self.higher_is_better is None or self.flipped_by is None:
            return self.higher_is_better
        name, value = self.flipped_by
        return self.higher_is_better is not (name in settings and settings[name] == value)


@overload
def metric(function: Callable[Arguments, Measured], /) -> Metric[Arguments, Measured]: ...


@overload
def metric(
    *,
    higher_is_better: bool | None = ...,
    range: tuple[float, float] = ...,
    paper: str = ...,
    is_binary: bool = ...,
    sum_channels: bool = ...,
    uses_baselines: bool = ...,
    flipped_by: tuple[str, object] | None = ...,
) -> Callable[[Callable[Arguments, Measured]], Metric[Arguments, Measured]]: ...


def metric(
    function: Callable[Arguments, Measured] | None = None,
    /,
    *,
    higher_is_better: bool | None = None,
    range: tuple[float, float] = (-math.inf, math.inf),
    paper: str = "",
    is_binary: bool = False,
    sum_channels: bool = True,
    uses_baselines: bool = True,
    flipped_by: tuple[str, object] | None = None,
) -> Metric[Arguments, Measured] | Callable[[Callable[Arguments, Measured]], Metric[Arguments, Measured]]:
    """Make a function a metric, which :func:`torchwhy.compare` takes: ``@metric``, or ``@metric(higher_is_better=True)``.

    What the metric is called with is read from the names of the function's parameters: ``model``, ``inputs``,
    ``attributions`` (one tensor, or a tuple or dict of them, as the method gave them), ``target``, ``method`` (with its
    settings, to explain again), ``mask`` (where the evidence is), ``baselines``, ``feature_mask``,
    ``additional_forward_args``; those that have a default are left at it where there is nothing to give. A function with
    ``**options`` gets the last three with the others. Its own settings need a default, and are set through
    ``functools.partial``; they are checked by their annotations (``float``, ``bool``, ``Literal`` and so on), where they have
    such, as those of methods are. It returns a tensor of one number for each row, NaN where nothing can be said, or a
    :class:`Curve`.

    Args:
        function: what is called.
        higher_is_better, range, paper, is_binary, sum_channels, uses_baselines, flipped_by: what is known about it, see
            :class:`Metric`.

    Raises:
        TypeError: something that is no function.
        ValueError: facts that are none, as a range whose smallest value is the largest.

    >>> import torch
    >>> @metric(higher_is_better=False, range=(0, 1))
    ... def share_outside(attributions, mask):
    ...     size = attributions.abs().sum(1)
    ...     return (size * ~mask).sum((1, 2)) / size.sum((1, 2))
    >>> share_outside(torch.ones(1, 3, 2, 2), torch.tensor([[[True, False], [False, False]]]))
    tensor([0.7500])
    >>> share_outside.needs
    'mask'
    """

    def with_facts(function: Callable[Arguments, Measured]) -> Metric[Arguments, Measured]:
        if not callable(function):
            raise TypeError(f"metric: expected a function, got {type(function).__name__}; give facts by name")
        return Metric(
            function, higher_is_better, range, paper, is_binary, sum_channels, uses_baselines, flipped_by
        )  # fmt: skip

    return with_facts if function is None else with_facts(function)
