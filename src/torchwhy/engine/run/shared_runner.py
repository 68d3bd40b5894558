"""Several targets at once: the model runs once where the same is asked for several of them.

A problem of T targets has a row for each pair of a caller's row n and a target t, number n T + t, so that a method sees an
ordinary problem with a target for each row. What it asks is compared: where rows of one n stand next to each other and ask for
the same point, the model runs on it once, and each target picks its score from the output, and sends its gradient back
through the one graph. Where they ask for different points, as in a search, each is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from torchwhy.engine.layers.layer import record_activations, record_with_grad
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.run.autograd import UNCHANGED, compute_gradients, enable_grad_for, scan_graph
from torchwhy.engine.run.runner import GradientFunction, ModelRunner
from torchwhy.engine.structure import AnyOutput, Tensors

if TYPE_CHECKING:
    from torchwhy.engine.layers.layer import ResolvedLayer
    from torchwhy.engine.rules.mode import RuleMode


@dataclass(frozen=True, eq=False)
class SharedQuestions:
    """M questions of which several are the same but for their target.

    Args:
        first: ``(G,)``, where among the M each different one stands first.
        group: ``(M,)``, which of these each one is.
        which: ``(M,)``, the number of its target.
    """

    first: Tensor
    group: Tensor
    which: Tensor

    @classmethod
    def find(cls, z: Sequence[Tensor], rows: Tensor, n_targets: int) -> SharedQuestions | None:
        """Return what is shared among points ``z`` ``(M, ...)`` for pairs ``rows`` ``(M,)``, None where too little is."""
        given, which = rows // n_targets, rows % n_targets
        same = (given[1:] == given[:-1]) & (which[1:] > which[:-1])
        if any(t.requires_grad for t in z) or not bool(same.any()):
            return None
        for t in z:
            same = same & (t[1:] == t[:-1]).reshape(len(same), -1).all(1)
        new = torch.cat([torch.ones_like(same[:1]), ~same])
        first = new.nonzero()[:, 0]
        if len(first) * len(which.unique()) > 2 * len(rows):
            return None
        return cls(first, new.cumsum(0) - 1, which)

    @cached_property
    def numbers(self) -> list[int]:
        """The targets that are asked for."""
        return self.which.unique().tolist()

    def spread(self, number: int, values: Sequence[Tensor], out: Sequence[Tensor]) -> None:
        """Put what was found for one target, ``(G, ...)``, in the places of ``out`` ``(M, ...)`` that ask for it."""
        at = (self.which == number).nonzero()[:, 0]
        for place, v in zip(out, values):
            place[at] = v[self.group[at]]


class SharedRunner(ModelRunner):
    """Runs the model of a problem of several targets."""

    # ---- one call

    def outputs(self, z: Sequence[Tensor], rows: Tensor) -> AnyOutput:
        """Return the model's output for ``z`` ``(M, ...)`` that stand for pairs ``(M,)``."""
        return super().outputs(z, self.problem.given_rows(rows))

    def scores(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None) -> Tensor:
        """Return scores ``(M,)`` of pairs ``(M,)``, without a graph."""
        shared = SharedQuestions.find(z, rows, self.problem.n_targets)
        if shared is None:
            pieces = [rows] if rules is not None else rows.split(self._rows_of_piece(len(rows)))
            sizes = list(map(len, pieces))
            return torch.cat([super(SharedRunner, self).scores(t, r, rules) for t, r in zip(_split(z, sizes), pieces)])
        with torch.no_grad():
            each = self._pick(shared.numbers, [t[shared.first] for t in z], rows[shared.first], rules)
        found = each[0].new_empty(len(rows))
        for number, scores in zip(shared.numbers, each):
            shared.spread(number, [scores], [found])
        return found

    def scores_of_targets(self, z: Sequence[Tensor], rows: Tensor) -> list[Tensor]:
        """Return for each of the T targets its scores ``(M,)``, from one forward pass; ``rows`` are pairs with the first one."""
        return self._pick(range(self.problem.n_targets), z, rows)

    def _pick(
        self, numbers: Sequence[int], z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None
    ) -> list[Tensor]:
        """Return the scores ``(G,)`` of the targets with these numbers, at points ``z`` ``(G, ...)``, from one forward pass."""
        p = self.problem
        with UNCHANGED if rules is None else rules:
            output, base = self.outputs(z, rows), rows - rows % p.n_targets
            picked = [p.target.select(output, base + number) for number in numbers]
        scores = [p.tally.see(s, check_finite=p.check_finite) for s in picked]
        is_single = len(rows) == 1 and rows.device.type == "cpu"
        whole = torch.stack(scores).sum(0) if is_single or rules is not None else None
        if whole is not None and whole.requires_grad:
            for function in scan_graph(whole, guard_norms=is_single):
                if rules is not None:
                    rules.count_unreached(function.__name__, "an autograd Function")
        return scores

    def gradients(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None = None) -> tuple[Tensor, Tensors]:
        """Return scores ``(M,)`` of pairs ``(M,)`` and their gradients: one pass forward, and one back for each target."""
        p = self.problem
        shared = SharedQuestions.find(z, rows, p.n_targets)
        if shared is None:
            return self._gradients_of_each(z, rows, rules)
        with enable_grad_for(p.model, z[0].device):
            leaves = [p.batching.format(t[shared.first].detach()).requires_grad_() for t in z]
            each = self._pick(shared.numbers, leaves, rows[shared.first], rules)
            found = [torch.empty_like(t) for t in z]
            scores = each[0].new_empty(len(rows))
            for i, (number, s) in enumerate(zip(shared.numbers, each)):
                kept = i + 1 < len(each)
                slopes = compute_gradients(
                    s, leaves, what=p.input_layers or "inputs", names=lambda: p.input_names, keep=kept
                )
                shared.spread(number, [s.detach(), *slopes], [scores.detach(), *found])
            return scores.detach(), tuple(found)

    def _gradients_of_each(self, z: Sequence[Tensor], rows: Tensor, rules: RuleMode | None) -> tuple[Tensor, Tensors]:
        """Return scores and gradients where the pairs ask for different points."""
        if rules is not None:
            return super().gradients(z, rows, rules)
        pieces = rows.split(self._rows_of_piece(len(rows)))
        found = [super(SharedRunner, self).gradients(t, r) for t, r in zip(_split(z, list(map(len, pieces))), pieces)]
        scores, slopes = zip(*found)
        return torch.cat(scores), tuple(map(torch.cat, zip(*slopes)))

    def _rows_of_piece(self, m: int) -> int:
        """Return how many of m pairs a call gets where nothing is shared: as many as it was meant to have rows."""
        return max(1, m // self.problem.n_targets)

    def gradients_and_activations(
        self, z: Sequence[Tensor], rows: Tensor, derive: GradientFunction = compute_gradients
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Return scores ``(M,)`` of pairs, and the gradients and activations of the read layers, as they pass M rows."""
        p = self.problem
        shared = SharedQuestions.find(z, rows, p.n_targets)
        if shared is None:
            return super().gradients_and_activations(z, rows, derive)
        g = len(shared.first)
        with enable_grad_for(p.model, z[0].device):
            with record_with_grad(p.read_layers) as recorded:
                each = self._pick(shared.numbers, [t[shared.first] for t in z], rows[shared.first])
            at = [recorded[i] for i in range(len(p.read_layers))]
            plain = all(a.shape[:1] == (g,) and g not in a.shape[1:] for a in at)
            axes = [BatchAxis(0)] * len(at) if plain else self.batch_axes
            activations = [axis.split(a.detach(), g)[shared.group] for axis, a in zip(axes, at)]
            slopes = [torch.empty_like(a) for a in activations]
            scores = each[0].detach().new_empty(len(rows))
            for i, (number, s) in enumerate(zip(shared.numbers, each)):
                derived = derive(s, at, what=p.read_layers, keep=i + 1 < len(each))
                split = [axis.split(d.detach(), g) for axis, d in zip(axes, derived)]
                shared.spread(number, [s.detach(), *split], [scores, *slopes])
        return scores, _joined_rows(axes, slopes), _joined_rows(axes, activations)

    @cached_property
    def batch_axes(self) -> list[BatchAxis]:
        """Where the read layers' tensors have their rows; runs one row."""
        with torch.no_grad():
            passed = record_activations(self.first_row, self.problem.read_layers, stop=False)
        return [batch_axis_of_one_row(tuple(t.shape)) for t in passed]

    # ---- as many calls as memory asks for

    def batches(self, total: int, work: Callable[[int, int], object]) -> Iterator[Any]:
        """Yield ``work(start, stop)`` over chunks of ``range(total)`` that hold all targets of a row."""
        t = self.problem.n_targets
        if total % t:
            return super().batches(total, work)
        return super().batches(total // t, lambda start, stop: work(start * t, stop * t))

    def concatenated(self, total: int, work: Callable[[int, int], object]) -> Any:
        """Return what ``work(start, stop)`` gives over such chunks, joined."""
        t = self.problem.n_targets
        if total % t:
            return super().concatenated(total, work)
        return super().concatenated(total // t, lambda start, stop: work(start * t, stop * t))

    def activations(
        self,
        layers: Sequence[ResolvedLayer],
        z: Sequence[Tensor],
        rows: Tensor,
        arrange: Callable[[Tensors, int], Sequence[Tensor]] = lambda passed, m: passed,
    ) -> Tensors:
        """Return what passes ``layers`` for pairs ``(M,)``: it knows no target, and is found once for each different point."""
        p = self.problem
        single = ModelRunner(p.replace(n_targets=1))
        shared = SharedQuestions.find(z, rows, p.n_targets)
        if shared is None:
            return single.activations(layers, z, p.given_rows(rows), arrange)
        first = shared.first
        found = single.activations(layers, [t[first] for t in z], p.given_rows(rows[first]), arrange)
        return tuple(t[shared.group] for t in found)


def _split(z: Sequence[Tensor], sizes: list[int]) -> Iterator[Tensors]:
    """Yield tensors ``(M, ...)`` cut into pieces of these sizes."""
    return zip(*(t.split(sizes) for t in z))


def _joined_rows(axes: Sequence[BatchAxis], tensors: Sequence[Tensor]) -> Tensors:
    """Return tensors with the rows first as the layers pass them."""
    return tuple(axis.join(t) for axis, t in zip(axes, tensors))
