"""The question put to a model: which rows, which score, explained by what. It never changes; another one is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import Tensor

from torchwhy.arguments import Argument, PackedRows, PerRow, Unmarked
from torchwhy.engine.run.autograd import freeze_parameters
from torchwhy.engine.run.rows import RowForm
from torchwhy.engine.run.runner import ModelRunner, Tally
from torchwhy.engine.structure import SINGLE, AnyModel, Keywords, Output, Structure, Tensors, map_nested

if TYPE_CHECKING:
    from torchwhy.baselines import BaselineLike
    from torchwhy.engine.axes import Axes
    from torchwhy.engine.layers.layer import ResolvedLayer
    from torchwhy.engine.run.batching import Batching
    from torchwhy.engine.samples import FeaturesOfSample
    from torchwhy.engine.tables import FrameForm

ArgumentKind = TypeVar("ArgumentKind", bound=Argument)


class ScoreFunction(Protocol):
    """What turns a model's output for M rows into M scores."""

    @property
    def given(self) -> Any:
        """Return the target as the caller gave it."""

    def select_rows(self, rows: Tensor) -> Any:
        """Return the target for the chosen rows, as a caller could give it."""

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return scores ``(M,)`` of rows ``(M,)``."""


@dataclass(frozen=True)
class ModelInputs:
    """What the caller passes to the model, row by row.

    Args:
        tensors: the inputs ``(N, ...)``.
        names: keyword names of the inputs, None if they are positional.
        args, kwargs: further arguments: what depends on the rows, or is copied, is an :class:`Argument`, also in the tuples,
            lists and dicts among them.
        forms: how the model takes each input, where that is another way than as one tensor with rows: see :func:`give_rows`.
        structure: how the inputs were put together.
    """

    tensors: Tensors
    names: tuple[str, ...] | None
    args: tuple
    kwargs: Keywords
    forms: tuple[RowForm, ...] = ()
    structure: Structure = SINGLE

    @property
    def n(self) -> int:
        """The number of rows."""
        return self.tensors[0].shape[0]

    def further(self, rows: Tensor) -> tuple[tuple[object, ...], Keywords]:
        """Return the further arguments of a call with rows ``(M,)``, positional ones and those by name."""
        return self._map(lambda part: part.for_rows(rows))

    def take_further(self, rows: Tensor) -> object:
        """Return the further arguments, as a caller can give them, of a question whose rows are these ``(M,)``."""
        args, kwargs = self._map(lambda part: part.take(rows))
        return kwargs or args or None

    def replace_further(self, change: Callable[[Argument], object]) -> ModelInputs:
        """Return the same with other further arguments."""
        args, kwargs = self._map(change)
        return replace(self, args=args, kwargs=kwargs)

    def find_further(self, kind: type[ArgumentKind]) -> list[ArgumentKind]:
        """Return the further arguments of a kind."""
        found: list[ArgumentKind] = []
        self._map(lambda part: found.append(part) if isinstance(part, kind) else None)
        return found

    def _map(self, change: Callable[[Argument], object]) -> tuple[tuple[object, ...], Keywords]:
        """Return the further arguments with a function applied to those that are an :class:`Argument`."""

        def of_part(part: object) -> object:
            return change(part) if isinstance(part, Argument) else part

        return map_nested(of_part, self.args), map_nested(of_part, self.kwargs)

    def differ(self, i: int, j: int) -> bool:
        """Say whether two rows are different."""
        if any(not t[i].equal(t[j]) for t in self.tensors):
            return True
        first, second = torch.tensor([i]), torch.tensor([j])
        of_rows: list[PerRow | Unmarked | PackedRows] = []
        for kind in (PerRow, Unmarked, PackedRows):
            of_rows += self.find_further(kind)
        return any(not a.for_rows(first).equal(a.for_rows(second)) for a in of_rows)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a method works on: a question, and in ``run`` the way to have the model answer it.

    Args:
        model: the model.
        inputs: the caller's inputs and further arguments.
        target: what is explained.
        x: what is explained it by, tensors ``(N, ...)``: the inputs, or what passes the ``input_layers``.
        baselines: one tensor ``(K, N or 1, ...)`` for each of ``x``: K baselines.
        baseline_weights: how much each of the K counts, ``(K,)``, in all 1; None where all count alike.
        feature_mask: as the caller gave it, one entry for each of ``x``, or None.
        input_layers: the layers whose tensors are explained, the model below being left out; none: the inputs.
        to_layer_layout: how rows of what is explained become what passes the input layer, None if they are that already.
        read_layers: the layers whose activations and gradients are read while the inputs vary.
        absence: for each of the read layers what stands for the absence of its units; none: their values at the baselines.
        neuron: the layer where the target is read, if inside the model.
        generator: where all randomness comes from.
        precision: the lower one that the model computes in, see :func:`autocast_except_head`; None for its own.
        skip_below: the model below the input layers runs on one row only, see :func:`skip_model_below`.
        check_finite: whether scores that are NaN or infinite are an error.
        batching: cuts the work into calls.
        columns: what the elements of a row are called, of a data frame.
        table: how a data frame in the place of the inputs becomes numbers and back, None without one.
        tally: what is counted while the model runs; shared by all problems that are made of this one.
        n_targets: how many targets each of the caller's N rows has. With T > 1 the problem has a row for each pair of a row and a
            target, pair n T + t; ``x``, ``baselines`` and ``feature_mask`` hold each row T times.
        form: how the tensors of layers are put together where ``layer=`` does not say it, None elsewhere.
        axes: where each of the input tensors has its channels and its places, as a caller says it, None where the shape is to
            say it; empty: all by their shapes.
        sample: the features of the sample that stood in the place of the inputs, None without one.
        coalitions: where the scores of coalitions of features are noted, None where nobody asks for them.
        measures_gap: whether the completeness gap is asked for, also of the methods that a method asks.
    """

    model: AnyModel
    inputs: ModelInputs
    target: ScoreFunction
    batching: Batching
    x: Tensors = ()
    baselines: Tensors = ()
    baseline_weights: Tensor | None = None
    feature_mask: Any = None
    input_layers: tuple[ResolvedLayer, ...] = ()
    to_layer_layout: Callable[[Tensor], Tensor] | None = None
    read_layers: tuple[ResolvedLayer, ...] = ()
    absence: tuple[BaselineLike, ...] = ()
    neuron: ResolvedLayer | None = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    precision: torch.dtype | None = None
    skip_below: bool = False
    check_finite: bool = True
    tally: Tally = field(default_factory=Tally)
    columns: Sequence[str] | None = None
    table: FrameForm | None = None
    n_targets: int = 1
    form: Structure | None = None
    axes: tuple[Axes | None, ...] = ()
    sample: FeaturesOfSample | None = None
    coalitions: list[tuple[Tensor, Tensor]] | None = None
    measures_gap: bool = False

    @property
    def n(self) -> int:
        """The number of rows N."""
        return self.inputs.tensors[0].shape[0] * self.n_targets

    def with_gap(self, *, is_part: bool) -> Problem:
        """Return the problem with what an explanation asks for besides; a part of another one is asked for the gap alone."""
        return self.replace(measures_gap=True, coalitions=None if is_part else [])

    @property
    def n_baselines(self) -> int:
        """The number of baselines K."""
        return len(self.baselines[0])

    def mean_over_baselines(self, values: Tensor, dim: int) -> Tensor:
        """Return the mean of values over a dimension of the K baselines, each counting as much as its weight says."""
        if self.baseline_weights is None or values.shape[dim] == 1:
            return values.mean(dim)
        return (values.movedim(dim, -1) * self.baseline_weights.to(values)).sum(-1)

    @cached_property
    def rows(self) -> Tensor:
        """All rows, LongTensor ``(N,)``."""
        first = self.inputs.tensors[0]
        return torch.arange(first.shape[0] * self.n_targets, device=first.device)

    def given_rows(self, rows: Tensor) -> Tensor:
        """Return which of the caller's rows these are, ``(M,)``."""
        return rows if self.n_targets == 1 else rows // self.n_targets

    @property
    def input_name(self) -> str:
        """What is explained, in words."""
        return ", ".join(map(str, self.input_layers or self.read_layers)) or "inputs"

    @property
    def input_names(self) -> Sequence[object]:
        """The name of each input, or layer, that is explained."""
        if self.input_layers:
            return self.input_layers
        return [f"input {key!r}" for key in self.input_keys]

    @property
    def input_keys(self) -> Sequence[str | int]:
        """The name of each input, or its place where they have none."""
        return self.inputs.names or range(len(self.inputs.tensors))

    @property
    def run(self) -> ModelRunner:
        """What runs the model: the only way to its scores, gradients and activations."""
        return ModelRunner(self) if self.n_targets == 1 else self._shared_run

    @cached_property
    def _shared_run(self) -> ModelRunner:
        from torchwhy.engine.run.shared_runner import SharedRunner

        return SharedRunner(self)

    def replace(self, **changes: Any) -> Problem:
        """Return the problem with other fields: another question to the same model, counted in the same tally."""
        return replace(self, **changes)

    @contextmanager
    def open(self) -> Iterator[Problem]:
        """Let the model be run while open; afterwards everything is as it was.

        Raises:
            FloatingPointError: the model's scores were NaN or infinite.
        """
        with freeze_parameters(self.model), torch.no_grad():
            yield self
        self.tally.check_finite()
