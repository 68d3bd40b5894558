"""Partial dependence: the mean prediction as one or two features take each value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.analysis import Analysis, one_tensor
from torchwhy.engine.run.checks import check_count
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.rows import exact_tensor
from torchwhy.problem import Problem
from torchwhy.targets import TargetLike
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


@dataclass(frozen=True, repr=False)
class Dependence(Viewable):
    """The dependence of a score on features.

    Args:
        grid: the values of each feature, ``(G,)`` for each.
        values: the mean score, ``(G,)`` or ``(G, G')``.
        ice: the score of each row, ``(N, G)`` or ``(N, G, G')``.
    """

    grid: tuple[Tensor, ...]
    values: Tensor
    ice: Tensor

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        one = len(self.grid) == 1
        grid, ice = (self.grid[0], self.ice) if one else (self.grid, None)
        return pictures.partial_dependence(grid, self.values, **{"ice": ice, **options})

    def _table(self) -> Table:
        points = torch.cartesian_prod(*self.grid).view(-1, len(self.grid))
        names = ["value"] if len(self.grid) == 1 else ["first value", "second value"]
        each = self.ice.flatten(1)
        spread = each.std(0) if len(each) > 1 else torch.full_like(each[0], torch.nan)
        columns = torch.cat([points.to(each), self.values.reshape(-1, 1).to(each), spread[:, None]], 1)
        return [*names, "score", "std over rows"], columns.tolist()


class PartialDependence(Analysis):
    r"""The mean score with a feature set to each value of a grid; the rows one by one are the ICE curves.

    :math:`\mathrm{PD}(v) = \frac{1}{N} \sum_n f(x_n \,|\, x_{nk} = v)`.

    Not what happens when the feature changes in the world: the other features stay, also where such rows do not exist. Equal to
    ``sklearn.inspection.partial_dependence`` with ``method="brute"``.

    Args:
        grid_resolution: the number of values; of a feature with fewer different values, these.
        percentiles: where the grid begins and ends, as shares of the data.

    Papers: Friedman 2001, doi:10.1214/aos/1013203451, section 8.2; Goldstein et al. 2015, arXiv:1309.6392.
    """

    grid_resolution: int = 100
    percentiles: tuple[float, float] = (0.05, 0.95)

    @torch_defaults()
    def measure(
        self,
        inputs: Tensor,
        target: TargetLike = None,
        *,
        feature: int | Sequence[int],
        grid: Tensor | Sequence[float] | Sequence[Tensor | Sequence[float]] | None = None,
        additional_forward_args: object = None,
    ) -> Dependence:
        """Measure the dependence of ``target`` on a feature or a pair of them.

        Args:
            inputs: ``(N, ...)``.
            target: as of every method.
            feature: the index of an element of a flattened row, or two of them.
            grid: the values to take instead, ``(G,)``, of a pair one for each.
            additional_forward_args: further arguments of the model.

        Raises:
            TypeError: inputs that are no tensor.
            ValueError: no such feature, no such grid.
        """
        columns = tuple(feature) if isinstance(feature, Iterable) else (feature,)
        width = one_tensor(inputs)[0].numel()
        if len(columns) not in (1, 2) or not all(hasattr(c, "__index__") and 0 <= c < width for c in columns):
            raise ValueError(f"feature={feature!r}: expected one or two of 0 to {width - 1}")
        flat = inputs.flatten(1)
        axes = [self._grid(flat[:, c]) for c in columns] if grid is None else self._given(grid, flat, len(columns))
        points = torch.cartesian_prod(*axes).view(-1, len(axes))
        with self.problem(inputs, target, additional_forward_args=additional_forward_args) as problem:
            scores = _scores_at(problem, columns, points)
        ice = scores.view(len(points), len(inputs)).T.reshape(len(inputs), *map(len, axes))
        return Dependence(tuple(axes), ice.mean(0), ice)

    @staticmethod
    def _given(
        grid: Tensor | Sequence[float] | Sequence[Tensor | Sequence[float]], like: Tensor, n: int
    ) -> list[Tensor]:
        """Return the caller's values, ``(G,)`` for each of n features.

        Raises:
            ValueError: no values, or not one list of them for each feature.
        """
        numbers = isinstance(grid, Tensor) or all(isinstance(g, (int, float)) for g in grid)
        parts = (grid,) if n == 1 and numbers else tuple(grid)
        axes = [exact_tensor(g).to(like) for g in parts] if len(parts) == n else []
        if not axes or not all(g.dim() == 1 and len(g) for g in axes):
            raise ValueError(f"grid: expected values (G,), at least one, for each of {n} features")
        return axes

    def _grid(self, values: Tensor) -> Tensor:
        """Return the values of a feature, ``(G,)``: all of its own where they are few, else a grid between percentiles."""
        check_count("grid_resolution", self.grid_resolution, least=2)
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 1:
            raise ValueError(f"percentiles={self.percentiles!r}: expected (low, high), shares from 0 to 1")
        different = values.unique()
        if len(different) < self.grid_resolution:
            return different
        from scipy.stats.mstats import mquantiles

        low, high = mquantiles(values.cpu().numpy(), prob=self.percentiles)
        return torch.linspace(float(low), float(high), self.grid_resolution, dtype=torch.double).to(values)


def _scores_at(problem: Problem, columns: Sequence[int], points: Tensor) -> Tensor:
    """Return the scores of all rows at each point ``(P, columns)``, flat, the rows of a point together."""
    x = problem.x[0]

    def work(start: int, stop: int) -> Tensor:
        rows, k = problem.run.rows_and_samples(start, stop)
        z = x[rows].flatten(1)  # indexing copies
        z[:, list(columns)] = points[k.to(points.device)]
        return problem.run.scores([z.view(len(rows), *x.shape[1:])], rows)

    return problem.run.concatenated(len(points) * problem.n, work)
