"""LayerCAM: each cell weighted by its own positive gradient."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from torchwhy.cam.class_activation_map import ClassActivationMap


class LayerCAM(ClassActivationMap):
    r"""Each cell weighted by its own positive gradient: :math:`M_{nu} = \mathrm{ReLU}(\sum_c \mathrm{ReLU}(g_{ncu}) A_{ncu})`.

    Made for early layers too, whose finer grids it fills; a list of layers joins them.

    Paper: Jiang et al. 2021, IEEE Transactions on Image Processing 30, 5875, equations 5 and 6.
    """

    paper: ClassVar[str] = "doi:10.1109/TIP.2021.3089943"

    def weights(self, a: Tensor, g: Tensor) -> Tensor:
        """Return the positive gradients, ``(M, C, *grid)``."""
        return g.clamp(min=0)
