"""The constants that a model's modules add: biases, and what a batch norm with fixed statistics subtracts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from torchwhy.engine.layers.layer import ResolvedLayer

BATCH_NORM_MODULES = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
NORM_MODULES = (nn.LayerNorm, nn.GroupNorm, *BATCH_NORM_MODULES)
CONVOLUTION_MODULES = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def adds_constant(module: nn.Module) -> bool:
    """Say whether a module is known to add a constant, whatever comes in."""
    known = isinstance(module, (nn.Linear, *CONVOLUTION_MODULES, *NORM_MODULES))
    return known and (getattr(module, "bias", None) is not None or _has_fixed_statistics(module))


def constant_of(module: Any, shape: torch.Size) -> Tensor:
    """Return what a module adds, along the channels of a result of this shape: its second axis, or the last ones."""
    bias = getattr(module, "bias", None)
    if _has_fixed_statistics(module):
        scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
        bias = (0 if bias is None else bias) - module.running_mean * scale
    if bias is None:
        raise ValueError(f"{type(module).__name__} adds no constant")
    last = isinstance(module, nn.Linear)
    if isinstance(module, nn.LayerNorm):  # subclasses in vision models may have the channels second
        width, second = tuple(module.normalized_shape), tuple(shape[1:2])
        last = type(module) is nn.LayerNorm or len(shape) < 4 or (shape[-1:] == width and second != width)
    bias = bias.detach()
    return bias if last else bias.reshape(-1, *[1] * (len(shape) - 2))


def result_layer(layer: ResolvedLayer) -> ResolvedLayer:
    """Return where a layer's own result passes: some norms, such as those of timm, hold an activation and apply it, too."""
    act = getattr(layer.module, "act", None)
    if not isinstance(layer.module, NORM_MODULES) or not isinstance(act, nn.Module):
        return layer
    return replace(layer, name=f"{layer.name}.act", module=act, input=True)


def _has_fixed_statistics(module: nn.Module) -> bool:
    """Say whether a module is a norm whose mean and variance do not depend on what comes in."""
    return isinstance(module, BATCH_NORM_MODULES) and module.running_mean is not None and not module.training
