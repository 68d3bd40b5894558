"""Where the tokens of a tensor come from, followed through every operation of a run.

Matrices of attention tell nothing of the sequences that they lie between: the sentences of a pair have one length, an encoder and
a decoder may. So each tensor has a :class:`Lineage`: the tensor that its tokens were at first, and the attentions that have
acted on it since. The result of an operation has that of its operands; among these inputs of the model go before everything
else (a position's embedding, a mask), and the first one before the others. The result of an attention goes on with the queries',
because the tokens of what comes out are theirs. Parts that are cut out of an input itself, such as the two sentences of a pair,
are sources of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from torchwhy.engine.rules.operations import Operation
from torchwhy.engine.structure import as_tuple, tensors_in

# cut parts out of a tensor; give the same tensor again
PARTING = frozenset(
    ("getitem", "select", "narrow", "slice", "split", "split_with_sizes", "chunk", "tensor_split", "unbind")
)
WHOLE_NUMBERS = ("long", "int", "short", "char", "byte")
COPYING = frozenset(
    ("clone", "contiguous", "to", "float", "double", "half", "bfloat16", "type", "type_as", *WHOLE_NUMBERS)
)
CARRYING = frozenset((*WHOLE_NUMBERS, "one_hot"))  # without a gradient, and yet what they give is of the same tokens
SCORES = {"matmul": 0, "bmm": 0, "einsum": 0, "baddbmm": 1}  # make q kᵀ; how many tensors stand before q


class Lineage(NamedTuple):
    """Where the tokens of a tensor come from.

    Args:
        source: the number of the tensor that they were at first; inputs have the first numbers.
        is_input: whether that is an input.
        attentions: the numbers of the attentions on which the tensor depends.
    """

    source: int
    is_input: bool
    attentions: frozenset[int] = frozenset()


class LineageTracker:
    """The lineages of the tensors of a run, see :class:`Lineage`.

    ``shapes`` has the shape of each source, ``inputs`` the number of the input that it is, or is a part of, None of others.
    """

    def __init__(self) -> None:
        self.shapes: list[torch.Size] = []
        self.inputs: list[int | None] = []
        self._whole = WeakIdKeyDictionary()  # an input, or a copy of it -> its number
        self._parts: dict[tuple[object, ...], Lineage] = {}  # where a part of an input is -> its lineage
        self._known = WeakIdKeyDictionary()  # tensor -> its lineage
        self._queries = WeakIdKeyDictionary()  # scores q kᵀ, and what becomes of them -> the lineage of q

    def begin(self, inputs: Iterable[Tensor]) -> None:
        """Take tensors for the inputs of the model, in their order."""
        for number, t in enumerate(inputs):
            self._whole[t] = number
            self._known[t] = self._new(t.shape, number)

    def of(self, tensor: Tensor) -> Lineage:
        """Return the lineage of a tensor; one that comes from nowhere is a source."""
        if tensor not in self._known:
            self._known[tensor] = self._new(tensor.shape)
        return self._known[tensor]

    def _new(self, shape: torch.Size, number: int | None = None) -> Lineage:
        """Return the lineage of a new source: an input, a part of one, or another tensor."""
        self.shapes.append(shape)
        self.inputs.append(number)
        return Lineage(len(self.shapes) - 1, number is not None)

    def of_queries(self, scores: Tensor) -> Lineage:
        """Return the lineage of the queries that scores belong to."""
        return self._queries[scores] if scores in self._queries else self.of(scores)

    def settle(self, result: Tensor, lineage: Lineage) -> None:
        """Say what the lineage of the result of an attention is."""
        self._known[result] = lineage

    def follow(self, op: Operation, given: Sequence[object], out: object) -> None:
        """Take in an operation: what it was given, and what came out."""
        found = tensors_in(as_tuple(out))
        if op.in_place and given and isinstance(given[0], Tensor):
            found = [given[0]]
        new = [t for t in found if op.in_place or t not in self._known]
        tensors = tensors_in(given)
        if not new or not tensors:
            return
        if tensors[0] in self._whole and op.name in COPYING | PARTING:
            self._follow_input(tensors[0], new)
        lineage = self._joined(tensors)
        query = self._query_of_scores(op.name, given, tensors)
        if query is None:
            query = next((self._queries[t] for t in tensors if t in self._queries), None)
        for t in new:
            if op.in_place or t not in self._known:
                self._known[t] = lineage
            if query is not None:
                self._queries[t] = query

    def _query_of_scores(self, name: str, given: Sequence[object], tensors: Sequence[Tensor]) -> Lineage | None:
        """Return the lineage of the queries where a product may be q kᵀ, None where it is a projection by weights."""
        if name not in SCORES:
            return None
        operand = _query_operand(name, given, tensors)
        others = [self._known[t] for t in tensors if t is not operand and t in self._known]
        return self.of(operand) if any(k.is_input or k.attentions for k in others) else None

    def _follow_input(self, whole: Tensor, found: Sequence[Tensor]) -> None:
        """Take in what is an input again, or a part of it, which is one source wherever it is cut out."""
        number = self._whole[whole]
        for t in found:
            if t.numel() == whole.numel():
                self._whole[t] = number
                continue
            place = number, t.storage_offset() - whole.storage_offset(), t.shape, t.stride()
            if place not in self._parts:
                self._parts[place] = self._new(self.shapes[self._known[whole].source], number)
            self._known[t] = self._parts[place]

    def _joined(self, tensors: Sequence[Tensor]) -> Lineage:
        """Return the lineage of what is made of tensors; numbers of tokens and masks count where there is nothing else."""
        known = [t for t in tensors if t in self._known]
        known = [t for t in known if t.is_floating_point()] or known
        lineages = [self._known[t] for t in known] or [self.of(tensors[0])]
        first = next((found for found in lineages if found.is_input), lineages[0])
        return first._replace(attentions=frozenset[int]().union(*(found.attentions for found in lineages)))


def _query_operand(name: str, given: Sequence[object], tensors: Sequence[Tensor]) -> Tensor:
    """Return the operand of a product that has the rows of the result."""
    if name == "einsum" and isinstance(given[0], str) and "->" in given[0]:
        operands, result = given[0].replace(" ", "").split("->")
        letters = operands.split(",")
        rows = result[-2:-1]
        return next((t for t, own in zip(tensors, letters) if rows and rows in own), tensors[0])
    return tensors[min(SCORES[name], len(tensors) - 1)]
