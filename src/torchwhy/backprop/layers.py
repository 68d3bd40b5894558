r"""A linear layer as a rule of LRP sees it: input, weights (batch norm folded in), value, and the transposed operation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules import Call, Held, surrogate


@dataclass
class LinearLayer:
    """y = op(x, weight) + bias for a fully connected or convolutional operation `op`. Holds what the backward needs."""

    name: str
    weight: Tensor
    bias: Tensor | None
    options: dict[str, Any]
    x: Held | None = None
    y: Held | None = None
    sides: tuple[int, ...] = ()  # what ``padding="same"`` adds around x, as for F.pad
    nonnegative: bool = False  # no entry of x is negative, for certain

    @classmethod
    def of(cls, call: Call) -> LinearLayer:
        """Return the layer of a call."""
        options = dict(call.kwargs)
        weight, bias = options.pop("weight"), options.pop("bias", None)
        if call.name == "linear":
            return cls(call.name, weight, bias, {})
        spatial = weight.dim() - 2
        sides: tuple[int, ...] = ()
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1), ("output_padding", 0)):
            value = options.get(key, default)
            options[key] = value if isinstance(value, str) else _tuple(value, spatial)
        options.setdefault("groups", 1)
        if not call.name.startswith("conv_transpose"):
            options.pop("output_padding")
        if isinstance(options["padding"], str):
            sides = _same(weight, options) if options["padding"] == "same" else ()
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
        if self.x is None or self.y is None:
            raise RuntimeError("the layer has not run")
        return self.x.value.to(self.weight.dtype), self.y.value.to(self.weight.dtype)  # they differ under autocast

    def contributions(self, sign: int) -> Tensor:
        """Return the sum of the terms x·w of one sign (+1 or -1), and of the bias where it has that sign."""
        x, _ = self.values
        same, other = _part(self.weight, sign), _part(self.weight, -sign)
        bias = None if self.bias is None else _part(self.bias, sign)
        if self.nonnegative:
            return self.forward(x, same, bias)
        return self.forward(x.clamp(min=0), same, bias) + self.forward(x.clamp(max=0), other)

    def back(self, c: Tensor, sign: int, keep: float = 0.0, favour: float = 1.0) -> Tensor:
        """Return the multiplier of x if a term x·w is worth ``c · keep`` times itself, and ``c · favour`` more if of `sign`."""
        x, _ = self.values
        weigh = lambda s: favour * _part(self.weight, s) + keep * self.weight if keep else _part(self.weight, s)  # noqa: E731
        up = self.transpose(c, weigh(sign))
        return up if self.nonnegative else torch.where(x > 0, up, self.transpose(c, weigh(-sign)))


def _part(tensor: Tensor, sign: int) -> Tensor:
    return tensor.clamp(min=0) if sign > 0 else tensor.clamp(max=0)


def _tuple(value: Any, n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value) if len(value) == n else tuple(value) * n


def _same(weight: Tensor, options: dict[str, Any]) -> tuple[int, ...]:
    """Return what ``padding="same"`` adds on each side, the last dimension first."""
    total = [step * (size - 1) for size, step in zip(reversed(weight.shape[2:]), reversed(options["dilation"]))]
    return tuple(side for n in total for side in (n // 2, n - n // 2))


def run(layer: LinearLayer, call: Call, x: Tensor, y: Tensor, rule: Any) -> Tensor:
    """Return the value `y` with `rule`'s backward for x."""
    layer.x, layer.y = call.mode.hold(x), call.mode.hold(y)
    return surrogate(y, lambda m: (rule.multiplier(layer, m.to(layer.weight.dtype)),), x)
