"""What computes beside the functions of torch that a mode is told of: functions of TorchScript, extensions in C++.

Nothing calls a mode of rules for their operations, and what comes out looks like any other tensor. But its node in the graph was
made by none of the operations that the mode ran. So the numbers of their results' nodes are kept, and of what they are given the
nodes with other numbers; these are looked through, up to the known ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch

from torchwhy.engine.rules.operations import FACTORIES, LINEAR, NOT_DIFFERENTIABLE, PRODUCTS, RuleTable
from torchwhy.engine.torch_internals import sequence_number

NO_RULE_NEEDED = LINEAR | NOT_DIFFERENTIABLE | FACTORIES  # never counted as operations without a rule
# what nodes of linear layers are called
LAYERS = {"addmm": "linear", "mm": "linear", "linear": "linear", "convolution": "conv2d"}
NAMES = {"differentiable_graph": "TorchScript"}  # a whole function, once it ran several times
PLUMBING = ("AccumulateGrad", "CopySlices")
VIEWS = ("as_strided", "alias", "t", "unsafe_view", "reshape_alias", "to_copy")


class WatchesGraph:
    """What a mode of rules does about tensors that come from none of its operations."""

    tables: list[RuleTable]
    made: set[int]  # the numbers of the nodes of its operations' results: the nodes would keep what is saved in them
    unknown: set[torch.autograd.graph.Node]  # those of what the operations were given, made by none of them
    first_number: int  # of the first node that was made since the mode began

    def count_unreached(self, name: str, where: str) -> None:
        """Count what keeps its plain gradient because no rule reaches it."""
        raise NotImplementedError

    def count_unseen(self, unknown: Iterable[torch.autograd.graph.Node]) -> None:
        """Count what made nodes that none of the mode's operations did, where it needs a rule."""
        waiting, seen = list(unknown), set()
        while waiting:
            node = waiting.pop()
            number = sequence_number(node)
            if node in seen or number in self.made or number < self.first_number:
                continue
            seen.add(node)
            written = node.name().endswith("CopySlices")  # then the second is what a rule wrote there
            edges = node.next_functions[:1] if written else node.next_functions
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
