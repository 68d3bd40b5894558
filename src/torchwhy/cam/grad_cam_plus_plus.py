"""Grad-CAM++, and its mean over noisy inputs: channels weighted by their positive gradients."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap, weighted_sum
from torchwhy.engine.features.moments import RunningMoments
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.gradient.noisy_points import NoisyPoints, Stdevs, check_stdevs
from torchwhy.problem import Problem
from torchwhy.settings import Count, NotNegative


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
        """Return the weights ``(M, C)``; g² is cancelled, because it may be too small for single precision."""
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
    noise_level: NotNegative = 0.15
    stdevs: Stdevs | None = None
    numerator: Literal["first", "second"] = "second"
    generator: Seed = None

    paper: ClassVar[str] = "arXiv:1908.01224"

    def maps(self, problem: Problem) -> list[Tensor]:
        """Return the maps whose weights are made of means over the noisy inputs."""
        n = self.n_samples
        powers = [RunningMoments(problem.rows) for _ in (1, 2, 3)]
        for part in problem.run.evaluate_points(n, NoisyPoints(problem, self.noise_level, self.stdevs).point):
            layouts = self.grid_layouts(problem, part.gradients, len(part.rows))
            gradients = [at_least_float32(layout(g)) for layout, g in zip(layouts, part.gradients)]
            for k, sums in enumerate(powers, 1):
                sums.add(part.rows, [g**k for g in gradients])
        first, second, third = (sums.mean(n) for sums in powers)
        each = zip(self.activations(problem), first, second, third)
        return [weighted_sum(a, self._smooth_weights(a, *means)) for a, *means in each]

    def _smooth_weights(self, a: Tensor, first: Tensor, second: Tensor, third: Tensor) -> Tensor:
        """Return the weights ``(N, C)``, from activations and the means of g, g² and g³, all ``(N, C, *grid)``."""
        a, first, second, third = (t.flatten(2) for t in (a, first, second, third))
        below = 2 * second + third * a.sum(2, keepdim=True)
        top = first if self.numerator == "first" else second
        return torch.where(below != 0, first.clamp(min=0) * top / below, 0).sum(2)

    def _check_settings(self) -> None:
        super()._check_settings()
        if self.stdevs is not None:
            check_stdevs(self.stdevs)
