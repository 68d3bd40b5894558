"""SS-CAM: Score-CAM with noise on the mask or on the picture."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from torchwhy.cam.score_cam import ScoreCAM
from torchwhy.engine.run.randomness import Draws, Seed, normal_draws
from torchwhy.problem import Problem
from torchwhy.settings import Count, NotNegative


class SSCAM(ScoreCAM):
    r"""Score-CAM with noise: :math:`w_{nc} = \mathrm{softmax}_c \frac1m \sum_i f(x_n \odot (m_{nc} + \sigma \epsilon_{ic}))`.

    Args:
        n_samples: the number m of noisy masks a channel; m · C + 1 forward passes a row.
        stdev: σ, in units of the mask or of the input.
        where: noise on the mask, or on the masked input, :math:`f(x_n \odot m_{nc} + \sigma \epsilon_{ic})`.
        generator: an int or a CPU ``torch.Generator``; None draws afresh each time. The rows share the draws.

    Other settings as for :class:`ScoreCAM`. Paper: Wang et al. 2020, arXiv:2006.14255.
    """

    n_samples: Count = 35
    stdev: NotNegative = 2.0
    where: Literal["mask", "input"] = "mask"
    generator: Seed = None

    shares_constant: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2006.14255"

    @property
    def passes_per_channel(self) -> int:
        """The number of noisy masks."""
        return self.n_samples

    def apply_mask(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Return pictures with noise on the mask, or on themselves."""
        return x * (mask + noise) if self.where == "mask" else x * mask + noise

    def mask_noise(self, x: Tensor, channels: int | None, problem: Problem) -> Draws:
        """Return normal draws of the shape of a mask, or of a picture."""
        shared = channels is not None and self.where == "mask"
        shape = [1 if shared and i == channels else n for i, n in enumerate(x.shape)][1:]
        return normal_draws(x.new_empty(1, *shape), problem.generator).scaled(self.stdev)
