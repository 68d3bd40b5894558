"""Images that are optimized: how numbers become an image, and how it is jittered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from torchwhy.engine.run.randomness import draw_normal, draw_uniform

Parameterization = Literal["fourier", "pixel"]


def initial_parameters(
    kind: Parameterization, shape: tuple[int, int, int, int], spread: float, generator: torch.Generator, like: Tensor
) -> Tensor:
    """Draw the numbers to begin with, the same for all images ``(N, C, H, W)``."""
    n, *row = shape
    if kind == "fourier":
        row = [row[0], row[1], row[2] // 2 + 1, 2]
    drawn = draw_normal(*row, generator=generator, dtype=torch.double) * spread
    return drawn.to(like).expand(n, *row).clone()


def image_of(kind: Parameterization, numbers: Tensor, size: tuple[int, int]) -> Tensor:
    r"""Return the image, in [0, 1]: the logistic function of the numbers, or of :math:`F^{-1}(\theta / |f|)`.

    In the Fourier form a step of one length moves low frequencies more, as they are stronger in natural images.
    """
    if kind == "pixel":
        return numbers.sigmoid()
    h, w = size
    fy = torch.fft.fftfreq(h, device=numbers.device, dtype=numbers.dtype)[:, None]
    fx = torch.fft.rfftfreq(w, device=numbers.device, dtype=numbers.dtype)
    strength = (fy.square() + fx.square()).sqrt().clamp(min=1 / max(h, w)).reciprocal()
    spectrum = torch.view_as_complex(numbers.contiguous()) * strength
    return (torch.fft.irfft2(spectrum, s=size, norm="ortho") / 4).sigmoid()


class Jitter:
    """Random shifts, turns and zooms, one draw for all images of a call.

    Args:
        shift: the largest, as a share of the image's size.
        degrees: the largest turn.
        zoom: the largest change of size, as a share.
        generator: of the draws.
    """

    def __init__(self, shift: float, degrees: float, zoom: float, generator: torch.Generator) -> None:
        self.shift, self.degrees, self.zoom, self.generator = shift, degrees, zoom, generator

    def __call__(self, images: Tensor) -> Tensor:
        """Return ``images`` ``(N, C, H, W)``, transformed, the edges reflected."""
        if not (self.shift or self.degrees or self.zoom):
            return images
        dx, dy, turn, zoom = (2 * draw_uniform(4, generator=self.generator, dtype=torch.double) - 1).unbind()
        angle, size = torch.deg2rad(turn * self.degrees), 1 + zoom * self.zoom
        h, w = images.shape[2:]
        c, s = size * angle.cos(), size * angle.sin()
        matrix = torch.stack([c, -s * h / w, 2 * dx * self.shift, s * w / h, c, 2 * dy * self.shift]).view(1, 2, 3)
        grid = F.affine_grid(matrix.to(images), [1, 1, h, w], align_corners=False)
        return F.grid_sample(
            images, grid.expand(len(images), -1, -1, -1), padding_mode="reflection", align_corners=False
        )


def total_variation(images: Tensor) -> Tensor:
    r"""Return the mean square difference of neighbouring pixels, ``(N,)``."""
    return images.diff(dim=2).square().flatten(1).mean(1) + images.diff(dim=3).square().flatten(1).mean(1)


Transform = Callable[[Tensor], Tensor]
