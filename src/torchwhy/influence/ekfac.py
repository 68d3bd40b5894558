"""EK-FAC: the curvature of each layer between the eigenvectors of its inputs and of its output gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.engine.layers.layer import ResolvedLayer, hook_layers, record_with_grad
from torchwhy.engine.run.autograd import enable_grad_for
from torchwhy.engine.run.randomness import Seed, draw_normal, make_generator
from torchwhy.influence.curvature import SHARE, Curvature
from torchwhy.influence.layer_kinds import MatrixLayer
from torchwhy.influence.losses import LossFunction, speaks_of_next_token
from torchwhy.influence.row_gradients import RowGradients, exact_attention
from torchwhy.influence.training_rows import IGNORED, RowBatch, RowsInBatches
from torchwhy.targets import find_logits


class EigenBasis(NamedTuple):
    """Of one layer: eigenvectors of the inputs ``(in, in)`` and the output gradients ``(out, out)``, in columns, and the mean
    squares of rotated gradients ``(out, in)``."""

    inputs: Tensor
    outputs: Tensor
    values: Tensor


class EKFAC(Curvature):
    """The Fisher information of the layers, each by itself.

    Args:
        gradients: by the parameters of these layers.
        rows: the training rows, gone through twice.
        layers: the layers.
        generator: of the labels, which are drawn from the model's answers; of a loss that says nothing of how they are
            distributed the labels given are taken (the empirical Fisher information).
    """

    def __init__(
        self, gradients: RowGradients, rows: RowsInBatches, layers: Sequence[MatrixLayer], generator: Seed
    ) -> None:
        self.gradients, self.layers = gradients, layers
        self.draws = is_likelihood(gradients.loss.given)
        seed = make_generator(generator).initial_seed()
        sums: list[list[Tensor]] = [[torch.zeros(()), torch.zeros(())] for _ in layers]
        for passed in self._passes(rows, seed):
            for pair, (a, d) in zip(sums, passed):
                for i, t in enumerate((a, d)):
                    flat = t.flatten(0, 1).double()
                    pair[i] = pair[i].to(flat) + flat.T @ flat
        turns = [tuple(torch.linalg.eigh(s)[1] for s in pair) for pair in sums]
        squares: list[Tensor] = [torch.zeros(()) for _ in layers]
        for passed in self._passes(rows, seed):
            for i, ((a, d), (inputs, outputs)) in enumerate(zip(passed, turns)):
                turned = torch.einsum("mto,mti->moi", d.double() @ outputs, a.double() @ inputs)
                squares[i] = squares[i].to(turned) + turned.square().sum(0)
        self.bases = [EigenBasis(a, d, s / rows.count()) for (a, d), s in zip(turns, squares)]

    def _passes(self, rows: RowsInBatches, seed: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield what goes into each layer, and the gradient of what comes out, of a batch at a time."""
        generator = torch.Generator().manual_seed(seed)
        for batch in rows:
            with exact_attention():
                passed = self._passed(self.gradients.loss.complete(batch), generator)
            yield passed

    def _passed(self, batch: RowBatch, generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
        model, inputs = self.gradients.model, {}
        places = [ResolvedLayer(layer.name, layer.module, None, None, False) for layer in self.layers]
        entries = [ResolvedLayer(layer.name, layer.module, None, 0, True) for layer in self.layers]

        def keep(i: int, tensor: Tensor) -> None:
            inputs[i] = tensor.detach()

        with enable_grad_for(model, batch.parts[0].device), record_with_grad(places) as outputs:
            with hook_layers(entries, keep):
                logits = find_logits(batch.call(model))
            if self.draws and batch.labels is not None:
                batch = batch._replace(labels=draw_labels(logits.detach(), batch.labels, generator))
            total = self.gradients.losses_of(logits, batch).sum()
            slopes = torch.autograd.grad(total, [outputs[i] for i in range(len(places))])
        return [(layer.inputs(inputs[i]), layer.outputs(slopes[i])) for i, layer in enumerate(self.layers)]

    def solve(self, vectors: Tensor, damping: float | None) -> Tensor:
        """Return the product with the inverse, layer by layer; of no damping a share of the layer's mean eigenvalue is taken."""
        named = self.gradients.split(vectors)
        found = {}
        for layer, basis in zip(self.layers, self.bases):
            value = SHARE * float(basis.values.mean()) if damping is None else damping
            turned = basis.outputs.T @ layer.matrices(named).double() @ basis.inputs / (basis.values + value)
            found.update(layer.named((basis.outputs @ turned @ basis.inputs.T).to(vectors), named))
        return self.gradients.flatten(found)

    def mean_eigenvalue(self) -> float:
        """Return the mean over all parameters."""
        return float(torch.cat([b.values.flatten() for b in self.bases]).mean())


def is_likelihood(loss: LossFunction | None) -> bool:
    """Say whether a loss is known to be a negative log-likelihood, up to constants: cross-entropy or the squared error."""
    plain = loss in (None, F.cross_entropy, F.mse_loss)
    return plain or (type(loss) in (nn.CrossEntropyLoss, nn.MSELoss) and getattr(loss, "label_smoothing", 0) == 0)


def draw_labels(logits: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Return labels in the shape of those given, drawn from the model's answers."""
    if labels.is_floating_point():  # of the mean squared error of k numbers: a variance of k / 2
        noise = draw_normal(*labels.shape, generator=generator).to(labels)
        return logits.reshape(labels.shape) + noise * (labels[0].numel() / 2) ** 0.5
    shifted = speaks_of_next_token(logits, labels)
    classes = logits if shifted else logits.movedim(1, -1)
    flat = classes.reshape(-1, classes.shape[-1]).softmax(1).cpu()
    drawn = torch.multinomial(flat, 1, generator=generator).to(labels).reshape(classes.shape[:-1])
    if shifted:  # position t speaks of the label of t + 1
        drawn = torch.cat([labels[:, :1], drawn[:, :-1]], 1)
    return drawn.masked_fill(labels == IGNORED, IGNORED)
