r"""Modified backpropagation: run a model with another backward pass for chosen operations.

``with RuleMode(table): y = f(x)`` runs ``f`` untouched; every operation that the table names is computed by its rule instead,
which has the same value and a backward of its own, so that ``torch.autograd.grad`` then carries the method's signal. The
mode sees *functions*, hence ``F.relu``, ``x.relu_()`` and ``nn.ReLU`` alike, reused modules and skip connections; nothing is
registered on the model (but for rules chosen by module) and nothing in torch is replaced. It acts on this thread only.

The signal of every method is a *multiplier* m: relevance is x m (LRP), (x - b) m (DeepLIFT) or m itself (guided
backpropagation). Linear and structural operations keep their ordinary gradient under it and need no rule.

How an operation finds its rule: torch hands every function that the model calls to the mode, before it computes anything.
The mode asks for the name of its operation (one name for all spellings, see :mod:`~torchwhy.engine.rules.operations`), looks
the name up in the table that holds at this place of the model, and hands an :class:`OpCall` to the rule that it finds. The rule
computes the value, mostly by calling the :class:`OpCall`, and returns it through :func:`custom_backward`, which ties the rule's
backward pass to it. What has no rule runs as it is; if it is not linear and a gradient passes it, it is counted.

Two things make this harder than it sounds. *In-place operations*: a rule is pure, it returns a new tensor. So the mode computes
aside and writes the result to where the model expects it, but for rules that are marked with :func:`in_place_rule`, which write
by themselves. And what a rule keeps for its backward pass may be overwritten by the model later, which autograd would refuse:
:meth:`RuleMode.save_for_backward` keeps a tensor as it is, and copies it only when an operation is about to write to it.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine import state
from torchwhy.engine.rules import opaque
from torchwhy.engine.rules.aten import run_operator
from torchwhy.engine.rules.opaque import HoldsHooks, below_hooks, is_same_place, keep_saved, outside_transforms
from torchwhy.engine.rules.operations import (
    BILINEAR,
    GRADIENTS,
    LINEAR_LAYERS,
    PRODUCTS,
    OpCall,
    Operation,
    OpRule,
    RuleTable,
    TorchFunction,
    operation,
    out_of_place,
)
from torchwhy.engine.rules.unseen import NO_RULE_NEEDED, WatchesGraph
from torchwhy.engine.structure import AnyOutput, Keywords, Model, carries_signal, map_nested, tensors_in
from torchwhy.engine.torch_internals import (
    COMPILED_MARK,
    OPERATORS,
    BackwardHookNode,
    backward_keeps_graph,
    compiled_call,
    hooks_on_saved_tensors,
    next_sequence_number,
    number_of_node,
    transforms_are_active,
    version_of,
    without_torch_functions,
)

if TYPE_CHECKING:
    from torchwhy.problem import Problem

_RuleModeType = TypeVar("_RuleModeType", bound="RuleMode")


def keep_gradient(call: OpCall) -> object:
    """Run an operation whose plain gradient is what the method asks for: it runs untouched, and is not counted."""
    return call()


class RuleMode(HoldsHooks, WatchesGraph, TorchFunctionMode):
    """Replace operations by rules while the block lasts, on this thread: ``with RuleMode({"relu": rule}): y = f(x)``.

    Args:
        table: an operation's name to its rule, a function of the :class:`OpCall` that returns the operation's value with
            another backward.
        modules: a module to a table that holds inside of it; the innermost one that names the operation wins.
        strict: refuse non-linear operations without a rule.

    Operations that had a rule are counted in ``applied``, non-linear ones that had none in ``without_rule``; those of them that
    no rule reaches, autograd Functions, functions of TorchScript and what runs under ``torch.func.vmap`` and its kin, are in
    ``unreached`` too. What rules return cannot be differentiated twice.

    >>> import torch.nn.functional as F
    >>> x = torch.ones(1, requires_grad=True)
    >>> with RuleMode({"relu": lambda call: call.x * 3}) as rules:
    ...     y = F.relu(x)
    >>> torch.autograd.grad(y, x)[0].item(), dict(rules.applied)
    (3.0, {'relu': 1})
    """

    always: ClassVar[bool] = False  # call rules also for operations that no gradient passes through
    facts_of_views: ClassVar[frozenset[str]] = frozenset()  # that hold of a view where they hold of its base

    def __init__(
        self, table: RuleTable, *, modules: Mapping[nn.Module, RuleTable] | None = None, strict: bool = False
    ) -> None:
        super().__init__()
        self.table, self.modules, self.strict = table, dict(modules or {}), strict
        self.applied: Counter[str] = Counter()
        self.without_rule: Counter[str] = Counter()
        self.unreached: set[str] = set()  # those of them that no rule can reach
        self._depth, self.made, self.unknown = 0, set(), set()
        self.tables: list[RuleTable] = []  # that of the method, and of the modules that are running: the last one holds
        self._hooks: list[RemovableHandle] = []
        self._saved: dict[int, list[weakref.ref[opaque.SavedTensor]]] = defaultdict(list)
        self._facts = WeakIdKeyDictionary()  # tensor -> (its version, what is known of it)

    def __enter__(self: _RuleModeType) -> _RuleModeType:
        if self._depth == 0:
            if state.rules.mode is not None:
                raise RuntimeError(
                    "rules do not nest: a method with rules of its own is running on this thread already; "
                    "leave its `with` block first"
                )
            self.made, self.unknown = set(), set()
            self.first_number = next_sequence_number()
            self.tables = [self.table]
            self._hooks = [hook for module, table in self.modules.items() for hook in self._watch(module, table)]
            state.rules.mode = self
        self._depth += 1
        super().__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._depth -= 1
        if self._depth == 0:
            state.rules.mode = None
            self._saved.clear()
            for hook in self._hooks:
                hook.remove()
            unknown, self.unknown = self.unknown, set()
            if unknown and not any(error) and not self.unreached:
                self.count_unseen(unknown)

    def __torch_function__(
        self, function: TorchFunction, types: object, args: tuple = (), kwargs: Keywords | None = None
    ) -> object:
        op, kwargs = operation(function), kwargs or {}
        if op.asks and op.name not in GRADIENTS:  # nothing is saved for a backward pass
            return function(*args, **kwargs)
        has_graph = torch.is_grad_enabled()
        keeper = hooks_on_saved_tensors(True) if has_graph and not self.keeps_saved else None
        if keeper is not None and keeper[0] is not keep_saved:  # of a checkpoint, which would know no rules
            with self.without_others_hooks():
                return self.__torch_function__(function, types, args, kwargs)
        if function is torch.autograd.grad and state.held_here.models and not transforms_are_active():
            opaque.refuse_gradient_inside()
        if isinstance(function, OPERATORS):
            out = run_operator(self, function, args, kwargs)
            self.made.update(number_of_node(t.grad_fn) for t in tensors_in([out]) if t.grad_fn is not None)
            return out
        if op.asks:
            return function(*args, **kwargs)
        inside = transforms_are_active()
        if has_graph:
            given = [t for v in (*args, *kwargs.values()) for t in (v if isinstance(v, (tuple, list)) else (v,))]
            nodes = [t.grad_fn for t in given if isinstance(t, Tensor)]
            self.unknown.update([node for node in nodes if node is not None and number_of_node(node) not in self.made])
        out = (self._run_in_transform if inside else self.run_operation)(op, function, args, kwargs)
        if not has_graph:
            return out
        results = map_nested(outside_transforms, out) if inside else out
        for t in results if isinstance(results, (tuple, list)) else (results, *args[: op.in_place]):
            if isinstance(t, Tensor) and t.grad_fn is not None:
                self.made.add(number_of_node(t.grad_fn))
        return out

    def _run_in_transform(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation as it is inside a transform of ``torch.func``, such as ``vmap``, where no rule can stand.

        One that has a rule elsewhere, or is not linear, is counted.
        """
        rule, outside = self.tables[-1].get(op.name), map_nested(outside_transforms, (args, kwargs))
        if (op.in_place or kwargs.get("inplace") is True) and args:
            self.copy_before_overwrite(outside[0][0])
        is_linear = op.name in NO_RULE_NEEDED and (rule is None or op.name not in LINEAR_LAYERS)
        needs_rule = not (is_linear or rule is keep_gradient) and carries_signal(*outside)
        if needs_rule and (op.name in LINEAR_LAYERS or not is_linear_call(op.name, *outside)):
            self.count_unreached(op.name, "in a transform of torch.func")
        return function(*args, **kwargs)

    def run_operation(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation by its rule, where it has one and a gradient passes through it; else as it is."""
        rule, in_place = self.tables[-1].get(op.name), op.in_place or kwargs.get("inplace") is True
        if in_place and args and self._saved:
            self.copy_before_overwrite(args[0])
        if rule is None:
            out = function(*args, **kwargs)
            if (op.name not in NO_RULE_NEEDED or op.name in BILINEAR) and carries_signal(out):
                self.count_without_rule(op.name, args, kwargs)
            return out
        signal = torch.is_grad_enabled() and carries_signal(args, kwargs)
        if rule is keep_gradient or not (self.always or signal):
            return function(*args, **kwargs)
        if signal:
            self.applied[op.name] += 1
        if in_place:
            return self._run_in_place(rule, op, function, args, kwargs)
        if op.reversed:  # Tensor.__rsub__(a, b) is sub(b, a)
            function, args = out_of_place(op.name, function), (args[1], args[0])
        return self.apply_rule(rule, OpCall(self, op, function, args, kwargs))

    def _run_in_place(
        self, rule: OpRule, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords
    ) -> object:
        kwargs = {name: value for name, value in kwargs.items() if name != "inplace"}
        twin = out_of_place(op.name, function) if op.in_place else function
        if getattr(rule, "in_place", False):  # the rule writes by itself
            return self.apply_rule(rule, OpCall(self, op, twin, args, kwargs, in_place=True))
        aside = (args[0].clone(), *args[1:])  # rules are pure: compute aside, then write
        y = self.apply_rule(rule, OpCall(self, op, twin, aside, kwargs))
        self.copy_before_overwrite(args[0])  # of which another argument may be a part
        if isinstance(y, Tensor) and y.shape != args[0].shape:  # as x.unsqueeze_(0) does
            function(*args, **kwargs)
        return args[0].copy_(y)

    def apply_rule(self, rule: OpRule, call: OpCall) -> object:
        """Return what a rule makes of a call."""
        return rule(call)

    def save_for_backward(self, tensor: Tensor) -> opaque.SavedTensor:
        """Keep a tensor for the backward pass, safe from the model's own in-place operations."""
        saved = opaque.SavedTensor(tensor.detach())
        self._saved[saved.value.untyped_storage().data_ptr()].append(weakref.ref(saved))
        return saved

    def copy_before_overwrite(self, target: object) -> None:
        """Copy what is saved of the memory that an in-place operation is about to overwrite."""
        if isinstance(target, Tensor):
            for reference in self._saved.pop(target.untyped_storage().data_ptr(), ()):
                if (saved := reference()) is not None:
                    saved.value = saved.value.clone()

    def note(self, tensor: object, **facts: object) -> None:
        """Note what a rule found out about a tensor, for the rules that get it next: until it is written to, or dies."""
        if isinstance(tensor, Tensor):
            now = version_of(tensor)
            version, known = self._facts.get(tensor, (now, {}))
            self._facts[tensor] = (now, {**known, **facts} if version == now else facts)

    def noted(self, tensor: object, fact: str) -> AnyOutput:
        """Return a fact that was noted of a tensor; None if it was not, or if the tensor was written to since."""
        if not isinstance(tensor, Tensor):
            return None
        version, facts = self._facts.get(tensor, (0, {}))
        if not facts and type(tensor.grad_fn) is BackwardHookNode and (origin := below_hooks(tensor)) is not tensor:
            return self.noted(origin, fact) if fact in self.facts_of_views or is_same_place(origin, tensor) else None
        return facts.get(fact) if facts and version == version_of(tensor) else None

    def count_without_rule(self, name: str, args: tuple, kwargs: Keywords) -> None:
        """Count an operation that is not linear and keeps its plain gradient.

        Raises:
            NotImplementedError: with ``strict``.
        """
        if is_linear_call(name, args, kwargs):
            return
        self.without_rule[name] += 1
        if self.strict:
            opaque.refuse_without_rule(name)

    def count_unreached(self, name: str, where: str) -> None:
        """Count what keeps its plain gradient because no rule reaches it.

        Raises:
            NotImplementedError: with ``strict``.
        """
        self.without_rule[name] += 1
        self.unreached.add(name)
        if self.strict:
            opaque.refuse_unreached(name, where)

    def _watch(self, module: nn.Module, table: RuleTable) -> Iterator[RemovableHandle]:
        """Yield the hooks that let a table hold inside a module."""
        thread = threading.get_ident()  # other threads may run the same model with other rules

        def enter(*_: object) -> None:
            if threading.get_ident() == thread:
                self.tables.append({**self.tables[-1], **table})

        def leave(*_: object) -> None:
            if threading.get_ident() == thread and len(self.tables) > 1:
                self.tables.pop()

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave, always_call=True)


def is_linear_call(name: str, args: tuple, kwargs: Keywords) -> bool:
    """Return whether an operation that is linear in each of its arguments has the signal in one of them alone."""
    if name in BILINEAR:
        first, second = [args[i] if i < len(args) else kwargs.get(key) for i, key in enumerate(BILINEAR[name])]
        is_changing = carries_signal(second) and not isinstance(second, nn.Parameter)
        return not is_changing or (name in LINEAR_LAYERS and not carries_signal(first))
    return name in (*PRODUCTS, "div") and sum(map(carries_signal, (*args, *kwargs.values()))) < 2


# ------------------------------------------------------------------------------------------ what rules are made of
Backward = Callable[[Tensor], tuple[Tensor | None, ...]]


@once_differentiable
def backward_of_rule(ctx: Any, m: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return what the rule of a node makes of m; what the rule holds is then freed, as autograd frees what it has saved.

    Nothing arrives, None, where what comes after has no gradient, as the layers of int8 models: then nothing goes on.
    """
    if ctx.rule is None:
        raise RuntimeError("a second backward pass through rules: the first one needs retain_graph=True")
    rule, ctx.rule = ctx.rule, ctx.rule if backward_keeps_graph() else None
    before, after = ctx.others
    if m is None:
        return (None,) * len(ctx.needs_input_grad)
    with without_torch_functions():  # the mode is still on if the caller differentiates inside its block
        found = rule(m)
    return (*(None,) * before, *found, *(None,) * after)


class _CustomBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, backward, *signals):
        ctx.rule, ctx.others = backward, (2, 0)
        ctx.set_materialize_grads(False)
        return y[0]  # in a list: an input that is returned would be a view, which may not be written to

    backward = staticmethod(backward_of_rule)  # type: ignore[assignment]


def custom_backward(y: Tensor, backward: Backward, *signals: Tensor) -> Tensor:
    """Return the value ``y``, whose gradient for each of ``signals`` is what ``backward`` makes of the multiplier at y."""
    if type(y) is Tensor or type(y).__torch_dispatch__ is not Tensor.__torch_dispatch__:
        return _CustomBackward.apply([y], backward, *signals)
    with without_torch_functions():  # what a subclass gives is a view, which a model could not write to
        plain = y.as_subclass(Tensor).detach()
    found = _CustomBackward.apply([plain], backward, *signals)
    with without_torch_functions():
        return found.as_subclass(type(y))


def refuse_opaque_models(model: Model) -> None:
    """Raise for models whose operations Python does not see.

    Raises:
        TypeError: a module is TorchScript, made by ``torch.compile``, or ``DataParallel``.
    """
    held = state.held_here.models.get(id(model))
    if not isinstance(model, nn.Module) or (held is not None and not held.opaque):
        return
    for name, module in model.named_modules():
        compiled = compiled_call(module) is not None or hasattr(vars(module).get("forward"), COMPILED_MARK)
        if compiled or isinstance(module, (torch.jit.ScriptModule, nn.DataParallel)):
            opaque.refuse_opaque_module(name, module)


# ------------------------------------------------------------------------------------------- a problem under rules
def run_with_rules(
    problem: Problem, make: Callable[[], _RuleModeType]
) -> tuple[Tensor, tuple[Tensor, ...], list[_RuleModeType]]:
    """Return scores ``(N,)``, what arrives at ``problem.x`` with rules at work, and the rules of each model call.

    Args:
        problem: whose scores are differentiated.
        make: returns the rules for one call.

    Raises:
        TypeError: a model whose operations Python does not see.
    """
    refuse_opaque_models(problem.model)
    rows, run = problem.rows, problem.run

    def work(start: int, stop: int) -> tuple[_RuleModeType, Tensor, tuple[Tensor, ...]]:
        rules = make()
        scores, signal = run.gradients([t[start:stop] for t in problem.x], rows[start:stop], rules)
        return rules, scores, signal

    used, scores, signals = zip(*run.batches(len(rows), work))
    if any(rules.unreached for rules in used):
        opaque.warn_of_unreached(problem.batching.label, frozenset().union(*(rules.unreached for rules in used)))
    return torch.cat(scores), tuple(torch.cat(parts) for parts in zip(*signals)), list(used)


def count_operations(used: Iterable[RuleMode]) -> dict[str, dict[str, int]]:
    """Return how often operations ran by a rule and, non-linear ones, without: details for the explanation."""
    most: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for rules in used:
        most = most[0] | rules.applied, most[1] | rules.without_rule
    return {"operations_with_rule": dict(most[0]), "plain_operations": dict(most[1])}
