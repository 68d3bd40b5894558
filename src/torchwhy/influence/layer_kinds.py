"""Linear and convolutional layers, as a matrix between what goes in at a place and what comes out there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from torchwhy.influence.named_tensors import NamedTensors

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)


class MatrixLayer(NamedTuple):
    """A layer with the weights ``(out, in)``, the bias as one more column.

    Args:
        name: in the model.
        module: the layer.
        weight, bias: the names of the parameters; no bias is None.
        turned: the weight is ``(in, out)``, as in transformers' ``Conv1D``.
    """

    name: str
    module: nn.Module
    weight: str
    bias: str | None
    turned: bool

    def inputs(self, x: Tensor) -> Tensor:
        """Return what goes in, ``(m, places, in)``, a 1 for the bias behind it."""
        module = self.module
        if isinstance(module, nn.Conv1d):
            x, sizes = x[:, :, None], [(1, *s) for s in (module.kernel_size, module.dilation, module.stride)]
            a = F.unfold(x, sizes[0], sizes[1], (0, _padding(module)[0]), sizes[2]).mT
        elif isinstance(module, nn.Conv2d):
            a = F.unfold(x, module.kernel_size, module.dilation, _padding(module), module.stride).mT
        else:
            a = x.reshape(len(x), -1, x.shape[-1])
        return a if self.bias is None else torch.cat([a, a.new_ones(*a.shape[:2], 1)], 2)

    def outputs(self, y: Tensor) -> Tensor:
        """Return what comes out, or its gradient, ``(m, places, out)``."""
        return (
            y.flatten(2).mT if isinstance(self.module, (nn.Conv1d, nn.Conv2d)) else y.reshape(len(y), -1, y.shape[-1])
        )

    def matrices(self, named: NamedTensors) -> Tensor:
        """Return vectors that speak of the parameters as matrices ``(N, out, in)``."""
        weight = named[self.weight].mT if self.turned else named[self.weight].flatten(2)
        return weight if self.bias is None else torch.cat([weight, named[self.bias][..., None]], 2)

    def named(self, matrices: Tensor, like: NamedTensors) -> NamedTensors:
        """Return matrices ``(N, out, in)`` as what speaks of the parameters, in their shapes."""
        weight = matrices if self.bias is None else matrices[..., :-1]
        found = {self.weight: (weight.mT if self.turned else weight).reshape(like[self.weight].shape)}
        return found if self.bias is None else {**found, self.bias: matrices[..., -1]}


def _padding(module: nn.Conv1d | nn.Conv2d) -> tuple[int, ...]:
    """Return how many zeros a convolution puts on each side."""
    if not isinstance(module.padding, str):
        return tuple(module.padding)
    if module.padding == "valid":
        return (0,) * len(module.kernel_size)
    return tuple(d * (k - 1) // 2 for d, k in zip(module.dilation, module.kernel_size))


def matrix_layer(model: nn.Module, name: str) -> MatrixLayer | None:
    """Return a layer of the model as a matrix, None where it is none, or shares its weight or bias with another."""
    module = model.get_submodule(name)
    turned = type(module).__name__ == "Conv1D" and hasattr(module, "nf")  # of transformers
    if not (turned or isinstance(module, MATRIX_LAYERS)):
        return None
    if isinstance(module, (nn.Conv1d, nn.Conv2d)):
        even = module.padding == "same" and any(d * (k - 1) % 2 for d, k in zip(module.dilation, module.kernel_size))
        if module.groups != 1 or module.padding_mode != "zeros" or even:
            return None
    names = {id(p): n for n, p in model.named_parameters()}
    weight, bias = (names.get(id(getattr(module, part, None))) for part in ("weight", "bias"))
    own = {id(p) for p in module.parameters(recurse=False)}
    owners = [m for m in model.modules() if any(id(p) in own for p in m.parameters(recurse=False))]
    return None if weight is None or len(owners) != 1 else MatrixLayer(name, module, weight, bias, turned)
