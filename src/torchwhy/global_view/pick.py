"""Submodular pick: few rows whose explanations show what matters over all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.run.checks import check_count
from torchwhy.global_view.rows import Explained, MapSize, feature_rows, named
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption

EQUAL_GAINS = 1e-12  # of all importance: by what sums in another order differ


@dataclass(frozen=True, repr=False)
class PickedRows(Viewable):
    """Rows that were picked, see :func:`submodular_pick`.

    Args:
        rows: ``(n,)``, their numbers, in the order in which they were picked.
        coverage: ``(n,)``, the share of the importance of all features that they and those before cover.
        importance: ``(d,)``, of the features.
        values: ``(n, d)``, the attributions of the picked rows that were counted; 0 elsewhere.
        names: of the features.
    """

    rows: Tensor
    coverage: Tensor
    importance: Tensor
    values: Tensor
    names: list[str]

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        order = self.importance.argsort(descending=True, stable=True)
        order = order[self.importance[order] > 0][: options.pop("top", 15)]
        labels = [f"row {row} ({share:.0%})" for row, share in zip(self.rows.tolist(), self.coverage.tolist())]
        shown = {
            "xlabel": "features, the most important first",
            "ylabel": "rows (covered so far)",
            **options,
        }
        return pictures.matrix(self.values[:, order], labels, [self.names[j] for j in order.tolist()], **shown)

    def _table(self) -> Table:
        lines: list[list[object]] = []
        for row, share, values in zip(self.rows.tolist(), self.coverage.tolist(), self.values):
            largest = values.abs().argsort(descending=True, stable=True)[: int((values != 0).sum())]
            lines.append([row, share, ", ".join(self.names[j] for j in largest.tolist())])
        return ["row", "covered", "features"], lines


def submodular_pick(
    explained: Explained,
    n: int = 5,
    *,
    n_features: int = 10,
    names: Sequence[str] | None = None,
    size: MapSize = None,
) -> PickedRows:
    r"""Return the rows whose explanations together show most of what matters: what to look at, where one can look at few.

    With W the attributions of which each row keeps its ``n_features`` largest, the importance of a feature is
    :math:`I_j = \sqrt{\sum_i |W_{ij}|}`, and a set V of rows covers

    .. math:: c(V) = \sum_j \mathbb{1}\left[ \exists i \in V: |W_{ij}| > 0 \right] I_j.

    Rows are picked one by one, each the one that adds most; of equal ones the first. What is covered is at least 63 % of what the
    best n rows would cover, as c is submodular. Where everything is covered before n rows, picking ends.

    Read batch by batch; kept are ``n_features`` numbers for each row.

    Args:
        explained: an explanation, what :func:`torchwhy.load_dataset` returns or its folder, or explanations one by one.
        n: the most rows that are picked.
        n_features: how many features of a row count, as LIME's explanations have few; the others are taken for 0.
        names: of the features; None is their own.
        size: of maps, to which they are averaged.

    Raises:
        TypeError, ValueError: no explanations, rows with features of their own, other numbers of names, counts below 1.

    Paper: Ribeiro, Singh, Guestrin 2016, arXiv:1602.04938, equation 3 and algorithm 2.
    """
    check_count("n", n)
    check_count("n_features", n_features)
    kept, places, first = [], [], None
    for found in feature_rows(explained, size):
        first = first or found
        values = found.values
        top = values.abs().topk(min(n_features, values.shape[1]), 1).indices
        kept.append(values.gather(1, top))
        places.append(top)
    if first is None:
        raise ValueError("explained: there are no rows")
    weights, place, d = torch.cat(kept), torch.cat(places), first.values.shape[1]
    sizes = weights.abs().double()
    importance = sizes.new_zeros(d).index_add_(0, place.flatten(), sizes.flatten()).sqrt()
    rows, shares = _pick_greedily(place, sizes > 0, importance, n)
    values = weights.new_zeros(len(rows), d).scatter_(1, place[rows], weights[rows])
    return PickedRows(rows, shares, importance, values, named(names, first))


def _pick_greedily(place: Tensor, there: Tensor, importance: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the rows that are picked, and the share that is covered with each.

    Args:
        place: ``(N, k)``, the features of each row.
        there: ``(N, k)``, whether its attribution is not 0.
        importance: ``(d,)``.
        n: the most rows.
    """
    left, total = importance.clone(), float(importance.sum()) or 1.0
    rows: list[int] = []
    shares: list[float] = []
    while len(rows) < n:
        gains = (left[place] * there).sum(1)
        best = int((gains >= gains.max() - EQUAL_GAINS * total).nonzero()[0])
        if gains[best] <= EQUAL_GAINS * total and rows:
            break
        rows.append(best)
        left[place[best][there[best]]] = 0
        shares.append(1 - float(left.sum()) / total)
    return torch.tensor(rows), torch.tensor(shares, dtype=torch.double)
