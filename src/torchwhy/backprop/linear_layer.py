r"""A linear layer as a rule of LRP sees it: input, weights (batch norm folded in), value, and the transposed operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.rules.opaque import SavedTensor
from torchwhy.engine.rules.operations import OpCall
from torchwhy.engine.structure import Keywords


class _NotKept:
    """What stands for a tensor that was not kept."""

    @property
    def value(self) -> Tensor:
        raise RuntimeError("the layer has not run, or its rule said needs_input = False")


NOT_KEPT = _NotKept()


@dataclass
class LinearLayer:
    """y = op(x, weight) + bias for a fully connected or convolutional operation ``op``.

    Args:
        name: the operation: ``"linear"``, ``"conv2d"``, ``"conv_transpose1d"``, ...
        weight: the weight; if a batch norm follows, with its scale multiplied in.
        bias: the bias, or None; if a batch norm follows, with its shift added.
        options: stride, padding and the like, by name.
        saved_input, saved_output: x and y, kept for the backward pass; read them as ``input`` and ``output``.
        sides: what ``padding="same"`` adds around x, as for ``F.pad``.
        known_nonnegative: no entry of x is negative, for certain.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    options: Keywords
    saved_input: SavedTensor | _NotKept = NOT_KEPT
    saved_output: SavedTensor | _NotKept = NOT_KEPT
    sides: tuple[int, ...] = ()
    known_nonnegative: bool = False

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
            numbers = (value,) if isinstance(value, int) else value
            options[key] = numbers if len(numbers) == spatial or isinstance(value, str) else tuple(numbers) * spatial
        options.setdefault("groups", 1)
        if not call.name.startswith("conv_transpose"):
            options.pop("output_padding")
        if isinstance(options["padding"], str):
            sides = _same_padding(weight, options) if options["padding"] == "same" else ()
            options["padding"] = (0,) * spatial
        return cls(call.name, weight, bias, options, sides=sides)

    @property
    def input(self) -> Tensor:
        """The input x of the layer."""
        return self.saved_input.value.to(self.weight.dtype)  # another one under autocast

    @property
    def output(self) -> Tensor:
        """The output y of the layer, bias included."""
        return self.saved_output.value.to(self.weight.dtype)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return op(x, weight) + bias."""
        x = F.pad(x, self.sides) if self.sides else x
        return getattr(F, self.name)(x, weight, bias, **self.options)

    def transpose(self, g: Tensor, weight: Tensor) -> Tensor:
        """Return the gradient of ⟨g, op(x, weight)⟩ for x, without running ``op``."""
        if self.name == "linear":
            return torch.matmul(g, weight) if weight.dim() == 2 else g.unsqueeze(-1) * weight
        o = self.options
        x = F.pad(self.input, self.sides) if self.sides else self.input
        back = torch.ops.aten.convolution_backward(
            g, x, weight, None, o["stride"], o["padding"], o["dilation"], self.name.startswith("conv_transpose"),
            o.get("output_padding", (0,) * (weight.dim() - 2)), o["groups"], [True, False, False],
        )[0]  # fmt: skip
        return F.pad(back, [-n for n in self.sides]) if self.sides else back

    # ------------------------------------------------------------------------------ the same layer, changed
    def folded(self, scale: Tensor, shift: Tensor) -> LinearLayer:
        """Return the layer that computes ``scale · y + shift`` per channel: the one with batch norm folded in.

        A rule then sees one linear layer in place of two, with its terms ``x (scale w)`` and all offsets in the bias, so that
        relevance is shared by what each input does to what comes out of the batch norm.
        """
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
    def input_is_nonnegative(self) -> bool:
        """Whether no entry of the input is negative: known from what made it, else looked up."""
        return self.known_nonnegative or not bool((self.input < 0).any())

    def signed_weight(self, sign: int, factor: float = 1.0) -> Tensor:
        """Return ``factor`` times the weights of one sign (+1 or -1), zero for the others."""
        found = _signed_part(self.weight, sign)
        return found if factor == 1 else found.mul_(factor)

    def contributions(self, sign: int, epsilon: float, *, nonnegative: bool) -> Tensor:
        """Return the sum of the terms x·w of one sign (+1 or -1), and of the bias where it has that sign, moved by epsilon.

        ``nonnegative``: whether no entry of the input is negative.
        """
        x = self.input
        epsilon = self._at_least(epsilon)
        bias = self._offset(sign * epsilon, lambda b: _signed_part(b, sign))
        if nonnegative:
            z = self.forward(x, self.signed_weight(sign), bias)
        else:
            z = self.forward(x.clamp(min=0), self.signed_weight(sign), bias)
            z = z.add_(self.forward(x.clamp(max=0), self.signed_weight(-sign)))
        return z.clamp_(min=epsilon) if sign > 0 else z.clamp_(max=-epsilon)  # not the other sign by rounding

    def absolute_sum(self, factor: float, epsilon: float) -> Tensor:
        """Return ``factor`` times the sum of the absolute terms :math:`|x w|` and of the bias's, plus epsilon."""
        x = self.input if self.known_nonnegative else self.input.abs()
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


def _same_padding(weight: Tensor, options: Keywords) -> tuple[int, ...]:
    """Return what ``padding="same"`` adds on each side, the last dimension first."""
    total = [step * (size - 1) for size, step in zip(reversed(weight.shape[2:]), reversed(options["dilation"]))]
    return tuple(side for n in total for side in (n // 2, n - n // 2))
