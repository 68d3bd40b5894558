"""Influence functions: what leaving a training row out does to the loss of another row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.engine.layers.layer import resolve_layer
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.structure import flatten
from torchwhy.influence.arnoldi import Arnoldi
from torchwhy.influence.conjugate_gradients import ConjugateGradients
from torchwhy.influence.curvature import Curvature, CurvatureProducts
from torchwhy.influence.ekfac import EKFAC
from torchwhy.influence.exact_hessian import ExactHessian
from torchwhy.influence.influence_method import GradientInfluence, in_memory, products
from torchwhy.influence.last_layer import last_linear_layer, layers_that_run
from torchwhy.influence.layer_kinds import MatrixLayer, matrix_layer
from torchwhy.influence.row_gradients import RowGradients, parameters_at
from torchwhy.influence.training_rows import RowsInBatches
from torchwhy.settings import Count, NotNegative


class InfluenceFunction(GradientInfluence):
    r"""The rise of a row's loss if a training row were left out: :math:`A_{ni} = \frac{1}{n} \nabla \ell(x_n) \cdot (H +
    \lambda)^{-1} \nabla \ell(z_i)`, H the Hessian of the mean loss over the n training rows.

    Shape ``(N, n_train)``, in units of the loss, to first order in the row's weight. Positive: the row helped. It is exact for
    the row's weight where the parameters are at a minimum of the mean loss plus :math:`\frac{\lambda}{2} |\theta|^2`: λ is the
    weight decay of training. Elsewhere λ stands for how far the parameters stay near where they are, and **the result depends
    on it**: try several, and take the one that foretells best what happens to held-out rows when rows are left out
    (``tw.influence.linear_datamodeling_score``). ``damping`` may be set after :meth:`fit`, which need not be repeated.

    Measured by training again (linear datamodeling score and its 95 % interval, ``benchmarks/influence.py``) on a small CNN and a
    tiny language model, whose best baselines have 0.13 (0.02 … 0.22), rows alike at a layer, and 0.23 (0.12 … 0.33), words in
    common (BM25). Exact, last layer: 0.53 (0.42 … 0.61) of the CNN. EK-FAC: 0.51 (0.39 … 0.61) and 0.33 (0.23 … 0.45). With
    conjugate gradients: 0.44 (0.33 … 0.52) and 0.23 (0.12 … 0.34), with a chosen damping 0.53 (0.42 … 0.62) and
    0.27 (0.16 … 0.38). Arnoldi: 0.30 (0.19 … 0.40) and 0.08 (-0.02 … 0.19). So of the language model **only EK-FAC is above its
    baseline**, and not surely, as the intervals overlap; conjugate gradients are not told from it, and Arnoldi is below it.

    Args:
        hessian: what stands for H.
            ``"exact"``: H itself, of few parameters; one pass over the training rows for 32 of them.
            ``"ekfac"``: of linear and convolutional layers, each by itself, the Fisher information between the eigenvectors of
            inputs and output gradients (Kronecker factors, with eigenvalues corrected). Two passes.
            ``"ekfac_cg"``: the Gauss-Newton matrix of these layers, by conjugate gradients from EK-FAC on; ``n_steps`` passes
            for each call of ``explain``, which cost as many gradients as there are explained rows.
            ``"arnoldi"``: H within the span of its ``rank`` largest eigenvalues, after ``n_steps`` passes.
        layer: layers whose parameters count. None: of ``"exact"`` the last linear layer; of ``"ekfac"`` and ``"ekfac_cg"``
            every linear and convolutional layer that runs once, other parameters are left out; of ``"arnoldi"`` all.
        damping: λ. None: a tenth of the mean eigenvalue, of each layer with ``"ekfac"``; with ``"arnoldi"`` zero.
        n_steps: of conjugate gradients, or of Arnoldi's iteration.
        rank: the eigenvalues that Arnoldi's iteration keeps.
        generator: of labels drawn for EK-FAC, and of Arnoldi's first vector.

    Raises:
        ValueError: more parameters than an exact Hessian has room for, one that is not positive with the damping, layers that
            EK-FAC does not know.

    Papers: Koh and Liang 2017, arXiv:1703.04730, equation 2, with the sign turned and over n; Grosse et al. 2023,
    arXiv:2308.03296 (EK-FAC, sections 2.2 and 3.1; labels drawn from the model); George et al. 2018, arXiv:1806.03884;
    Schioppa et al. 2022, arXiv:2112.03052 (Arnoldi; negative eigenvalues are left out).
    """

    hessian: Literal["exact", "ekfac", "ekfac_cg", "arnoldi"] = "exact"
    damping: NotNegative | None = None
    n_steps: Count = 50
    rank: Count = 20
    generator: Seed = 0
    curvature: Curvature | None = field(default=None, init=False, compare=False)

    paper: ClassVar[str] = "arXiv:1703.04730"

    def _before_fit(self) -> None:
        self.curvature = None
        self.names = parameters_at(self.model, self.layer)

    def _fit(self, rows: RowsInBatches) -> None:
        layers: list[MatrixLayer] = []
        if self.hessian == "exact" and self.layer is None:
            self.names = parameters_at(self.model, last_linear_layer(self.model, rows))
        elif self.hessian in ("ekfac", "ekfac_cg"):
            layers = self._matrix_layers(rows)
            self.names = [n for layer in layers for n in (layer.weight, layer.bias) if n is not None]
        self.curvature = self._curvature(self._gradients(), rows, layers)

    def _curvature(self, gradients: RowGradients, rows: RowsInBatches, layers: Sequence[MatrixLayer]) -> Curvature:
        """Return what stands for the Hessian."""
        if self.hessian == "exact":
            return ExactHessian(gradients, rows)
        if self.hessian == "arnoldi":
            return Arnoldi(gradients, rows, self.n_steps, self.rank, self.generator)
        ekfac = EKFAC(gradients, rows, layers, self.generator)
        if self.hessian == "ekfac":
            return ekfac
        return ConjugateGradients(CurvatureProducts(gradients, rows, gauss_newton=True), ekfac, self.n_steps)

    def _matrix_layers(self, rows: RowsInBatches) -> list[MatrixLayer]:
        """Return the layers that EK-FAC takes.

        Raises:
            ValueError: there are none, or one that was named runs more than once.
        """
        ran = layers_that_run(self.model, rows, (torch.nn.Module,))
        known = {name: layer for name in dict.fromkeys(ran) if (layer := matrix_layer(self.model, name)) is not None}
        if self.layer is not None:
            named = [resolve_layer(self.model, one).module for one in flatten(self.layer)[0]]
            inside = {id(module) for each in named for module in each.modules()}
            known = {name: layer for name, layer in known.items() if id(layer.module) in inside}
            again = [name for name in known if ran.count(name) > 1]
            if again:
                raise ValueError(
                    f"layer: {again[0]!r} runs {ran.count(again[0])} times for a row; EK-FAC takes layers that run once"
                )
        found = [layer for name, layer in known.items() if ran.count(name) == 1]
        if not found:
            raise ValueError(
                f"layer={self.layer!r}: EK-FAC needs torch.nn.Linear, Conv1d or Conv2d (one group, zeros around) that run once; "
                "there are none"
            )
        return found

    def _solve(self, vectors: Tensor) -> Tensor:
        """Return the product with the inverse, of vectors ``(N, p)``."""
        if self.curvature is None:
            raise RuntimeError("InfluenceFunction: no training rows yet; call fit(data) first")
        return self.curvature.solve(vectors, self.damping)

    def _explain(self, rows: RowsInBatches, training: RowsInBatches) -> Tensor:
        gradients, found = self._gradients(), []
        for own in in_memory(gradients.of_rows(rows), gradients.total):
            found.append(products(self._solve(own), self._steps(gradients.of_rows(training))))
        return torch.cat(found).cpu() / training.count()

    def _self_influence(self, training: RowsInBatches) -> Tensor:
        chunks = self._gradients().of_rows(training)
        found = [(self._solve(c.gradients) * c.gradients).sum(1) for c in self._steps(chunks)]
        return torch.cat(found).cpu() / training.count()
