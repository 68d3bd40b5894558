"""Direct logit attribution: what each component adds to the score through the last norm and the head alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from torchwhy.backprop.lrp import LRP
from torchwhy.backprop.propagation import Propagation
from torchwhy.circuits.circuit_method import CircuitMethod
from torchwhy.circuits.transformer_parts import Component, check_stream, find_components, names_of_layers
from torchwhy.engine.explained_layers import explain_by_layers
from torchwhy.engine.layers.layer import resolve_layer
from torchwhy.engine.rules.mode import run_with_rules
from torchwhy.engine.run.runner import Tally
from torchwhy.problem import Problem
from torchwhy.result import Result

NEXT_TO_NOTHING = 1e-12  # what stabilizes a division


class DirectLogitAttribution(CircuitMethod):
    r"""What each component adds to the score by itself, through the last norm and the head:
    :math:`A_{ns} = o_s(x_n) \cdot m(x_n)`, where m is the slope of the score by the last residual stream, the scale of the norm
    held as it is.

    Shape ``(N, components)``, in units of the score: the embeddings, and what every attention and feed-forward part adds to the
    residual stream. A row sums to the score of a target that is linear in the logits, but for the biases of the last norm and the
    head, which ``completeness_gap`` says. What a component does through later ones is not in it: see :class:`EdgeAttribution`.

    Args:
        components: a list of ``tw.circuits.Component``, as for :class:`EdgeAttribution`; None finds them.

    Raises:
        LookupError: the components were not found: give them.

    Paper: Elhage et al. 2021, "A mathematical framework for transformer circuits"; nostalgebraist 2020; Wang et al. 2022,
    arXiv:2211.00593, section 3.
    """

    components: Sequence[Component] | None = None

    needs_float_inputs: ClassVar[bool | None] = False
    explains_inputs: ClassVar[bool] = False
    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:2211.00593"

    def _attribute(self, problem: Problem) -> Result:
        components = (
            list(self.components) if self.components is not None else find_components(problem.replace(tally=Tally()))
        )
        output = components[-1]
        if output.reads is None:
            raise LookupError(
                "components: the last one must be the output, which reads the residual stream and writes nothing"
            )
        senders = [c for c in components if c.writes is not None and c.stack == output.stack]
        places = [resolve_layer(problem.model, c.writes) for c in senders if c.writes is not None]
        at = explain_by_layers(problem, (*places, resolve_layer(problem.model, output.reads)), self)
        if self.components is None:
            check_stream([output], at.x[:-1], at.x[-1:], senders=senders)
        above = at.replace(x=at.x[-1:], baselines=(), input_layers=at.input_layers[-1:])
        scores, (slope,), _ = run_with_rules(above, _rules)
        found = slope.new_zeros(problem.n, len(senders))
        for s, added in enumerate(at.x[:-1]):
            found[:, s] = (added * slope).flatten(1).sum(1)
        gap: Tensor = (found.sum(1) - scores).abs()
        return Result(
            (found,), gap, details={"axes": ["component"], "layers": names_of_layers([c.name for c in senders])}
        )

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.layer is not None:
            raise ValueError("layer: DirectLogitAttribution explains by components; give components=")


def _rules() -> Propagation:
    """Return rules under which linear layers keep their gradient, and the scale of a norm counts as constant."""
    return LRP.rules("epsilon", epsilon=NEXT_TO_NOTHING)
