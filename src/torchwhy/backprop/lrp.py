"""Layer-wise relevance propagation: which rule where, and the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from torchwhy.attribution import Attribution
from torchwhy.backprop.lrp_rules import (
    FIRST_ONLY,
    LAYER_RULES,
    AlphaBeta,
    Epsilon,
    Excitation,
    Flat,
    Gamma,
    Norm,
    Pass,
    WSquare,
    ZBox,
    ZPlus,
    stabilize,
)
from torchwhy.backprop.propagation import (
    MATMULS,
    Propagation,
    gradient_rule,
    linear_rule,
    matmul_rule,
    module_rules,
    pass_rule,
    rule_table,
)
from torchwhy.backprop.run_rules import count_operations, lookup, run_with_rules
from torchwhy.engine.rules.mode import OpRule
from torchwhy.engine.rules.operations import CONVOLUTIONS, LINEAR_LAYERS, operation
from torchwhy.engine.run.rows import expand_like, sum_per_row
from torchwhy.engine.run.warn import warn
from torchwhy.problem import Problem
from torchwhy.result import Result

# name: (rule of convolutions, of fully connected layers, of the layer that sees the input), made from the settings
COMPOSITES: dict[str, Callable[[LRP], tuple[Any, Any, Any]]] = {
    "epsilon": lambda s: (Epsilon(s.epsilon), Epsilon(s.epsilon), None),
    "epsilon_plus": lambda s: (ZPlus(), Epsilon(s.epsilon), None),
    "epsilon_plus_flat": lambda s: (ZPlus(), Epsilon(s.epsilon), Flat()),
    "epsilon_gamma": lambda s: (Gamma(s.gamma), Epsilon(s.epsilon), None),
    "epsilon_gamma_box": lambda s: (Gamma(s.gamma), Epsilon(s.epsilon), ZBox(s.low, s.high)),
    "epsilon_alpha2_beta1": lambda s: (AlphaBeta(2, 1), Epsilon(s.epsilon), None),
    "epsilon_alpha2_beta1_flat": lambda s: (AlphaBeta(2, 1), Epsilon(s.epsilon), Flat()),
    "excitation": lambda s: (Excitation(), Excitation(), None),
    "attention": lambda s: (Epsilon(s.epsilon), Epsilon(s.epsilon), None),
}
RULE_NAMES: dict[str, Callable[[LRP], Any]] = {
    "epsilon": lambda s: Epsilon(s.epsilon),
    "gamma": lambda s: Gamma(s.gamma),
    "alpha_beta": lambda s: AlphaBeta(),
    "zplus": lambda s: ZPlus(),
    "excitation": lambda s: Excitation(),
    "zbox": lambda s: ZBox(s.low, s.high),
    "flat": lambda s: Flat(),
    "wsquare": lambda s: WSquare(),
    "pass": lambda s: Pass(),
    "norm": lambda s: Norm(),
}


class LRP(Attribution):
    r"""Layer-wise relevance propagation: the score is handed down, layer by layer, in the proportions that each layer's rule
    says, :math:`R_j = \sum_k (z_{jk} / \sum_i z_{ik}) R_k`.

    Relevance is in units of the score, or sums to about 1 with ``unit``. It is conserved up to what biases and ε
    absorb: |sum - score| is the explanation's ``completeness_gap``. With ``composite="epsilon"`` and ε → 0 it equals
    input times gradient on piecewise linear networks.

    The rules act on operations, on the untouched model. Batch norm is folded, for the rule only, into the linear operation
    before it, else it is affine. Activations pass relevance on; products share it; norms and denominators count as
    constants; a sigmoid factor is a gate, which gets nothing; so are attention weights, but for the composite
    ``"attention"``, where queries and keys get their share (see :mod:`torchwhy.backprop.propagation`).

    Args:
        composite: which rule where. ``"auto"`` is ``"attention"`` for models with attention, layer norms or recurrent layers,
            else ``"epsilon_plus_flat"``, but flat at convolutions only: a fully connected layer that sees the input keeps ε,
            as the flat rule would give all features the same. Other names: ``epsilon``, ``epsilon_plus``, ``epsilon_gamma``,
            ``epsilon_gamma_box``, ``epsilon_alpha2_beta1``, ``epsilon_alpha2_beta1_flat``, ``excitation``. A mapping changes
            rules of ``"epsilon"``: its keys are operations (``F.conv2d``), module types, module names, or tuples of these;
            its values rules (``tw.lrp.Gamma(0.25)``) or their names. The innermost module that has a rule wins, then a module
            type, an operation.
        first: the rule of the linear layers that see the input (``Flat()``, ``WSquare()``, ``ZBox(low, high)``, or any
            other), in place of the composite's own; a warning says if none does, as where the model first normalises its
            input. Not with ``layer=``, which begins above them.
        epsilon: of the ε rule.
        gamma: of the γ rule.
        low, high: the bounds of the input, the same for all rows, for ``epsilon_gamma_box`` and ``first="zbox"``.
        unit: start from relevance 1, not from the score.
        strict: refuse non-linear operations without a rule; they are counted in the explanation's ``details`` anyway.

    Raises:
        ValueError: no such composite or rule (with the nearest names), α - β ≠ 1, a box without bounds, a first-layer rule
            elsewhere.
        TypeError: a TorchScript or compiled model.

    Papers: Bach et al. 2015, PLoS ONE 10(7); Montavon et al. 2019, LNCS 11700; Achtibat et al. 2024, arXiv:2402.05602.

    >>> import torch, torchwhy as tw
    >>> net = torch.nn.Linear(2, 1, bias=False)
    >>> x = torch.tensor([[1.0, 2.0]])
    >>> relevance = tw.LRP(net, composite="epsilon").attribute(x)
    >>> torch.allclose(relevance, x * net.weight, atol=1e-4)
    True
    """

    composite: str | Mapping[Any, Any] = "auto"
    first: Any = None
    epsilon: float = 1e-6
    gamma: float = 0.25
    low: float | Tensor | None = None
    high: float | Tensor | None = None
    unit: bool = False
    strict: bool = False

    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "doi:10.1371/journal.pone.0130140"

    def _attribute(self, problem: Problem) -> Result:
        make = self._make(problem.model)
        scores, signal, used = run_with_rules(problem, make)
        self._warn_if_not_first(used)
        values = signal if used[0].reads_relevance else tuple(x * m for x, m in zip(problem.x, signal))
        gap = (sum_per_row(values) - scores).abs()
        if self.unit:
            scores = stabilize(scores, 1e-12)
            values = tuple(v / expand_like(scores, v) for v in values)
        return Result(values, gap, details=count_operations(used))

    def _warn_if_not_first(self, used: list[Propagation]) -> None:
        """Warn when no layer saw the input, so that the rule for those that do was not used."""
        met = {seen for rules in used for seen in rules.met}
        if used[0].first is not None and True not in met and (self.first is not None or met):
            warn(
                f"LRP: the {type(used[0].first).__name__} rule is for linear layers that see the input, and none does, as where "
                "the model first normalises it: normalise before the call, or choose another composite",
            )

    def _make(self, model: Any) -> Callable[[], Propagation]:
        """Resolve the composite into tables, and return what makes the rules of one model call."""
        custom = self.composite if isinstance(self.composite, Mapping) else {}
        name = "epsilon" if isinstance(self.composite, Mapping) else self.composite
        name = _auto(model) if name == "auto" else name
        convolution, linear, first = lookup(COMPOSITES, name, "composite")(self)
        first = self._rule(self.first, "first") if self.first is not None else first
        operations = rule_table(convolution, linear)
        modules: dict[nn.Module, Mapping[str, OpRule]] = {}
        reads = isinstance(first, FIRST_ONLY)
        for by_name in (False, True):  # a module's name is more special than its type
            for key in (k for group in custom for k in (group if isinstance(group, tuple) else (group,))):
                rule = self._rule(
                    next(v for g, v in custom.items() if key is g or (isinstance(g, tuple) and key in g)), "rule"
                )
                reads = reads or isinstance(rule, FIRST_ONLY)
                if not (isinstance(key, (str, type))):
                    if not by_name:
                        operations.update(_by_operation(key, rule))
                elif isinstance(key, str) == by_name:
                    modules.update(dict.fromkeys(_modules(model, key), module_rules(rule)))
        if self.layer is not None:
            first, reads = None, False
        if first is not None and not isinstance(first, FIRST_ONLY) and not isinstance(first, LAYER_RULES):
            raise ValueError(f"first={first!r}: expected a rule of linear layers")
        options: dict[str, Any] = {
            "first_of": CONVOLUTIONS if self.composite == "auto" and self.first is None else LINEAR_LAYERS,
            "reads_relevance": reads,
            "softmax_gates": name != "attention",
            "strict": self.strict,
        }
        return lambda: Propagation(operations, first=first, modules=modules, **options)

    def _rule(self, rule: Any, what: str) -> Any:
        if isinstance(rule, str):
            return lookup(RULE_NAMES, rule, what)(self)
        if not isinstance(rule, (*LAYER_RULES, *FIRST_ONLY, Pass, Norm)):
            raise ValueError(f"{what}={rule!r}: expected a rule of tw.lrp, or one of the names {', '.join(RULE_NAMES)}")
        return rule


def _by_operation(function: Any, rule: Any) -> dict[str, OpRule]:
    """A rule for one operation, all its spellings."""
    if not callable(function):
        raise ValueError(f"composite: {function!r} is no operation, module type or module name")
    name = operation(function).name
    if isinstance(rule, Pass):
        return {name: pass_rule}
    if isinstance(rule, Norm):
        return {name: gradient_rule(name)}
    if name in LINEAR_LAYERS:
        return {name: linear_rule(rule)} | (dict.fromkeys(MATMULS, matmul_rule(rule)) if name == "linear" else {})
    raise ValueError(f"composite: the operation {name!r} is no linear layer; it can have the rule Pass() or Norm()")


def _modules(model: Any, key: Any) -> list[nn.Module]:
    """The modules of a type, or of a name."""
    if not isinstance(model, nn.Module):
        raise TypeError("composite: the model is a plain callable; choose rules by operation (F.conv2d), not by module")
    if isinstance(key, str):
        return [lookup({name: m for name, m in model.named_modules() if name}, key, "composite: module name")]
    if not issubclass(key, nn.Module):
        raise ValueError(f"composite: {key!r} is no module type")
    return [m for m in model.modules() if isinstance(m, key)]


def _auto(model: Any) -> str:
    """Name the composite for a model: by whether it has attention, layer norms or recurrent layers."""
    modules = model.modules() if isinstance(model, nn.Module) else ()
    found = any(
        isinstance(m, (nn.LayerNorm, nn.MultiheadAttention, nn.RNNBase))
        or any(word in type(m).__name__ for word in ("Attention", "LayerNorm", "RMSNorm"))
        for m in modules
    )
    return "attention" if found else "epsilon_plus_flat"
