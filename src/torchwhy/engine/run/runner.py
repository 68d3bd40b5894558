"""The model runner: the one way from a question to the model.

Four verbs, each for rows ``z`` ``(M, ...)`` that stand in for what is explained: ``outputs``, ``scores``, ``gradients`` and
``gradients_and_activations``, and ``activations`` for what passes layers. Each is one call; ``concatenated`` and
``evaluate_points`` cut longer work into calls of a size that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from torchwhy.engine import state
from torchwhy.engine.further_arguments import hint_about_packed
from torchwhy.engine.layers.layer import (
    find_dependent_pair,
    record_activations,
    record_with_grad,
    replace_activations,
    trace_modules,
)
from torchwhy.engine.run.autograd import (
    UNCHANGED,
    compute_gradients,
    enable_grad_for,
    freeze_parameters,
    scan_graph,
)
from torchwhy.engine.run.batching import is_out_of_memory
from torchwhy.engine.run.checks import MISFITS
from torchwhy.engine.run.defaults import as_the_caller
from torchwhy.engine.run.precision import autocast_except_head
from torchwhy.engine.run.rows import all_finite, give_rows, rounding_of, rows_between, to_device
from torchwhy.engine.run.torch_errors import hint_about_fixed_rows, hint_about_rows, raise_in_words
from torchwhy.engine.structure import AnyOutput, Output, Tensors
from torchwhy.engine.torch_internals import without_torch_functions

if TYPE_CHECKING:
    from torchwhy.engine.layers.layer import ResolvedLayer
    from torchwhy.engine.rules.mode import RuleMode
    from torchwhy.problem import Problem

GradientFunction = Callable[..., Tensors]


@dataclass
class Tally:
    """Counts of the model's runs for one call of a method.

    Args:
        evaluations: rows that went through the model.
        eps: the rounding of the model's scores, relative to their size.
        not_finite: whether a score was NaN or infinite; on a GPU a tensor there, so that nothing waits for it.
    """

    evaluations: int = 0
    eps: float = 0.0
    not_finite: Tensor | bool = False

    def see(self, scores: Tensor, *, check_finite: bool) -> Tensor:
        """Note the type of scores and whether all are finite; return them in single precision at least."""
        if scores.is_complex():
            raise TypeError(
                "target: the scores are complex; choose real ones, such as lambda output: output[:, 1].abs()"
            )
        if not scores.is_floating_point():
            return scores.float()
        self.eps = max(self.eps, rounding_of(scores.dtype))
        if check_finite and self.not_finite is not True:
            if scores.device.type == "cpu":
                self.not_finite = not all_finite(scores) or self.not_finite
            else:  # nothing waits for the device
                bad = ~scores.detach().isfinite().all()
                self.not_finite = bad if self.not_finite is False else bad | self.not_finite
        return scores.float() if scores.dtype in (torch.half, torch.bfloat16) else scores

    def check_finite(self) -> None:
        """Refuse scores that were NaN or infinite.

        Raises:
            FloatingPointError: there were some.
        """
        if bool(self.not_finite):
            raise FloatingPointError(
                "the target is NaN or infinite for some of the rows that were evaluated: an attribution "
                "would be meaningless; check the model, the inputs and precision="
            )


class EvaluatedChunk(NamedTuple):
    """M evaluations, of samples ``k`` of rows ``rows``; to the points themselves the model may have written."""

    rows: Tensor
    k: Tensor
    scores: Tensor
    gradients: Tensors
    activations: Tensors = ()

    def of_sample(self, k: int) -> EvaluatedChunk:
        """Return the part that belongs to sample ``k``."""
        if int(self.k[0]) == int(self.k[-1]):
            return self
        at = to_device((self.k == k).nonzero()[:, 0], self.rows.device)
        gradients, activations = (tuple(t[at] for t in ts) for ts in (self.gradients, self.activations))
        return EvaluatedChunk(self.rows[at], self.k[self.k == k], self.scores[at], gradients, activations)


@dataclass(frozen=True, slots=True)
class ModelRunner:
    """Runs the model of a problem. Has no state of its own: what is counted goes to the problem's tally."""

    problem: Problem

    # ---- one call

    def outputs(self, z: Sequence[Tensor], rows: Tensor) -> AnyOutput:
        """Return the model's output, or that of the target neuron's layer, for ``z`` ``(M, ...)`` in place of ``x``.

        The model runs inside the contexts of this list, and nowhere else.
        """
        p = self.problem
        with ExitStack() as contexts:
            if p.precision is not None:
                contexts.enter_context(autocast_except_head(p.precision, z[0].device, len(rows)))
            if p.batching.plan.optimizations is not None:
                contexts.enter_context(p.batching.plan.optimizations)
                z = [p.batching.format(t) for t in z]
            if p.input_layers:
                values = z if p.to_layer_layout is None else [p.to_layer_layout(t) for t in z]
                values = [t if at.rows is None else at.rows.join(t) for at, t in zip(p.input_layers, values)]
                goal = [str(p.neuron)] if p.neuron else []
                contexts.enter_context(replace_activations(p.input_layers, values, *goal))
                z = [t[:1] if p.skip_below else t[rows] for t in p.inputs.tensors]
            if p.neuron is None:
                output = self._call_model(z, rows)
            else:
                output = record_activations(lambda: self._call_model(z, rows), [p.neuron])[0]
        p.tally.evaluations += rows.shape[0]
        return output

    def _call_model(self, z: Sequence[Tensor], rows: Tensor) -> Output:
        """Call the model. Default device and autocast are the caller's meanwhile.

        A model may work in place: neither the caller's tensors, nor what gets a gradient, nor rows that share memory are
        handed to it.
        """
        p = self.problem
        with without_torch_functions():  # no rule is asked for these
            callers = set()
            if not all(t.requires_grad for t in z):
                callers = {t.untyped_storage().data_ptr() for t in (*p.inputs.tensors, *p.baselines)}
            shared = [t.requires_grad or 0 in t.stride() or t.untyped_storage().data_ptr() in callers for t in z]
        z = [t.clone() if is_shared else t for t, is_shared in zip(z, shared)]  # rules see it
        if p.batching.plan.optimizations is not None:
            z = [p.batching.format(t) for t in z]
        args, kwargs = p.inputs.further(rows) if p.inputs.args or p.inputs.kwargs else ((), {})
        given = list(map(give_rows, z, p.inputs.forms)) if p.inputs.forms else z
        named = dict(zip(p.inputs.names, given)) if p.inputs.names else {}
        held = state.held_here.models.get(id(p.model))
        if held is not None and held.buffers:
            held.restore_buffers()
        callers = state.callers_state.get()
        with UNCHANGED if callers is None else as_the_caller(callers):
            try:
                return p.model(*(() if p.inputs.names else given), *args, **named, **kwargs)
            except Exception as error:
                if type(error).__module__.startswith("torchwhy."):  # that the rest of the run is not needed
                    raise
                raise_in_words(error, "" if is_out_of_memory(error) else self._hint(error, rows))

    def _hint(self, error: Exception, rows: Tensor) -> str:
        """Return what may be wrong with what is given, after the model could not be run for these rows."""
        p = self.problem
        if p.inputs.args or p.inputs.kwargs:
            return hint_about_packed((p.inputs.args, p.inputs.kwargs), p.n) if len(rows) != p.n else ""
        is_retried = p.skip_below or p.batching.plan.optimizations is not None  # without them
        if p.inputs.forms or is_retried:
            return ""
        with without_torch_functions():  # the rules of the call that failed are for its rows
            found = "" if p.inputs.names else hint_about_rows(error, p.model, p.inputs.tensors)
            return found or hint_about_fixed_rows(p.model, p.inputs.tensors, p.inputs.names, len(rows))

    def scores_with_graph(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None) -> Tensor:
        """Return scores ``(M,)``, in single precision at least, with a graph where one is being built.

        ``rules`` are at work while the model runs and its score is picked, and not on our own arithmetic.
        """
        p = self.problem
        with UNCHANGED if rules is None else rules:
            picked = p.target.select(self.outputs(z, rows), rows)
        scores = p.tally.see(picked, check_finite=p.check_finite)
        is_single = scores.shape[0] == 1 and scores.device.type == "cpu"
        if scores.requires_grad and (is_single or rules is not None):
            for function in scan_graph(scores, guard_norms=is_single):
                if rules is not None:
                    rules.count_unreached(function.__name__, "an autograd Function")
        return scores

    def scores(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None) -> Tensor:
        """Return scores ``(M,)`` of ``z`` ``(M, ...)`` that stand for ``rows`` ``(M,)``, without a graph."""
        with torch.no_grad():
            return self.scores_with_graph(z, rows, rules)

    def gradients(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None) -> tuple[Tensor, Tensors]:
        """Return scores ``(M,)`` and their gradients, by the rules if any, with respect to ``z`` ``(M, ...)``."""
        p = self.problem
        with enable_grad_for(p.model, z[0].device):
            leaves = [t.detach() for t in z]
            if p.batching.plan.optimizations is not None:
                leaves = [p.batching.format(leaf) for leaf in leaves]
            leaves = [leaf.requires_grad_() for leaf in leaves]
            scores = self.scores_with_graph(leaves, rows, rules)
            return scores.detach(), compute_gradients(
                scores, leaves, what=p.input_layers or "inputs", names=lambda: p.input_names
            )

    def scores_of_targets(self, z: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
        """Return the scores ``(M,)`` of the target, with a graph where one is being built; of a problem of T targets T of these.

        There ``rows`` are pairs with the first target.
        """
        return [self.scores_with_graph(z, rows)]

    def gradients_and_activations(
        self, z: Sequence[Tensor], rows: Tensor, derive: GradientFunction = compute_gradients
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Return scores ``(M,)``, and the gradients and activations of the read layers, for inputs ``z`` ``(M, ...)``.

        ``derive(scores, tensors, what=...)`` gives what is read in place of the gradients.
        """
        p = self.problem
        with enable_grad_for(p.model, z[0].device):
            goal = [str(p.neuron)] if p.neuron else []
            with record_with_grad(p.read_layers, *goal) as recorded:
                scores = self.scores_with_graph(z, rows)
            at = [recorded[i] for i in range(len(p.read_layers))]
            return scores.detach(), derive(scores, at, what=p.read_layers), tuple(a.detach() for a in at)

    def first_row(self) -> Output:
        """Return the model's output for the first row of the inputs; for the first two where batch norm trains."""
        p, held = self.problem, state.held_here.models.get(id(self.problem.model))
        rows = p.rows[: 2 if held is not None and held.noisy else 1]
        p.tally.evaluations += len(rows)
        return self._call_model([t[: len(rows)] for t in p.inputs.tensors], rows)

    def find_dependent_pair(self, layers: Sequence[ResolvedLayer]) -> tuple[ResolvedLayer, ResolvedLayer] | None:
        """Return two of ``layers``, the second of which depends on the first; None if there are none. Runs one row."""
        p = self.problem
        with enable_grad_for(p.model, p.inputs.tensors[0].device), freeze_parameters(p.model):
            return find_dependent_pair(self.first_row, layers)

    def trace(
        self, z: Sequence[Tensor], rows: Tensor, *, complete: bool = False
    ) -> tuple[Tensor | None, list[tuple[ResolvedLayer, Tensor]]]:
        """Return scores ``(M,)``, None without a target, and the tensor that each module passes, with their graph.

        ``complete``: refuse a model of which a part cannot be seen.
        """
        p = self.problem
        if not isinstance(p.model, nn.Module):
            raise TypeError("model: a plain callable has no layers to read; give a module")
        with (
            enable_grad_for(p.model, z[0].device),
            freeze_parameters(p.model),
            trace_modules(p.model, complete=complete) as passed,
        ):
            if p.target.given is not None:
                return self.scores_with_graph(z, rows), passed
            self.outputs(z, rows)
            return None, passed

    # ---- as many calls as memory asks for

    def batches(self, total: int, work: Callable[[int, int], object]) -> Iterator[Any]:
        """Yield ``work(start, stop)`` over consecutive chunks of ``range(total)``; see :meth:`Batching.run`."""
        return self.problem.batching.run(total, work)

    def concatenated(self, total: int, work: Callable[[int, int], Any]) -> Any:
        """Return what ``work(start, stop)`` gives over chunks of ``range(total)``, joined: a tensor, or each of several."""
        found = list(self.problem.batching.run(total, work))
        if isinstance(found[0], Tensor):
            return found[0] if len(found) == 1 else torch.cat(found)
        return tuple(found[0]) if len(found) == 1 else tuple(map(torch.cat, zip(*found)))

    def all_scores(self, z: Sequence[Tensor]) -> Tensor:
        """Return scores ``(N,)`` of ``z`` ``(N, ...)``."""
        rows = self.problem.rows
        return self.concatenated(len(rows), lambda a, b: self.scores(rows_between(z, a, b), rows[a:b]))

    def all_gradients(self, z: Sequence[Tensor]) -> Tensors:
        """Return gradients with respect to ``z`` ``(N, ...)``."""
        rows = self.problem.rows
        return self.concatenated(len(rows), lambda a, b: self.gradients(rows_between(z, a, b), rows[a:b])[1])

    def passed(self, layers: Sequence[ResolvedLayer], z: Sequence[Tensor], rows: Tensor) -> Tensors:
        """Return what passes ``layers`` in one call for inputs ``z`` ``(M, ...)``, as they pass it."""

        def call() -> AnyOutput:
            return self._call_model(z, rows)

        found = record_activations(call, layers, stop=False)  # to its end, to see every call of the layer
        self.problem.tally.evaluations += len(rows)
        return tuple(found)

    def activations(
        self,
        layers: Sequence[ResolvedLayer],
        z: Sequence[Tensor],
        rows: Tensor,
        arrange: Callable[[Tensors, int], Sequence[Tensor]] = lambda passed, m: passed,
    ) -> Tensors:
        """Return what passes ``layers``, for inputs ``z`` ``(M, ...)``.

        ``arrange(tensors, m)`` brings what passes in a call of m rows into a form with the rows first.
        """

        def work(a: int, b: int) -> Sequence[Tensor]:
            return arrange(self.passed(layers, rows_between(z, a, b), rows[a:b]), b - a)

        with torch.no_grad():
            return self.concatenated(len(rows), work)

    def rows_and_samples(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Return rows ``(M,)``, and samples ``(M,)`` on the CPU, of jobs ``start`` to ``stop - 1`` of rows × samples."""
        p = self.problem
        if stop - start == p.n and start % p.n == 0:  # a sample of all rows
            return p.rows, torch.full((p.n,), start // p.n)
        flat = torch.arange(start, stop)
        return to_device(flat % p.n, p.inputs.tensors[0].device), flat // p.n

    def evaluate_points(self, n: int, point: Callable[[Tensor, Tensor], Tensors]) -> Iterator[EvaluatedChunk]:
        """Yield scores and gradients at ``n`` points of every row, many rows and points to a call.

        Args:
            n: the number of points of a row.
            point: ``(rows (M,), k (M,))`` → where to evaluate, tensors ``(M, ...)``. The points come in the order of k
                (which is on the CPU), the rows of one k together.
        """

        def work(start: int, stop: int) -> EvaluatedChunk:
            rows, k = self.rows_and_samples(start, stop)
            z = point(rows, k)
            if self.problem.read_layers:
                return EvaluatedChunk(rows, k, *self.gradients_and_activations(z, rows))
            return EvaluatedChunk(rows, k, *self.gradients(z, rows))

        return self.batches(n * self.problem.n, work)


def skip_model_below(problem: Problem) -> Problem:
    """Return the problem with the model below the input layers run on one row only: what passes them is replaced anyway.

    The problem itself where that would change something, because something of the rows reaches the output around the layers.
    It is tried, on the first row and another one that differs from it; calls of one row have nothing to leave out.
    """
    if problem.batching.plan.rows == 1:
        return problem
    other = next((i for i in range(1, problem.inputs.n) if problem.inputs.differ(0, i)), 0) * problem.n_targets
    rows = problem.rows[[0, other]]
    z = [t[rows] for t in problem.x]
    trial = problem.replace(check_finite=False)
    skipping = trial.replace(skip_below=True)
    with problem.batching.without_optimizations():  # to the last bit
        expected = trial.run.scores(z, rows)
        try:
            same = torch.equal(skipping.run.scores(z, rows), expected)
        except MISFITS:  # the model relies on as many rows as its input has
            same = False
    return problem.replace(skip_below=True) if same else problem
