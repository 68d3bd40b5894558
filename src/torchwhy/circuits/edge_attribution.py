"""Edge attribution patching: what one component hands to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.circuits.circuit_method import CircuitMethod
from torchwhy.circuits.transformer_parts import Component, check_stream, find_components, names_of_layers
from torchwhy.engine.explained_layers import explain_by_layers
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.layers.embeddings import embeddings_of_inputs, find_embeddings
from torchwhy.engine.layers.layer import ResolvedLayer, record_with_grad, resolve_layer
from torchwhy.engine.layers.row_axes import RowAxes
from torchwhy.engine.run.autograd import enable_grad_for, freeze_parameters
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.structure import Tensors
from torchwhy.gradient.integration_rules import IntegrationRule, check_points, nodes_and_weights
from torchwhy.gradient.paths import StraightPath
from torchwhy.gradient.single_gradient import read_layers
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count


class EdgeAttribution(CircuitMethod):
    r"""What a sender adds to what a receiver reads, to first order: :math:`A_{nsr} = (o_s(x_n) - o_s(b_n)) \cdot \partial f /
    \partial i_r(x_n)`, the drop of the score if r read what s writes on b.

    Shape ``(N, senders, receivers)``, in units of the score; 0 where r does not read what s writes. Senders are embeddings and
    what every attention and feed-forward part adds to the residual stream; receivers are these parts, where they read it,
    before their norms, and the output. ``baselines=`` is the other input, with as many tokens. Takes two evaluations of a row,
    with ``n_steps`` so many more, and then for token ids another two, and one in all, to read their embeddings.

    Where the model is linear, an edge is what path patching finds, which patches it alone.

    Args:
        n_steps: the mean gradient over points between the embeddings of b and those of x, in the place of that at x; it sees
            what a saturated softmax hides. None is the gradient at x.
        method: the rule for these points, as for :class:`IntegratedGradients`.
        components: a list of ``tw.circuits.Component``; None finds those of models whose blocks norm what they read (GPT-2,
            Llama, T5 and their kin). The order is that in which they run.

    Raises:
        LookupError: the components were not found: give them.
        ValueError: the ends of an edge have other shapes.

    Papers: Syed et al. 2023, arXiv:2310.10348 (the gradient at x); Hanna et al. 2024, arXiv:2403.17806, equation 4 (``n_steps``).
    """

    n_steps: Count | None = None
    method: IntegrationRule = "gausslegendre"
    components: Sequence[Component] | None = None

    needs_float_inputs: ClassVar[bool | None] = False
    uses_baselines: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    compares_inputs: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2310.10348"

    def _attribute(self, problem: Problem) -> Result:
        aside = problem.replace(tally=Tally())
        components = list(self.components) if self.components is not None else find_components(aside)
        senders = [c for c in components if c.writes is not None]
        receivers = [c for c in components if c.reads is not None]
        writes = tuple(resolve_layer(problem.model, c.writes) for c in senders if c.writes is not None)
        reads = tuple(resolve_layer(problem.model, c.reads) for c in receivers if c.reads is not None)
        reached = _reaches(aside, writes, reads)
        at, slopes = read_layers(problem.replace(read_layers=(*writes, *reads)))
        if self.components is None:
            check_stream(components, at.x[: len(writes)], at.x[len(writes) :], senders=senders)
        changes = [x - b.mean(0) for x, b in zip(at.x[: len(writes)], at.baselines)]
        gradients = slopes[len(writes) :] if self.n_steps is None else self._mean_gradients(problem, reads)
        found = changes[0].new_zeros(problem.n, len(senders), len(receivers))
        for s, (sender, change) in enumerate(zip(senders, changes)):
            for r, (receiver, gradient) in enumerate(zip(receivers, gradients)):
                begins = sender.reads is None  # the embeddings reach whatever reads the stream
                if sender.stack == receiver.stack and sender is not receiver and (begins or reached[s][r]):
                    _check_one_stream(sender, change, receiver, gradient)
                    found[:, s, r] = (change * gradient).flatten(1).sum(1)
        names = names_of_layers([c.name for c in components])
        known = dict(zip((c.name for c in components), names))
        details = {
            "axes": ["sender", "receiver"],
            "layers": [known[c.name] for c in senders],
            "columns": [known[c.name] for c in receivers],
        }
        return Result((found,), details=details)

    def _mean_gradients(self, problem: Problem, reads: tuple[ResolvedLayer, ...]) -> Tensors:
        """Return the mean gradients at the receivers while the embeddings, or the inputs, go from b to x."""
        if not all(t.is_floating_point() for t in problem.x):
            tables, _ = embeddings_of_inputs(problem, find_embeddings(problem.model))
            problem = explain_by_layers(problem, tuple(tables), self)
        alphas, weights = nodes_and_weights(self.method, self.n_steps or 1)
        path, sums = StraightPath(problem, alphas), RunningMoments(problem.rows)
        axes = RowAxes(problem, reads)
        for c in problem.replace(read_layers=reads).run.evaluate_points(path.n, path.point):
            sums.add(c.rows, axes(c.gradients, len(c.rows)), weights[c.k % len(alphas)])
        return sums.mean(problem.n_baselines)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: EdgeAttribution explains by edges between components; give components=")
        if self.n_steps is not None:
            check_points(self.method, self.n_steps)


def _check_one_stream(sender: Component, change: Tensor, receiver: Component, gradient: Tensor) -> None:
    """Refuse an edge whose ends have other shapes, as where cells are pooled between them.

    Raises:
        ValueError: what is sent is not read as it was sent.
    """
    if change.shape != gradient.shape:
        raise ValueError(
            f"components: {sender.name!r} writes {tuple(change.shape[1:])} and {receiver.name!r} reads "
            f"{tuple(gradient.shape[1:])} for a row; an edge is between parts that write to and read from one stream, where both "
            "have one shape: give them different stacks, or components between which nothing is pooled"
        )


def _reaches(problem: Problem, writes: Sequence[ResolvedLayer], reads: Sequence[ResolvedLayer]) -> list[list[bool]]:
    """Return for each sender and receiver whether what is read depends on what is sent, by the graph of the first row.

    Running earlier is not enough: parts side by side read the same stream, one after the other.
    """
    with enable_grad_for(problem.model, problem.x[0].device), freeze_parameters(problem.model):
        with record_with_grad([*writes, *reads]) as seen:
            problem.run.first_row()
        sent = [seen[s] for s in range(len(writes))]
        found = []
        for r in range(len(reads)):
            read = seen[len(writes) + r]
            ones = torch.ones_like(read)
            slopes = torch.autograd.grad(read, sent, ones, allow_unused=True, retain_graph=True)
            found.append([slope is not None for slope in slopes])
    return [list(column) for column in zip(*found)]
