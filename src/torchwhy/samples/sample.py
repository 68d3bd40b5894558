"""A sample: what stands in the place of ``inputs`` and knows its features, their names, and what their absence is."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from torchwhy.arguments import Ragged
from torchwhy.baselines import BaselineLike, resolve_baseline
from torchwhy.engine.axes import AxesLike, read_axes
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.further_arguments import read_further
from torchwhy.engine.run.placement import device_of_parameters
from torchwhy.engine.run.rows import index_rows
from torchwhy.engine.structure import AnyModel, Keywords, Model, Tensors, flatten
from torchwhy.problem import ModelInputs

Given: TypeAlias = object  # tensors, or a tuple or dict of them; a target; whatever a caller or a sample may give
AnyGiven: TypeAlias = Any  # the same where it is used as what it must be
FeatureNames = Sequence[str] | Sequence[Sequence[str]]


class Sample:
    """Rows whose features, with their names and their absence, are known: takes the place of ``inputs`` in every method.

    Methods that mask ask what the model sees when only some features are there, by :meth:`masked`; those of gradients read
    :attr:`tensors`, and :attr:`baselines` where they go along a path, and are summed over the elements of a feature. Either
    way there is one number for each feature, ``(N, d)``, 0 where a row has fewer than d.

    Derive from this class for a sample of your own, and set the attributes or override the two methods.

    Args:
        tensors: what the model is given: a tensor ``(N, ...)``, or a tuple or dict of them.
        feature_mask: integers for each tensor that broadcast to it, the number of each element's feature: from 0, without
            gaps, within each row; −1 marks what is never a feature. None makes every element one.
        baselines: what stands in the place of a feature that is absent, as for a method; one for each row of a tensor. None
            is zero.
        arguments: further arguments of the model, by keyword; tensors with N rows follow the rows.
        names: a list of names for each row, or one list for all rows.
        axes: what the axes of the tensors are, where their shape does not say it, as for a method.

    >>> sample = Sample(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0, 0, 1]), names=["both", "last"])
    >>> sample.masked(torch.tensor([[False, True]]), torch.tensor([0]))
    (tensor([[0., 0., 3.]]), {})
    """

    tensors: AnyGiven = None
    feature_mask: AnyGiven = None
    baselines: AnyGiven = None
    arguments: Mapping[str, object] | None = None
    names: FeatureNames | None = None
    axes: AxesLike = None
    target: AnyGiven = None  # what is explained unless the caller says
    details: Keywords = {}  # facts for the explanation
    n_absences: int = 1  # how many ways there are to be absent, over which scores are averaged
    packed: Mapping[
        str, Sequence[int]
    ] = {}  # what the model takes of tensors, by name, that hold their rows filled up: see pack

    def __init__(
        self, tensors: Given = None, feature_mask: Given = None, *, baselines: Given = None,
        arguments: Mapping[str, object] | None = None, names: FeatureNames | None = None, axes: AxesLike = None,
    ) -> None:  # fmt: skip
        given = {"tensors": tensors, "feature_mask": feature_mask, "baselines": baselines, "names": names, "axes": axes}
        for name, value in {**given, "arguments": arguments}.items():
            if value is not None:  # what a class derived from this one says stays
                setattr(self, name, value)

    def bind(self, model: Model) -> Sample:
        """Return the sample, ready for a model: on its device, with whatever the model has to say to it."""
        device = device_of(model)
        if device is None or self.tensors is None:
            return self
        ready = copy.copy(self)
        for name in ("tensors", "arguments"):
            setattr(ready, name, moved_to(getattr(self, name), device))
        return ready

    def asked(self, model: Model, target: Given) -> tuple[Sample, AnyGiven]:
        """Return the sample, ready for a model and a target, and the target: its own one in the place of None."""
        ready = self.bind(model)
        return ready, ready.target if target is None else target

    def each_target(self) -> list[AnyGiven]:
        """Return the targets of ``target="each"``, one for each part of what is explained.

        Raises:
            ValueError: there are no parts.
        """
        raise ValueError(
            f"target='each': {type(self).__name__} has no response whose tokens could be explained one by one"
        )

    def masked(self, kept: Tensor, rows: Tensor) -> tuple[AnyGiven, Keywords]:
        """Return what the model sees when only some features are there: tensors in the form of ``tensors``, and arguments.

        With ``n_absences`` above 1 it is also given ``absence`` ``(M,)``, which of these it is.

        Args:
            kept: bool ``(M, d)``, which features are there; True where a row has fewer.
            rows: ``(M,)``, the rows.
        """
        tensors, structure = flatten(self.tensors)
        parts = zip(tensors, numbers_of(self), self.absent_tensors())
        found = [replace_absent(t, mask, b, kept, rows) for t, mask, b in parts]
        return structure.restore(found), self.arguments_of(rows)

    def replaced(self, name: str, kept: Tensor, rows: Tensor) -> Tensor:
        """Return the tensor of this name for rows ``(M,)``, with what is not kept replaced by its baseline."""
        t, mask, b = (part[name] for part in (self.tensors, self.feature_mask, self.baselines))
        return replace_absent(t, mask.to(t.device), b.to(t), kept, rows)

    def pack(self, name: str, values: Tensor, rows: Tensor) -> Tensor:
        """Return values ``(M, most, ...)`` of rows ``(M,)`` as the model takes the tensor of this name.

        Where rows are of different lengths, as pixels of pictures in patches are, models take them behind one another, without
        what fills them up.
        """
        if name not in self.packed:
            return values
        return torch.cat([v[: self.packed[name][row]] for v, row in zip(values, rows.tolist())])

    def absent_tensors(self) -> Tensors:
        """Return what stands in the place of absent elements, ``(N or 1, ...)`` for each tensor.

        Raises:
            ValueError: more than one baseline.
        """
        tensors, structure = flatten(self.tensors)
        found = []
        told = read_axes(self.axes, tensors, structure) if self.axes is not None else (None,) * len(tensors)
        for given, t, axes in zip(structure.match(self.baselines, "baselines"), tensors, told):
            b: BaselineLike = 0 if given is None else given
            if isinstance(b, Tensor):
                found.append(b.to(t).expand(t.shape))
                continue
            resolved = resolve_baseline(b, t, None, axes=axes)
            if len(resolved) != 1:
                raise ValueError(f"baselines: a sample has one for each row, not {len(resolved)}")
            found.append(resolved[0])
        return tuple(found)

    def arguments_of(self, rows: Tensor) -> Keywords:
        """Return the further arguments of rows ``(M,)``: tensors with N rows follow the rows."""
        tensors = flatten(self.tensors)[0]
        arguments = read_further(dict(self.arguments or {}), len(tensors[0]), None, {})
        return ModelInputs(tensors, None, *arguments).further(rows)[1]


def replace_absent(t: Tensor, number: Tensor, absent: Tensor, kept: Tensor, rows: Tensor) -> Tensor:
    """Return rows ``(M,)`` of a tensor ``(N, ...)`` in which elements of the features that are not kept are others.

    Args:
        t: the tensor.
        number: of each element's feature, ``(N or 1, ...)``, −1 for none.
        absent: what stands in their place, ``(N or 1, ...)``.
        kept: bool ``(M, d)``.
        rows: ``(M,)``.
    """
    number = index_rows(number, rows)
    there = kept.gather(1, number.flatten(1).clamp(min=0)).view(number.shape) | (number < 0)
    return torch.where(there, index_rows(t, rows), index_rows(absent, rows))


def numbers_of(sample: Sample) -> Tensors:
    """Return the numbers of the features of a sample, −1 for none, ``(N or 1, ...)`` for each tensor, of its full size.

    Raises:
        ValueError: masks that do not broadcast.
    """
    tensors, structure = flatten(sample.tensors)
    if sample.feature_mask is None:
        return tuple(i.expand(1, *t.shape[1:]) for i, t in zip(number_features(tensors).ids, tensors))
    found = []
    for mask, t in zip(structure.match(sample.feature_mask, "feature_mask"), tensors):
        number = torch.full((1,), -1) if mask is None else torch.as_tensor(mask)
        if number.is_floating_point() or number.dtype == torch.bool:
            raise ValueError(
                f"feature_mask: dtype {number.dtype}; expected integers, the number of each element's feature"
            )
        rows = len(number) if number.dim() == t.dim() else 1
        try:
            found.append(number.to(t.device, torch.long).expand(rows, *t.shape[1:]))
        except RuntimeError:
            raise ValueError(
                f"feature_mask: shape {tuple(number.shape)} does not broadcast to the sample's {tuple(t.shape)}"
            ) from None
    return tuple(found)


def device_of(model: AnyModel) -> torch.device | None:
    """Return where a module takes token ids: the device of its first parameter, or where that is fetched to; None without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return None if first is None else device_of_parameters(first.device, model)


def moved_to(value: Given, device: torch.device) -> AnyGiven:
    """Return tensors, and those in a tuple, list or dict, on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Ragged):
        return dataclasses.replace(value, tensor=value.tensor.to(device))
    if value is None:
        return None
    parts, structure = flatten(value)
    if structure.kind == "single":
        return value
    return structure.restore([moved_to(v, device) for v in parts])


def names_of_rows(names: FeatureNames | None, count: Sequence[int]) -> list[list[str]]:
    """Return a list of names for each row: those given, one list for all or one for each; else "feature 0", ...

    Raises:
        ValueError: another number of names than of features.
    """
    if names is None:
        return [[f"feature {i}" for i in range(c)] for c in count]
    shared = all(isinstance(n, str) for n in names)
    rows = [[str(n) for n in (names if shared else row)] for row in ([names] * len(count) if shared else names)]
    if len(rows) != len(count) or any(len(r) != c for r, c in zip(rows, count)):
        raise ValueError(f"names: {[len(r) for r in rows]} given for rows with {list(count)} features")
    return rows
