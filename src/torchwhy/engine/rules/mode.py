r"""Modified backpropagation: run a model with another backward pass for chosen operations.

``with Rules(table): y = f(x)`` runs ``f`` untouched; every operation that `table` names is computed by its rule instead,
which has the same value and a backward of its own, so that ``torch.autograd.grad`` then carries the method's signal. The
mode sees *functions*, hence ``F.relu``, ``x.relu_()`` and ``nn.ReLU`` alike, reused modules and skip connections; nothing is
registered on the model (but for rules chosen by module) and nothing in torch is replaced. It acts on this thread only.

The signal of every method is a *multiplier* m: relevance is x m (LRP), (x - b) m (DeepLIFT) or m itself (guided
backpropagation). Linear and structural operations keep their ordinary gradient under it and need no rule.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from torchwhy.engine import state
from torchwhy.engine.rules.operations import LINEAR, PRODUCTS, Operation, bind_arguments, operation, out_of_place

_RuleModeType = TypeVar("_RuleModeType", bound="RuleMode")


class OpCall:
    """One operation as the model called it: its name, its arguments by name, its value without side effects."""

    __slots__ = ("args", "base", "function", "in_place", "kwargs", "mode", "name")
    base: Any  # the same call in the recorded run beside this one (engine/rules/paired_run.py)
    mode: Any  # the Rules at work, of whichever kind the method made

    def __init__(self, mode: RuleMode, op: Operation, function: Callable, args: tuple, kwargs: dict[str, Any]):
        self.mode, self.name, self.function, self.in_place = mode, op.name, function, False
        self.args, self.kwargs = bind_arguments(op, args, kwargs)

    @property
    def x(self) -> Tensor:
        """The first argument."""
        return self.args[0]

    def __call__(self, *args: Any) -> Any:
        """Evaluate the operation; `args` stand in for its first positional arguments."""
        return self.function(*args, *self.args[len(args) :], **self.kwargs)

    def untouched(self, x: Tensor) -> Tensor:
        """Evaluate a pointwise operation at x as the model asked for it: in place if so."""
        if not self.in_place:
            return self(x)
        in_place = getattr(torch, f"{self.name}_", None)
        return x.copy_(self(x)) if in_place is None else in_place(x, *self.args[1:], **self.kwargs)

    def value(self) -> Any:
        """Evaluate the operation without autograd."""
        with torch.no_grad():
            return self()

    def beside(self, args: tuple, kwargs: dict[str, Any]) -> OpCall:
        """Return the same operation with other arguments, and nothing beside it."""
        other = copy(self)
        other.args, other.kwargs, other.base = args, kwargs, None
        return other


OpRule = Callable[[OpCall], Any]


def keep_gradient(call: OpCall) -> Any:
    """The rule of operations whose plain gradient is what the method asks for: they run untouched, and are not counted."""
    return call()


class SavedTensor:
    """A tensor kept for the backward pass. `Rules.hold` makes it, and copies it before its memory is overwritten."""

    __slots__ = ("__weakref__", "value")

    def __init__(self, value: Tensor):
        self.value = value


def has_rule(name: str) -> bool:
    """Whether rules of this thread, at this moment, replace the operation of that name."""
    mode = state.rules.mode
    return mode is not None and any(name in table for table in (mode.table, *mode.modules.values()))


def rules_active() -> bool:
    """Whether any rules are at work on this thread."""
    return state.rules.mode is not None


class RuleMode(TorchFunctionMode):
    """Replace operations by rules while the block lasts, on this thread: ``with RuleMode({"relu": rule}): y = f(x)``.

    `table` maps an operation's name to a rule, a function of the :class:`OpCall` that returns the operation's value with
    another backward. `modules` maps a module to a table that holds inside of it (the innermost one that names the
    operation wins). `strict` refuses non-linear operations without a rule; they are counted in ``plain`` anyway, those
    that had a rule in ``applied``. The surrogates cannot be differentiated twice.

    >>> import torch.nn.functional as F
    >>> x = torch.ones(1, requires_grad=True)
    >>> with RuleMode({"relu": lambda call: call.x * 3}) as rules:
    ...     y = F.relu(x)
    >>> torch.autograd.grad(y, x)[0].item(), dict(rules.applied)
    (3.0, {'relu': 1})
    """

    always = False  # call rules also for operations that no gradient passes through

    def __init__(
        self,
        table: Mapping[str, OpRule],
        *,
        modules: Mapping[nn.Module, Mapping[str, OpRule]] | None = None,
        strict: bool = False,
    ):
        super().__init__()
        self.table, self.modules, self.strict = table, dict(modules or {}), strict
        self.applied: Counter[str] = Counter()
        self.plain: Counter[str] = Counter()
        self._depth = 0
        self._inside: list[Mapping[str, OpRule]] = []
        self._hooks: list[Any] = []
        self._held: dict[int, list[weakref.ref[SavedTensor]]] = defaultdict(list)

    def __enter__(self: _RuleModeType) -> _RuleModeType:
        running = state.rules.mode
        if self._depth == 0:
            if running is not None:
                raise RuntimeError(
                    "rules do not nest: a method with rules of its own is running on this thread already; "
                    "leave its `with` block first"
                )
            self._hooks = [hook for module, table in self.modules.items() for hook in self._watch(module, table)]
            state.rules.mode = self
        self._depth += 1
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._depth -= 1
        if self._depth == 0:
            state.rules.mode = None
            self._inside.clear()
            self._held.clear()
            for hook in self._hooks:
                hook.remove()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        op = operation(function)
        in_place = op.in_place or kwargs.get("inplace") is True
        rule = self._rule(op.name)
        if in_place and self._held and args:
            self._rescue(args[0])
        if rule is None or rule is keep_gradient or not (self.always or carries_signal(args, kwargs)):
            out = function(*args, **kwargs)
            if rule is None and op.name not in LINEAR and carries_signal(out):
                self._count_plain(op.name, args, kwargs)
            return out
        self.applied[op.name] += 1
        if not in_place:
            return self._run(rule, OpCall(self, op, *_unreversed(op, function, args), kwargs))
        kwargs.pop("inplace", None)
        twin = out_of_place(op.name, function) if op.in_place else function
        if getattr(rule, "in_place", False):  # the rule writes by itself
            call = OpCall(self, op, twin, args, kwargs)
            call.in_place = True
            return self._run(rule, call)
        aside = (args[0].clone(), *args[1:])  # rules are pure: compute aside, then write
        y = self._run(rule, OpCall(self, op, twin, aside, kwargs))
        self._rescue(args[0])  # of which another argument may be a part
        return args[0].copy_(y)

    def hold(self, tensor: Tensor) -> SavedTensor:
        """Keep `tensor` for the backward pass, safe from the model's own in-place operations."""
        held = SavedTensor(tensor.detach())
        self._held[held.value.untyped_storage().data_ptr()].append(weakref.ref(held))
        return held

    def _run(self, rule: OpRule, call: OpCall) -> Any:
        return rule(call)

    def _rule(self, name: str) -> OpRule | None:
        for table in reversed(self._inside):
            if name in table:
                return table[name]
        return self.table.get(name)

    def _rescue(self, target: Any) -> None:
        """Copy what is held of the memory that an in-place operation is about to overwrite."""
        if isinstance(target, Tensor):
            for reference in self._held.pop(target.untyped_storage().data_ptr(), ()):
                if (held := reference()) is not None:
                    held.value = held.value.clone()

    def _count_plain(self, name: str, args: tuple, kwargs: dict[str, Any]) -> None:
        if name in (*PRODUCTS, "div") and sum(map(carries_signal, (*args, *kwargs.values()))) < 2:
            return  # by a constant: linear
        self.plain[name] += 1
        if self.strict:
            raise NotImplementedError(
                f"strict=True, and the non-linear operation {name!r} has no rule: its plain gradient would be used. "
                "Give it a rule, or leave strict off and see the operations counted on the Explanation"
            )

    def _watch(self, module: nn.Module, table: Mapping[str, OpRule]) -> Iterator[Any]:
        thread = threading.get_ident()  # other threads may run the same model with other rules

        def enter(*_: Any) -> None:
            if threading.get_ident() == thread:
                self._inside.append(table)

        def leave(*_: Any) -> None:
            if threading.get_ident() == thread and self._inside:
                self._inside.pop()

        yield module.register_forward_pre_hook(enter)
        yield module.register_forward_hook(leave, always_call=True)


def _unreversed(op: Operation, function: Callable, args: tuple) -> tuple[Callable, tuple]:
    """Turn ``Tensor.__rsub__(a, b)`` into sub(b, a)."""
    return (out_of_place(op.name, function), (args[1], args[0])) if op.reversed else (function, args)


def carries_signal(*values: Any) -> bool:
    """Whether a gradient passes through any tensor among `values` (looked for in lists, tuples and dicts too)."""
    for value in values:
        if isinstance(value, Tensor):
            if value.requires_grad and torch.is_grad_enabled():
                return True
        elif isinstance(value, (tuple, list)):
            if carries_signal(*value):
                return True
        elif isinstance(value, dict) and carries_signal(*value.values()):
            return True
    return False


# Whether the backward pass that is running was asked to retain its graph.
_keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def _apply_rule(ctx: Any, m: Tensor) -> tuple[Tensor | None, ...]:
    """What the rule of a node makes of m; what the rule holds is then freed, as autograd frees what it has saved."""
    if ctx.rule is None:
        raise RuntimeError("a second backward pass through rules: the first one needs retain_graph=True")
    rule, ctx.rule = ctx.rule, ctx.rule if _keeps_graph() else None
    with torch._C.DisableTorchFunction():  # the mode is still on if the caller differentiates inside its block
        return rule(m)


class _CustomBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, y, backward, *signals):
        ctx.rule = backward
        return y[0]  # in a list: an input that is returned would be a view, which may not be written to

    @staticmethod
    @once_differentiable
    def backward(ctx, m):
        return None, None, *_apply_rule(ctx, m)


def custom_backward(y: Tensor, backward: Callable[[Tensor], tuple[Tensor | None, ...]], *signals: Tensor) -> Tensor:
    """Return the value `y`, whose gradient for each of `signals` is what `backward` makes of the multiplier at y."""
    return _CustomBackward.apply([y], backward, *signals)


class _CustomInPlaceBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, y, backward):
        ctx.rule = backward
        ctx.mark_dirty(x)
        return x.copy_(y)

    @staticmethod
    @once_differentiable
    def backward(ctx, m):
        return *_apply_rule(ctx, m), None, None


def custom_pointwise_backward(call: OpCall, y: Tensor, backward: Callable[[Tensor], tuple[Tensor]]) -> Tensor:
    """Return the value `y` of an elementwise operation, in the place of its input if the model asked for that."""
    return (
        _CustomInPlaceBackward.apply(call.x, y, backward)
        if call.in_place
        else _CustomBackward.apply([y], backward, call.x)
    )


def in_place_rule(rule: OpRule) -> OpRule:
    """Mark a rule that ends in :func:`custom_pointwise_backward` and keeps nothing of its input for the backward pass."""
    rule.in_place = True  # type: ignore[attr-defined]
    return rule


def pointwise_derivative(call: OpCall, x: Tensor) -> Tensor:
    """Return f'(x) of the pointwise operation f of `call`."""
    if call.name == "relu":
        return (x > 0).to(x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(call(x).sum(), x)[0]


def refuse_opaque_models(model: Any) -> None:
    """Raise for models whose operations Python does not see: TorchScript, torch.compile, DataParallel."""
    if not isinstance(model, nn.Module):
        return
    for name, module in model.named_modules():
        where = f"module {name!r}" if name else "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(
                f"{where} is TorchScript, whose operations cannot be given rules; use the nn.Module it came from"
            )
        if hasattr(module, "_orig_mod"):
            raise TypeError(f"{where} is compiled, so that its operations cannot be given rules; use its `_orig_mod`")
        if isinstance(module, nn.DataParallel):
            raise TypeError(
                f"{where} is DataParallel, which runs on threads that rules do not reach; use its `.module`"
            )
