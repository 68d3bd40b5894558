"""Counterfactuals: the nearest inputs that get another answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attribution import Attribution, prepare_for
from torchwhy.counterfactual.constraints import (
    BoundLike,
    RowVectors,
    check_bounds,
    check_changeable,
    constraints_per_row,
    vectors,
)
from torchwhy.counterfactual.free_search import FreeSearch
from torchwhy.counterfactual.goal import Goal
from torchwhy.counterfactual.search import Search, Term
from torchwhy.counterfactual.search_result import Found
from torchwhy.engine.run.black_box import BlackBox, as_model
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, draw_normal, draw_seed
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import flatten
from torchwhy.engine.tables import Frame, FrameForm, is_frame
from torchwhy.input_types import GivenLayer, Inputs
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, NotNegative, Positive
from torchwhy.targets import TargetLike


class Counterfactual(Attribution[GivenLayer]):
    r"""The change that gets another answer: :math:`A_n = z_n - x_n`, with z near x, between the bounds, and
    :math:`f_t(z_n) > \max_{j \ne t} f_j(z_n) + \mathrm{margin}`.

    All rows go downhill on that gap together, in steps of fixed length in units of the bounds' width, each until it has
    flipped; then each is drawn back towards its row, by bisection, as far as it stays flipped. That is a point on the
    boundary near the row, not the nearest of all. ``target`` is the wanted class; a callable, whose score must exceed the
    margin; or None, any class but the present one (of a single score: the other sign).

    Args:
        distance: ``"l2"``; ``"l1"``, which changes few elements; or a callable ``(x, z) → (M,)`` on tensors of the
            inputs' shape.
        bounds: (low, high), numbers or tensors that broadcast to the inputs, or series by the columns' names, such as
            ``(frame.min(), frame.max())``; None for no bounds, or none on one side.
        margin: by how much the wanted class leads, in units of the score.
        n_diverse: how many counterfactuals for each row.
        diversity: ``"determinant"``, lowering −log det of :math:`1 / (1 + d_{ij})` (Mothilal et al. 2020), or ``"distance"``,
            raising the mean distance between them.
        changeable: True where a value may change: a mask that broadcasts to the inputs, or names of columns of a data frame.
        integers: columns of a table that stay whole numbers, by number or name; those of integer types are.
        one_hot: groups of columns, of each of which one is 1.
        plausible: real rows ``(K, ...)``, a tensor or a data frame, the nearest of which draws the candidates, or an autoencoder
            ``z → z'``, whose error is lowered. A column of texts takes the labels of these rows and of the inputs.
        distance_weight, diversity_weight, plausible_weight: the pull of each relative to that of the gap; together less
            than 1, so that the gap falls.
        n_steps: the most steps.
        step_size: the length of a step.
        generator: of the different starts of diverse ones, and of the draws of the search without gradients.
        search: ``"gradient"``, downhill as above; ``"free"``, without gradients, for trees, pipelines and inputs of whole
            numbers: draws around the row, ever wider, until one flips, nearest first, then elements are taken back while it
            stays flipped; real rows given as ``plausible`` are tried first. None is ``"free"`` for scikit-learn's models
            and :class:`torchwhy.NumPyModel`.

    Paper: Wachter, Mittelstadt, Russell 2018, arXiv:1711.00399, whose sum of the two objectives it replaces: there the
    distance keeps rows from flipping unless its weight is tuned for each.
    """

    distance: Literal["l2", "l1"] | Callable[..., Tensor] = "l2"
    bounds: tuple[BoundLike | None, BoundLike | None] | None = (0.0, 1.0)
    margin: NotNegative = 0.0
    n_diverse: Count = 1
    diversity: Literal["determinant", "distance"] = "determinant"
    changeable: BoundLike | Sequence[str] | None = None
    integers: Sequence[int | str] = ()
    one_hot: Sequence[Sequence[int | str]] = ()
    plausible: Tensor | Frame | Callable[[Tensor], Tensor] | None = None
    distance_weight: NotNegative = 0.1
    diversity_weight: NotNegative = 0.4
    plausible_weight: NotNegative = 0.3
    n_steps: Count = 500
    step_size: Positive = 0.05
    generator: Seed = 0
    search: Literal["gradient", "free"] | None = None

    does_without: ClassVar[str] = "search without one, search='free'"  # where inputs have no gradient
    paper: ClassVar[str] = "arXiv:1711.00399"

    @torch_defaults()
    def generate(self, inputs: Inputs, target: TargetLike = None, *, additional_forward_args: object = None) -> Found:
        """Find counterfactuals of each row.

        Args:
            inputs: the rows.
            target: the wanted class or classes, or a callable, or None: see above.
            additional_forward_args: further arguments of the model.

        Raises:
            ValueError: a row has the wanted answer already, bounds that exclude an input, columns that do not fit.
        """
        with torch.inference_mode(False):
            problem = prepare_for(self, inputs, target, additional_forward_args=additional_forward_args)
            with problem.open(), problem.batching.without_bar():
                z, found, distance, steps, history = self._search(problem)
        k, table = self.n_diverse, problem.table
        shape = (problem.n,) if k == 1 else (problem.n, k)
        values = tuple(t if k == 1 else t.unflatten(0, shape) for t in z)
        form = self.result_structure(flatten(inputs)[1])
        return Found(
            counterfactuals=form.restore(values) if table is None else table.decode(z[0], like=inputs),
            found=found.view(shape),
            distance=distance.view(shape),
            steps=steps.view(shape),
            history=history.view(len(history), *shape),
            inputs=inputs,
            table=table,
        )

    def _attribute(self, problem: Problem) -> Result:
        with problem.batching.without_bar():
            z, found, distance, steps, _ = self._search(problem)
        k = self.n_diverse
        best = distance.nan_to_num(torch.inf).view(-1, k).argmin(1) + torch.arange(problem.n, device=found.device) * k
        if not bool(found[best].all()):
            lost = (~found[best]).nonzero()[:, 0].tolist()
            warn(
                f"Counterfactual: rows {lost[:10]} did not flip in {self.n_steps} steps; their change is the last attempt. "
                "Raise n_steps or step_size, widen the bounds, or lower the margin"
            )
        details = {"found": found[best], "distance": distance[best], "steps": steps[best]}
        return Result(tuple(t[best] - x for t, x in zip(z, problem.x)), details=details)

    def _search(self, problem: Problem) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        """Return candidates ``(N · n_diverse, ...)``, whether, how far and after how many steps each flipped, and the gaps."""
        table, bounds = problem.table, self.bounds
        if table is not None and isinstance(bounds, (tuple, list)) and len(bounds) == 2:
            bounds = table.numbers(bounds[0], -torch.inf), table.numbers(bounds[1], torch.inf)
        labels = {} if table is None else {column: len(known) for column, known in table.labels.items()}
        rows = constraints_per_row(
            problem.x,
            bounds,
            self.changeable,
            self.integers,
            self.one_hot,
            problem.columns,
            labels,
            () if table is None else table.whole,
        )
        if table is not None and not is_frame(self.plausible):
            _warn_of_labels(table, rows)
        problem = self._aim(problem)
        z, found, steps, history = self._freely(problem, rows) if self._is_free else self._downhill(problem, rows)
        x = vectors(problem.x).repeat_interleave(self.n_diverse, 0)
        distance = self._distance(rows, x, z).where(found, torch.nan)
        return rows.tensors(z), found, distance, steps, history

    def _downhill(self, problem: Problem, rows: RowVectors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the search by gradients finds."""
        k = self.n_diverse
        x, of = vectors(problem.x).repeat_interleave(k, 0), problem.rows.repeat_interleave(k)
        search = Search(problem, rows, x, of, [], sparse=self.distance == "l1")
        search.terms = self._terms(search, self._real_rows(problem))
        z, found, steps, history = search.downhill(self._start(search, problem), self._steps(), self.step_size)
        return rows.valid(search.back(z, found)), found, steps, history

    def _freely(self, problem: Problem, rows: RowVectors) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what the search without gradients finds."""
        k = self.n_diverse
        x, of = vectors(problem.x).repeat_interleave(k, 0), problem.rows.repeat_interleave(k)
        real = self._real_rows(problem)
        known = None if real is None else real.to(x)
        search = FreeSearch(
            problem, rows, x, of, [], sparse=False, n_diverse=k, generator=problem.generator,
            seed=draw_seed(problem.generator), known=known,
            distance=partial(self._distance, rows),
        )  # fmt: skip
        z, found, steps, history = search.spread(self._steps(), self.step_size)
        z = search.closer(rows.valid(search.back(z, found)), found)
        return z, found, steps, history

    @property
    def _is_free(self) -> bool:
        """Whether to search without gradients."""
        if self.search is not None:
            return self.search == "free"
        model = self.model if callable(self.model) else as_model(self.model)
        estimator = hasattr(getattr(model, "__self__", None), "get_params")
        return estimator or (isinstance(model, BlackBox) and bool(model.arrays))

    def _aim(self, problem: Problem) -> Problem:
        """Return the problem whose scores are gaps, after refusing rows that have none."""
        goal = Goal(problem.target, self.margin)  # type: ignore[arg-type]
        problem = problem.replace(target=goal)
        if goal.target.index is None and goal.target.function is None:
            goal.present = problem.run.all_scores(problem.x)
        there = problem.run.all_scores(problem.x) < (self.margin if goal.target.function is None else 0)
        if bool(there.any()):
            raise ValueError(
                f"target: rows {there.nonzero()[:10, 0].tolist()} get the wanted answer already; ask for another class"
            )
        return problem

    def _start(self, search: Search, problem: Problem) -> Tensor:
        """Return the rows; of diverse ones a step away from them, each in a direction of its own, the same for all rows."""
        if self.n_diverse == 1:
            return search.x
        draws = draw_normal(self.n_diverse, search.x.shape[1], generator=problem.generator, dtype=torch.double)
        draws = draws.to(search.x).repeat(problem.n, 1)
        return search.moved(search.x, draws, torch.arange(len(draws), device=draws.device), self.step_size)

    def _real_rows(self, problem: Problem) -> Tensor | None:
        """Return the real rows that are given as plausible, ``(K, D)``, None where there are none.

        Raises:
            TypeError: a data frame, where the inputs are none.
        """
        if isinstance(self.plausible, Tensor):
            return self.plausible.flatten(1)
        if not is_frame(self.plausible):
            return None
        if problem.table is None:
            raise TypeError("plausible: a data frame, but the inputs are tensors; give a tensor of real rows")
        return problem.table.encode(self.plausible, "plausible")

    def _terms(self, search: Search, real: Tensor | None) -> list[tuple[float, Term]]:
        """Return what is lowered besides the gap, each with its weight; ``real`` rows ``(K, D)`` draw the candidates."""
        rows, k = search.rows, self.n_diverse
        width = rows.of(rows.scale, search.of).mean(1, keepdim=True)

        def distance(z: Tensor, which: Tensor) -> Tensor:
            return self._distance(rows, search.x, z)

        def likeness(z: Tensor, which: Tensor) -> Tensor:
            return _likeness(z / width, k, self.diversity)

        def implausibility(z: Tensor, which: Tensor) -> Tensor:
            return self._implausibility(rows, z[which], real)

        terms: list[tuple[float, Term]] = [(self.distance_weight, distance)]
        if k > 1:
            terms.append((self.diversity_weight, likeness))
        if self.plausible is not None:
            terms.append((self.plausible_weight, implausibility))
        return terms

    def _distance(self, rows: RowVectors, x: Tensor, z: Tensor) -> Tensor:
        """Return the distance of vectors z from x, ``(M,)``.

        Raises:
            ValueError: a callable that does not give one number for each row.
        """
        if self.distance == "l1":
            return (z - x).abs().sum(1)
        if self.distance == "l2":
            return torch.linalg.vector_norm(z - x, dim=1)
        found = self.distance(_one_or_tuple(rows.tensors(x)), _one_or_tuple(rows.tensors(z)))
        if not isinstance(found, Tensor) or found.shape != (len(z),):
            got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"distance: the callable must return one distance per row, shape ({len(z)},), not {got}")
        return found

    def _implausibility(self, rows: RowVectors, z: Tensor, real: Tensor | None) -> Tensor:
        """Return the squared distance of candidates from the nearest real row, or from what the autoencoder makes of them.

        Raises:
            ValueError: real rows, or an autoencoder, of another size than the inputs.
        """
        near = self.plausible(rows.tensors(z)[0]).flatten(1) if real is None else real.to(z)  # type: ignore[misc, operator]
        if near.shape[1] != z.shape[1] or not len(near):
            raise ValueError(
                f"plausible: rows of {near.shape[1]} values, {len(near)} of them, for inputs of {z.shape[1]} values each"
            )
        if real is not None:
            near = near[torch.cdist(z.detach(), near).argmin(1)]
        return (z - near).square().sum(1)

    def _steps(self) -> Iterable[int]:
        """Return the steps, with a bar if asked for."""
        if not self.progress:
            return range(self.n_steps)
        from tqdm.auto import tqdm

        return tqdm(range(self.n_steps), desc=type(self).__name__)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self._is_free:
            self.needs_gradient = False  # type: ignore[misc]
            if self.plausible is not None and not (isinstance(self.plausible, Tensor) or is_frame(self.plausible)):
                raise ValueError("plausible: the search without gradients takes real rows, not an autoencoder")
        known = self.plausible is None or isinstance(self.plausible, Tensor) or is_frame(self.plausible)
        if not (known or callable(self.plausible)):
            raise ValueError(
                f"plausible={self.plausible!r}: expected real rows, a tensor or data frame, or an autoencoder"
            )
        rows = self.plausible
        if isinstance(rows, Tensor) and not (rows.dim() > 1 and len(rows) and bool(rows.isfinite().all())):
            raise ValueError(f"plausible={rows!r}: expected real rows, (K, ...), all of them finite numbers")
        check_bounds(self.bounds)
        check_changeable(self.changeable)
        weights = {"distance_weight": self.distance_weight}
        if self.n_diverse > 1:
            weights["diversity_weight"] = self.diversity_weight
        if self.plausible is not None:
            weights["plausible_weight"] = self.plausible_weight
        if sum(weights.values()) >= 1:
            given = ", ".join(f"{name}={weight:g}" for name, weight in weights.items())
            raise ValueError(f"{given}: together they must be less than 1, or rows would not flip")


def _warn_of_labels(table: FrameForm, rows: RowVectors) -> None:
    """Warn of columns of texts that may change, and only to the labels that the rows themselves have."""
    for column in table.texts:
        if bool(rows.free[:, column].any()):
            name, labels = table.columns[column], ", ".join(map(repr, table.labels[column]))
            warn(
                f"Counterfactual: column {name!r} holds texts, and takes those of the given rows, {labels}, and no others; "
                f"give real rows as plausible=, or all its labels as a type: frame[{name!r}].astype('category') of all rows"
            )


def _likeness(z: Tensor, k: int, how: str) -> Tensor:
    """Return how alike the k candidates of each row are, to be lowered."""
    between = torch.cdist(z.unflatten(0, (-1, k)), z.unflatten(0, (-1, k)))
    if how == "distance":
        return -between.mean((1, 2))
    kernel = 1 / (1 + between) + 1e-4 * torch.eye(k, device=z.device, dtype=z.dtype)
    return -torch.logdet(kernel)


def _one_or_tuple(tensors: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """Return a single tensor as it is, several as a tuple."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)
