"""TRAK: a model as linear in its parameters, its rows told apart by random projections of gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.run.randomness import Seed, draw_seed, make_generator
from torchwhy.influence.checkpoints import StateOrFile, check_checkpoints, check_state, state_at
from torchwhy.influence.curvature import SHARE
from torchwhy.influence.influence_method import CheckpointInfluence
from torchwhy.influence.projection import RandomProjection
from torchwhy.influence.row_gradients import RowGradients
from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.settings import Count, NotNegative


class ProjectedRows(NamedTuple):
    """At one checkpoint: projected gradients of outputs ``(n, d)`` and the weights of the rows ``(n,)``."""

    features: Tensor
    weights: Tensor


class TRAK(CheckpointInfluence):
    r"""What a training row adds to a row's output, the model taken as linear in its parameters: :math:`A_{ni} = \frac{1}{M}
    \sum_m \phi_m(x_n)^\top (\Phi_m^\top \Phi_m + \lambda)^{-1} \phi_m(z_i) \cdot \frac{1}{M} \sum_m (1 - p_{mi})`.

    :math:`\phi_m = P^\top \nabla f`, the gradient of the margin :math:`f = \log \frac{p}{1 - p}`, p the probability of the label
    under model m, projected by random signs. Shape ``(N, n_train)``, in units of the margin; positive: the row raised it. Several
    models trained alike make it much better; several checkpoints of one training are a cheap stand-in.

    Measured by training again (linear datamodeling score and its 95 % interval, ``benchmarks/influence.py``): with five models
    0.59 (0.50 … 0.65) on a small CNN, the best there, with one 0.40 (0.29 … 0.48), where rows alike at a layer have
    0.13 (0.02 … 0.22); on a tiny language model 0.17 (0.05 … 0.29) and 0.06 (-0.04 … 0.16), **less than words in common** (BM25),
    which have 0.23 (0.12 … 0.33).

    Takes the gradient of every training row once for each model, in :meth:`fit`, which keeps ``n_train`` × ``dim`` numbers of
    each.

    Args:
        checkpoints: a list of state dicts, or of files with one, of models of one architecture trained alike; None is the model
            as it is.
        dim: d, the length of projected gradients; less than the training rows.
        output: f: the ``"margin"``, where :math:`p = e^{-\ell}`, as for cross-entropy (of a text the geometric mean over its
            tokens); or the ``"loss"`` itself with a weight of 1 for every row, as for squared errors; its rise if the row
            were left out.
        damping: λ; None is a tenth of the mean eigenvalue of :math:`\Phi_m^\top \Phi_m`.
        generator: of the projections.

    Raises:
        ValueError: a checkpoint that does not fit the model, a matrix that has no inverse without damping.

    Paper: Park et al. 2023, arXiv:2303.14186, section 3; without its soft threshold, with λ.
    """

    checkpoints: Sequence[StateOrFile] | None = None
    dim: Count = 512
    output: Literal["margin", "loss"] = "margin"
    damping: NotNegative | None = None
    generator: Seed = 0
    projections: list[RandomProjection] = field(default_factory=list, init=False, compare=False)
    kept: list[ProjectedRows] = field(default_factory=list, init=False, compare=False)
    solved: list[Tensor] = field(default_factory=list, init=False, compare=False)

    paper: ClassVar[str] = "arXiv:2303.14186"

    def _fit(self, rows: RowsInBatches) -> None:
        self.projections, self.kept, self.solved = [], [], []
        source = make_generator(draw_seed(make_generator(self.generator)))
        for number, gradients in enumerate(self._at_checkpoints()):
            self.projections.append(RandomProjection(gradients.total, self.dim, draw_seed(source)))
            found = self._projected(number, gradients, rows)
            self.kept.append(found)
            self.solved.append(self._solve(found.features))

    def _at_checkpoints(self) -> Iterator[RowGradients]:
        """Yield the gradients at each checkpoint."""
        if self.checkpoints is None:
            yield self._gradients()
        for number, given in enumerate(self.checkpoints or ()):
            yield self._gradients(state_at(self.model, given, number))

    def _projected(self, number: int, gradients: RowGradients, rows: RowsInBatches) -> ProjectedRows:
        """Return projected gradients of the outputs of rows at a checkpoint, and the rows' weights."""
        found = []
        for chunk in self._steps(gradients.of_rows(rows)):
            features, weights = self.projections[number](chunk.gradients), torch.ones_like(chunk.losses)
            if self.output == "margin":
                weights = -torch.expm1(-chunk.losses)  # 1 - p
                features = -features / weights.clamp(min=torch.finfo(weights.dtype).eps)[:, None]
            found.append(ProjectedRows(features, weights))
        return ProjectedRows(*(torch.cat(parts) for parts in zip(*found)))

    def _solve(self, features: Tensor) -> Tensor:
        """Return the product of the inverse with the training rows, ``(n, d)``."""
        exact = features.double()
        matrix = exact.T @ exact
        value = SHARE * float(matrix.diagonal().mean()) if self.damping is None else self.damping
        damped = matrix + value * torch.eye(self.dim, dtype=torch.double, device=matrix.device)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if failed:
            raise ValueError(
                f"damping={value:.3g}: {len(features)} training rows with dim={self.dim} give a matrix without an inverse; raise "
                "damping=, or take a smaller dim="
            )
        return torch.cholesky_solve(exact.T, factor).T.to(features)

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        own = [self._projected(number, gradients, rows) for number, gradients in enumerate(self._at_checkpoints())]
        products = [one.features @ solved.T for one, solved in zip(own, self.solved)]
        return torch.stack(products).mean(0).cpu() * self._weights()

    def _self_influence(self, training: RowsInBatches) -> Tensor:
        products = [(kept.features * solved).sum(1) for kept, solved in zip(self.kept, self.solved)]
        return torch.stack(products).mean(0).cpu() * self._weights()

    def _weights(self) -> Tensor:
        """Return the weights of the training rows, ``(n,)``."""
        return torch.stack([kept.weights for kept in self.kept]).mean(0).cpu()

    def _check_settings(self) -> None:
        super()._check_settings()
        check_checkpoints(self.checkpoints, "state dicts or files with one")
        for number, one in enumerate(self.checkpoints or ()):
            check_state(number, one)
