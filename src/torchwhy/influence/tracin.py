"""TracIn: how far steps of training on a row moved the loss of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Seed, draw_seed, make_generator
from torchwhy.influence.checkpoints import StateOrFile, check_checkpoints, check_state, state_at
from torchwhy.influence.influence_method import CheckpointInfluence, in_memory, products
from torchwhy.influence.projection import RandomProjection
from torchwhy.influence.row_gradients import GradientsOfRows, RowGradients
from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.settings import Count, NotNegative, check_setting

Checkpoint = tuple[StateOrFile, float]


class TracIn(CheckpointInfluence):
    r"""The drop of a row's loss by steps along a training row's gradient: :math:`A_{ni} = \sum_k \eta_k \, \nabla \ell(x_n;
    \theta_k) \cdot \nabla \ell(z_i; \theta_k)`, over checkpoints k.

    Shape ``(N, n_train)``, in units of the loss, to first order and for one step on the row at each checkpoint (a checkpoint
    stands for all steps until the next one: give :math:`\eta_k` times their number for these). Positive: training on the row
    lowered the loss. Rows with a large loss, such as outliers, are large for many answers.

    Measured by training again (linear datamodeling score and its 95 % interval, ``benchmarks/influence.py``): on a small CNN
    0.41 (0.28 … 0.51), where rows alike at a layer have 0.13 (0.02 … 0.22); on a tiny language model 0.23 (0.11 … 0.33),
    **no better than words in common** (BM25), which have 0.23 (0.12 … 0.33). With one checkpoint 0.37 (0.25 … 0.47) and
    0.16 (0.06 … 0.30), projected to 256 numbers 0.37 (0.25 … 0.47) and 0.08 (-0.00 … 0.17).

    Takes the gradient of every row at every checkpoint, each time something is explained; with ``dim`` once, in :meth:`fit`.

    Args:
        checkpoints: a list of pairs of a state dict, or a file with one, and a learning rate; None is the model as it is, with a
            rate of 1: then A is the plain product of two gradients.
        layer: layers whose parameters count, their biases too; the last one alone is TracIn's fast form.
        dim: project gradients to so many numbers, by random signs; products then have a standard error of about
            :math:`|g| |h| / \sqrt{dim}`, and ``n_train`` × ``dim`` numbers of each checkpoint are kept. None is exact.
        generator: of the projection.

    Raises:
        ValueError: a checkpoint that does not fit the model.

    Paper: Pruthi et al. 2020, arXiv:2002.08484, section 3.2; projections section 3.4.
    """

    checkpoints: Sequence[Checkpoint] | None = None
    dim: Count | None = None
    generator: Seed = 0
    kept: list[Tensor] = field(default_factory=list, init=False, compare=False)
    projections: list[RandomProjection] = field(default_factory=list, init=False, compare=False)

    paper: ClassVar[str] = "arXiv:2002.08484"

    def _fit(self, rows: RowsInBatches) -> None:
        self.kept, self.projections = [], []
        for gradients, _ in self._at_checkpoints():
            if self.dim is None:
                continue  # it fits the model
            number = len(self.projections)
            seed = draw_seed(make_generator(self.generator)) + number
            self.projections.append(RandomProjection(gradients.total, self.dim, seed))
            parts = [self._reduced(number, c.gradients) for c in self._steps(gradients.of_rows(rows))]
            self.kept.append(torch.cat(parts))

    def _at_checkpoints(self) -> Iterator[tuple[RowGradients, float]]:
        """Yield the gradients at each checkpoint, and its learning rate."""
        if self.checkpoints is None:
            yield self._gradients(), 1.0
            return
        for number, (given, rate) in enumerate(self.checkpoints):
            yield self._gradients(state_at(self.model, given, number)), float(rate)

    def _reduced(self, number: int, gradients: Tensor) -> Tensor:
        """Return gradients ``(m, p)`` of a checkpoint, projected if that is asked for."""
        return gradients if self.dim is None else self.projections[number](gradients)

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        total = torch.zeros(())
        for number, (gradients, rate) in enumerate(self._at_checkpoints()):
            found = []
            for own in in_memory(gradients.of_rows(rows), gradients.total):
                if self.dim is None:
                    found.append(products(own, self._steps(gradients.of_rows(training))))
                else:
                    found.append(self._reduced(number, own) @ self.kept[number].T)
            total = total + rate * torch.cat(found).cpu()
        return total

    def _self_influence(self, training: RowsInBatches) -> Tensor:
        total = torch.zeros(())
        for number, (gradients, rate) in enumerate(self._at_checkpoints()):
            chunks: Iterator[GradientsOfRows] = gradients.of_rows(training)
            squares = (
                [c.gradients.square().sum(1) for c in chunks]
                if self.dim is None
                else [self.kept[number].square().sum(1)]
            )
            total = total + rate * torch.cat(squares).cpu()
        return total

    def _check_settings(self) -> None:
        super()._check_settings()
        check_checkpoints(self.checkpoints, "pairs (state dict or file, learning rate)")
        for number, pair in enumerate(self.checkpoints or ()):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[1], (int, float)):
                raise TypeError(
                    f"checkpoints[{number}]: expected a pair (state dict or file, learning rate), got {type(pair).__name__}"
                )
            check_state(number, pair[0])
            check_setting(f"checkpoints[{number}][1]", pair[1], NotNegative)
