"""IS-CAM: Score-CAM along a line from nothing to the masked picture."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.cam.score_cam import ScoreCAM
from torchwhy.engine.run.rows import expand_like
from torchwhy.settings import Count


class ISCAM(ScoreCAM):
    r"""Score-CAM along a line from nothing to the masked picture:
    :math:`w_{nc} = \mathrm{softmax}_c \frac1m \sum_{i=1}^m f(\tfrac{i}{m} \, x_n \odot m_{nc})`.

    Args:
        n_steps: the number m of points on the line; m · C + 1 forward passes a row.

    Other settings as for :class:`ScoreCAM`. Paper: Naidu et al. 2020, arXiv:2010.03023; the i / m are not added up on the way,
    which the formula as printed does.
    """

    n_steps: Count = 10

    paper: ClassVar[str] = "arXiv:2010.03023"

    @property
    def passes_per_channel(self) -> int:
        """The number of points."""
        return self.n_steps

    def apply_mask(self, x: Tensor, mask: Tensor, sample: Tensor, noise: Tensor | float) -> Tensor:
        """Return masked pictures, scaled."""
        return expand_like((sample + 1).to(x) / self.n_steps, x) * x * mask
