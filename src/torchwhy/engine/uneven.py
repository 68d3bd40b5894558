"""Inputs whose rows have shapes of their own: ragged tensors, and lists of pictures.

Rows of one shape are explained together, as a tensor ``(M, ...)`` that the model is given in the form in which it takes them;
so methods know nothing of this, and each row gets what it would get alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.baselines import ResolvedBaseline
from torchwhy.engine.further_arguments import positional_names, read_further
from torchwhy.engine.run.autograd import isolated
from torchwhy.engine.run.black_box import as_model
from torchwhy.engine.run.rows import RowForm, Stacked
from torchwhy.engine.run.runner import Tally
from torchwhy.engine.structure import AnyForm, InForm, Keywords, Model, RowList, Structure, flatten
from torchwhy.engine.trials import MISFITS, memory_of
from torchwhy.problem import ModelInputs, Problem
from torchwhy.result import Result, ScoreEnds
from torchwhy.targets.predicted import needs_outputs
from torchwhy.targets.target import Target, TargetLike

if TYPE_CHECKING:
    from torchwhy.attribution import Attribution

Solve = Callable[..., tuple[Result, Problem]]


def may_be_uneven(inputs: object) -> bool:
    """Say whether inputs are, or have among them, a ragged tensor or a list."""
    if isinstance(inputs, (tuple, Mapping)):
        return any(isinstance(part, (Ragged, list)) for part in flatten(inputs)[0])
    return isinstance(inputs, (Ragged, list))


@dataclass(frozen=True, eq=False)
class UnevenRows:
    """Inputs taken apart into rows.

    Args:
        parts: for each input the tensors of its N rows.
        given: the inputs one by one, as the caller gave them.
        structure: how they were put together.
    """

    parts: tuple[Sequence[Tensor], ...]
    given: tuple[object, ...]
    structure: Structure

    @property
    def n(self) -> int:
        """The number of rows N."""
        return len(self.parts[0])

    @cached_property
    def forms(self) -> tuple[RowForm, ...]:
        """How the model takes each input."""
        return tuple(map(_form_of, self.given))

    @cached_property
    def groups(self) -> list[list[int]]:
        """The numbers of the rows that have the same shapes, in the order of the first of each."""
        found: dict[tuple[torch.Size, ...], list[int]] = {}
        for row in range(self.n):
            found.setdefault(tuple(part[row].shape for part in self.parts), []).append(row)
        return list(found.values())

    def select(self, rows: Sequence[int]) -> object:
        """Return the inputs of rows of the same shapes, as a caller can give them."""
        stacked = [torch.stack([part[i] for i in rows]) for part in self.parts]
        return self.structure.restore([t if f is None else Stacked(t, f) for t, f in zip(stacked, self.forms)])

    def select_values(self, values: object, rows: Sequence[int], name: str) -> object:
        """Return what was given for each input, baselines or feature masks, for rows of the same shapes."""
        if values is None:
            return None
        alone = self.structure.kind == "single"
        each = (values,) if alone else self.structure.match(values, name)
        return self.structure.restore([self._of_part(v, k, rows, name) for k, v in enumerate(each)])

    def masks_of_rows(self, feature_mask: object) -> tuple[object, ...] | None:
        """Return the feature mask of each input: a list with one for each row, or one for all."""
        if feature_mask is None:
            return None
        each = [flatten(self.select_values(feature_mask, [row], "feature_mask"))[0] for row in range(self.n)]
        shared = [all(other is mask for other in column) for mask, column in zip(each[0], zip(*each))]
        columns = list(zip(*each))
        return tuple(c[0] if s else RowList(mask[0] for mask in c) for c, s in zip(columns, shared))

    def _of_part(self, value: object, k: int, rows: Sequence[int], name: str) -> object:
        """Return the value of one input for the rows: one tensor for each, where there is one, else as it is."""
        given = self.given[k]
        if isinstance(given, Ragged) and isinstance(value, Tensor) and value.shape == given.tensor.shape and self.n > 1:
            value = Ragged(value, given.sizes, dim=given.along)
        if isinstance(value, (list, Ragged)):
            stacked = torch.stack([self._fitting(list(value), k, i, name) for i in rows])
            return ResolvedBaseline(stacked[None]) if name == "baselines" else stacked
        own = isinstance(value, Tensor) and value.dim() > self.parts[k][0].dim() and len(value) == self.n > 1
        return value[list(rows)] if own and isinstance(value, Tensor) else value

    def _fitting(self, values: Sequence[object], k: int, row: int, name: str) -> Tensor:
        """Return the value of a row of an input, of its shape; baselines of its type too."""
        like = self.parts[k][row]
        if len(values) != self.n:
            raise ValueError(f"{name}: {len(values)} given for {self.n} rows; give one for each")
        value = torch.as_tensor(values[row], device=like.device)
        try:
            return (value.to(like.dtype) if name == "baselines" else value).expand(like.shape)
        except RuntimeError:
            raise ValueError(
                f"{name}: row {row} has shape {tuple(value.shape)}, which does not broadcast to the inputs' {tuple(like.shape)}"
            ) from None

    def lengths(self, model: Model) -> dict[str, Tensor]:
        """Return the lengths of the rows of ragged inputs, by name."""
        names = self.structure.names or positional_names(model)
        return {name: torch.tensor(g.sizes) for name, g in zip(names, self.given) if isinstance(g, Ragged)}


def row_lists(inputs: object, structure: Structure) -> AnyForm:
    """Return inputs in which lists of rows are one part each."""
    parts = (inputs,) if structure.kind == "single" else flatten(inputs)[0]
    return structure.restore([RowList(part) if isinstance(part, list) else part for part in parts])


def _form_of(given: object) -> RowForm:
    if isinstance(given, Ragged):
        return given.along
    return None if isinstance(given, Tensor) else "list"


def read_uneven(model: Model, inputs: object, extra: object) -> UnevenRows | None:
    """Return inputs taken apart into rows; None for a list of tensors that are one argument each.

    Raises:
        TypeError: something else than tensors, or a ragged input that points somewhere.
        ValueError: inputs of several numbers of rows, or an empty row.
    """
    if isinstance(inputs, list) and not _is_list_of_rows(model, inputs, extra):
        return None
    given, structure = flatten(RowList(inputs) if isinstance(inputs, list) else inputs)
    parts = tuple(_rows_of_input(part) for part in given)
    if len({len(part) for part in parts}) != 1 or not parts[0]:
        raise ValueError(
            "inputs: each needs the same number of rows, at least one; there are "
            + ", ".join(str(len(part)) for part in parts)
        )
    for part in parts:
        if any(not t.numel() for t in part):
            empty = next(i for i, t in enumerate(part) if not t.numel())
            raise ValueError(f"inputs: row {empty} is empty, shape {tuple(part[empty].shape)}")
    return UnevenRows(parts, given, structure)


def _rows_of_input(given: object) -> list[Tensor]:
    """Return the rows of an input."""
    if isinstance(given, Ragged) and given.points_into is not None:
        raise TypeError(
            f"inputs: numbers that point into {given.points_into!r} are no features; give them as additional_forward_args"
        )
    if isinstance(given, Tensor):
        return list(given) if given.dim() else []
    if isinstance(given, Ragged):
        return list(given)
    if not isinstance(given, list) or not all(isinstance(t, Tensor) for t in given):
        of_ids = isinstance(given, list) and any(isinstance(row, (int, list)) for row in given)
        hint = "; a tokenizer makes tensors of token ids by return_tensors='pt'" if of_ids else ""
        raise TypeError(
            f"inputs: expected tensors, tw.Ragged, or lists with one tensor for each row; got {type(given).__name__}{hint}"
        )
    return given


def _is_list_of_rows(model: Model, inputs: list[Tensor], extra: object) -> bool:
    """Say whether a list has a tensor for each row, such as pictures (C, H, W), and is not one of arguments.

    It is tried: a model that runs on the first row of each as its arguments is given them so.
    """
    if not inputs or not all(isinstance(t, Tensor) and t.dim() == 3 and t.is_floating_point() for t in inputs):
        return False
    memory, key = memory_of(model), ("list", len(inputs), len({len(t) for t in inputs}) == 1)
    if key not in memory:
        fit = key[-1] and _runs(model, [t[:1] for t in inputs], len(inputs[0]), extra)
        memory[key] = not fit and _runs(model, [inputs[:1]], len(inputs), extra)
    return bool(memory[key])


def _runs(model: Model, first: Sequence[Tensor | list[Tensor]], n: int, extra: object) -> bool:
    """Say whether the model runs on a first row in some form, of n."""
    with isolated(model):
        try:
            args, kwargs = read_further(extra, n, model, {}, len(first))
            args, kwargs = ModelInputs((), None, args, kwargs).further(torch.zeros(1, dtype=torch.long))
            given = [[t.clone() for t in part] if isinstance(part, list) else part.clone() for part in first]
            as_model(model)(*given, *args, **kwargs)
        except MISFITS:
            return False
    return True


def solve_uneven(
    solve: Solve,
    method: Attribution,
    uneven: UnevenRows,
    target: TargetLike,
    baselines: object,
    feature_mask: object,
    extra: object,
    **options: object,
) -> tuple[Result, Problem]:
    """Return what a method finds for inputs whose rows have shapes of their own, and the problem of the first of these.

    Raises:
        ValueError: what the method says of a row depends on the others.
    """
    if not method.rows_are_independent and len(uneven.groups) > 1:
        raise ValueError(
            f"inputs: what {type(method).__name__} says of a row depends on the others, and these have several shapes; give "
            "rows of one shape"
        )
    before = 0 if uneven.structure.names else len(uneven.parts)
    further = read_further(extra, uneven.n, method.model, uneven.lengths(method.model), before)
    data = ModelInputs((torch.zeros(uneven.n),), None, *further)
    found = []
    for group in uneven.groups:
        rows = torch.tensor(group)
        values = [
            uneven.select_values(v, group, name)
            for name, v in (("baselines", baselines), ("feature_mask", feature_mask))
        ]
        of_group = target_of_rows(target, group, uneven.n)
        found.append(solve(method, uneven.select(group), of_group, *values, data.take_further(rows), **options))
    return _together(method, uneven, target, uneven.masks_of_rows(feature_mask), found)


def target_of_rows(target: TargetLike, rows: list[int], n: int) -> TargetLike:
    """Return the target of some of n rows, as a caller can give it."""
    if isinstance(target, list) and len(target) == n:
        return [target[i] for i in rows]
    if target is None or needs_outputs(target):
        return target
    return Target.parse(target, n, torch.device("cpu")).select_rows(torch.tensor(rows))


def _together(
    method: Attribution,
    uneven: UnevenRows,
    target: TargetLike,
    masks: tuple[object, ...] | None,
    found: list[tuple[Result, Problem]],
) -> tuple[Result, Problem]:
    """Return one result and one problem of those of the groups."""
    results, problems = [result for result, _ in found], [problem for _, problem in found]
    order = torch.tensor([row for group in uneven.groups for row in group]).argsort()

    def in_order(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [v for v in values if v is not None]
        return torch.cat(known)[order.to(known[0].device)] if len(known) == len(results) else None

    def in_form(values: Sequence[Sequence[Tensor] | None]) -> tuple[AnyForm, ...] | None:
        known = [v for v in values if v is not None]
        if len(known) < len(results):
            return None
        return tuple(_as_given(method, uneven, k, [v[k] for v in known], order) for k in range(len(known[0])))

    ends = [result.ends or ScoreEnds() for result in results]
    first = problems[0]
    tally = first.tally
    if len({id(p.tally) for p in problems}) > 1:
        tally = Tally(sum(p.tally.evaluations for p in problems), max(p.tally.eps for p in problems))
    given = [p.target.given for p in problems]
    if needs_outputs(target) and all(isinstance(g, list) for g in given):
        each = [t for g in given for t in g]
        target = [each[i] for i in order.tolist()]
    whole = replace(
        results[0],
        attributions=in_form([result.attributions for result in results]) or (),
        completeness_gap=in_order([result.completeness_gap for result in results]),
        standard_error=in_form([result.standard_error for result in results]),
        details=_common_details(results, uneven, in_order),
        ends=ScoreEnds(
            in_order([e.scores for e in ends]),
            in_order([e.base_scores for e in ends]),
            in_order([e.probabilities for e in ends]),
            max(e.eps for e in ends),
        ),
    )
    return whole, first.replace(target=Target(given=target), tally=tally, feature_mask=masks)


def _as_given(method: Attribution, uneven: UnevenRows, k: int, values: Sequence[Tensor], order: Tensor) -> InForm:
    """Return attributions of the groups, each ``(M, ...)``, in the form of the input that they explain.

    Ragged if that is, a list for a list. What explains a layer, and maps, are one tensor ``(N, ...)`` where all rows have one
    shape, else a list.
    """
    rows = [row for value in values for row in value.unbind(0)]
    rows = [rows[i] for i in order.tolist()]
    explains_inputs = method.layer is None or method.layer_role != "input"
    given = uneven.given[k] if explains_inputs and k < len(uneven.given) else None
    if isinstance(given, Ragged) and [t.shape for t in rows] == [t.shape for t in uneven.parts[k]]:
        return Ragged(torch.cat(rows, given.along), given.sizes, dim=given.along)
    if isinstance(given, list) or len({t.shape for t in rows}) > 1:
        return RowList(rows)
    return torch.stack(rows)


def _common_details(
    results: Sequence[Result], uneven: UnevenRows, in_order: Callable[[Sequence[Tensor]], Tensor | None]
) -> Keywords:
    """Return the details that all groups have: what has their rows in the order of these, and what is the same for all."""
    found: Keywords = {}
    for key, value in results[0].details.items():
        values = [result.details.get(key) for result in results]
        sizes = [len(group) for group in uneven.groups]
        tensors = [v for v in values if isinstance(v, Tensor) and v.dim()]
        if [len(t) for t in tensors] == sizes and len({t.shape[1:] for t in tensors}) == 1:
            found[key] = in_order(tensors)
        elif len(results) == 1 or all(repr(v) == repr(value) for v in values):
            found[key] = value
    return found
