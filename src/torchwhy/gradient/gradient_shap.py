"""GradientSHAP: expected gradients with noise on the input."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.engine.run.randomness import Draws, normal_draws
from torchwhy.gradient.expected_gradients import ExpectedGradients
from torchwhy.gradient.noisy_points import Stdevs, check_stdevs, stdev_per_tensor
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class GradientSHAP(ExpectedGradients[GivenLayer]):
    r"""Expected gradients with noise on the input:
    :math:`A_n = E [(x_n + \sigma \epsilon - b) \nabla f(b + \alpha (x_n + \sigma \epsilon - b))]`.

    In units of the score. An estimate of Shapley values that is right where the model is linear or the features independent;
    with ``stdevs=0`` it is :class:`ExpectedGradients`.

    Args:
        stdevs: the standard deviation :math:`\sigma` of the noise, in units of the input, one or one per input tensor.

    Paper: Lundberg, Lee 2017, arXiv:1705.07874; as in its authors' GradientExplainer.
    """

    stdevs: Stdevs = 0.0

    paper: ClassVar[str] = "arXiv:1705.07874"

    def noise(self, problem: Problem) -> tuple[Draws, ...]:
        """Return normal draws of each input's shape."""
        sigmas = stdev_per_tensor(self.stdevs, problem.x)
        if not any(sigmas):
            return ()
        return tuple(normal_draws(x, problem.generator).scaled(s) for x, s in zip(problem.x, sigmas))

    def _check_settings(self) -> None:
        super()._check_settings()
        check_stdevs(self.stdevs)
