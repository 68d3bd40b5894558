"""Layer-wise relevance propagation: which rule where, and the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar, TypedDict

from torch import Tensor, nn
from typing_extensions import Unpack

from torchwhy.attribution import Attribution
from torchwhy.backprop.composite import (
    Composite,
    CompositeLike,
    RuleLike,
    check_rules,
    choose_composite,
    propagation_of,
)
from torchwhy.backprop.lrp_rules import check_box, stabilize
from torchwhy.backprop.propagation import Propagation
from torchwhy.engine.rules.mode import count_operations, refuse_opaque_models, run_with_rules
from torchwhy.engine.rules.opaque import warn_if_without_rules
from torchwhy.engine.run.rows import expand_like, sum_per_row
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Keywords, Model
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import NotNegative


class SettingsByHand(TypedDict, total=False):
    """The settings of :class:`LRP` that :meth:`LRP.rules` takes besides."""

    first: RuleLike | None
    epsilon: float
    gamma: float
    low: float | Tensor | None
    high: float | Tensor | None
    strict: bool


class LRP(Attribution[GivenLayer]):
    r"""Layer-wise relevance propagation: the score is handed down, layer by layer, in the proportions that each layer's rule
    says, :math:`R_j = \sum_k (z_{jk} / \sum_i z_{ik}) R_k`.

    Relevance is in units of the score, or sums to about 1 with ``unit``. It is conserved up to what biases and ε
    absorb: \|sum - score\| is the explanation's ``completeness_gap``. With ``composite="epsilon"`` and ε → 0 it equals
    input times gradient on piecewise linear networks.

    The rules act on operations, on the untouched model. Batch norm is folded, for the rule only, into the linear operation
    before it, else it is affine. Activations pass relevance on; products share it; norms and denominators count as
    constants; a sigmoid factor is a gate, which gets nothing; so are attention weights, but for the composite
    ``"attention"``, where queries and keys get their share (see :mod:`torchwhy.backprop.propagation`).

    Args:
        composite: which rule where. ``"auto"`` is ``"attention"`` for models with attention, layer norms or recurrent layers,
            else ``"epsilon_plus_flat"``, but flat at convolutions only: a fully connected layer that sees the input keeps ε,
            as the flat rule would give all features the same. Other names: ``epsilon``, ``epsilon_plus``, ``epsilon_gamma``,
            ``epsilon_gamma_box``, ``epsilon_alpha2_beta1``, ``epsilon_alpha2_beta1_flat``, ``excitation``. Or a
            ``tw.lrp.Composite``: these are ``tw.lrp.EPSILON_PLUS`` and so on, and ``.replace(...)`` changes their rules. A
            mapping changes rules of ``"epsilon"``: its keys are operations (``F.conv2d``), module types, module names, or
            tuples of these; its values rules (``tw.lrp.Gamma(0.25)``) or their names.
        first: the rule of the linear layers that see the input (``Flat()``, ``WSquare()``, ``ZBox(low, high)``, or any
            other), in place of the composite's own; a warning says if none does, as where the model first normalizes its
            input. Not with ``layer=``, which begins above them.
        epsilon: of the ε rule, where a composite has it by its name, as the named composites do.
        gamma: of the γ rule, likewise.
        low, high: the bounds of the input, the same for all rows, for the box rule, likewise.
        unit: start from relevance 1, not from the score.
        strict: refuse non-linear operations without a rule; they are counted in the explanation's ``details`` anyway.

    Raises:
        ValueError: no such composite or rule (with the nearest names), α - β ≠ 1, a box without bounds, a first-layer rule
            elsewhere, a rule of your own that returns another shape.
        TypeError: a TorchScript or compiled model.

    Papers: Bach et al. 2015, PLoS ONE 10(7); Montavon et al. 2019, LNCS 11700; Achtibat et al. 2024, arXiv:2402.05602.

    >>> import torch, torchwhy as tw
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> relevance = tw.LRP(net, composite="epsilon").attribute(x)
    >>> torch.allclose(relevance, x * net.weight, atol=1e-4)
    True
    """

    composite: CompositeLike = "auto"
    first: RuleLike | None = None
    epsilon: NotNegative = 1e-6
    gamma: NotNegative = 0.25
    low: float | Tensor | None = None
    high: float | Tensor | None = None
    unit: bool = False
    strict: bool = False

    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "doi:10.1371/journal.pone.0130140"

    @classmethod
    def rules(
        cls, composite: CompositeLike = "auto", model: nn.Module | None = None, **settings: Unpack[SettingsByHand]
    ) -> Propagation:
        """Return the rules, for use by hand: ``with tw.LRP.rules("epsilon"): y = model(x)[0, k]``, then ``y.backward()``.

        What arrives at an x that requires a gradient is the multiplier m, so that its relevance is ``x * x.grad``. Where the
        composite has a rule for the layer that sees the input, it is the relevance itself; the rules' ``returns_relevance``
        says which. It is that of the sum of what is differentiated, in its units.

        Args:
            composite: as for :class:`LRP`.
            model: where ``"auto"``, and rules by module type or name, look; not needed for others.
            settings: ``first``, ``epsilon``, ``gamma``, ``low``, ``high`` and ``strict``, as for :class:`LRP`.

        >>> import torch, torchwhy as tw
        >>> net, x = torch.nn.Linear(2, 1), torch.tensor([[1.0, 2.0]], requires_grad=True)
        >>> with tw.LRP.rules("epsilon"):
        ...     y = net(x)
        >>> y.sum().backward()
        >>> torch.allclose(x * x.grad, tw.LRP(net, composite="epsilon").attribute(x))
        True
        """
        refuse_opaque_models(model)
        return cls(model, composite=composite, **settings)._make_rules(model)()

    def _check_settings(self) -> None:
        """Refuse a composite or a first rule that there is not, bounds that are none, and a box without them."""
        super()._check_settings()
        check_box(self.low, self.high)
        composite = Composite() if self.composite == "auto" else choose_composite(self.composite, None)
        if self.first is not None:
            composite = composite.replace(first=self.first)
        check_rules(composite, vars(self))

    def settings(self) -> Keywords:
        """Return the settings that differ from their defaults; a mapping of rules as the composite that it makes."""
        found = super().settings()
        if isinstance(found.get("composite"), Mapping):
            found["composite"] = Composite.of(found["composite"])
        return found

    def _attribute(self, problem: Problem) -> Result:
        make = self._make_rules(problem.model)
        scores, signal, used = run_with_rules(problem, make)
        details = count_operations(used)
        if details["plain_operations"]:
            warn_if_without_rules(type(self).__name__, details, [rules.unreached for rules in used])
        if used[0].first is not None:
            self._warn_if_not_first(used)
        values = signal if used[0].returns_relevance else tuple(x * m for x, m in zip(problem.x, signal))
        gap = (sum_per_row(values) - scores).abs()
        if self.unit:
            scores = stabilize(scores, 1e-12)
            values = tuple(v / expand_like(scores, v) for v in values)
        return Result(values, gap, details=details)

    def _make_rules(self, model: Model) -> Callable[[], Propagation]:
        """Return what makes the rules of one model call."""
        composite = choose_composite(self.composite, model)
        if self.first is not None:
            composite = composite.replace(first=self.first, first_at_linear=True)
        settings = {"epsilon": self.epsilon, "gamma": self.gamma, "low": self.low, "high": self.high}
        return propagation_of(composite, model, settings, from_input=self.layer is None, strict=self.strict)

    def _warn_if_not_first(self, used: list[Propagation]) -> None:
        """Warn when no layer saw the input, so that the rule for those that do was not used."""
        is_used = any(rules.first_layer_seen for rules in used)
        if not is_used and (self.first is not None or any(rules.linear_layer_seen for rules in used)):
            warn(
                f"LRP: the {type(used[0].first).__name__} rule is for linear layers that see the input, and none does, as where "
                "the model first normalizes it: normalize before the call, or choose another composite",
            )
