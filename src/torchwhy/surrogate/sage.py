"""SAGE: the drop of a model's loss, shared among the features by their Shapley values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.analysis import Analysis, outputs
from torchwhy.engine.run.black_box import BlackBox
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.tables import features_by_name
from torchwhy.input_types import FeatureMasks, Inputs
from torchwhy.problem import Problem
from torchwhy.settings import Count
from torchwhy.surrogate.importance import classes_in, feature_of_elements, label_columns, rows_like
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption

PredictionLoss = Callable[[Tensor, Tensor], Tensor]
ROWS_TOGETHER = 8192  # of one round of calls


@dataclass(frozen=True, repr=False)
class LossShares(Viewable):
    """The share of each feature in the drop of the loss.

    Args:
        values: ``(features,)``, in the units of the loss; below 0 where a feature makes the loss larger.
        standard_error: ``(features,)``, of the values, by the draws.
        total: the sum of the values.
        total_error: its standard error.
        drop: the loss with no feature less that with all, over every row: what the total comes near.
        names: of the features, where the inputs were a data frame.
    """

    values: Tensor
    standard_error: Tensor
    total: float
    total_error: float
    drop: float
    names: list[str] | None = None

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        shown = {
            "names": self.names,
            "errors": self.standard_error,
            "xlabel": "share in the drop of the loss ± standard error",
            **options,
        }
        return pictures.bars(self.values, **shown)

    def _table(self) -> Table:
        names: list[object] = list(self.names or range(len(self.values)))
        columns = zip(names, self.values.tolist(), self.standard_error.tolist())
        return ["feature", "value", "standard error"], [list(line) for line in columns]


class SAGE(Analysis):
    r"""Shapley values of the game whose gain is the drop of the loss (Shapley additive global importance).

    A coalition S of features is worth

    .. math:: v(S) = -\mathbb{E}\left[ \ell\left( \mathbb{E}_{x'}[f(x_S, x'_{\bar S})],\; y \right) \right],

    its absent features those of other rows x', the background, over which the *predictions* are averaged, before the loss. The
    values add up to :math:`v(D) - v(\emptyset)`, the loss of the mean prediction less that of the model's own (of the rows and
    background that are given), within ``total_error``.

    In the units of the loss (of the cross-entropy nats). Features that stand in for each other share what they are worth, where
    permutation importance gives each of them little. It says what the model gains from a feature on these rows, with absent
    features drawn independently of the others (the paper's approximation of the conditional expectation), not what would become
    of a model trained without it.

    Estimated as in the paper (algorithm 1): a row, an order of the features, which come in one by one; each is credited with the
    drop of the loss at its turn. All rows are gone through before one comes again. Here the background is the same rows for
    all draws, and every feature set is evaluated on all of it.

    Evaluations: ``n_samples`` × (features − 1) × ``n_background``, and one for each row.

    Args:
        n_samples: rows with an order each. The standard errors fall with its square root.
        n_background: rows that stand for absent features, drawn of the inputs; all, where there are no more.
        loss: ``(predictions, labels) → (M,)``, of averaged predictions; None is for whole-number labels
            :math:`-\log p_y` of the averaged class probabilities (outputs that are none go through a softmax first), and the
            squared error for others.
        generator: of the draws.

    Paper: Covert, Lundberg, Lee 2020, arXiv:2004.00668, equations 3 and 6 and algorithm 1.
    """

    n_samples: Count = 512
    n_background: Count = 64
    loss: PredictionLoss | None = None
    generator: Seed = 0

    @torch_defaults()
    def measure(
        self,
        inputs: Inputs,
        labels: object,
        *,
        feature_mask: FeatureMasks = None,
        additional_forward_args: object = None,
    ) -> LossShares:
        """Measure the share of every feature.

        Args:
            inputs: ``(N, ...)``, also an array, a data frame, or several tensors.
            labels: ``(N, ...)``, as the loss takes them; of a scikit-learn classifier those that it was fitted on.
            feature_mask: as of :meth:`torchwhy.PermutationImportance.measure`.
            additional_forward_args: further arguments of the model.

        Raises:
            TypeError: inputs that are no tensor.
            ValueError: not one label per row, a single row or feature, a mask that does not fit, a loss of another shape.
        """
        feature_mask, names = features_by_name(inputs, feature_mask)
        with self.problem(inputs, additional_forward_args=additional_forward_args) as problem:
            labels = label_columns(problem, labels, as_columns=self.loss is None)
            if problem.n < 2:
                raise ValueError(f"inputs: {problem.n} rows; at least 2 are needed")
            features = feature_of_elements(problem, feature_mask)
            d = max(int(f.max()) for f in features) + 1
            if d < 2:
                raise ValueError("inputs: there is one feature; nothing is to be shared")
            game = _LossGame(problem, labels, features, self.background(problem.n), self.loss)
            rows, orders = self.draws(problem.n, d)
            gains = game.gains(rows, orders, self.steps)
        values, count = gains.mean(0), len(gains)
        total = gains.sum(1)
        error, total_error = (g.std(0) / count**0.5 if count > 1 else g[0] * torch.nan for g in (gains, total))
        drop = float(game.empty.mean() - game.full.mean())
        return LossShares(values, error, float(total.mean()), float(total_error), drop, names)

    def background(self, n: int) -> Tensor:
        """Draw the rows that stand for absent features, of n rows, ``(m,)``."""
        if n <= self.n_background:
            return torch.arange(n)
        return torch.randperm(n, generator=self._generators()[0])[: self.n_background].sort().values

    def draws(self, n: int, d: int) -> tuple[Tensor, Tensor]:
        """Draw the rows ``(n_samples,)`` of n, and the orders ``(n_samples, d)`` of d features."""
        _, of_rows, of_orders = self._generators()
        rounds = -(-self.n_samples // n)
        rows = torch.cat([torch.randperm(n, generator=of_rows) for _ in range(rounds)])[: self.n_samples]
        return rows, torch.stack([torch.randperm(d, generator=of_orders) for _ in range(self.n_samples)])

    def _generators(self) -> list[torch.Generator]:
        """Return three generators, for the background, the rows and the orders."""
        if self.generator is None:
            raise ValueError("generator: None draws anew at each look; give an int, such as 0")
        seed = torch.randint(2**31, (3,), generator=make_generator(self.generator)).tolist()
        return [torch.Generator().manual_seed(s) for s in seed]


class _LossGame:
    """The loss of sets of features.

    Args:
        problem: the model and the rows.
        labels: ``(N, ...)``.
        features: of each tensor the feature of each element of a row.
        background: ``(m,)``, rows.
        loss: of averaged predictions and labels, None as said at :class:`SAGE`.
    """

    def __init__(
        self, problem: Problem, labels: Tensor, features: list[Tensor], background: Tensor, loss: PredictionLoss | None
    ) -> None:
        self.problem, self.labels, self.features = problem, labels, features
        self.background, self.loss = background.to(problem.rows.device), loss
        out = outputs(problem, problem.x, problem.rows)
        self.as_predictions = _prediction_form(problem, out, labels, loss)
        predictions = self.as_predictions(out)
        self.full = self.losses(predictions, labels)
        nothing = predictions[self.background].mean(0, keepdim=True)
        self.empty = self.losses(nothing.expand(len(labels), *nothing.shape[1:]), labels)

    def gains(self, rows: Tensor, orders: Tensor, steps: Callable[[int], object]) -> Tensor:
        """Return by how much each feature lowers the loss at its turn, ``(samples, d)``, as doubles on the CPU."""
        d = orders.shape[1]
        together = max(1, ROWS_TOGETHER // (d * len(self.background)))
        parts = list(zip(rows.split(together), orders.split(together)))
        return torch.cat([self._gains_of(*parts[i]) for i in steps(len(parts))])  # type: ignore[attr-defined]

    def _gains_of(self, rows: Tensor, orders: Tensor) -> Tensor:
        s, d = orders.shape
        rows, device = rows.to(self.problem.rows.device), self.problem.rows.device
        turn = torch.argsort(orders, 1).to(device)  # when each feature comes in
        losses = [self.empty[rows]]
        if d > 1:
            kept = turn[:, None] < torch.arange(1, d, device=device)[:, None]  # (s, d - 1, d)
            between = self.losses(self._mean_predictions(rows, kept), self.labels[rows].repeat_interleave(d - 1, 0))
            losses += between.view(s, d - 1).unbind(1)
        steps = torch.stack([*losses, self.full[rows]], 1).double()
        drops = steps[:, :-1] - steps[:, 1:]  # of the feature that came at each turn
        return torch.zeros_like(drops).scatter_(1, orders.to(device), drops).cpu()

    def _mean_predictions(self, rows: Tensor, kept: Tensor) -> Tensor:
        """Return the predictions with only some features, averaged over the background, ``(s * sets, ...)``.

        Args:
            rows: ``(s,)``.
            kept: ``(s, sets, d)``, which features are the row's own.
        """
        m, sets = len(self.background), kept.shape[1]
        every = rows.repeat_interleave(sets * m)
        flat = kept.flatten(0, 1)
        own_elements = [flat[:, f] for f in self.features]

        def point(a: int, b: int) -> list[Tensor]:
            job = torch.arange(a, b, device=rows.device)
            own, other, at = every[a:b], self.background[job % m], job // m
            return [torch.where(mine[at], t[own], t[other]) for t, mine in zip(self.problem.x, own_elements)]

        out = self.as_predictions(outputs(self.problem, point, every))
        return out.view(len(flat), m, *out.shape[1:]).mean(1)

    def losses(self, predictions: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of each prediction, ``(M,)``.

        Raises:
            ValueError: a loss that gives another shape.
        """
        if self.loss is not None:
            found = torch.as_tensor(self.loss(predictions, labels))
            if found.shape != (len(labels),):
                raise ValueError(
                    f"loss: expected one loss per row, shape ({len(labels)},), got {tuple(found.shape)}; reduction='none'?"
                )
            return found
        if labels.is_floating_point():
            return (rows_like(predictions, labels) - labels).square().reshape(len(labels), -1).sum(1)
        chosen = classes_in(predictions, labels).gather(1, labels.long()[:, None])[:, 0]
        return -chosen.clamp(min=torch.finfo(chosen.dtype).tiny).log()


def _prediction_form(
    problem: Problem, out: Tensor, labels: Tensor, loss: PredictionLoss | None
) -> Callable[[Tensor], Tensor]:
    """Return what makes of the model's outputs the predictions that are averaged: class probabilities, or the outputs."""
    if loss is not None or labels.is_floating_point():
        return torch.Tensor.detach
    if isinstance(problem.model, BlackBox) and problem.model.margins:
        raise ValueError(
            "labels: decision_function has margins, and the loss is of probabilities; give predict_proba, or loss="
        )
    of_estimator = isinstance(problem.model, BlackBox) and problem.model.classes is not None
    sums = classes_in(out, labels).sum(1)
    if of_estimator or (bool((out >= 0).all()) and torch.allclose(sums, torch.ones_like(sums), atol=1e-4)):
        return torch.Tensor.detach
    return lambda logits: logits.softmax(1)
