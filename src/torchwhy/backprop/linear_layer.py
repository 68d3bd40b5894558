r"""A linear layer as a rule of LRP sees it: input, weights (batch norm folded in), value, and the transposed operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules.mode import OpCall, SavedTensor, custom_backward


@dataclass
class LinearLayer:
    """y = op(x, weight) + bias for a fully connected or convolutional operation `op`. Holds what the backward needs."""

    name: str
    weight: Tensor
    bias: Tensor | None
    options: dict[str, Any]
    x: SavedTensor | None = None
    y: SavedTensor | None = None
    sides: tuple[int, ...] = ()  # what ``padding="same"`` adds around x, as for F.pad
    nonnegative: bool = False  # no entry of x is negative, for certain

    @classmethod
    def of(cls, call: OpCall) -> LinearLayer:
        """Return the layer of a call."""
        options = dict(call.kwargs)
        weight, bias = options.pop("weight"), options.pop("bias", None)
        if call.name == "linear":
            return cls(call.name, weight, bias, {})
        spatial = weight.dim() - 2
        sides: tuple[int, ...] = ()
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = options.get(key, default)
            options[key] = value if isinstance(value, str) else _per_dimension(value, spatial)
        options.setdefault("groups", 1)
        if not call.name.startswith("conv_transpose"):
            options.pop("output_padding")
        if isinstance(options["padding"], str):
            sides = _same_padding(weight, options) if options["padding"] == "same" else ()
            options["padding"] = (0,) * spatial
        return cls(call.name, weight, bias, options, sides=sides)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """op(x, weight) + bias."""
        x = F.pad(x, self.sides) if self.sides else x
        return getattr(F, self.name)(x, weight, bias, **self.options)

    def transpose(self, g: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of ⟨g, op(x, weight)⟩ for x, without running op."""
        if self.name == "linear":
            return torch.matmul(g, weight) if weight.dim() == 2 else g.unsqueeze(-1) * weight
        o = self.options
        x = F.pad(self.values[0], self.sides) if self.sides else self.values[0]
        back = torch.ops.aten.convolution_backward(
            g, x, weight, None, o["stride"], o["padding"], o["dilation"], self.name.startswith("conv_transpose"),
            o.get("output_padding", (0,) * (weight.dim() - 2)), o["groups"], [True, False, False],
        )[0]  # fmt: skip
        return F.pad(back, [-n for n in self.sides]) if self.sides else back

    def folded(self, scale: Tensor, shift: Tensor) -> LinearLayer:
        """Return the layer that computes ``scale · y + shift`` per channel: the one with batch norm folded in."""
        weight, groups = self.weight, self.options.get("groups", 1)
        tail = [1] * (weight.dim() - 2)
        if self.name.startswith("conv_transpose"):  # weight (in, out / groups, ...), the inputs in groups
            parts = weight.view(groups, weight.shape[0] // groups, weight.shape[1], *weight.shape[2:])
            weight = (parts * scale.view(groups, 1, -1, *tail)).view_as(weight)
        else:
            weight = weight * scale.view(-1, 1, *tail)
        return replace(self, weight=weight, bias=shift if self.bias is None else self.bias * scale + shift)

    def negated(self) -> LinearLayer:
        """Return the layer with its weights negated, and the same value."""
        return replace(self, weight=-self.weight)

    # ------------------------------------------------------------------------------ contributions by their sign
    @property
    def values(self) -> tuple[Tensor, Tensor]:
        """The input and the output (bias included) of the layer."""
        return self._kept(self.x), self.output

    @property
    def output(self) -> Tensor:
        """The output, bias included."""
        return self._kept(self.y)

    def _kept(self, held: SavedTensor | None) -> Tensor:
        if held is None:
            raise RuntimeError("the layer has not run, or its rule said that it needs no input")
        return held.value.to(self.weight.dtype)  # another one under autocast

    @property
    def unsigned(self) -> bool:
        """Whether no entry of the input is negative: known from what made it, else looked up."""
        return self.nonnegative or not bool((self.values[0] < 0).any())

    def part(self, sign: int, factor: float = 1.0) -> Tensor:
        """Return factor times the weights of one sign (+1 or -1), zero for the others."""
        found = _signed_part(self.weight, sign)
        return found if factor == 1 else found.mul_(factor)

    def contributions(self, sign: int, epsilon: float, *, unsigned: bool) -> Tensor:
        """Return the sum of the terms x·w of one sign (+1 or -1), and of the bias where it has that sign, moved by epsilon."""
        x, _ = self.values
        epsilon = self._at_least(epsilon)
        bias = self._offset(sign * epsilon, lambda b: _signed_part(b, sign))
        if unsigned:
            z = self.forward(x, self.part(sign), bias)
        else:
            z = self.forward(x.clamp(min=0), self.part(sign), bias).add_(self.forward(x.clamp(max=0), self.part(-sign)))
        return z.clamp_(min=epsilon) if sign > 0 else z.clamp_(max=-epsilon)  # not the other sign by rounding

    def sizes(self, factor: float, epsilon: float) -> Tensor:
        """Return factor times the sum of the absolute terms :math:`|x w|` and of the bias's, plus epsilon."""
        x = self.values[0] if self.nonnegative else self.values[0].abs()
        bias = self._offset(self._at_least(epsilon), lambda b: b.abs() * factor)
        return self.forward(x, self.weight.abs().mul_(factor), bias)

    def _at_least(self, epsilon: float) -> float:
        return epsilon and max(epsilon, torch.finfo(self.weight.dtype).tiny)  # in half precision 1e-9 is nothing

    def _offset(self, epsilon: float, of_bias: Callable[[Tensor], Tensor]) -> Tensor:
        """Return a bias made from the layer's own, plus epsilon: so that it costs no pass over the output."""
        if self.bias is not None:
            return of_bias(self.bias) + epsilon
        channels = self.output.shape[-1 if self.name == "linear" else 1 - self.weight.dim()]
        return self.weight.new_full((channels,) if self.weight.dim() > 1 else (), epsilon)


def _signed_part(tensor: Tensor, sign: int) -> Tensor:
    return tensor.clamp(min=0) if sign > 0 else tensor.clamp(max=0)


def _per_dimension(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value) if len(value) == n else tuple(value) * n


def _same_padding(weight: Tensor, options: dict[str, Any]) -> tuple[int, ...]:
    """Return what ``padding="same"`` adds on each side, the last dimension first."""
    total = [step * (size - 1) for size, step in zip(reversed(weight.shape[2:]), reversed(options["dilation"]))]
    return tuple(side for n in total for side in (n // 2, n - n // 2))


def apply_rule(layer: LinearLayer, call: OpCall, x: Tensor, y: Tensor, rule: Any) -> Tensor:
    """Return the value `y` with `rule`'s backward for x."""
    layer.y = call.mode.hold(y)
    if layer.name != "linear" or rule.needs_input:  # a convolution is transposed for inputs of a certain size
        layer.x = call.mode.hold(x)
    return custom_backward(y, lambda m: (rule.multiplier(layer, m.to(layer.weight.dtype)),), x)
