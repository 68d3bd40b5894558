"""The last linear layer of a model, and what goes into it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.layer import LayerLike, record_activations, resolve_layer
from torchwhy.engine.structure import AnyOutput
from torchwhy.influence.training_rows import RowBatch, RowsInBatches
from torchwhy.targets import find_logits


def layers_that_run(model: nn.Module, rows: RowsInBatches, kinds: tuple[type[nn.Module], ...]) -> list[str]:
    """Return the names of layers of some kinds in the order in which the first row runs them, each as often as it does."""
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))  # type: ignore[misc]
        for name, module in model.named_modules()
        if isinstance(module, kinds)
    ]
    try:
        for batch in rows:
            next(batch.pieces(1)).call(model)
            break
    finally:
        for handle in handles:
            handle.remove()
    return ran


def last_linear_layer(model: nn.Module, rows: RowsInBatches) -> str:
    """Return the name of the linear layer that runs last on the first row; the model's own is ``""``.

    Raises:
        LookupError: there is none.
    """
    ran = layers_that_run(model, rows, (nn.Linear,))
    if not ran:
        raise LookupError("layer: the model runs no torch.nn.Linear; name the layer whose parameters count")
    return ran[-1]


def features_and_logits(model: nn.Module, layer: LayerLike, batch: RowBatch) -> tuple[Tensor, Tensor]:
    """Return what goes into the layer, with a 1 for the bias, ``(m, d + 1)``, and the model's logits ``(m, C)``.

    Raises:
        ValueError: the layer is not the last one, or passes more than one vector a row.
    """
    place = resolve_layer(model, layer, input=True)
    found: list[AnyOutput] = []
    (given,) = record_activations(lambda: found.append(batch.call(model)), [place], stop=False)
    logits, linear = find_logits(found[0]), place.module
    if not isinstance(linear, nn.Linear) or given.dim() != 2:
        raise ValueError(
            f"layer: {place} gets {tuple(given.shape)}; it must be a torch.nn.Linear with one vector a row"
        )
    if logits.shape != (batch.n_rows, linear.out_features) or not torch.allclose(
        logits, linear(given), rtol=1e-3, atol=1e-5
    ):
        raise ValueError(
            f"layer: what {place.name or 'the model'!r} gives is not the model's output; name its last layer"
        )
    ones = given.new_ones(len(given), 1) if linear.bias is not None else given.new_zeros(len(given), 0)
    return torch.cat([given, ones], 1), logits
