r"""Run a model beside a recorded run of itself: the input beside the baseline.

The baseline runs first, without autograd, and the inputs of the operations that have a rule are recorded. The input runs
next, and each rule sees its operation in both runs (``call`` and ``call.base``). The two are matched by the order of the
operations, whatever the layout of the tensors: attention heads, windows or time steps in the batch dimension do no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine.rules.mode import RuleMode
from torchwhy.engine.rules.opaque import SavedTensor
from torchwhy.engine.rules.operations import OpCall, Operation, OpRule, RuleTable, TorchFunction, operation
from torchwhy.engine.structure import Keywords, carries_signal, map_nested, tensors_in


class RunsDifferError(RuntimeError):
    """The two runs of a model do not have the same operations, so that they cannot be compared."""


class OneOfTwoRuns(RuleMode):
    """What both runs have in common, so that they have the same operations: rules of all calls, and assignments by their kind."""

    always = True

    def run_operation(self, op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords) -> object:
        """Run an operation, see :func:`as_masked_fill`."""
        if op.name == "setitem":
            op, function, args, kwargs = as_masked_fill(op, function, args, kwargs)
        return super().run_operation(op, function, args, kwargs)


class RecordedRun(OneOfTwoRuns):
    """Record the inputs of the operations in a table, in order; without autograd.

    Args:
        table, decompositions: as of the :class:`PairedRules` that run beside it.
    """

    def __init__(self, table: RuleTable, decompositions: Container[str]) -> None:
        super().__init__(table)
        self.decompositions = decompositions
        self.tape: deque[tuple[str, tuple, Keywords]] = deque()

    def apply_rule(self, rule: OpRule, call: OpCall) -> object:
        """Run an operation, and record what it is given; of one that is taken apart the parts."""
        if call.name in self.decompositions:
            return rule(call)
        y = call()
        if is_paired(rule, call):
            self.tape.append((call.name, map_nested(self._keep, call.args), map_nested(self._keep, call.kwargs)))
        if not call.in_place:
            return y
        self.copy_before_overwrite(call.x)
        return call.x.copy_(y)

    def _keep(self, value: object) -> object:
        return self.save_for_backward(value) if isinstance(value, Tensor) else value


class PairedRules(OneOfTwoRuns):
    """Run a table's rules with the recorded run at their side, in ``call.base``.

    Args:
        table: rules by the name of their operation, the same names as were recorded.
        decompositions: the operations whose rule takes them apart in both runs, so that they are not on the tape.
        recording: the other run.
        strict: refuse non-linear operations without a rule.

    ``inverses`` holds the tensors that were computed as 1/σ, for the rule of the product that follows.
    """

    def __init__(
        self, table: RuleTable, decompositions: Container[str], recording: RecordedRun, *, strict: bool = False
    ) -> None:
        super().__init__(table, strict=strict)
        self.decompositions, self.tape = decompositions, recording.tape
        self.inverses = WeakIdKeyDictionary()

    def apply_rule(self, rule: OpRule, call: OpCall) -> object:
        """Return what a rule makes of a call and the recorded one that belongs to it.

        Raises:
            RunsDifferError: the recorded run has another operation here, or one of other shapes.
        """
        if call.name in self.decompositions:
            return rule(call)
        if not is_paired(rule, call):
            return call()
        if not self.tape:
            raise _mismatch(f"{call.name!r} ran on the input only")
        name, args, kwargs = self.tape.popleft()
        args, kwargs = map_nested(_unwrap, args), map_nested(_unwrap, kwargs)
        if name != call.name or _shapes_of(args) != _shapes_of(call.args):
            raise _mismatch(f"{call.name!r} of {_shapes_of(call.args)} met {name!r} of {_shapes_of(args)}")
        if not carries_signal(call.args, call.kwargs):
            return call.x.copy_(call.value()) if call.in_place else call()
        call.base = call.with_args(args, kwargs)
        return rule(call)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._depth == 0 and not any(error) and self.tape:
            raise _mismatch(f"{self.tape[0][0]!r} ran on the baseline only")


def is_paired(rule: OpRule, call: OpCall) -> bool:
    """Return whether a rule needs its operation in both runs: always, but where it says when."""
    when = getattr(rule, "when", None)
    return when is None or when(call)


def as_masked_fill(
    op: Operation, function: TorchFunction, args: tuple, kwargs: Keywords
) -> tuple[Operation, TorchFunction, tuple, Keywords]:
    """Return ``x[mask] = number`` as ``x.masked_fill_(mask, number)``, ``x[i, j] = y`` of tensors i and j as ``x.index_put_``.

    Which they are; anything else as it is.
    """
    x, mask, number = args
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or not isinstance(number, (int, float)):
        indices = mask if isinstance(mask, tuple) else (mask,)
        if not all(isinstance(i, Tensor) for i in indices):
            return op, function, args, kwargs
        values = number if isinstance(number, Tensor) else torch.tensor(number, dtype=x.dtype, device=x.device)
        return operation(Tensor.index_put_), Tensor.index_put_, (x, indices, values), {}
    wide = mask.view(*mask.shape, *[1] * (x.dim() - mask.dim()))
    return operation(Tensor.masked_fill_), Tensor.masked_fill_, (x, wide, number), {}


def _unwrap(value: object) -> object:
    return value.value if isinstance(value, SavedTensor) else value


def _mismatch(what: str) -> RunsDifferError:
    return RunsDifferError(
        f"the model runs other operations on the input than on the baseline ({what}), so that the two cannot be "
        "compared: its control flow depends on the data, or the two have different shapes"
    )


def _shapes_of(values: tuple) -> list[torch.Size]:
    """Return the shapes of the tensors among the values, and in the lists and tuples among them."""
    return [t.shape for t in tensors_in(values)]
