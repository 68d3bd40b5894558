"""What is explained: one scalar per row of the model's output."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from torchwhy.baselines import AtLayer, Baseline
from torchwhy.engine.layers.layer import Layer, LayerLike
from torchwhy.engine.structure import AnyOutput, Output, named_parts
from torchwhy.targets.calling import OnePerRow, RowsOf, Scorer, ScorerOfOutput, call_scorer, takes_rows
from torchwhy.targets.score_target import ScoreTarget

Place = int | str  # an index, or "predicted"
Index = int | tuple[Place, ...]


@dataclass(frozen=True)
class Neuron:
    """A unit inside the model as the target.

    Args:
        layer: the layer, by name, as a module or as :class:`torchwhy.Layer`.
        index: the unit: an int, a tuple (channel, row, column), or a callable activations ``(N, ...)`` → ``(N,)``, also
            ``(activations, rows)``.
    """

    layer: LayerLike
    index: Index | Scorer

    def __post_init__(self) -> None:
        if not isinstance(self.layer, (str, nn.Module, Layer)):
            raise TypeError(f"layer={self.layer!r}: expected a layer's name, a module or tw.Layer")
        if not callable(self.index):
            _as_index(self.index, "index")


TargetLike = int | Sequence[Index | Scorer] | Tensor | np.ndarray | tuple | Scorer | Neuron | str | None


def find_logits(output: Output) -> Tensor:
    """Return the logits in a model's output: the tensor itself, ``.logits``, or the only tensor of a dict, tuple or object.

    Raises:
        TypeError: no tensor, or several and none called ``logits``.
    """
    if isinstance(output, Tensor):
        return output
    tensors = {k: v for k, v in named_parts(output).items() if isinstance(v, Tensor)}
    if "logits" in tensors:
        return tensors["logits"]
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    raise TypeError(
        f"the model returned a {type(output).__name__} with the tensors {list(tensors)}: "
        "pass a callable target that takes the whole output and returns one score per row"
        + ("; of a classifier with several outputs (output, label)" if isinstance(output, tuple) else "")
    )


def logits_per_row(output: Output, m: int) -> Tensor:
    """Return the logits in a model's output for m rows; a number alone, as ``squeeze`` leaves it, is that of a single row.

    Raises:
        TypeError: as for :func:`find_logits`.
        ValueError: another number of rows.
    """
    out = output if isinstance(output, Tensor) else find_logits(output)
    if out.dim() == 0 and m == 1:
        return out[None]
    if out.dim() == 0 or len(out) != m:
        raise ValueError(
            f"the model was given {m} rows and returned an output of shape {tuple(out.shape)}: "
            "the first dimension must be the rows, one score or more for each; a loss is to be of each row, as "
            "reduction='none' gives it"
        )
    return out


@dataclass(frozen=True)
class Target:
    """A target in its checked form; ``select(output, rows)`` gives the scores ``(M,)``.

    ``index`` is None, one index for all rows, or a LongTensor ``(N, depth)`` with one per row; ``largest`` and ``lowest`` the
    largest and the lowest of each depth.
    """

    index: tuple[int, ...] | Tensor | None = None
    largest: tuple[int, ...] = ()
    lowest: tuple[int, ...] = ()
    function: Scorer | None = None
    with_rows: bool = False
    neuron: Neuron | None = None
    given: Any = None

    @classmethod
    def parse(cls, target: TargetLike, n: int, device: torch.device) -> Target:
        """Check ``target`` for ``n`` rows.

        Raises:
            TypeError: not one of the forms of a target.
            ValueError: not one index per row, or a negative index.
        """
        if target is None:
            return cls()
        if type(target) is int and target >= 0:
            return cls((target,), (target,), (target,), given=target)
        if isinstance(target, Neuron):
            if callable(target.index):
                return replace(cls._of_callable(target.index, n), neuron=target, given=target)
            return replace(cls.at(_as_index(target.index)), neuron=target, given=target)
        if isinstance(target, Tensor):
            if target.is_floating_point() or target.dtype == torch.bool or target.dim() > 1:
                raise TypeError(
                    f"target: expected class indices as a 1-D integer tensor, got {target.dtype} of shape "
                    f"{tuple(target.shape)}{_or_baselines(target)}"
                )
            target = target.tolist()
        if callable(target):
            return cls._of_callable(target, n)
        if isinstance(target, list) or (hasattr(target, "tolist") and hasattr(target, "__len__")):
            return cls._one_per_row(target if isinstance(target, list) else target.tolist(), n, device, given=target)
        return replace(cls.at(_as_index(target)), given=target)

    @classmethod
    def at(cls, index: tuple[int, ...]) -> Target:
        """Return the target that is one index for all rows."""
        return cls(index, index, index, given=index)

    @classmethod
    def _of_callable(cls, function: Scorer, n: int) -> Target:
        """Return the checked target of a callable."""
        if isinstance(function, ScoreTarget):
            return cls(function=function.for_rows(n), with_rows=True, given=function)
        with_rows = takes_rows(function)
        scorer = function if with_rows or n == 1 else ScorerOfOutput(function, n)
        return cls(function=scorer, with_rows=with_rows or n > 1, given=function)

    @classmethod
    def _one_per_row(cls, each: list, n: int, device: torch.device, given: TargetLike) -> Target:
        """Return the checked target of a list with a target for each row: indices, or callables among them."""
        called = any(map(callable, each))
        items = each if called else [_as_index(t) for t in each]
        if len(items) != n:
            raise ValueError(
                f"target: {len(items)} {'targets' if called else 'indices'} given for {n} rows; give one for all rows or one "
                "per row"
            )
        if called:
            parsed = tuple(cls.parse(t, n, device) for t in items)
            return cls(function=OnePerRow(parsed), with_rows=True, given=given)
        if len({len(t) for t in items}) != 1:
            raise ValueError("target: the indices of the rows must all have the same number of dimensions")
        by_depth = list(zip(*items))
        bounds = tuple(map(max, by_depth)), tuple(map(min, by_depth))
        return cls(torch.tensor(items, device=device), *bounds, given=given)

    def select_rows(self, rows: Tensor) -> TargetLike:
        """Return the same target, in a form that a caller could have given, for the chosen rows."""
        if self.with_rows:
            chosen_rows = RowsOf(replace(self, neuron=None), rows)
            return chosen_rows if self.neuron is None else Neuron(self.neuron.layer, chosen_rows)
        if not isinstance(self.index, Tensor):
            return self.given
        chosen = self.index[rows].tolist()
        return [t[0] if len(t) == 1 else tuple(t) for t in chosen]

    def select(self, output: AnyOutput, rows: Tensor) -> Tensor:
        """Return one score per row.

        Args:
            output: what the model (or the neuron's layer) gave for M rows.
            rows: LongTensor ``(M,)``, the original row of each.

        Raises:
            ValueError: a wrong number of rows, an index out of range, or no single score per row.
        """
        m = rows.shape[0]
        if self.function is not None:
            return call_scorer(self.function, output, rows, with_rows=self.with_rows)
        out, shape = output, output.shape if isinstance(output, Tensor) else ()
        if shape[:1] != (m,):
            out = logits_per_row(output, m)
            shape = out.shape
        if self.index is None:
            if math.prod(shape) != m:
                raise ValueError(
                    f"target: the output has shape {tuple(shape)}, more than one score per row; give target="
                    "an int (a class), one int per row, a tuple, a callable, or 'predicted'; "
                    "attribute_each(inputs, targets) explains several at once"
                )
            return out.reshape(m)
        if len(self.largest) != len(shape) - 1:
            self._refuse_index(out)
        for low, high, size in zip(self.lowest, self.largest, shape[1:]):
            if high >= size or low < -size:
                self._refuse_index(out)
        if isinstance(self.index, Tensor):
            each = (torch.arange(m, device=out.device), *self.index[rows].to(out.device).unbind(1))
            return out[each]
        for i in self.index:
            out = out.select(1, i)
        return out

    def _refuse_index(self, out: Tensor) -> NoReturn:
        """Refuse an index that an output ``(M, ...)`` has not."""
        what = "target" if self.neuron is None else f"target=Neuron({self.neuron.layer!r})"
        if len(self.largest) != out.dim() - 1:
            raise ValueError(
                f"{what}: {len(self.largest)} indices given, but a row of the output has shape {tuple(out.shape[1:])}; "
                f"give {out.dim() - 1 or 'no'} indices" + (" (target=None)" if out.dim() == 1 else "")
            )
        bounds = zip(self.lowest, self.largest, out.shape[1:])
        wrong, size = next((h if h >= s else low, s) for low, h, s in bounds if h >= s or low < -s)
        raise ValueError(f"{what}: index {wrong} is out of range, the output has {size} (0 to {size - 1})")


@dataclass
class DerivedTarget:
    """The base of scores that are made from a target's; a subclass writes ``select``.

    Args:
        target: the target that it takes the place of.
    """

    target: Any

    @property
    def given(self) -> TargetLike:
        """The target as the caller gave it."""
        return self.target.given

    def select_rows(self, rows: Tensor) -> TargetLike:
        """Return the target for the chosen rows, as a caller could give it."""
        return self.target.select_rows(rows)


def _as_index(value: object, name: str = "target") -> tuple[int, ...]:
    """Return a tuple of ints; only outputs of more dimensions are counted from the end too."""
    index = _flat_index(value, name)
    if len(index) == 1 and index[0] < 0:
        raise ValueError(f"{name}={index[0]}: an index counts from 0 and cannot be negative")
    return index


def _or_baselines(value: object) -> str:
    """Return the end of an error about a target that may be meant as baselines, such as a tensor like the inputs."""
    meant = isinstance(value, (Baseline, AtLayer, Real, Tensor, np.ndarray)) and not isinstance(value, bool)
    return "; baselines are given by name, baselines=..." if meant else ""


def _flat_index(value: object, name: str = "target") -> tuple[int, ...]:
    """Return a tuple of ints."""
    if isinstance(value, (tuple, list)):
        return tuple(i for v in value for i in _flat_index(v, name))
    if isinstance(value, (bool, float, str)) or value is None:
        raise TypeError(
            f"{name}={value!r}: expected an int, one int per row, a tuple of ints, a callable, tw.Neuron, "
            f"'predicted' or None{_or_baselines(value)}"
        )
    try:
        return (operator.index(value),)  # type: ignore[arg-type]
    except TypeError:
        hint = "; a callable selects several, and adds them up" if isinstance(value, slice) else _or_baselines(value)
        raise TypeError(f"{name}: an index must be an int, got {type(value).__name__}{hint}") from None
