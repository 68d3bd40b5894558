"""The mask of a given area that keeps the score highest, or lets it fall lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from torchwhy.attribution import Attribution
from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.rows import index_rows
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count
from torchwhy.targets import DerivedTarget, find_logits

LEVELS = 8  # of blur, between none and max_blur
SHARPNESS = 20.0  # of the smooth maximum: larger is nearer to the maximum
FIRST_LEVEL = {"preserve": 1.0, "delete": 0.2, "hybrid": 1.0}  # near the sharp image, where the score still has a slope
# of a step for each cell; by how much the area's weight grows in their course
RATE, MOMENTUM, GROWTH = 1e-4, 0.9, 500.0


class ExtremalPerturbation(Attribution):
    r"""The smooth mask of area a that preserves the score best, averaged over the areas:

    :math:`m_a = \arg\max_m\ f(m \otimes x) - \lambda\, \| \mathrm{sort}(m) - r_a \|^2`,

    :math:`r_a` being 1 for a share a of the pixels and 0 for the others; :math:`m \otimes x` blurs what is masked.
    The mask is :math:`m(u) = \mathrm{smax}_i\, p_i\, k(|u - u_i| / \sigma)`, :math:`k(z) = e^{-\max(0, z - 1)^2 / 4}`, of
    parameters p on a coarse grid, found by gradient ascent with momentum. Maps are (N, 1, H, W), in [0, 1]: where a pixel
    is kept. They rank pixels; they are no parts of the score. The masks (N, areas, 1, H, W) and their scores (N, areas)
    are in the explanation's ``details``. Takes n_steps forward and backward passes for each row and area, twice as many
    for ``"hybrid"``.

    The reward is divided by f(x) − f(blurred x), so that the settings do not depend on the score's scale.

    Args:
        areas: the shares of the image to keep (to delete, for ``reward="delete"``).
        reward: ``"preserve"`` the score with the mask alone, ``"delete"`` it by hiding the mask, or ``"hybrid"``, both.
        contrastive: explain the target's output minus the largest other one.
        n_steps: of the ascent.
        max_blur: standard deviation of the strongest blur, in pixels; None hides by the baselines instead.
        step: pixels between the points of the grid.
        sigma: the smallest radius of what a mask keeps, in pixels.
        area_weight: :math:`\lambda` at the first step; it grows 500 times, so that first the score and then
            the area decides.

    Raises:
        ValueError: not one image tensor (N, C, H, W), or settings out of range.

    Paper: Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, equations 2 to 7.
    """

    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2)
    reward: Literal["preserve", "delete", "hybrid"] = "preserve"
    contrastive: bool = False
    n_steps: Count = 400
    max_blur: float | None = 20.0
    step: int = 7
    sigma: float = 21.0
    area_weight: float = 1.0

    uses_baselines: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1910.08485"

    def _attribute(self, problem: Problem) -> Result:
        x = problem.x[0]
        self._check(problem)
        if self.contrastive:
            problem = problem.replace(target=Contrast(problem.target))
        hidden = self._hidden(problem)
        sharp, blurred = problem.run.all_scores((x,)), problem.run.all_scores((hidden[:, -1],))
        scale = (sharp - blurred).abs().clamp(min=1e-6 * float(sharp.abs().max()) + 1e-30)
        rows = problem.rows.repeat_interleave(len(self.areas))
        areas = torch.tensor(tuple(self.areas), dtype=x.dtype, device=x.device).repeat(problem.n)
        masks = SmoothMasks(x.shape[2:], self.step, self.sigma, x)
        p = x.new_full((len(rows), *masks.grid), FIRST_LEVEL[self.reward])
        speed, rate = torch.zeros_like(p), RATE * p[0].numel()  # a cell's gradient falls with their number

        def slope(start: int, stop: int) -> Tensor:
            """The gradient of what is minimised, with respect to the parameters of some masks."""
            own = rows[start:stop]
            with torch.inference_mode(False), torch.enable_grad():
                q = p[start:stop].detach().requires_grad_()
                m = masks(q)
                loss = weight * masks.area_error(m, areas[start:stop]).sum()
                for sign, kept in self._rewards(m):
                    z = _blend_pyramid(hidden[own], kept)
                    slopes = problem.run.gradients((z.detach(),), own)[1][0]
                    loss = loss - sign * (z * slopes / scale[own].to(z).view(-1, 1, 1, 1)).sum()
                return torch.autograd.grad(loss, q)[0]

        for t in range(self.n_steps):
            weight = self.area_weight * GROWTH ** (t / self.n_steps)
            speed = MOMENTUM * speed - rate * problem.run.concatenated(len(rows), slope)
            p = (p + speed).clamp(0, 1)
        found = problem.run.concatenated(len(rows), lambda a, b: masks(p[a:b]))
        kept = 1 - found if self.reward == "delete" else found
        work = lambda a, b: problem.run.scores((_blend_pyramid(hidden[rows[a:b]], kept[a:b]),), rows[a:b])  # noqa: E731
        scores = problem.run.concatenated(len(rows), work).view(problem.n, -1)
        found = found.view(problem.n, -1, *found.shape[1:])
        return Result((found.mean(1),), details={"masks": found, "scores": scores})

    def _rewards(self, m: Tensor) -> list[tuple[float, Tensor]]:
        """What is kept, and whether the score there is to be high or low."""
        high, low = (1.0, m), (-1.0, 1 - m)
        return {"preserve": [high], "delete": [low], "hybrid": [high, low]}[self.reward]

    def _hidden(self, problem: Problem) -> Tensor:
        """Each image from sharp to wholly hidden, (N, levels, C, H, W)."""
        x = problem.x[0]
        if self.max_blur is None:
            return torch.stack([x, index_rows(problem.baselines[0].mean(0), problem.rows)], 1)
        widths = torch.linspace(0, self.max_blur, LEVELS).tolist()
        return torch.stack([gaussian_blur(x, x.new_full((len(x),), w)) for w in widths], 1)

    def _check(self, problem: Problem) -> None:
        x = problem.x[0]
        if len(problem.x) != 1 or x.dim() != 4 or not x.is_floating_point():
            raise ValueError(f"inputs: expected one tensor (N, C, H, W), got {[tuple(t.shape) for t in problem.x]}")
        if not self.areas or not all(0 < a < 1 for a in self.areas):
            raise ValueError(f"areas={self.areas!r}: expected shares between 0 and 1")
        if self.reward not in ("preserve", "delete", "hybrid"):
            raise ValueError(f"reward={self.reward!r}: expected 'preserve', 'delete' or 'hybrid'")
        for name in ("step", "sigma", "area_weight"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: expected a positive number")
        if self.max_blur is not None and not self.max_blur > 0:
            raise ValueError(f"max_blur={self.max_blur!r}: expected a positive number, or None for the baselines")


class SmoothMasks:
    """Masks (M, 1, H, W) from parameters (M, rows, columns) on a grid of points, one in the middle of each cell."""

    def __init__(self, size: Sequence[int], step: int, sigma: float, like: Tensor) -> None:
        self.size, self.step = tuple(size), step
        self.grid = tuple(math.ceil(n / step) for n in size)
        self.reach = math.ceil(2 * sigma / step)  # beyond two radii the kernel has fallen below 0.78
        at = torch.arange(step, device=like.device, dtype=like.dtype) - (step - 1) / 2
        cells = torch.arange(-self.reach, self.reach + 1, device=like.device, dtype=like.dtype) * step
        line = (at[None, :] - cells[:, None]).square()  # (neighbours, pixels of a cell) along one side
        distance = (line[:, None, :, None] + line[None, :, None, :]).flatten(2).flatten(0, 1).sqrt()
        self.kernel = torch.exp(-(distance / sigma - 1).clamp(min=0).square() / 4)

    def __call__(self, p: Tensor) -> Tensor:
        """The masks of parameters p (M, rows, columns)."""
        side = 2 * self.reach + 1
        near = F.unfold(p[:, None], side, padding=self.reach)  # (M, neighbours, cells)
        v = near[:, :, None] * self.kernel[None, :, :, None]
        m = (torch.softmax(SHARPNESS * v, 1) * v).sum(1)  # (M, pixels of a cell, cells)
        m = F.pixel_shuffle(m.unflatten(2, self.grid), self.step)
        return m[..., : self.size[0], : self.size[1]]

    @staticmethod
    def area_error(m: Tensor, areas: Tensor) -> Tensor:
        """How far the sorted pixels of each mask are from 1 for a share of them and 0 for the rest, (M,)."""
        pixels = m.flatten(1).sort(1).values
        place = torch.arange(pixels.shape[1], device=m.device) + 0.5
        ones = (place[None] >= (1 - areas[:, None]) * pixels.shape[1]).to(m)
        return (pixels - ones).square().mean(1)


@dataclass
class Contrast(DerivedTarget):
    """A target that is an index, minus the largest of the other outputs."""

    def select(self, output: Any, rows: Tensor) -> Tensor:
        """Scores (M,)."""
        scores, out = self.target.select(output, rows), find_logits(output)
        index = self.target.index
        if index is None or out.dim() != 2 or out.shape[1] < 2:
            raise ValueError("contrastive: needs a class as the target, and several classes")
        chosen = index[rows, 0] if isinstance(index, Tensor) else torch.full_like(rows, index[0])
        return scores - out.scatter(1, chosen[:, None].to(out.device), -torch.inf).amax(1)


def _blend_pyramid(levels: Tensor, m: Tensor) -> Tensor:
    """Images (M, C, H, W) between the levels (M, L, C, H, W), the first where m (M, 1, H, W) is 1, the last where it is 0."""
    at = (1 - m) * (levels.shape[1] - 1)
    weights = (1 - (at - torch.arange(levels.shape[1], device=m.device, dtype=m.dtype).view(-1, 1, 1)).abs()).clamp(
        min=0
    )
    return torch.einsum("mlchw,mlhw->mchw", levels, weights)
