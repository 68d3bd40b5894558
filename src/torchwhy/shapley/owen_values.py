"""Owen values: Shapley values of features that come in groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.features.numbering import Features
from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.sampling import SampledEstimate
from torchwhy.problem import Problem
from torchwhy.shapley.shapley_sampling import ShapleySampling
from torchwhy.spelling import did_you_mean

Members = Sequence[int] | Sequence[str]
Groups = Sequence[int] | Sequence[str] | Sequence[Members] | Mapping[str, Members] | Tensor


class OwenValues(ShapleySampling[GivenLayer]):
    r"""Shapley values of features that come in groups: only the orders that keep each group together count.

    The values of a group sum to its Shapley value in the game of groups, and are shared in it by what its features add when
    some of the other groups are in whole and the others out. One group, or every feature a group, gives Shapley values.
    The rest is as in :class:`ShapleySampling`.

    Args:
        groups: the group of each feature: its number, 0, 1, ..., or its name; or a list or dict of groups, each a list of its
            features, by number or, of a data frame, by the names of their columns.

    Raises:
        ValueError: none of these, gaps in the numbers, or not one for each feature.

    Paper: Owen 1977, "Values of games with a priori unions".
    """

    groups: Groups

    paper: ClassVar[str] = "doi:10.1007/978-3-642-45494-3_7"

    def _estimate(self, problem: Problem, features: Features, rows: Tensor, d: int) -> SampledEstimate:
        if are_names(self.groups):
            names = None if problem.feature_mask is not None else problem.columns
            return replace(self, groups=group_numbers(self.groups, names))._estimate(problem, features, rows, d)
        return super()._estimate(problem, features, rows, d)

    def random_ranks(self, count: int, d: int, generator: torch.Generator) -> Tensor:
        """Return the position of each feature in random orders of the groups, and of the features of each: ``(count, d)``."""
        group = group_numbers(self.groups)
        if len(group) != d:
            raise ValueError(f"groups: expected the group of each of {d} features, got {len(group)}")
        turn = draw_uniform(count, int(group.max()) + 1, generator=generator).argsort(1)
        return (turn[:, group] + draw_uniform(count, d, generator=generator)).argsort(1).argsort(1)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not are_names(self.groups):
            group_numbers(self.groups)


def are_names(groups: Groups) -> bool:
    """Say whether groups are lists of the names of their columns."""
    lists = list(groups.values()) if isinstance(groups, Mapping) else groups
    return isinstance(lists, (list, tuple)) and any(
        isinstance(g, (list, tuple)) and any(isinstance(i, str) for i in g) for g in lists
    )


def group_numbers(groups: Groups, columns: Sequence[str] | None = None) -> Tensor:
    """Return the number of the group of each feature, ``(d,)``, from numbers, names, or lists of the features of each.

    Args:
        groups: as :class:`OwenValues` takes them.
        columns: what the features are called, where they are given by name.

    Raises:
        ValueError: something else, gaps in the numbers, features that are in no group or in two.

    >>> group_numbers(["age", "job", "job"]), group_numbers([[0], [2, 1]])
    (tensor([0, 1, 1]), tensor([0, 1, 1]))
    >>> group_numbers({"person": ["age"], "work": ["pay", "job"]}, ["age", "job", "pay"])
    tensor([0, 1, 1])
    """
    each = groups.tolist() if hasattr(groups, "tolist") else groups
    wrong = f"groups={groups!r}: expected for each feature the number or the name of its group, or a list of lists of features"
    if isinstance(each, Mapping):
        each = list(each.values())
        if not all(isinstance(g, (list, tuple)) for g in each):
            raise ValueError(wrong)
    if not isinstance(each, (list, tuple)) or not len(each):
        raise ValueError(wrong)
    if all(isinstance(g, str) for g in each):
        order = list(dict.fromkeys(each))
        return torch.tensor([order.index(g) for g in each])
    if all(isinstance(g, (list, tuple)) for g in each):
        return _numbers_of_lists(groups, [(i, k) for k, g in enumerate(each) for i in g], columns)
    if not all(isinstance(g, Integral) and not isinstance(g, bool) for g in each):
        raise ValueError(wrong)
    group = torch.tensor([int(g) for g in each])
    if not torch.equal(group.unique(), torch.arange(int(group.max()) + 1)):
        raise ValueError(f"groups: number them 0, 1, 2, ... without gaps; got {group.unique().tolist()}")
    return group


def _numbers_of_lists(groups: Groups, members: list[tuple[object, int]], columns: Sequence[str] | None) -> Tensor:
    """Return the group of each feature, from pairs of a feature, by its number or its name, and the number of its group."""
    if any(isinstance(i, str) for i, _ in members):
        if columns is None:
            raise ValueError(
                f"groups={groups!r}: names are those of a data frame's columns; give the numbers of the features"
            )
        unknown = [i for i, _ in members if i not in columns]
        if unknown:
            raise ValueError(f"groups: there is no column {unknown[0]!r}{did_you_mean(str(unknown[0]), columns)}")
        members = [(list(columns).index(str(i)), k) for i, k in members]
    numbered = sorted((int(i), k) for i, k in members if isinstance(i, Integral))
    whole = len(numbered) == len(members) and [i for i, _ in numbered] == list(range(len(columns or members)))
    if not whole:
        raise ValueError(f"groups={groups!r}: expected every feature, 0 to d - 1, in one list")
    return torch.tensor([k for _, k in numbered])
