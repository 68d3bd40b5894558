"""What computes beside the functions of torch that a mode is told of: functions of TorchScript, extensions in C++.

Nothing calls a mode of rules for their operations, and what comes out looks like any other tensor. But its node in the graph was
made by none of the operations that the mode ran. So each operation's results are kept, and where another one is given a tensor
of an unknown node, those behind it are looked through up to the known ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from torchwhy.engine.rules.operations import FACTORIES, LINEAR, NOT_DIFFERENTIABLE, PRODUCTS, RuleTable

NO_RULE_NEEDED = LINEAR | NOT_DIFFERENTIABLE | FACTORIES  # never counted as operations without a rule
# what nodes of linear layers are called
LAYERS = {"addmm": "linear", "mm": "linear", "linear": "linear", "convolution": "conv2d"}
NAMES = {"differentiable_graph": "TorchScript"}  # a whole function, once it ran several times
PLUMBING = ("AccumulateGrad", "CopySlices")
VIEWS = ("as_strided", "alias", "t", "unsafe_view", "reshape_alias", "to_copy")


class WatchesGraph:
    """What a mode of rules does about tensors that come from none of its operations."""

    _known: set[torch.autograd.graph.Node]  # of the results of its operations
    tables: list[RuleTable]
    _first = 0  # the number of the first node since the mode is on

    def begin_watch(self) -> None:
        """Know no node, and take those that are made from now on for the model's."""
        self._known = set()
        with torch.enable_grad():
            now = torch.zeros((), requires_grad=True).clone().grad_fn
        self._first = 0 if now is None else now._sequence_nr()

    def end_watch(self) -> None:
        """Keep no graph alive."""
        self._known = set()

    def watch_result(self, out: object) -> None:
        """Take in the results of an operation."""
        self._known.update(t.grad_fn for t in _tensors_among((out,)) if t.grad_fn is not None)

    def count_unreached(self, name: str, where: str) -> None:
        """Count what keeps its plain gradient because no rule reaches it."""
        raise NotImplementedError

    def count_unseen(self, given: Iterable[object]) -> None:
        """Count what made the tensors that an operation is given, where the mode did not run it, and it needs a rule."""
        waiting = [t.grad_fn for t in _tensors_among(given) if t.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self._known or node._sequence_nr() < self._first:
                continue
            self._known.add(node)
            edges = node.next_functions[
                : 1 if node.name().endswith("CopySlices") else None
            ]  # not to what a rule wrote there
            below = [following for following, _ in edges if following is not None]
            waiting += below
            name = _operation_of(node)
            name = LAYERS.get(name, name)
            is_product = name in (*PRODUCTS, "div") and len(below) > 1
            if name and (is_product or name in self.tables[-1] or name not in (*NO_RULE_NEEDED, *PRODUCTS, "div")):
                self.count_unreached(name, "TorchScript, or an extension of torch")


def _operation_of(node: torch.autograd.graph.Node) -> str:
    """Return the operation of torch that made a node; nothing for views, and autograd Functions, which are found elsewhere."""
    kind = node.name().rpartition("::")[2]
    if kind in PLUMBING or isinstance(node, torch.autograd.function.BackwardCFunction):
        return ""
    camel = re.sub(r"Backward\d*$", "", kind)
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", camel).lower()
    return "" if name in VIEWS else NAMES.get(name, name)


def _tensors_among(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors_among(value)
