"""Composites of layer-wise relevance propagation: which rule where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, NoReturn, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from torchwhy.backprop.excitation_rules import EXCITATION_RULES
from torchwhy.backprop.lookup import lookup
from torchwhy.backprop.lrp_rules import RULE_NAMES, AlphaBeta, Excitation, InputRule, LayerRule, Norm, Pass
from torchwhy.backprop.propagation import MATMULS, Propagation, linear_rule, matmul_rule, pass_rule, rule_table
from torchwhy.engine.rules.decompositions import affine_batch_norm
from torchwhy.engine.rules.mode import keep_gradient
from torchwhy.engine.rules.operations import (
    CONVOLUTIONS,
    LINEAR_LAYERS,
    NORMS,
    POINTWISE,
    OpRule,
    RuleTable,
    TorchFunction,
    operation,
)
from torchwhy.engine.structure import Model
from torchwhy.spelling import did_you_mean

AnyRule = LayerRule | InputRule | Pass | Norm
RuleLike = AnyRule | str
RulesByKey = Mapping[Any, RuleLike]
RuleSettings = Mapping[str, float | Tensor | None]  # epsilon, gamma, low, high


class FrozenRules(dict[object, RuleLike]):
    """Rules by their keys, which nobody changes, as the named composites are everybody's."""

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("a composite does not change: make another one, as by composite.replace(by_name={...})")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[FrozenRules], tuple[dict[object, RuleLike]]]:
        return FrozenRules, (dict(self),)


class CompositeChanges(TypedDict, total=False):
    """What :meth:`Composite.replace` takes: the rules of a :class:`Composite`, by name."""

    convolution: RuleLike
    linear: RuleLike
    first: RuleLike | None
    by_operation: RulesByKey
    by_type: RulesByKey
    by_name: RulesByKey
    softmax_gates: bool
    first_at_linear: bool


@dataclass(frozen=True)
class Composite:
    """Which rule of layer-wise relevance propagation stands where.

    A rule is one of :mod:`torchwhy.lrp`, an object of a class of your own, derived from ``tw.lrp.LayerRule`` or
    ``tw.lrp.InputRule``, or a name: ``"epsilon"``, ``"gamma"``, ``"alpha_beta"``, ``"zplus"``, ``"excitation"``, ``"zbox"``,
    ``"flat"``, ``"wsquare"``, ``"pass"``, ``"norm"``. Named rules take ``epsilon``, ``gamma``, ``low`` and ``high`` from the
    settings of :class:`torchwhy.LRP`.

    Where several are meant, the innermost module that has a rule wins, and in it its name, then its type; without one the
    operation's own rule, then ``convolution`` or ``linear``. At a layer that sees the model's input, ``first`` wins over all.

    Args:
        convolution: the rule of convolutions.
        linear: the rule of fully connected layers, and of products with a constant matrix.
        first: the rule of the linear layers that see the input; None leaves them to the others.
        by_operation: rules of operations, whichever way a model spells them: ``{F.conv2d: tw.lrp.Gamma(0.25)}``.
        by_type: rules inside modules of a type: ``{nn.Linear: "gamma"}``.
        by_name: rules inside a module, by its dotted name: ``{"layer4": tw.lrp.Gamma(0.25)}``.
        softmax_gates: attention weights are gates and get no relevance; False lets queries and keys have their share.
        first_at_linear: whether ``first`` is also for fully connected layers that see the input, not only for convolutions.

    Keys of the three mappings may also be tuples, which stand for each of their entries.

    Raises:
        ValueError: a key or a rule that is none, or at the wrong place.

    >>> import torchwhy as tw
    >>> tw.lrp.EPSILON_PLUS.replace(by_name={"layer4": tw.lrp.Gamma(0.5)})
    Composite(convolution='zplus', linear='epsilon', by_name={'layer4': Gamma(gamma=0.5, epsilon=1e-09)})
    """

    convolution: RuleLike = "epsilon"
    linear: RuleLike = "epsilon"
    first: RuleLike | None = None
    by_operation: RulesByKey = field(default_factory=dict)
    by_type: RulesByKey = field(default_factory=dict)
    by_name: RulesByKey = field(default_factory=dict)
    softmax_gates: bool = True
    first_at_linear: bool = True

    def __post_init__(self) -> None:
        for name in ("convolution", "linear", "first"):
            rule = getattr(self, name)
            if not (name == "first" and rule is None):
                _check_rule(name, rule)
            if rule in ("pass", "norm", Pass(), Norm()):
                raise ValueError(f"{name}={rule!r}: expected a rule of linear layers")
        for name, (is_key, what) in _KEYS.items():
            rules = _each_key(getattr(self, name))
            for key, rule in rules.items():
                if not is_key(key):
                    raise ValueError(f"composite: {name}={{{key!r}: ...}}: {key!r} is no {what}")
                _check_rule("rule", rule)
            object.__setattr__(self, name, FrozenRules(rules))

    def __hash__(self) -> int:
        return hash((self.convolution, self.linear, self.first))

    def __repr__(self) -> str:
        default, always = Composite(), ("convolution", "linear")
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = {name: v for name, v in values.items() if name in always or v != getattr(default, name)}
        return f"Composite({', '.join(f'{name}={_text(value)}' for name, value in shown.items())})"

    def replace(self, **changes: Unpack[CompositeChanges]) -> Composite:
        """Return the composite with other rules; a mapping that is given replaces the one that was there.

        Raises:
            TypeError: it has no such setting.
        """
        names = [f.name for f in fields(self)]
        for name in changes:
            if name not in names:
                raise TypeError(f"Composite has no {name!r}{did_you_mean(name, names)}")
        return replace(self, **changes)

    @classmethod
    def of(cls, rules: RulesByKey) -> Composite:
        """Return ``EPSILON`` with the rules of a mapping, whose keys are operations, module types or module names."""
        groups: dict[str, dict[object, RuleLike]] = {name: {} for name in _KEYS}
        for key, rule in _each_key(rules).items():
            name = next((name for name, (is_key, _) in _KEYS.items() if is_key(key)), None)
            if name is None:
                raise ValueError(f"composite: {key!r} is no operation, module type or module name")
            groups[name][key] = rule
        return cls(by_operation=groups["by_operation"], by_type=groups["by_type"], by_name=groups["by_name"])


def _check_rule(name: str, rule: object) -> None:
    """Refuse what is neither a rule nor the name of one."""
    if isinstance(rule, str):
        lookup(RULE_NAMES, rule, name)
    elif not isinstance(rule, (LayerRule, InputRule, Pass, Norm)):
        raise ValueError(
            f"{name}={rule!r}: expected a rule of tw.lrp, an object of a class derived from tw.lrp.LayerRule or "
            f"tw.lrp.InputRule, or one of the names {', '.join(RULE_NAMES)}"
        )


def _each_key(rules: RulesByKey) -> dict[object, RuleLike]:
    """Return a mapping with one key for each entry of the tuples among the keys."""
    return {key: rule for group, rule in rules.items() for key in (group if isinstance(group, tuple) else (group,))}


def _is_operation(key: object) -> bool:
    return callable(key) and not isinstance(key, type)


def _is_module_type(key: object) -> bool:
    return isinstance(key, type) and issubclass(key, nn.Module)


def _is_name(key: object) -> bool:
    return isinstance(key, str)


# field: what its keys are, as a test and in words
_KEYS: dict[str, tuple[Callable[[object], bool], str]] = {
    "by_operation": (_is_operation, "operation, such as F.conv2d"),
    "by_type": (_is_module_type, "module type, such as nn.Conv2d"),
    "by_name": (_is_name, "module name"),
}


def _text(value: object) -> str:
    """Return a setting as text, functions and classes by their names."""
    if not isinstance(value, dict):
        return repr(value)
    keys = [repr(key) if isinstance(key, str) else getattr(key, "__name__", repr(key)) for key in value]
    return f"{{{', '.join(f'{key}: {rule!r}' for key, rule in zip(keys, value.values()))}}}"


EPSILON = Composite()
EPSILON_PLUS = Composite(convolution="zplus")
EPSILON_PLUS_FLAT = Composite(convolution="zplus", first="flat")
EPSILON_GAMMA = Composite(convolution="gamma")
EPSILON_GAMMA_BOX = Composite(convolution="gamma", first="zbox")
EPSILON_ALPHA2_BETA1 = Composite(convolution=AlphaBeta(2, 1))
EPSILON_ALPHA2_BETA1_FLAT = Composite(convolution=AlphaBeta(2, 1), first="flat")
EXCITATION = Composite(convolution="excitation", linear="excitation")
ATTENTION = Composite(softmax_gates=False)

COMPOSITES: dict[str, Composite] = {
    "epsilon": EPSILON,
    "epsilon_plus": EPSILON_PLUS,
    "epsilon_plus_flat": EPSILON_PLUS_FLAT,
    "epsilon_gamma": EPSILON_GAMMA,
    "epsilon_gamma_box": EPSILON_GAMMA_BOX,
    "epsilon_alpha2_beta1": EPSILON_ALPHA2_BETA1,
    "epsilon_alpha2_beta1_flat": EPSILON_ALPHA2_BETA1_FLAT,
    "excitation": EXCITATION,
    "attention": ATTENTION,
}
CompositeLike = Composite | RulesByKey | str


def choose_composite(given: CompositeLike, model: Model) -> Composite:
    """Return the composite that is meant: one, its name, ``"auto"``, or a mapping that changes rules of ``"epsilon"``."""
    if isinstance(given, Composite):
        return given
    if isinstance(given, Mapping):
        return Composite.of(given)
    if not isinstance(given, str):
        raise ValueError(f"composite={given!r}: expected a tw.lrp.Composite, its name, or a mapping of rules")
    if given != "auto":
        return COMPOSITES[given] if given in COMPOSITES else lookup(COMPOSITES, given, "composite")
    modules = model.modules() if isinstance(model, nn.Module) else ()
    # at a fully connected layer, flat would give all features the same
    return ATTENTION if _has_attention(modules) else EPSILON_PLUS_FLAT.replace(first_at_linear=False)


def _has_attention(modules: Iterable[nn.Module]) -> bool:
    """Return whether there are attention, layer norms or recurrent layers among the modules, or in the graph of one."""
    return any(
        isinstance(m, (nn.LayerNorm, nn.MultiheadAttention, nn.RNNBase))
        or any(word in type(m).__name__ for word in ("Attention", "LayerNorm", "RMSNorm"))
        or (isinstance(m, torch.fx.GraphModule) and any(map(_is_attention, m.graph.nodes)))
        for m in modules
    )


def _is_attention(node: torch.fx.Node) -> bool:
    """Return whether a node of an exported graph is one of the operations that such layers are made of."""
    if node.op != "call_function" or not callable(node.target):
        return False
    name = operation(node.target).name
    return name.removeprefix("native_") in ("layer_norm", "rms_norm", "lstm", "gru", "rnn_tanh", "rnn_relu") or (
        "scaled_dot_product" in name
    )


# -------------------------------------------------------------------------------------------- from a composite to tables
def propagation_of(
    composite: Composite,
    model: Model,
    settings: RuleSettings,
    *,
    from_input: bool = True,
    strict: bool = False,
) -> Callable[[], Propagation]:
    """Return what makes the rules of one call of a model.

    Args:
        composite: which rule where.
        model: the model, in which ``by_type`` and ``by_name`` find their modules.
        settings: ``epsilon``, ``gamma``, ``low`` and ``high``, which named rules take.
        from_input: whether relevance is handed down to the model's input; where it ends at a layer, no layer sees the input.
        strict: refuse non-linear operations without a rule.
    """

    make = partial(make_rule, settings=settings)
    operations = rule_table(make(composite.convolution), make(composite.linear))
    if all(isinstance(make(rule), Excitation) for rule in (composite.convolution, composite.linear)):
        operations.update(EXCITATION_RULES)
    first = None if composite.first is None else make(composite.first)
    chosen: list[AnyRule | None] = [first]
    for function, given in composite.by_operation.items():
        rule = make(given)
        operations.update(operation_rules(function, rule))
        chosen.append(rule)
    modules: dict[nn.Module, RuleTable] = {}
    for key, given in (*composite.by_type.items(), *composite.by_name.items()):  # a name is more special than a type
        rule = make(given)
        modules.update(dict.fromkeys(find_modules(model, key), module_rules(rule)))
        chosen.append(rule)
    return partial(
        Propagation,
        operations,
        modules=modules,
        first=first if from_input else None,
        first_at=LINEAR_LAYERS if composite.first_at_linear else CONVOLUTIONS,
        returns_relevance=from_input and any(isinstance(rule, InputRule) for rule in chosen),
        softmax_gates=composite.softmax_gates,
        strict=strict,
    )


def make_rule(rule: RuleLike, settings: RuleSettings) -> Any:
    """Return the rule of a name, with the settings that it takes; a rule as it is."""
    if not isinstance(rule, str):
        return rule
    kind, names = RULE_NAMES[rule]
    return kind(**{name: settings[name] for name in names})


def check_rules(composite: Composite, settings: RuleSettings) -> None:
    """Make every rule of a composite once, so that one whose settings are missing is refused before a model runs.

    Raises:
        ValueError: a box without bounds.
    """
    chosen = (composite.by_operation, composite.by_type, composite.by_name)
    rules = [rule for by_place in chosen for rule in by_place.values()]
    for rule in (composite.convolution, composite.linear, composite.first, *rules):
        if rule is not None:
            make_rule(rule, settings)


def operation_rules(function: TorchFunction, rule: AnyRule) -> dict[str, OpRule]:
    """Return what a rule changes that was chosen for an operation, in all its spellings."""
    name = operation(function).name
    if isinstance(rule, Pass):
        return {name: pass_rule}
    if isinstance(rule, Norm):
        return {name: gradient_rule(name)}
    if name not in LINEAR_LAYERS:
        raise ValueError(f"composite: the operation {name!r} is no linear layer; it can have the rule Pass() or Norm()")
    products = MATMULS if name == "linear" else ()
    return {name: partial(linear_rule, rule=rule), **dict.fromkeys(products, partial(matmul_rule, rule=rule))}


def module_rules(rule: AnyRule) -> dict[str, OpRule]:
    """Return what a rule changes inside a module that it was chosen for."""
    if isinstance(rule, Pass):
        return dict.fromkeys((*POINTWISE, *NORMS, *LINEAR_LAYERS, "batch_norm"), pass_rule)
    if isinstance(rule, Norm):
        return {name: gradient_rule(name) for name in (*POINTWISE, *NORMS, "batch_norm")}
    layer, product = partial(linear_rule, rule=rule), partial(matmul_rule, rule=rule)
    return {**dict.fromkeys(LINEAR_LAYERS, layer), **dict.fromkeys(MATMULS, product)}


def gradient_rule(name: str) -> OpRule:
    """Return the rule of an operation that keeps its gradient; that of batch norm is computed here."""
    return affine_batch_norm if name == "batch_norm" else keep_gradient


def find_modules(model: Model, key: type[nn.Module] | str) -> list[nn.Module]:
    """Return the modules of a type, or the one of a name."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"composite: rules by module type or name need a model that is a module, this one is a {type(model).__name__}; "
            "choose rules by operation (F.conv2d)"
        )
    if isinstance(key, str):
        named = {name: m for name, m in model.named_modules(remove_duplicate=False) if name}
        return [lookup(named, key, "composite: module name")]
    return [m for m in model.modules() if isinstance(m, key)]
