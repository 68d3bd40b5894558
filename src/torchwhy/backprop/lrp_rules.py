r"""The rules of layer-wise relevance propagation for linear layers.

A layer :math:`y_k = \sum_j x_j w_{jk} + b_k` hands the relevance :math:`R_k = y_k m_k` to its inputs. Each rule says what a
term :math:`x_j w_{jk}` is worth; what is returned is the multiplier :math:`m_j`, :math:`R_j = x_j m_j`, so that nothing is
ever divided by :math:`x_j`. Rules that give relevance to an input that is zero (:class:`ZBox`, :class:`WSquare`,
:class:`Flat`) can only stand at the layer that sees the model's input, and return :math:`R_j` itself.

References: Bach et al. 2015 (PLoS ONE 10(7)) for ε and αβ; Montavon et al. 2017 (Pattern Recognition 65) for z⁺, w² and
the box; Montavon et al. 2019 (LNCS 11700, Table 10.1) for γ and the flat rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from torchwhy.backprop.linear_layer import LinearLayer


def stabilize(z: Tensor, epsilon: float) -> Tensor:
    """Z moved away from zero by epsilon, along its sign (zero counts as positive)."""
    epsilon = max(epsilon, torch.finfo(z.dtype).tiny)
    return torch.where(z < 0, z - epsilon, z + epsilon)


@dataclass(frozen=True)
class Epsilon:
    r"""ε rule, :math:`R_j = \sum_k \frac{x_j w_{jk}}{y_k + \varepsilon\,\mathrm{sign}(y_k)} R_k` (Bach et al., Eq. 58).

    With ε → 0 the multiplier is the gradient; a larger ε lets weak or contradictory terms absorb relevance.
    """

    epsilon: float = 1e-6
    needs_input: ClassVar[bool] = False

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j."""
        y = layer.output
        if self.epsilon:  # y / (y + ε sign(y)) = |y| / (|y| + ε)
            size = y.abs()
            m = m * size.div_(size + max(self.epsilon, torch.finfo(y.dtype).tiny))
        return layer.transpose(m, layer.weight)


@dataclass(frozen=True)
class Gamma:
    r"""γ rule: terms of the sign of the output count 1 + γ times (Montavon et al. 2019, generalised to any sign).

    For :math:`y_k > 0`: :math:`R_j = \sum_k \frac{x_j w_{jk} + \gamma (x_j w_{jk})^+}{y_k + \gamma y_k^+} R_k`, with
    :math:`y_k^+` the sum of the positive terms (and of :math:`b_k^+`); for :math:`y_k < 0` with the negative parts.
    """

    gamma: float = 0.25
    epsilon: float = 1e-9
    needs_input: ClassVar[bool] = True

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j."""
        # With a = |x w|, z+ = (z + a) / 2 and z- = (z - a) / 2: one denominator, and two weights for all signs of x and y.
        x, y = layer.values
        half, unsigned = self.gamma / 2, layer.unsigned
        even, odd = layer.weight * (1 + half), layer.weight.abs() * half
        size = y.abs()
        total = layer.sizes(half, self.epsilon).add_(size, alpha=1 + half)
        signed, c = m * y, size.mul_(m)
        if unsigned and torch.equal(signed, c):  # only positive outputs have relevance: a ReLU follows
            return layer.transpose(c.div_(total), even + odd)
        found, aside = layer.transpose(c.div_(total), even), layer.transpose(signed.div_(total), odd)
        return found.add_(aside if unsigned else torch.where(x > 0, aside, -aside))


@dataclass(frozen=True)
class AlphaBeta:
    r"""αβ rule, :math:`R_j = \sum_k (\alpha \frac{(x_j w_{jk})^+}{y_k^+} - \beta \frac{(x_j w_{jk})^-}{y_k^-}) R_k`, α - β = 1.

    :math:`y_k^\pm` are the sums of the terms of one sign, the bias included where it has that sign (Bach et al., Eq. 60).
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-9
    needs_input: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.alpha < 0 or self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                f"alpha - beta must be 1 and neither negative, so that relevance is conserved; got alpha={self.alpha}, "
                f"beta={self.beta}. Try AlphaBeta(2, 1) or AlphaBeta(1, 0)"
            )

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j."""
        x, y = layer.values
        unsigned, relevance = layer.unsigned, m * y
        up = layer.contributions(+1, self.epsilon, unsigned=unsigned)
        if self.beta and unsigned:  # what is left; not nearer to zero than rounding, so that it is no division by noise
            down = torch.sub(y, up, alpha=1 + 8 * torch.finfo(up.dtype).eps)
        elif self.beta:
            down = layer.contributions(-1, self.epsilon, unsigned=False)

        def terms(sign: int, factor: float, c: Tensor) -> Tensor:
            found = layer.transpose(c, layer.part(sign, factor))
            return found if unsigned else torch.where(x > 0, found, layer.transpose(c, layer.part(-sign, factor)))

        found = terms(+1, self.alpha, torch.div(relevance, up, out=up))
        return found.add_(terms(-1, -self.beta, torch.div(relevance, down, out=down))) if self.beta else found


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    r"""z⁺ rule, :math:`R_j = \sum_k \frac{(x_j w_{jk})^+}{y_k^+} R_k`: the αβ rule with α = 1, β = 0."""

    alpha: float = 1.0
    beta: float = 0.0


@dataclass(frozen=True)
class Excitation:
    r"""Excitation backprop's rule, :math:`R_j = \sum_k \frac{x_j w_{jk}^+}{\sum_i x_i w_{ik}^+} R_k` (Zhang et al. 2018, Eq. 1).

    Meant for inputs that are not negative; negative ones get nothing. Biases get nothing either.
    """

    epsilon: float = 1e-9
    needs_input: ClassVar[bool] = True

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j."""
        x, y = layer.values
        weight = layer.weight.clamp(min=0)
        z = layer.forward(x if layer.nonnegative else x.clamp(min=0), weight)
        back = layer.transpose(m * y / stabilize(z, self.epsilon), weight)
        return back if layer.nonnegative else torch.where(x > 0, back, 0)


@dataclass(frozen=True)
class Pass:
    """Identity rule, R_j = R_k elementwise: for activations and other operations that keep the shape."""


@dataclass(frozen=True)
class Norm:
    r"""The ε rule of operations without weights (sums, average pooling); with ε → 0 their gradient, which is used."""


# ------------------------------------------------------------------------------ rules for the layer that sees the input
@dataclass(frozen=True)
class Flat:
    r"""Flat rule: relevance is spread evenly, :math:`R_j = \sum_k R_k / |\{i : i \to k\}|`. For the first layer only."""

    epsilon: float = 1e-9

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j."""
        x, y = layer.values
        return _spread(layer, torch.ones_like(layer.weight), x, m * y, self.epsilon)


@dataclass(frozen=True)
class WSquare:
    r"""w² rule, :math:`R_j = \sum_k \frac{w_{jk}^2}{\sum_i w_{ik}^2} R_k`. For the first layer only; the bias gets nothing."""

    epsilon: float = 1e-9

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j."""
        x, y = layer.values
        return _spread(layer, layer.weight**2, x, m * y, self.epsilon)


def _spread(layer: LinearLayer, weight: Tensor, x: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    return layer.transpose(relevance / stabilize(layer.forward(torch.ones_like(x[:1]), weight), epsilon), weight)


@dataclass(frozen=True, eq=False)
class ZBox:
    r"""Box rule for inputs known to lie in [low, high] (z\ :sup:`B`; Montavon et al. 2017, Eq. 18). For the first layer only.

    :math:`R_j = \sum_k \frac{x_j w_{jk} - l_j w_{jk}^+ - h_j w_{jk}^-}{\sum_i x_i w_{ik} - l_i w_{ik}^+ - h_i w_{ik}^-} R_k`;
    `low` and `high` are numbers or tensors that broadcast to a row of the input, the same for all rows, in the units the model
    gets (those of the normalised input, -2.12 and 2.64 at the widest for ImageNet's).
    """

    low: float | Tensor | None = None
    high: float | Tensor | None = None
    epsilon: float = 1e-9

    def __post_init__(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError(
                "ZBox needs the bounds of the input: low= and high=, numbers or tensors that broadcast to it, in the units "
                "the model gets. For images normalised by mean and std: low=(0 - mean) / std, high=(1 - mean) / std"
            )
        if bool((torch.as_tensor(self.low) > torch.as_tensor(self.high)).any()):
            raise ValueError("ZBox got low= above high=")

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j."""
        x, y = layer.values
        low, high = (_bound(name, getattr(self, name), x) for name in ("low", "high"))
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        z = layer.forward(x, layer.weight) - layer.forward(low, up) - layer.forward(high, down)
        c = m * y / stabilize(z, self.epsilon)
        return (x - low) * layer.transpose(c, up) + (x - high) * layer.transpose(c, down)


def _bound(name: str, bound: Any, x: Tensor) -> Tensor:
    """The bound with as many dimensions as x, in a single row."""
    tensor = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
    try:
        return tensor.expand(1, *x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"ZBox's {name}= of shape {tuple(tensor.shape)} does not broadcast to a row of the first layer's input, "
            f"{(1, *x.shape[1:])}: give bounds that hold for all rows"
        ) from None


FIRST_ONLY = (Flat, WSquare, ZBox)
LAYER_RULES = (Epsilon, Gamma, AlphaBeta, Excitation)
