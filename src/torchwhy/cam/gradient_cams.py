"""Class activation maps whose weights are made of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.run.gradients import second_order_gradient
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.gradient.paths import NoisyPoints
from torchwhy.problem import Problem
from torchwhy.settings import Count


class GradCAM(ClassActivationMap):
    r"""Channels weighted by their mean gradient: :math:`w_{nc} = \frac{1}{|G|} \sum_{u \in G} g_{ncu}`,
    :math:`g = \partial f / \partial A`.

    ``G`` are the cells of the grid. Up to a positive factor it is :class:`CAM` where global average pooling and one linear
    layer follow.

    Paper: Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2.

    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    >>> GradCAM(net).attribute(torch.ones(2, 3, 8, 8), target=1).shape
    torch.Size([2, 1, 8, 8])
    """

    paper: ClassVar[str] = "arXiv:1610.02391"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The mean gradient, ``(M, C)``."""
        return g.flatten(2).mean(2)


class GradCAMPlusPlus(ClassActivationMap):
    r"""Channels weighted by their positive gradients, each by its share of the channel's evidence:
    :math:`w_{nc} = \sum_u \alpha_{ncu} \mathrm{ReLU}(g_{ncu})`,
    :math:`\alpha = g^2 / (2 g^2 + g^3 \sum_v A_{ncv})`.

    The form for the exponential of the score, under which its second and third derivatives are powers of g; the factor exp(f)
    that all weights share is left out. α is 0 where its denominator is.

    Paper: Chattopadhay et al. 2018, arXiv:1710.11063, equation 19.
    """

    paper: ClassVar[str] = "arXiv:1710.11063"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The weights, ``(M, C)``; g² is cancelled, for it may be too small for single precision."""
        a, g = a.flatten(2), g.flatten(2)
        below = 2 + g * a.sum(2, keepdim=True)
        return torch.where(below != 0, g.clamp(min=0) / below, 0).sum(2)


class SmoothGradCAMPlusPlus(ClassActivationMap):
    r"""Grad-CAM++ with g, g² and g³ replaced by their means over inputs with noise,
    :math:`x_n + \sigma_n \epsilon_k`, :math:`\epsilon_k \sim N(0, I)`.

    The activations, in the denominator and in the map, are those of the input itself: without noise it is
    :class:`GradCAMPlusPlus`.

    Args:
        n_samples: the number of noisy inputs.
        noise_level: :math:`\sigma_n` as a share of the row's range, max − min.
        stdevs: :math:`\sigma_n` itself, in units of the input, one or one per input tensor; replaces ``noise_level``.
        numerator: the mean g² in α's numerator (``"second"``), or the mean g (``"first"``), as the paper prints it.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time.

    Paper: Omeiza et al. 2019, arXiv:1908.01224, equations 8 and 9.
    """

    n_samples: Count = 32
    noise_level: float = 0.15
    stdevs: float | Sequence[float] | None = None
    numerator: Literal["first", "second"] = "second"
    generator: Seed = None

    paper: ClassVar[str] = "arXiv:1908.01224"

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all, from the means over the noisy inputs."""
        if self.numerator not in ("first", "second"):
            raise ValueError(f"numerator={self.numerator!r}: expected 'first' or 'second'")
        n, sums = self.n_samples, RunningMoments(problem.n)
        for part in problem.run.evaluate_points(n, NoisyPoints(problem, self.noise_level, self.stdevs).point):
            views = self.views(problem, part.gradients, len(part.rows))
            slopes = [at_least_float32(f(g)) for f, g in zip(views, part.gradients)]
            sums.add(part.rows, [g**power for g in slopes for power in (1, 2, 3)])
        means = iter(sums.mean(n))
        return [
            weighted_sum(a, self._weights(a, *triple))
            for a, triple in zip(self.activations(problem), zip(*[means] * 3))
        ]

    def _weights(self, a: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """The weights, ``(N, C)``."""
        below = 2 * second + third * a.flatten(2).sum(2).reshape(*a.shape[:2], *[1] * (a.dim() - 2))
        top = first if self.numerator == "first" else second
        return torch.where(below != 0, first.clamp(min=0) * top / below, 0).flatten(2).sum(2)


class XGradCAM(ClassActivationMap):
    r"""Channels weighted by their gradients, these weighted by the activations:
    :math:`w_{nc} = \sum_u A_{ncu} g_{ncu} / \sum_u A_{ncu}`; 0 where the denominator is.

    Paper: Fu et al. 2020, arXiv:2008.02312, equation 8.
    """

    paper: ClassVar[str] = "arXiv:2008.02312"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The weights, ``(M, C)``."""
        a, g = a.flatten(2), g.flatten(2)
        total = a.sum(2)
        return torch.where(total != 0, (a * g).sum(2) / total, 0)


class HiResCAM(ClassActivationMap):
    r"""Gradient times activation, cell by cell: :math:`M_{nu} = \mathrm{ReLU}(\sum_c g_{ncu} A_{ncu})`.

    With ``relu=False``, ``upsample=False`` and one linear layer above, the cells add up to the score minus the bias.

    Paper: Draelos and Carin 2020, arXiv:2011.08891, equation 5, which has no ReLU.
    """

    paper: ClassVar[str] = "arXiv:2011.08891"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The gradients themselves."""
        return g


class ElementWiseCAM(ClassActivationMap):
    r"""The positive parts of gradient times activation: :math:`M_{nu} = \sum_c \mathrm{ReLU}(g_{ncu} A_{ncu})`.

    Never negative. It has no paper: :class:`HiResCAM` (the paper named here) with the ReLU on each channel.
    """

    paper: ClassVar[str] = "arXiv:2011.08891"

    def combine(self, a: Tensor, g: Tensor) -> Tensor:
        """The map, ``(M, *grid)``."""
        return (g * a).clamp(min=0).sum(1)


class LayerCAM(ClassActivationMap):
    r"""Each cell weighted by its own positive gradient: :math:`M_{nu} = \mathrm{ReLU}(\sum_c \mathrm{ReLU}(g_{ncu}) A_{ncu})`.

    Made for early layers too, whose finer grids it fills; a list of layers joins them.

    Paper: Jiang et al. 2021, IEEE Transactions on Image Processing 30, 5875, equations 5 and 6.
    """

    paper: ClassVar[str] = "doi:10.1109/TIP.2021.3089943"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The positive gradients."""
        return g.clamp(min=0)


class ShapleyCAM(GradCAM):
    r"""Grad-CAM with the second-order Shapley value of the activations in place of the gradient:
    :math:`w_{nc} = \frac{1}{|G|} \sum_u (g - \tfrac12 H A)_{ncu}`, H the score's Hessian by A.

    Equal to :class:`GradCAM` where the model is piecewise linear above the layer. It takes a second backward pass through
    the part above the layer. The paper explains :math:`y_c + \log \mathrm{softmax}_c(y)`: a callable target.

    Args:
        elementwise: weight each cell by its own value, as :class:`HiResCAM` does.

    Paper: Cai 2025, arXiv:2501.06261.
    """

    elementwise: bool = False

    paper: ClassVar[str] = "arXiv:2501.06261"
    derive: ClassVar = staticmethod(second_order_gradient)

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """The values, or their means."""
        return g if self.elementwise else super().weights(a, g)

    def maps(self, problem: Problem) -> list[Tensor]:
        """As for all; fused attention has no second derivative."""
        from torch.nn.attention import SDPBackend, sdpa_kernel

        with sdpa_kernel(SDPBackend.MATH):
            return super().maps(problem)
