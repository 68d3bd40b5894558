r"""Run a model beside a recorded run of itself: the input beside the baseline.

The baseline runs first, without autograd, and the inputs of the operations that have a rule are recorded. The input runs
next, and each rule sees its operation in both runs (``call`` and ``call.base``). The two are matched by the order of the
operations, whatever the layout of the tensors: attention heads, windows or time steps in the batch dimension do no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine.rules.mode import OpCall, OpRule, RuleMode, SavedTensor, carries_signal
from torchwhy.engine.structure import map_nested


class RecordedRun(RuleMode):
    """Record the inputs of the operations in `table`, in order; those in `decompositions` are taken apart."""

    always = True

    def __init__(self, table: Mapping[str, OpRule], decompositions: Mapping[str, OpRule]):
        super().__init__({**dict.fromkeys(table, self._record), **decompositions})
        self.tape: deque[tuple[str, Any, Any]] = deque()

    def _record(self, call: OpCall) -> Any:
        y = call.value()
        keep = lambda v: self.hold(v) if isinstance(v, Tensor) else v  # noqa: E731
        self.tape.append((call.name, map_nested(keep, call.args), map_nested(keep, call.kwargs)))
        return y


class PairedRules(RuleMode):
    """Run `table`'s rules with the recorded run at their side, in ``call.base``."""

    always = True

    def __init__(
        self,
        table: Mapping[str, OpRule],
        decompositions: Mapping[str, OpRule],
        recording: RecordedRun,
        *,
        strict: bool = False,
    ):
        super().__init__({**table, **decompositions}, strict=strict)
        self.decompositions, self.tape = decompositions, recording.tape
        self.inverses = WeakIdKeyDictionary()  # what was computed as 1/σ, for the product that follows

    def _run(self, rule: OpRule, call: OpCall) -> Any:
        if call.name in self.decompositions:
            return rule(call)
        if not self.tape:
            raise _mismatch(f"{call.name!r} ran on the input only")
        name, args, kwargs = self.tape.popleft()
        unwrap = lambda v: v.value if isinstance(v, SavedTensor) else v  # noqa: E731
        args, kwargs = map_nested(unwrap, args), map_nested(unwrap, kwargs)
        if name != call.name or _shapes_of(args) != _shapes_of(call.args):
            raise _mismatch(f"{call.name!r} of {_shapes_of(call.args)} met {name!r} of {_shapes_of(args)}")
        if not carries_signal(call.args, call.kwargs):
            return call() if not call.in_place else call.x.copy_(call.value())
        call.base = call.beside(args, kwargs)
        return rule(call)

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if self._depth == 0 and not any(error) and self.tape:
            raise _mismatch(f"{self.tape[0][0]!r} ran on the baseline only")


def _mismatch(what: str) -> RuntimeError:
    return RuntimeError(
        f"the model runs other operations on the input than on the baseline ({what}), so that the two cannot be "
        "compared: its control flow depends on the data, or the two have different shapes"
    )


def _shapes_of(value: Any) -> list[torch.Size]:
    found: list[torch.Size] = []
    map_nested(lambda v: found.append(v.shape) if isinstance(v, Tensor) else None, value)
    return found
