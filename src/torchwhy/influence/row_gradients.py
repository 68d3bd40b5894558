"""The gradient of each row's loss by the parameters: the one place that asks a model for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import grad_and_value, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from torchwhy.engine.layers.layer import LayerLike, resolve_layer
from torchwhy.engine.run.autograd import enable_grad_for, is_trainable
from torchwhy.engine.run.batching import budget_of, is_out_of_memory
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import AnyOutput, Structure, flatten
from torchwhy.influence.losses import RowLoss
from torchwhy.influence.named_tensors import NamedTensors, call_with_tensors, places_of_tensors
from torchwhy.influence.training_rows import RowBatch, RowsInBatches
from torchwhy.targets import find_logits

GRADIENTS_HELD = 4  # of a row's gradient that are in memory at a time, about
ParameterLayers = LayerLike | Sequence[LayerLike] | None


class GradientsOfRows(NamedTuple):
    """Of the rows ``first``, ``first + 1``, ...: losses ``(m,)`` and gradients ``(m, p)``."""

    first: int
    losses: Tensor
    gradients: Tensor


class RowGradients:
    """Gradients of the loss of each row by some of a model's parameters, flattened one behind the other.

    All rows of a chunk are taken at once (``torch.func.vmap``); where a model does what that cannot, rows are taken one at a
    time, and a warning says why.

    Args:
        model: the model, which is not changed: its parameters are put in from outside.
        loss: of a row.
        names: of the parameters to differentiate by.
        state: parameters and buffers in the place of the model's own, by name.
        rows: the most rows of a chunk.
    """

    def __init__(
        self, model: nn.Module, loss: RowLoss, names: list[str], state: Mapping[str, Tensor] | None = None,
        rows: int | None = None,
    ) -> None:  # fmt: skip
        self.model, self.loss, self.names = model, loss, names
        self.places = places_of_tensors(model)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers()), **(state or {})}
        own = {name: tensors[name].detach() for name in self.places}
        self.parameters = {name: own[name] for name in names}
        self.buffers = {name: own[name] for name, _ in model.named_buffers() if name in own}
        self.rest = {name: t for name, t in own.items() if name not in self.parameters and name not in self.buffers}
        self.shapes = [self.parameters[name].shape for name in names]
        self.sizes = [shape.numel() for shape in self.shapes]
        self.total = sum(self.sizes)
        bytes_of_row = self.total * next(iter(self.parameters.values())).element_size()
        affordable = budget_of(next(iter(self.parameters.values())).device) // (GRADIENTS_HELD * bytes_of_row)
        self.rows = max(1, min(affordable, rows or affordable))
        self.maps = self.maps_loss = True

    def row_loss(self, parameters: NamedTensors, parts: tuple[Tensor, ...], labels: Tensor, how: Structure) -> Tensor:
        """Return the loss of one row, ``parts`` without the dimension of rows, under other parameters."""
        return self.loss(self._output(parameters, [p[None] for p in parts], how), labels[None])

    def _output(self, parameters: NamedTensors, parts: Sequence[Tensor], how: Structure) -> AnyOutput:
        args, kwargs = (tuple(parts), {}) if how.names is None else ((), how.restore(parts))
        buffers = {name: b.clone() for name, b in self.buffers.items()}  # which a model may write to
        return call_with_tensors(self.model, {**self.rest, **buffers, **parameters}, self.places, args, kwargs)

    def losses(self, parameters: NamedTensors, piece: RowBatch) -> Tensor:
        """Return the losses ``(m,)`` of rows that run together, under other parameters, to be differentiated again."""
        return self.losses_of(self.logits(parameters, piece), piece)

    def logits(self, parameters: NamedTensors, piece: RowBatch) -> Tensor:
        """Return the logits of rows that run together, under other parameters."""
        return find_logits(self._output(parameters, piece.parts, piece.structure))

    def losses_of(self, logits: Tensor, piece: RowBatch) -> Tensor:
        """Return the losses ``(m,)`` of rows with these logits."""
        labels = piece.labels
        if labels is None or len(logits) != piece.n_rows:
            raise ValueError(
                f"the model was given {piece.n_rows} rows and returned an output of shape {tuple(logits.shape)}"
            )
        if self.maps_loss:
            try:
                return vmap(lambda z, y: self.loss(z[None], y[None]))(logits, labels)  # type: ignore[no-any-return]
            except RuntimeError:
                self.maps_loss = False
        return torch.stack([self.loss(logits[i : i + 1], labels[i : i + 1]) for i in range(piece.n_rows)])

    def of_batch(self, batch: RowBatch) -> Iterator[GradientsOfRows]:
        """Yield losses and gradients of a batch, a chunk at a time."""
        waiting = list(self.loss.complete(batch).pieces(self.rows))
        while waiting:
            piece = waiting.pop(0)
            try:
                with exact_attention(), enable_grad_for(self.model, piece.parts[0].device):
                    gradients, losses = self._of_chunk(piece)
            except Exception as error:
                if not is_out_of_memory(error) or piece.n_rows == 1:
                    raise
                self.rows = piece.n_rows // 2
                waiting = [*piece.pieces(self.rows), *waiting]
                continue
            yield GradientsOfRows(piece.first, losses, self.flatten(gradients))

    def of_rows(self, rows: RowsInBatches) -> Iterator[GradientsOfRows]:
        """Yield losses and gradients of all rows, a chunk at a time."""
        for batch in rows:
            yield from self.of_batch(batch)

    def _of_chunk(self, piece: RowBatch) -> tuple[NamedTensors, Tensor]:
        def loss(parameters: NamedTensors, parts: tuple[Tensor, ...], labels: Tensor) -> Tensor:
            return self.row_loss(parameters, parts, labels, piece.structure)

        one, reason = grad_and_value(loss), ""
        parts, labels = piece.parts, torch.as_tensor(piece.labels)
        if self.maps:
            try:
                return vmap(one, in_dims=(None, 0, 0))(self.parameters, parts, labels)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self.maps, reason = False, str(error).strip().partition("\n")[0][:150]
        found = [one(self.parameters, tuple(p[i] for p in parts), labels[i]) for i in range(piece.n_rows)]
        if reason:  # it was the map, not the model
            warn(f"rows are taken one at a time, as torch.func.vmap cannot run this model: {reason}")
        gradients = {name: torch.stack([g[name] for g, _ in found]) for name in self.names}
        return gradients, torch.stack([value for _, value in found])

    def flatten(self, named: NamedTensors) -> Tensor:
        """Return what speaks of the parameters, ``(m, ...)`` by name, as vectors ``(m, p)``."""
        return torch.cat([named[name].flatten(1) for name in self.names], 1)

    def split(self, flat: Tensor) -> NamedTensors:
        """Return vectors ``(m, p)`` as the parameters ``(m, ...)`` that they speak of, by name."""
        parts = flat.split(self.sizes, -1)
        return {n: p.reshape(*flat.shape[:-1], *s) for n, p, s in zip(self.names, parts, self.shapes)}


@contextmanager
def exact_attention() -> Iterator[None]:
    """Let attention be computed step by step while open, which has derivatives of every order and for every transform."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


def parameters_at(model: nn.Module, layer: ParameterLayers) -> list[str]:
    """Return the names of the parameters of layers; of None all that require a gradient, or all if none does.

    Raises:
        LookupError: no such layer.
        ValueError: no parameters there.
    """
    named = dict(model.named_parameters())
    if layer is None:
        found = [n for n, p in named.items() if is_trainable(p)] or list(named)
    else:
        modules = [resolve_layer(model, one).module for one in flatten(layer)[0]]
        wanted = {id(p) for module in modules for p in module.parameters()}
        found = [n for n, p in named.items() if id(p) in wanted]
    found = [n for n in found if named[n].is_floating_point()]
    if not found:
        raise ValueError(f"layer={layer!r}: there are no parameters to differentiate by")
    return found
