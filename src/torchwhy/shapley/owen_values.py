"""Owen values: Shapley values of features that come in groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import draw_uniform
from torchwhy.shapley.shapley_sampling import ShapleySampling


class OwenValues(ShapleySampling):
    r"""Shapley values of features that come in groups: only the orders that keep each group together count.

    The values of a group sum to its Shapley value in the game of groups, and are shared in it by what its features add when
    some of the other groups are in whole and the others out. One group, or every feature a group, gives Shapley values.
    The rest is as in :class:`ShapleySampling`.

    Args:
        groups: the number of the group of each feature, 0, 1, ...

    Raises:
        ValueError: no integers, gaps in them, or not one for each feature.

    Paper: Owen 1977, "Values of games with a priori unions".
    """

    groups: Sequence[int] | Tensor

    paper: ClassVar[str] = "doi:10.1007/978-3-642-45494-3_7"

    def random_ranks(self, count: int, d: int, generator: torch.Generator) -> Tensor:
        """Return the position of each feature in random orders of the groups, and of the features of each: ``(count, d)``."""
        group = torch.as_tensor(self.groups).cpu()
        if len(group) != d:
            raise ValueError(f"groups: expected one integer for each of {d} features, got {len(group)}")
        turn = draw_uniform(count, int(group.max()) + 1, generator=generator).argsort(1)
        return (turn[:, group] + draw_uniform(count, d, generator=generator)).argsort(1).argsort(1)

    def _check_settings(self) -> None:
        super()._check_settings()
        group = torch.as_tensor(self.groups).cpu()
        if group.dim() != 1 or not len(group) or group.is_floating_point() or group.dtype == torch.bool:
            raise ValueError(f"groups={self.groups!r}: expected one integer for each feature")
        if not torch.equal(group.unique(), torch.arange(int(group.max()) + 1)):
            raise ValueError(f"groups: number them 0, 1, 2, ... without gaps; got {group.unique().tolist()}")
