"""DeepLIFT and DeepSHAP: the change of the score shared among the changes of the inputs, rule by rule."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.backprop.deeplift_rules import APART, RULES
from torchwhy.backprop.reveal_cancel import REVEAL_CANCEL, RevealCancel
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.rules.mode import count_operations, refuse_opaque_models
from torchwhy.engine.rules.operations import RuleTable
from torchwhy.engine.rules.paired_run import PairedRules, RecordedRun, RunsDifferError
from torchwhy.engine.run.rows import baseline_at, expand_like
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Bounds

# name: rules of operations, and the mode that runs them
TABLES: dict[str, tuple[RuleTable, type[PairedRules]]] = {
    "rescale": (RULES, PairedRules),
    "reveal_cancel": (REVEAL_CANCEL, RevealCancel),
}


class DeepLIFT(Attribution[GivenLayer]):
    r"""Contributions by difference from a baseline: :math:`A_{nj} = m_{nj} (x_{nj} - b_{nj})`, where the multipliers m come
    from rules with :math:`\sum_j m_j \Delta x_j = \Delta y` at every operation.

    In units of the score; the attributions of a row sum to f(x) - f(b) up to rounding. With several baselines they are
    averaged. Operations: pointwise functions by the rescale rule :math:`m = \Delta y / \Delta x`; products of two signals by
    the mean of the two orders; max-pooling, softmax, norms, attention, recurrent layers, distances, the size of complex numbers
    and selections by the sign of a signal (``torch.where(x > 0, x, 0)``) by exact rules of their own, see
    :mod:`torchwhy.backprop.deeplift_rules`. The paper has only the first of these; it is silent on the others.

    Each row runs once more at its baseline, without a graph, and the two runs are matched operation by operation: the
    model must run the same operations on both.

    Args:
        rule: ``"rescale"``, or ``"reveal_cancel"``: activations y = f(x) (and abs, clamp) count the positive and the negative
            contributions to x apart, :math:`m_{x^\pm} = \Delta y^\pm / \Delta x^\pm` with :math:`\Delta y^+ = \tfrac12 [f(x_0 +
            \Delta x^+) - f(x_0) + f(x_1) - f(x_0 + \Delta x^-)]`, so that contributions that cancel are seen. The two are
            told apart by the linear operations before f (convolutions, fully connected layers, sums, differences, means,
            batch norm folded in); without one, after max-pooling or an operation with a rule of its own, f is rescaled. All
            other operations (products, max-pooling, softmax, norms, attention) have no such form and keep their rule. It takes
            one and a half to five times the time of the rescale rule, and two to three times its memory.
        multiply_by_inputs: False returns the multipliers m.
        tolerance: warn where the completeness gap is larger than this part of the change of the score.
        strict: refuse non-linear operations without a rule; they are counted in the explanation's ``details`` anyway. So are
            selections by a value, such as ``x.gather(1, x.argmax(1, keepdim=True))``, that pick other elements of the
            input than of the baseline, and what rules do not reach (autograd Functions, ``torch.func.vmap``).

    Raises:
        NotImplementedError: an operation without a rule, in strict mode.
        RuntimeError: the model's control flow depends on its data.
        TypeError: a TorchScript or compiled model.

    Paper: Shrikumar, Greenside, Kundaje 2017, arXiv:1704.02685, sections 3.5.1-3.5.3.

    >>> import torch, torchwhy as tw
    >>> tw.DeepLIFT(lambda x: torch.exp(x).prod(1)).attribute(torch.zeros(1, 2), baselines=0.0)
    tensor([[0., 0.]])
    """

    rule: Literal["rescale", "reveal_cancel"] = "rescale"
    multiply_by_inputs: bool = True
    tolerance: Annotated[float, Bounds(0, math.inf)] = 0.01
    strict: bool = False

    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    uses_baselines: ClassVar[bool] = True
    is_slope_times_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1704.02685"

    def _attribute(self, problem: Problem) -> Result:
        refuse_opaque_models(problem.model)
        k = problem.n_baselines
        multipliers, contributions, changes = (RunningMoments(problem.rows) for _ in range(3))
        used: list[PairedRules] = []
        for rows, m, difference, change, rules in problem.run.batches(
            k * problem.n, lambda a, b: self._compare(problem, *problem.run.rows_and_samples(a, b))
        ):
            contributions.add(rows, [g * d for g, d in zip(m, difference)])
            changes.add(rows, [change[0] - change[1], change[0].abs() + change[1].abs()])
            if not self.multiply_by_inputs:
                multipliers.add(rows, m)
            used.append(rules)
        values = contributions.mean(k)
        details = count_operations(used)
        gap = self._gap(values, changes.mean(k), details["plain_operations"])
        return Result(values if self.multiply_by_inputs else multipliers.mean(k), gap, details=details)

    def _compare(
        self, problem: Problem, rows: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensors, list[Tensor], tuple[Tensor, Tensor], PairedRules]:
        """Run the model once, on rows ``(M,)`` beside their baselines ``k`` ``(M,)``."""
        whole = len(rows) == problem.n and problem.n_baselines == 1  # each row once, in their order
        x = list(problem.x) if whole else [t[rows] for t in problem.x]
        b = [baseline_at(t, k, rows) for t in problem.baselines]
        try:
            below, above, m, rules = self._run_both(problem, x, b, rows)
        except RunsDifferError:  # a model may keep what it made in its first run
            below, above, m, rules = self._run_both(problem, x, b, rows)
        if problem.baseline_weights is not None:  # so that the mean over the baselines is the weighted one
            share = problem.baseline_weights[k] * problem.n_baselines
            m, above, below = (
                tuple(t * expand_like(share, t) for t in m),
                above * share.to(above),
                below * share.to(below),
            )
        return rows, m, [v - w for v, w in zip(x, b)], (above, below), rules

    def _run_both(
        self, problem: Problem, x: Sequence[Tensor], b: Sequence[Tensor], rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensors, PairedRules]:
        """Return scores ``(M,)`` at the baselines ``b`` ``(M, ...)`` and at ``x``, the multipliers, and the rules that ran."""
        table, mode = TABLES[self.rule]
        recording = RecordedRun(table, APART)
        below = problem.run.scores(b, rows, recording)
        rules = mode(table, APART, recording, strict=self.strict)
        return (below, *problem.run.gradients(x, rows, rules), rules)

    def _gap(self, values: Tensors, scores: Tensors, plain: dict[str, int]) -> Tensor:
        """Return the completeness gap, and warn of a large one."""
        change, size = scores
        each = [v.reshape(len(v), -1) for v in values]
        flat = each[0] if len(each) == 1 else torch.cat(each, 1)
        gap, allowed = (flat.sum(1) - change).abs(), self.tolerance * change.abs()
        if not bool((gap > allowed).any()):
            return gap
        allowed += 1e3 * torch.finfo(flat.dtype).eps * (flat.abs().sum(1) + size)
        if bool((gap > allowed).any()):
            worst = int((gap / change.abs().clamp(min=torch.finfo(gap.dtype).tiny)).argmax())
            named = ", ".join(f"{name} ({n} times)" for name, n in Counter(plain).most_common())
            fault = named or (
                "none; the rest is rounding, or what no gradient passes (`detach`, a count) and the baseline changes"
            )
            warn(
                f"{type(self).__name__}: the attributions of row {worst} sum to {float(flat[worst].sum()):.4g}, but the score "
                f"changes by {float(change[worst]):.4g}; non-linear operations that kept their plain gradient: {fault}",
            )
        return gap


class DeepSHAP(DeepLIFT[GivenLayer]):
    r"""DeepLIFT averaged over a distribution of baselines: :math:`A_n = \mathrm{mean}_k [m(x_n, b_k) (x_n - b_k)]`.

    Approximates the Shapley values of the features under that distribution; the attributions of a row sum to f(x) minus the
    mean score of the baselines. ``baselines``: a tensor ``(K, ...)`` of rows, each of which every input is compared with.
    Memory does not grow with K. Settings as for :class:`DeepLIFT`.

    Paper: Lundberg, Lee 2017, arXiv:1705.07874, section 4.2; several baselines as in Chen, Lundberg, Lee 2019,
    arXiv:1911.11888.
    """

    baselines_are_rows: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1705.07874"
