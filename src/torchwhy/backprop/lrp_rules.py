r"""The rules of layer-wise relevance propagation for linear layers.

A layer :math:`y_k = \sum_j x_j w_{jk} + b_k` hands the relevance :math:`R_k = y_k m_k` to its inputs. Each rule says what a
term :math:`x_j w_{jk}` is worth; what is returned is the multiplier :math:`m_j`, :math:`R_j = x_j m_j`, so that nothing is
ever divided by :math:`x_j`. That is a :class:`LayerRule`. Rules that give relevance to an input that is zero (:class:`ZBox`,
:class:`WSquare`, :class:`Flat`) can only stand at the layer that sees the model's input, and return :math:`R_j` itself: they are
of the class :class:`InputRule`. Rules of your own derive from either, and take part of another rule by calling it.

References: Bach et al. 2015 (PLoS ONE 10(7)) for ε and αβ; Montavon et al. 2017 (Pattern Recognition 65) for z⁺, w² and
the box; Montavon et al. 2019 (LNCS 11700, Table 10.1) for γ and the flat rule.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.backprop.linear_layer import LinearLayer
from torchwhy.engine.run.checks import finite_numbers
from torchwhy.settings import NotNegative, check_setting, equal_settings


def stabilize(z: Tensor, epsilon: float) -> Tensor:
    """Move ``z`` away from zero by epsilon, along its sign (zero counts as positive)."""
    epsilon = max(epsilon, torch.finfo(z.dtype).tiny)
    return torch.where(z < 0, z - epsilon, z + epsilon)


class Rule:
    """The base of all rules: a value, equal to another of its class with equal settings.

    ``not_negative``: the settings of a rule that is a dataclass that are finite numbers and not negative.
    """

    not_negative: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for name in self.not_negative:
            value = getattr(self, name)
            if not (isinstance(value, float) and 0 <= value < math.inf):  # also an int is looked at there
                check_setting(name, value, NotNegative)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        mine, its = vars(self), vars(other)
        return mine.keys() == its.keys() and all(equal_settings(mine[name], its[name]) for name in mine)

    def __hash__(self) -> int:
        return hash(type(self))  # settings may be tensors

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


class LayerRule(Rule, ABC):
    r"""The base of rules for any linear layer; a subclass says what multiplier the layer's input gets.

    ``needs_input``: whether the rule reads ``layer.input``; where it does not, the input of a fully connected layer is not
    kept for the backward pass.

    >>> import torch, torchwhy as tw
    >>> class Half(tw.lrp.LayerRule):  # half of the relevance goes no further
    ...     def multiplier(self, layer, m):
    ...         return tw.lrp.Epsilon().multiplier(layer, m / 2)
    >>> x, net = torch.tensor([[1.0, 2.0]]), torch.nn.Linear(2, 1)
    >>> whole, half = (tw.LRP(net, composite=tw.lrp.Composite(linear=r)) for r in ("epsilon", Half()))
    >>> torch.allclose(half.attribute(x), whole.attribute(x) / 2)
    True
    """

    needs_input: ClassVar[bool] = True

    @abstractmethod
    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        r"""Return the multiplier :math:`m_j = R_j / x_j` at the layer's input.

        Args:
            layer: the layer as it ran: ``layer.input`` x, ``layer.output`` y, ``layer.weight``, ``layer.bias``,
                ``layer.forward(x, weight)``, ``layer.transpose(g, weight)``.
            m: the multiplier :math:`m_k = R_k / y_k` at its output, in the output's shape.

        Returns:
            A tensor of the input's shape.
        """


class InputRule(Rule, ABC):
    """The base of rules for the linear layers that see the model's input; a subclass says what relevance it gets."""

    @abstractmethod
    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return the relevance :math:`R_j` of the layer's input; arguments as for :meth:`LayerRule.multiplier`."""


LinearRule = LayerRule | InputRule


@dataclass(frozen=True)
class Epsilon(LayerRule):
    r"""ε rule, :math:`R_j = \sum_k \frac{x_j w_{jk}}{y_k + \varepsilon\,\mathrm{sign}(y_k)} R_k` (Bach et al., Eq. 58).

    With ε → 0 the multiplier is the gradient; a larger ε lets weak or contradictory terms absorb relevance.
    """

    epsilon: float = 1e-6
    needs_input: ClassVar[bool] = False
    not_negative: ClassVar[tuple[str, ...]] = ("epsilon",)

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j, see :meth:`LayerRule.multiplier`."""
        y = layer.output
        if self.epsilon:  # y / (y + ε sign(y)) = |y| / (|y| + ε)
            size = y.abs()
            m = m * size.div_(size + max(self.epsilon, torch.finfo(y.dtype).tiny))
        return layer.transpose(m, layer.weight)


@dataclass(frozen=True)
class Gamma(LayerRule):
    r"""γ rule: terms of the sign of the output count 1 + γ times (Montavon et al. 2019, generalized to any sign).

    For :math:`y_k > 0`: :math:`R_j = \sum_k \frac{x_j w_{jk} + \gamma (x_j w_{jk})^+}{y_k + \gamma y_k^+} R_k`, with
    :math:`y_k^+` the sum of the positive terms (and of :math:`b_k^+`); for :math:`y_k < 0` with the negative parts.
    """

    gamma: float = 0.25
    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("gamma", "epsilon")

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j, see :meth:`LayerRule.multiplier`."""
        # With a = |x w|, z+ = (z + a) / 2 and z- = (z - a) / 2: one denominator, and two weights for all signs of x and y.
        x, y = layer.input, layer.output
        half, nonnegative = self.gamma / 2, layer.input_is_nonnegative
        even, odd = layer.weight * (1 + half), layer.weight.abs() * half
        size = y.abs()
        total = layer.absolute_sum(half, self.epsilon).add_(size, alpha=1 + half)
        signed, c = m * y, size.mul_(m)
        if nonnegative and torch.equal(signed, c):  # only positive outputs have relevance: a ReLU follows
            return layer.transpose(c.div_(total), even + odd)
        found, aside = layer.transpose(c.div_(total), even), layer.transpose(signed.div_(total), odd)
        return found.add_(aside if nonnegative else torch.where(x > 0, aside, -aside))


@dataclass(frozen=True)
class AlphaBeta(LayerRule):
    r"""αβ rule, :math:`R_j = \sum_k (\alpha \frac{(x_j w_{jk})^+}{y_k^+} - \beta \frac{(x_j w_{jk})^-}{y_k^-}) R_k`, α - β = 1.

    :math:`y_k^\pm` are the sums of the terms of one sign, the bias included where it has that sign (Bach et al., Eq. 60).
    """

    alpha: float = 2.0
    beta: float = 1.0
    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("alpha", "beta", "epsilon")

    def __post_init__(self) -> None:
        super().__post_init__()
        if abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(
                f"alpha - beta must be 1, so that relevance is conserved; got alpha={self.alpha}, "
                f"beta={self.beta}. Try AlphaBeta(2, 1) or AlphaBeta(1, 0)"
            )

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j, see :meth:`LayerRule.multiplier`."""
        x, y = layer.input, layer.output
        nonnegative, relevance = layer.input_is_nonnegative, m * y
        up = layer.contributions(+1, self.epsilon, nonnegative=nonnegative)
        if (
            self.beta and nonnegative
        ):  # what is left; not nearer to zero than rounding, so that it is no division by noise
            down = torch.sub(y, up, alpha=1 + 8 * torch.finfo(up.dtype).eps)
        elif self.beta:
            down = layer.contributions(-1, self.epsilon, nonnegative=False)

        def terms(sign: int, factor: float, c: Tensor) -> Tensor:
            found = layer.transpose(c, layer.signed_weight(sign, factor))
            if nonnegative:
                return found
            return torch.where(x > 0, found, layer.transpose(c, layer.signed_weight(-sign, factor)))

        found = terms(+1, self.alpha, torch.div(relevance, up, out=up))
        return found.add_(terms(-1, -self.beta, torch.div(relevance, down, out=down))) if self.beta else found


@dataclass(frozen=True)
class ZPlus(AlphaBeta):
    r"""z⁺ rule, :math:`R_j = \sum_k \frac{(x_j w_{jk})^+}{y_k^+} R_k`: the αβ rule with α = 1, β = 0."""

    alpha: float = 1.0
    beta: float = 0.0


@dataclass(frozen=True)
class Excitation(LayerRule):
    r"""Excitation backprop's rule, :math:`R_j = \sum_k \frac{x_j w_{jk}^+}{\sum_i x_i w_{ik}^+} R_k` (Zhang et al. 2018, Eq. 1).

    Meant for inputs that are not negative; negative ones get nothing. Biases get nothing either.
    """

    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("epsilon",)

    def multiplier(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return m_j, see :meth:`LayerRule.multiplier`."""
        x, y = layer.input, layer.output
        weight = layer.weight.clamp(min=0)
        z = layer.forward(x if layer.known_nonnegative else x.clamp(min=0), weight)
        back = layer.transpose(m * y / stabilize(z, self.epsilon), weight)
        return back if layer.known_nonnegative else torch.where(x > 0, back, 0)


@dataclass(frozen=True)
class Pass(Rule):
    """Identity rule, R_j = R_k elementwise: for activations and other operations that keep the shape."""


@dataclass(frozen=True)
class Norm(Rule):
    r"""The ε rule of operations without weights (sums, average pooling); with ε → 0 their gradient, which is used."""


# ------------------------------------------------------------------------------ rules for the layer that sees the input
@dataclass(frozen=True)
class Flat(InputRule):
    r"""Flat rule: relevance is spread evenly, :math:`R_j = \sum_k R_k / |\{i : i \to k\}|`. For the first layer only."""

    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("epsilon",)

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j, see :meth:`InputRule.relevance`."""
        x, y = layer.input, layer.output
        return _spread(layer, torch.ones_like(layer.weight), x, m * y, self.epsilon)


@dataclass(frozen=True)
class WSquare(InputRule):
    r"""w² rule, :math:`R_j = \sum_k \frac{w_{jk}^2}{\sum_i w_{ik}^2} R_k`. For the first layer only; the bias gets nothing."""

    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("epsilon",)

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j, see :meth:`InputRule.relevance`."""
        x, y = layer.input, layer.output
        return _spread(layer, layer.weight**2, x, m * y, self.epsilon)


def _spread(layer: LinearLayer, weight: Tensor, x: Tensor, relevance: Tensor, epsilon: float) -> Tensor:
    return layer.transpose(relevance / stabilize(layer.forward(torch.ones_like(x[:1]), weight), epsilon), weight)


@dataclass(frozen=True, eq=False)
class ZBox(InputRule):
    r"""Box rule for inputs known to lie in [low, high] (z\ :sup:`B`; Montavon et al. 2017, Eq. 18). For the first layer only.

    :math:`R_j = \sum_k \frac{x_j w_{jk} - l_j w_{jk}^+ - h_j w_{jk}^-}{\sum_i x_i w_{ik} - l_i w_{ik}^+ - h_i w_{ik}^-} R_k`;
    ``low`` and ``high`` are numbers or tensors that broadcast to a row of the input, the same for all rows, in the units the
    model gets (those of the normalized input, -2.12 and 2.64 at the widest for ImageNet's).
    """

    low: float | Tensor | None = None
    high: float | Tensor | None = None
    epsilon: float = 1e-9
    not_negative: ClassVar[tuple[str, ...]] = ("epsilon",)

    def __post_init__(self) -> None:
        if self.low is None or self.high is None:
            raise ValueError(
                "ZBox needs the bounds of the input: low= and high=, numbers or tensors that broadcast to it, in the units "
                "the model gets. For images normalized by mean and std: low=(0 - mean) / std, high=(1 - mean) / std"
            )
        check_box(self.low, self.high)
        super().__post_init__()

    def relevance(self, layer: LinearLayer, m: Tensor) -> Tensor:
        """Return R_j, see :meth:`InputRule.relevance`."""
        x, y = layer.input, layer.output
        low, high = _bound("low", self.low, x), _bound("high", self.high, x)
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        z = layer.forward(x, layer.weight) - layer.forward(low, up) - layer.forward(high, down)
        c = m * y / stabilize(z, self.epsilon)
        return (x - low) * layer.transpose(c, up) + (x - high) * layer.transpose(c, down)


def check_box(low: float | Tensor | None, high: float | Tensor | None) -> None:
    """Refuse bounds of an input that are no finite numbers, and a low one above the high one; None is not given.

    Raises:
        ValueError: they are so.
    """
    ends = [finite_numbers(name, bound) for name, bound in (("low", low), ("high", high)) if bound is not None]
    if len(ends) == 2 and bool((ends[0] > ends[1].to(ends[0].device)).any()):
        raise ValueError("low, high: low= is above high=")


def _bound(name: str, bound: float | Tensor | None, x: Tensor) -> Tensor:
    """Return the bound with as many dimensions as x, in a single row."""
    tensor = torch.as_tensor(bound, dtype=x.dtype, device=x.device)
    try:
        return tensor.expand(1, *x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"ZBox's {name}= of shape {tuple(tensor.shape)} does not broadcast to a row of the first layer's input, "
            f"{(1, *x.shape[1:])}: give bounds that hold for all rows"
        ) from None


# ------------------------------------------------------------------------------------------------------------ by name
# name: the rule, and the settings of LRP that it takes
RULE_NAMES: dict[str, tuple[Callable[..., Rule], tuple[str, ...]]] = {
    "epsilon": (Epsilon, ("epsilon",)),
    "gamma": (Gamma, ("gamma",)),
    "alpha_beta": (AlphaBeta, ()),
    "zplus": (ZPlus, ()),
    "excitation": (Excitation, ()),
    "zbox": (ZBox, ("low", "high")),
    "flat": (Flat, ()),
    "wsquare": (WSquare, ()),
    "pass": (Pass, ()),
    "norm": (Norm, ()),
}
