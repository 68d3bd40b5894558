"""Do influences foretell what happens when rows are left out? Measured by training again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.influence.influences import Influences
from torchwhy.metrics.correlation import average_ranks, pearson, spearman
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import AnyOption, PictureOption

InfluenceLike = Influences | Tensor
RESAMPLES = 500  # of an interval
LEVEL = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class RetrainingScore(Viewable):
    """How well influences foretell what training again gives.

    Args:
        mean: over the explained rows; NaN rows are left out.
        interval: its 95 % interval, over explained rows and trainings drawn again (bootstrap).
        each: of each explained row ``(N,)``; NaN where nothing varies.
        measure: the name of the number.
    """

    mean: float
    interval: tuple[float, float]
    each: Tensor
    measure: str

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        known: dict[str, AnyOption] = {
            "xlabel": self.measure,
            "title": f"mean {self.mean:.2f} [{self.interval[0]:.2f}, {self.interval[1]:.2f}]",
        }
        kept = [i for i, value in enumerate(self.each.tolist()) if value == value]
        return pictures.bars(self.each[kept], [f"row {i}" for i in kept], **{**known, **options})

    def _table(self) -> Table:
        return ["row", self.measure], [[i, value] for i, value in enumerate(self.each.tolist())]


def draw_subsets(n_train: int, n_subsets: int = 50, fraction: float = 0.5, generator: Seed = 0) -> Tensor:
    """Draw subsets of the training rows, each of ``fraction`` of them, ``(n_subsets, n_train)`` of bool.

    Raises:
        ValueError: a fraction that leaves no row, or takes all.
    """
    size = round(fraction * n_train)
    if not 0 < size < n_train:
        raise ValueError(f"fraction={fraction}: of {n_train} rows that is {size}; some must be in and some out")
    source = make_generator(generator)
    kept = torch.zeros(n_subsets, n_train, dtype=torch.bool)
    for line in kept:
        line[torch.randperm(n_train, generator=source)[:size]] = True
    return kept


def retrain(train: Callable[[Tensor], Tensor], subsets: Tensor) -> Tensor:
    """Train again on each subset; return the outcomes ``(J, N)``.

    Args:
        train: from the numbers of training rows ``(k,)`` to what a model trained on them says of the explained rows, ``(N,)``:
            the larger, the better it does on them, such as the negative loss, or the margin. Means over several trainings vary
            less.
        subsets: ``(J, n_train)`` of bool.

    Raises:
        ValueError: an outcome that is not finite, or not one number for each row.
    """
    found: list[Tensor] = []
    for number, subset in enumerate(subsets):
        outcome = torch.as_tensor(train(subset.nonzero()[:, 0])).detach().cpu()
        if outcome.dim() != 1 or not bool(outcome.isfinite().all()) or (found and outcome.shape != found[0].shape):
            raise ValueError(
                f"train: for subset {number} expected finite numbers (N,), one for each explained row, got {tuple(outcome.shape)}"
            )
        found.append(outcome)
    return torch.stack(found)


def linear_datamodeling_score(influences: InfluenceLike, subsets: Tensor, outcomes: Tensor) -> RetrainingScore:
    r"""Return the linear datamodeling score: the rank correlation, over subsets of the training rows, of the sum of the
    influences in a subset with what a model trained on it does: :math:`\rho_n = \mathrm{Spearman}_j
    (\sum_{i \in S_j} A_{ni}, y_{jn})`.

    1 foretells the order of all subsets, 0 nothing. The interval is wide with few subsets or rows, and trainings that differ by
    chance bound the score from above.

    Args:
        influences: ``(N, n_train)``.
        subsets: ``(J, n_train)`` of bool: which rows were trained on, see :func:`draw_subsets`.
        outcomes: ``(J, N)``, the larger the better, see :func:`retrain`.

    Raises:
        ValueError: shapes that do not belong together, less than three subsets.

    Paper: Park et al. 2023, arXiv:2303.14186, definition 2.4.
    """
    values = _matrix_of(influences)
    _check_shapes("subsets", subsets, (len(outcomes), values.shape[1]))
    _check_shapes("outcomes", outcomes, (len(subsets), len(values)))
    sums = values @ subsets.to(values).T
    return _scored(sums, outcomes.T.to(values), spearman, "linear datamodeling score")


def leave_one_out_correlation(
    influences: InfluenceLike, left_out: Sequence[int] | Tensor, outcomes: Tensor, outcome: Tensor
) -> RetrainingScore:
    """Return the correlation of influences with what leaving single rows out does to each explained row.

    Args:
        influences: ``(N, n_train)``.
        left_out: the numbers of K training rows.
        outcomes: ``(K, N)``, of models trained without each of them, the larger the better.
        outcome: ``(N,)``, of the model trained on all rows.

    Raises:
        ValueError: shapes that do not belong together, less than three rows left out, rows that there are not.

    Paper: Koh and Liang 2017, arXiv:1703.04730, section 4.1.
    """
    values, rows = _matrix_of(influences), torch.as_tensor(left_out)
    if rows.dim() != 1 or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < values.shape[1]):
        raise ValueError(f"left_out: expected numbers from 0 to {values.shape[1] - 1}")
    _check_shapes("outcomes", outcomes, (len(rows), len(values)))
    _check_shapes("outcome", outcome, (len(values),))
    drops = (outcome - outcomes).T
    return _scored(values[:, rows], drops.to(values), pearson, "leave-one-out correlation")


def mislabelled_auc(scores: Tensor, mislabelled: Tensor) -> float:
    """Return the chance that a mislabelled training row has a larger score than one with the right label, ties counting half.

    The area under the receiver operating characteristic; 0.5 is chance.

    Args:
        scores: ``(n_train,)``, such as what ``self_influence()`` gives.
        mislabelled: ``(n_train,)`` of bool.

    Raises:
        ValueError: other shapes, scores that are not finite, or no rows of one of both kinds.
    """
    _check_shapes("mislabelled", mislabelled, tuple(scores.shape))
    wrong = mislabelled.bool()
    if scores.dim() != 1 or not bool(scores.isfinite().all()) or bool(wrong.all()) or not bool(wrong.any()):
        raise ValueError(
            "scores, mislabelled: expected finite numbers (n,), some rows with a wrong label and some without"
        )
    ranks, number = average_ranks(scores[None].double())[0], int(wrong.sum())
    return float((ranks[wrong].sum() - number * (number - 1) / 2) / (number * (len(wrong) - number)))


def _matrix_of(influences: InfluenceLike) -> Tensor:
    """Return the influences ``(N, n_train)`` in double precision."""
    values = influences.attributions if isinstance(influences, Influences) else influences
    if not isinstance(values, Tensor) or values.dim() != 2:
        raise ValueError("influences: expected Influences or a tensor (N, n_train)")
    return values.detach().cpu().double()


def _check_shapes(name: str, given: Tensor, expected: tuple[int, ...]) -> None:
    """Refuse an argument of another shape."""
    if tuple(given.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(given.shape)}")


def _scored(a: Tensor, b: Tensor, correlate: Callable[[Tensor, Tensor], Tensor], measure: str) -> RetrainingScore:
    """Return the correlations of ``(N, J)`` with ``(N, J)`` row by row, their mean and its interval."""
    n, trainings = a.shape
    if trainings < 3:
        raise ValueError(f"outcomes: of {trainings} trainings; a correlation needs at least 3")
    each, source = correlate(a, b), make_generator(0)
    means = []
    for _ in range(RESAMPLES):
        rows, columns = (torch.randint(k, (k,), generator=source) for k in (n, trainings))
        means.append(correlate(a[rows][:, columns], b[rows][:, columns]).nanmean())
    tail = (1 - LEVEL) / 2
    kept = torch.stack(means)
    low, high = kept[~kept.isnan()].quantile(torch.tensor([tail, 1 - tail], dtype=torch.double)).tolist()
    return RetrainingScore(float(each.nanmean()), (low, high), each, measure)
