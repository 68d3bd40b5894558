"""What is explained: one scalar per row of the model's output."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.structure import Output, named_parts

Index = int | tuple[int, ...]


@dataclass(frozen=True)
class Neuron:
    """A unit inside the model as the target.

    Args:
        layer: the layer, by name, as a module or as :class:`torchwhy.Layer`.
        index: the unit: an int, a tuple (channel, row, column), or a callable activations ``(N, ...)`` → ``(N,)``.
    """

    layer: LayerLike
    index: Index | Callable[[Tensor], Tensor]


TargetLike = int | Sequence[Index] | Tensor | tuple | Callable[[Output], Tensor] | Neuron | str | None


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
    )


def logits_per_row(output: Output, m: int) -> Tensor:
    """Return the logits in a model's output for m rows.

    Raises:
        TypeError: as for :func:`find_logits`.
        ValueError: another number of rows.
    """
    out = output if isinstance(output, Tensor) else find_logits(output)
    if out.dim() == 0 or len(out) != m:
        raise ValueError(
            f"the model was given {m} rows and returned an output of shape {tuple(out.shape)}: "
            "the first dimension must be the rows"
        )
    return out


@dataclass(frozen=True)
class Target:
    """A target in its checked form; ``select(output, rows)`` gives the scores ``(M,)``.

    ``index`` is None, one index for all rows, or a LongTensor ``(N, depth)`` with one per row; ``largest`` the largest of
    each depth.
    """

    index: tuple[int, ...] | Tensor | None = None
    largest: tuple[int, ...] = ()
    function: Callable[[Output], Tensor] | None = None
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
            return cls((target,), (target,), given=target)
        if isinstance(target, Neuron):
            if callable(target.index):
                return cls(function=target.index, neuron=target, given=target)
            index = _as_index(target.index)
            return cls(index, index, neuron=target, given=target)
        if isinstance(target, Tensor):
            if target.is_floating_point() or target.dtype == torch.bool or target.dim() > 1:
                raise TypeError(
                    f"target: expected class indices as a 1-D integer tensor, got {target.dtype} of shape "
                    f"{tuple(target.shape)}"
                )
            target = target.tolist()
        if callable(target):
            return cls(function=target, given=target)
        if isinstance(target, list) or (hasattr(target, "tolist") and hasattr(target, "__len__")):
            items = [_as_index(t) for t in (target if isinstance(target, list) else target.tolist())]
            if len(items) != n:
                raise ValueError(
                    f"target: {len(items)} indices given for {n} rows; give one int for all rows or one per row"
                )
            if len({len(t) for t in items}) != 1:
                raise ValueError("target: the indices of the rows must all have the same number of dimensions")
            return cls(torch.tensor(items, device=device), tuple(map(max, zip(*items))), given=target)
        index = _as_index(target)
        return cls(index, index, given=target)

    def select_rows(self, rows: Tensor) -> TargetLike:
        """Return the same target, in a form that a caller could have given, for the chosen rows."""
        if not isinstance(self.index, Tensor):
            return self.given
        chosen = self.index[rows].tolist()
        return [t[0] if len(t) == 1 else tuple(t) for t in chosen]

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return one score per row.

        Args:
            output: what the model (or the neuron's layer) gave for M rows.
            rows: LongTensor ``(M,)``, the original row of each.

        Raises:
            ValueError: a wrong number of rows, an index out of range, or no single score per row.
        """
        m = rows.shape[0]
        if self.function is not None:
            scores = self.function(output)
            if not isinstance(scores, Tensor) or scores.shape != (m,):
                got = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise ValueError(f"target: the callable must return one score per row, shape ({m},); it returned {got}")
            return scores
        plain = isinstance(output, Tensor) and output.dim() > 0 and output.shape[0] == m
        out = output if plain else logits_per_row(output, m)
        what = "target" if self.neuron is None else f"target=Neuron({self.neuron.layer!r})"
        if self.index is None:
            if out.numel() != m:
                raise ValueError(
                    f"target: the output has shape {tuple(out.shape)}, more than one score per row; give target="
                    "an int (a class), one int per row, a tuple, a callable, or 'predicted'"
                )
            return out.reshape(m)
        if len(self.largest) != out.dim() - 1:
            raise ValueError(
                f"{what}: {len(self.largest)} indices given, but a row of the output has shape {tuple(out.shape[1:])}; "
                f"give {out.dim() - 1 or 'no'} indices" + (" (target=None)" if out.dim() == 1 else "")
            )
        for i, size in zip(self.largest, out.shape[1:]):
            if i >= size:
                raise ValueError(f"{what}: index {i} is out of range, the output has {size} (0 to {size - 1})")
        index: tuple[Any, ...] = (slice(None), *self.index) if isinstance(self.index, tuple) else ()
        if isinstance(self.index, Tensor):
            index = (torch.arange(m, device=out.device), *self.index[rows].to(out.device).unbind(1))
        return out[index]


@dataclass
class DerivedTarget:
    """The base of scores that are made from a target's; a subclass writes ``select``.

    Args:
        target: the target that it takes the place of.
    """

    target: Any

    @property
    def given(self) -> Any:
        """The target as the caller gave it."""
        return self.target.given

    def select_rows(self, rows: Tensor) -> Any:
        """Return the target for the chosen rows, as a caller could give it."""
        return self.target.select_rows(rows)


def _as_index(value: Any) -> tuple[int, ...]:
    """Return a tuple of ints, none negative."""
    if isinstance(value, (tuple, list)):
        return tuple(i for v in value for i in _as_index(v))
    if isinstance(value, (bool, float, str)) or value is None:
        raise TypeError(
            f"target={value!r}: expected an int, one int per row, a tuple of ints, a callable, tw.Neuron, "
            "'predicted' or None"
        )
    try:
        index = operator.index(value)
    except TypeError:
        raise TypeError(f"target: an index must be an int, got {type(value).__name__}") from None
    if index < 0:
        raise ValueError(f"target={index}: an index counts from 0 and cannot be negative")
    return (index,)
