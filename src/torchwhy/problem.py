"""The question put to a model: which rows, which score, explained by what; and how its answers are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.hooks import (
    ResolvedLayer,
    find_dependent_pair,
    record_activations,
    record_with_grad,
    replace_activations,
    trace_modules,
)
from torchwhy.engine.run.batching import Batching
from torchwhy.engine.run.device import callers_default_device
from torchwhy.engine.run.gradients import compute_gradients, enable_grad_for, freeze_parameters, gradients_per_target
from torchwhy.engine.run.precision import autocast_except_head
from torchwhy.engine.run.transfer import to_device

Tensors = tuple[Tensor, ...]
GradientFunction = Callable[..., Tensors]


class ScoreFunction(Protocol):
    """Turns a model's output for M rows into M scores."""

    @property
    def given(self) -> Any:
        """The target as the caller gave it."""

    def take(self, rows: Tensor) -> Any:
        """The target for the chosen rows, as a caller could give it."""

    def select(self, output: Any, rows: Tensor) -> Tensor:
        """Scores ``(M,)`` of rows ``(M,)``."""


class EvaluatedChunk(NamedTuple):
    """A chunk of a walk: M evaluations, at points ``z``, of samples ``k`` of rows ``rows``."""

    rows: Tensor
    k: Tensor
    z: Tensors
    scores: Tensor
    gradients: Tensors
    activations: Tensors = ()

    def of(self, k: int) -> EvaluatedChunk:
        """The part that belongs to sample ``k``."""
        if int(self.k[0]) == int(self.k[-1]):
            return self
        at = to_device((self.k == k).nonzero()[:, 0], self.rows.device)
        take = lambda tensors: tuple(t[at] for t in tensors)  # noqa: E731
        return EvaluatedChunk(
            self.rows[at],
            self.k[self.k == k],
            take(self.z),
            self.scores[at],
            take(self.gradients),
            take(self.activations),
        )


@dataclass
class ModelInputs:
    """What the caller passes to the model, row by row.

    Args:
        inputs: tensors ``(N, ...)``.
        names: keyword names of the inputs, None if they are positional.
        args, kwargs: further arguments; tensors with N rows follow the rows.
    """

    inputs: Tensors
    names: tuple[str, ...] | None
    args: tuple
    kwargs: dict[str, Any]

    @property
    def n(self) -> int:
        """The number of rows."""
        return len(self.inputs[0])

    def take(self, value: Any, rows: Tensor) -> Any:
        """The chosen rows of a tensor with N rows; anything else as it is."""
        if not isinstance(value, Tensor) or value.dim() == 0 or len(value) != self.n:
            return value
        if self.n == 1:
            return value.expand(len(rows), *value.shape[1:]).clone()  # its own: a model may write to it, or view it
        return value[rows.to(value.device)]

    def call(self, model: Callable[..., Any], z: Sequence[Tensor], rows: Tensor) -> Any:
        """The model's output for inputs ``z`` ``(M, ...)`` that stand for ``rows`` ``(M,)``."""
        args = [self.take(a, rows) for a in self.args]
        kwargs = {k: self.take(v, rows) for k, v in self.kwargs.items()}
        named = zip(self.names, z) if self.names else ()
        with callers_default_device():
            return model(*(() if self.names else z), *args, **dict(named), **kwargs)


@dataclass
class Problem:
    """What a method works on.

    Args:
        model: the model.
        data: the caller's inputs and further arguments.
        target: what is explained.
        batching: cuts the work into calls.
        cut: the places whose tensors are explained, the model below being left out; none: the inputs.
        join: how rows of what is explained become what passes the cut, None if they are that already.
        taps: the places whose gradients are read while the inputs vary.
        neuron: where the target is read, if inside the model.
        x: what is explained, tensors ``(N, ...)``: the inputs, or what passes the ``cut``.
        baselines: one tensor ``(K, N or 1, ...)`` for each of ``x``: K baselines.
        feature_mask: as the caller gave it, one entry for each of ``x``, or None.
        generator: where all randomness comes from.
        precision: the lower one that the model computes in, see :func:`autocast_except_head`; None for its own.
        lean: the model below the cut runs on one row only, see :meth:`spare_below`.
    """

    model: Any
    data: ModelInputs
    target: ScoreFunction
    batching: Batching
    cut: tuple[ResolvedLayer, ...] = ()
    join: Callable[[Tensor], Tensor] | None = None
    taps: tuple[ResolvedLayer, ...] = ()
    neuron: ResolvedLayer | None = None
    x: Tensors = ()
    baselines: Tensors = ()
    feature_mask: Any = None
    generator: torch.Generator = field(default_factory=torch.Generator)
    precision: torch.dtype | None = None
    lean: bool = False
    evaluations: int = 0
    eps: float = 0.0  # of the model's scores
    facts: dict[str, Any] = field(default_factory=dict)
    _broken: Tensor | None = None

    @property
    def n(self) -> int:
        """The number of rows N."""
        return self.data.n

    @property
    def rows(self) -> Tensor:
        """All rows, LongTensor ``(N,)``."""
        return torch.arange(self.n, device=self.data.inputs[0].device)

    @property
    def what(self) -> str:
        """What is explained, in words."""
        return ", ".join(map(str, self.cut or self.taps)) or "inputs"

    def report(self, **facts: Any) -> None:
        """Put facts (a standard error, a completeness gap) on the explanation."""
        self.facts.update(facts)

    def batches(self, total: int, work: Callable[[int, int], Any]) -> Iterator[Any]:
        """Yield ``work(start, stop)`` over consecutive chunks of ``range(total)``; see :meth:`Batching.run`."""
        return self.batching.run(total, work)

    def output(self, z: Sequence[Tensor], rows: Tensor) -> Any:
        """What the target is read from, for ``z`` ``(M, ...)`` in place of what is explained."""
        storage = lambda t: t.untyped_storage().data_ptr()  # noqa: E731
        own = {storage(t) for t in (*self.data.inputs, *self.baselines)}
        # a model may work in place: neither the caller's tensors nor rows that share memory are handed to it
        z = [self.batching.format(t.clone() if storage(t) in own or 0 in t.stride() else t) for t in z]
        with ExitStack() as stack:
            stack.enter_context(autocast_except_head(self.precision, z[0].device, len(rows)))
            stack.enter_context(self.batching.optimizations())
            if self.cut:
                values = z if self.join is None else [self.join(t) for t in z]
                stack.enter_context(replace_activations(self.cut, values, *([str(self.neuron)] if self.neuron else [])))
                z = [self.batching.format(t[:1].clone() if self.lean else t[rows]) for t in self.data.inputs]
            if self.neuron is not None:
                return record_activations(lambda: self.data.call(self.model, z, rows), [self.neuron])[0]
            return self.data.call(self.model, z, rows)

    def _score(self, z: Sequence[Tensor], rows: Tensor) -> Tensor:
        scores = self._checked(self.target.select(self.output(z, rows), rows))
        self.evaluations += len(rows)
        return scores

    def _checked(self, scores: Tensor) -> Tensor:
        """Scores in single precision at least; at the end :meth:`open` says if any of them was broken."""
        self.eps = max(self.eps, torch.finfo(scores.dtype).eps if scores.is_floating_point() else 0.0)
        if scores.dtype in (torch.half, torch.bfloat16) or not scores.is_floating_point():
            scores = scores.float()
        broken = ~scores.detach().isfinite().all()
        self._broken = broken if self._broken is None else self._broken | broken
        return scores

    def scores(self, z: Sequence[Tensor], rows: Tensor) -> Tensor:
        """Scores ``(M,)`` of ``z`` ``(M, ...)`` that stand for ``rows`` ``(M,)``, without a graph."""
        with torch.no_grad():
            return self._score(z, rows)

    def all_scores(self, z: Sequence[Tensor]) -> Tensor:
        """Scores ``(N,)`` of ``z`` ``(N, ...)``, in as many calls as memory asks for."""
        return torch.cat(list(self.batches(self.n, lambda a, b: self.scores([t[a:b] for t in z], self.rows[a:b]))))

    def gradients(self, z: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensors]:
        """Scores ``(M,)`` and their gradients with respect to ``z`` ``(M, ...)``, one call."""
        with enable_grad_for(self.model, z[0].device):
            leaves = [self.batching.format(t.detach()).requires_grad_() for t in z]
            scores = self._score([leaf.clone() for leaf in leaves], rows)  # the model may work in place
            return scores.detach(), compute_gradients(scores, leaves, what=self.what)

    def all_gradients(self, z: Sequence[Tensor]) -> Tensors:
        """Gradients with respect to ``z`` ``(N, ...)``, in as many calls as memory asks for."""
        found = list(self.batches(self.n, lambda a, b: self.gradients([t[a:b] for t in z], self.rows[a:b])[1]))
        return found[0] if len(found) == 1 else tuple(map(torch.cat, zip(*found)))

    def gradients_of_each(self, targets: Sequence[ScoreFunction], a: int, b: int) -> list[Tensors]:
        """For each of several targets the gradients at rows ``a`` to ``b - 1`` of ``x``, from one forward pass."""
        rows = self.rows[a:b]
        with enable_grad_for(self.model, self.x[0].device):
            leaves = [self.batching.format(t[a:b].detach()).requires_grad_() for t in self.x]
            output = self.output([leaf.clone() for leaf in leaves], rows)
            self.evaluations += len(rows)
            scores = [self._checked(t.select(output, rows)) for t in targets]
            return gradients_per_target(scores, leaves, what=self.what)

    def tap(
        self, z: Sequence[Tensor], rows: Tensor, derive: GradientFunction = compute_gradients
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Scores ``(M,)``, gradients at the taps, and what passes the taps, for inputs ``z`` ``(M, ...)``, one call.

        ``derive(scores, tensors, what=...)`` gives what is read in place of the gradients.
        """
        with enable_grad_for(self.model, z[0].device):
            with record_with_grad(self.taps) as seen:
                scores = self._score(z, rows)
            at = [seen[i] for i in range(len(self.taps))]
            return scores.detach(), derive(scores, at, what=self.what), tuple(a.detach() for a in at)

    def read(
        self,
        places: Sequence[ResolvedLayer],
        z: Sequence[Tensor],
        rows: Tensor,
        arrange: Callable[[Tensors, int], Sequence[Tensor]] = lambda passed, m: passed,
    ) -> Tensors:
        """What passes ``places``, for inputs ``z`` ``(M, ...)``, in as many calls as memory asks for.

        ``arrange(tensors, m)`` brings what passes in a call of m rows into a form with the rows first.
        """

        def work(a: int, b: int) -> Sequence[Tensor]:
            run = lambda: self.data.call(self.model, [t[a:b].clone() for t in z], rows[a:b])  # noqa: E731
            passed = record_activations(run, places, stop=False)  # to its end, to see every call of the layer
            self.evaluations += b - a
            return arrange(tuple(passed), b - a)

        with torch.no_grad():
            return tuple(torch.cat(parts) for parts in zip(*self.batches(len(rows), work)))

    def first(self) -> Any:
        """The model's output for the first row."""
        self.evaluations += 1
        return self.data.call(self.model, [t[:1].clone() for t in self.data.inputs], self.rows[:1])

    def behind(self, places: Sequence[ResolvedLayer]) -> tuple[ResolvedLayer, ResolvedLayer] | None:
        """Two of ``places``, the second of which depends on what passes the first; None if there are none. Runs one row."""
        with enable_grad_for(self.model, self.data.inputs[0].device), freeze_parameters(self.model):
            return find_dependent_pair(self.first, places)

    def trace(self, z: Sequence[Tensor], rows: Tensor) -> tuple[Tensor | None, list[tuple[ResolvedLayer, Tensor]]]:
        """Scores ``(M,)``, None without a target, and the tensor that each module passes, with their graph, one call."""
        if not isinstance(self.model, nn.Module):
            raise TypeError("model: a plain callable has no layers to read; give a module")
        with (
            enable_grad_for(self.model, z[0].device),
            freeze_parameters(self.model),
            trace_modules(self.model) as passed,
        ):
            if self.target.given is not None:
                return self._score(z, rows), passed
            self.evaluations += len(rows)
            self.output(z, rows)
            return None, passed

    def spare_below(self) -> None:
        """From now on run the model below the cut on one row only: what passes the cut is replaced anyway.

        Only where it changes nothing: not where something of the rows reaches the output around the cut. That is tried, on
        the first row and another one that differs from it.
        """
        first, other = 0, next((i for i in range(1, self.n) if self._differ(0, i)), 0)
        rows = self.rows[[first, other]]
        z = [t[rows] for t in self.x]
        with self.batching.without_optimizations():  # to the last bit
            try:
                expected, broken = self.scores(z, rows), self._broken
                self.lean = True
                self.lean = torch.equal(self.scores(z, rows), expected)
            except Exception:  # the model relies on as many rows as its input has
                if not self.lean:
                    raise
                self.lean = False
        self._broken = broken

    def _differ(self, i: int, j: int) -> bool:
        """Whether two rows of the caller's data are different."""
        tensors = [*self.data.inputs, *self.data.args, *self.data.kwargs.values()]
        return any(isinstance(t, Tensor) and t.dim() and len(t) == self.n and not t[i].equal(t[j]) for t in tensors)

    def rows_and_samples(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Jobs ``start`` to ``stop - 1`` of rows × samples: rows ``(M,)``, and samples ``(M,)`` on the CPU, these slower."""
        flat = torch.arange(start, stop)
        return to_device(flat % self.n, self.data.inputs[0].device), flat // self.n

    def walk(self, n: int, point: Callable[[Tensor, Tensor], Tensors]) -> Iterator[EvaluatedChunk]:
        """Scores and gradients at ``n`` points of every row, many rows and points to a call.

        Args:
            n: the number of points of a row.
            point: ``(rows (M,), k (M,))`` → where to evaluate, tensors ``(M, ...)``. The points come in the order of k
                (which is on the CPU), the rows of one k together.
        """

        def work(start: int, stop: int) -> EvaluatedChunk:
            rows, k = self.rows_and_samples(start, stop)
            z = point(rows, k)
            if self.taps:
                scores, gradients, activations = self.tap(z, rows)
                return EvaluatedChunk(rows, k, z, scores, gradients, activations)
            return EvaluatedChunk(rows, k, z, *self.gradients(z, rows))

        return self.batches(n * self.n, work)

    @contextmanager
    def open(self) -> Iterator[Problem]:
        """While open, the model can be run; afterwards everything is as it was.

        Raises:
            FloatingPointError: the model's scores were NaN or infinite.
        """
        with freeze_parameters(self.model), torch.no_grad():
            yield self
        if self._broken is not None and bool(self._broken):
            raise FloatingPointError(
                "the target is NaN or infinite for some of the rows that were evaluated: an attribution "
                "would be meaningless; check the model, the inputs and precision="
            )


class RunningMoments:
    """Weighted sums over a walk, one accumulator ``(N, ...)`` for each tensor, in float32 or better.

    With ``square=True`` also those of the squares, around each row's first value, for the variance; rows then come in turn.
    """

    def __init__(self, n: int, *, square: bool = False) -> None:
        self.n, self.square, self.begun = n, square, 0  # rows that have their first value
        self.total: list[Tensor] = []
        self.squares: list[Tensor] = []
        self.first: list[Tensor] = []

    def add(self, rows: Tensor, values: Sequence[Tensor], weights: Tensor | None = None) -> None:
        """Add ``values`` ``(M, ...)``, times ``weights`` ``(M,)``, to rows ``(M,)``."""
        values = [v.float() if v.dtype in (torch.half, torch.bfloat16) else v for v in values]
        if not self.total:
            self.total = [v.new_zeros(self.n, *v.shape[1:]) for v in values]
            if self.square:
                self.squares = [torch.zeros_like(t) for t in self.total]
                self.first = [torch.zeros_like(t) for t in self.total]
        if self.square and self.begun < self.n:
            m = min(self.n - self.begun, len(rows))
            for first, v in zip(self.first, values):
                first.index_copy_(0, rows[:m], v[:m])
            self.begun += m
        for i, v in enumerate(values):
            if self.square:
                v = v - self.first[i][rows]
                self.squares[i].index_add_(0, rows, v.square())
            self.total[i].index_add_(0, rows, v if weights is None else expand_like(weights, v) * v)

    def mean(self, n: int) -> Tensors:
        """Means over ``n`` values of each row."""
        return tuple(t / n + (self.first[i] if self.square else 0) for i, t in enumerate(self.total))

    def variance(self, n: int) -> Tensors:
        """Unbiased variances over ``n`` values of each row; zero for a single one."""
        return tuple(((s - t.square() / n) / max(1, n - 1)).clamp(min=0) for s, t in zip(self.squares, self.total))

    def standard_error(self, n: int) -> Tensors:
        """That of :meth:`mean`; infinite for a single value, which says nothing about it."""
        return tuple((v / n).sqrt() if n > 1 else torch.full_like(v, torch.inf) for v in self.variance(n))


def expand_like(weights: Tensor, like: Tensor) -> Tensor:
    """``weights`` ``(M,)`` shaped to multiply ``like`` ``(M, ...)``, in its type."""
    return weights.to(like).reshape(-1, *[1] * (like.dim() - 1))


def check_rows_first(places: Sequence[ResolvedLayer], tensors: Sequence[Tensor], n: int) -> None:
    """Refuse layers that do not pass ``n`` rows."""
    for place, t in zip(places, tensors):
        if len(t) != n:
            shape = f"{place} passes a tensor of shape {tuple(t.shape)} for {n} rows"
            raise ValueError(f"{shape}: its first dimension must be the rows")
