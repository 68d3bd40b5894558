"""The mask of a given area that keeps the score highest, or lets it fall lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.axes import Axes, axes_of
from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.rows import expand_like, index_rows
from torchwhy.engine.structure import Output
from torchwhy.perturbation.smooth_masks import SmoothMasks, blend_levels
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Positive
from torchwhy.targets import DerivedTarget, find_logits

Reward = Literal["preserve", "delete", "hybrid"]

LEVELS = 8  # of blur, between none and max_blur
FIRST_LEVEL = {"preserve": 1.0, "delete": 0.2, "hybrid": 1.0}  # near the sharp image, where the score still has a slope
RATE, MOMENTUM = 1e-4, 0.9  # of a step, for each cell
GROWTH = 500.0  # of the area's weight in the course of all steps


class ExtremalPerturbation(Attribution):
    r"""The smooth mask of area a that preserves the score best, averaged over the areas:

    :math:`m_a = \arg\max_m\ f(m \otimes x) - \lambda\, \| \mathrm{sort}(m) - r_a \|^2`,

    :math:`r_a` being 1 for a share a of the pixels and 0 for the others; :math:`m \otimes x` blurs what is masked.
    The mask is :math:`m(u) = \mathrm{smax}_i\, p_i\, k(|u - u_i| / \sigma)`, :math:`k(z) = e^{-\max(0, z - 1)^2 / 4}`, of
    parameters p on a coarse grid, mirrored beyond the image, so that its border is no other than its middle, found by gradient
    ascent with momentum. Maps are ``(N, 1, H, W)``, in [0, 1], or in the layout of the inputs: where a pixel is kept. They
    rank pixels; they are no parts of the score. The masks ``(N, areas, 1, H, W)``, in the same layout, and their scores
    ``(N, areas)`` are in the explanation's ``details``. Takes n_steps forward and backward passes for each row, area and
    target, twice as many for ``"hybrid"``.

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
        ValueError: not one tensor of pictures, ``(N, C, H, W)`` or as ``axes=`` says, such as ``"NHWC"``; settings out of range.

    Paper: Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, equations 2 to 7.
    """

    areas: Sequence[float] = (0.025, 0.05, 0.1, 0.2)
    reward: Reward = "preserve"
    contrastive: bool = False
    n_steps: Count = 400
    max_blur: Positive | None = 20.0
    step: Count = 7
    sigma: Positive = 21.0
    area_weight: Positive = 1.0

    uses_baselines: ClassVar[bool] = True
    searches: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1910.08485"

    def _attribute(self, problem: Problem) -> Result:
        x, axes = problem.x[0], self._checked_axes(problem)
        if self.contrastive:
            problem = problem.replace(target=LeadOverOthers(problem.target))
        masks = SmoothMasks(axes.size_of(x), self.step, self.sigma, x)
        search = MaskSearch.begin(problem, masks, self._levels(problem, axes), axes, self.areas, self.reward)
        p = x.new_full((len(search.rows), *masks.cells), FIRST_LEVEL[self.reward])
        speed, rate = torch.zeros_like(p), RATE * math.prod(masks.cells)  # a cell's gradient falls with their number
        for t in range(self.n_steps):
            weight = self.area_weight * GROWTH ** (t / self.n_steps)
            speed = MOMENTUM * speed - rate * search.loss_gradients(p, weight)
            p = (p + speed).clamp(0, 1)
        found, scores = search.masks_and_scores(p)
        found = axes.restore(found)
        found = found.view(problem.n, -1, *found.shape[1:])
        return Result((found.mean(1),), details={"masks": found, "scores": scores.view(problem.n, -1)})

    def _checked_axes(self, problem: Problem) -> Axes:
        """Return where the pictures have their channels and their pixels.

        Raises:
            ValueError: no pictures.
        """
        x = problem.x[0]
        axes = axes_of(problem, 0) if len(problem.x) == 1 and x.dim() > 1 and x.is_floating_point() else None
        if axes is None or len(axes.spatial) != 2:
            got = ", ".join(str(tuple(t.shape)) for t in problem.x) + ("" if axes is None else f", axes {axes.letters}")
            raise ValueError(
                f"inputs: expected one tensor of pictures (N, C, H, W), got {got}; axes= says where channels and pixels "
                "are where the shape does not; of series and videos RISE and Occlusion make maps"
            )
        return axes

    def _levels(self, problem: Problem, axes: Axes) -> Tensor:
        """Return each image from sharp to wholly hidden, ``(N, levels, C, H, W)``."""
        x = axes.channels_first(problem.x[0])
        if self.max_blur is None:
            hidden = axes.channels_first(index_rows(problem.baselines[0].mean(0), problem.rows))
            return torch.stack([x, hidden.expand_as(x)], 1)
        widths = torch.linspace(0, self.max_blur, LEVELS, dtype=torch.double).tolist()
        return torch.stack([gaussian_blur(x, x.new_full((len(x),), w)) for w in widths], 1)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not self.areas or not all(0 < a < 1 for a in self.areas):
            raise ValueError(f"areas={self.areas!r}: expected shares between 0 and 1")


@dataclass
class MaskSearch:
    r"""The search for a mask for each row and area with the least loss,
    :math:`\lambda\, \| \mathrm{sort}(m) - r_a \|^2 \mp f(m \otimes x) / s`.

    Args:
        problem: of one tensor of images.
        axes: of this tensor.
        masks: parameters ``(M, rows, columns)`` → masks ``(M, 1, H, W)``.
        levels: each image from sharp to hidden, ``(N, L, C, H, W)``.
        reward: whether the score is to be high with the mask, low without it, or both.
        rows, areas: ``(M,)``, the row and the area of each mask, the areas of one row together.
        scale: ``(N,)``, the score's change s from sharp to hidden.
    """

    problem: Problem
    axes: Axes
    masks: SmoothMasks
    levels: Tensor
    reward: Reward
    rows: Tensor
    areas: Tensor
    scale: Tensor

    @classmethod
    def begin(
        cls, problem: Problem, masks: SmoothMasks, levels: Tensor, axes: Axes, areas: Sequence[float], reward: Reward
    ) -> MaskSearch:
        """Return the search for masks of each of some areas for each row."""
        x = problem.x[0]
        sharp, hidden = problem.run.all_scores((x,)), problem.run.all_scores((axes.restore(levels[:, -1]),))
        scale = (sharp - hidden).abs().clamp(min=1e-6 * float(sharp.abs().max()) + 1e-30)
        each = torch.tensor(tuple(areas), dtype=x.dtype, device=x.device).repeat(problem.n)
        return cls(problem, axes, masks, levels, reward, problem.rows.repeat_interleave(len(areas)), each, scale)

    def loss_gradients(self, p: Tensor, weight: float) -> Tensor:
        """Return the gradients of the loss by the parameters p ``(M, rows, columns)``; the area's error counts ``weight``."""

        def work(start: int, stop: int) -> Tensor:
            rows = self.rows[start:stop]
            with torch.inference_mode(False), torch.enable_grad():
                q = p[start:stop].detach().requires_grad_()
                m = self.masks(q)
                loss = weight * self.masks.area_error(m, self.areas[start:stop]).sum()
                for sign, kept in self._rewards(m):
                    z = self.axes.restore(blend_levels(self.levels[rows], kept))
                    slopes = self.problem.run.gradients((z.detach(),), rows)[1][0]
                    loss = loss - sign * (z * slopes / expand_like(self.scale[rows], z)).sum()
                return torch.autograd.grad(loss, q)[0]

        return self.problem.run.concatenated(len(self.rows), work)

    def masks_and_scores(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks ``(M, 1, H, W)`` of parameters, and the scores ``(M,)`` with them, or without for ``"delete"``."""

        def work(start: int, stop: int) -> tuple[Tensor, Tensor]:
            m, rows = self.masks(p[start:stop]), self.rows[start:stop]
            kept = 1 - m if self.reward == "delete" else m
            return m, self.problem.run.scores((self.axes.restore(blend_levels(self.levels[rows], kept)),), rows)

        return self.problem.run.concatenated(len(self.rows), work)

    def _rewards(self, m: Tensor) -> list[tuple[float, Tensor]]:
        """Return what is kept, and 1 where the score there is to be high, −1 where it is to be low."""
        high, low = (1.0, m), (-1.0, 1 - m)
        return {"preserve": [high], "delete": [low], "hybrid": [high, low]}[self.reward]


@dataclass
class LeadOverOthers(DerivedTarget):
    """A target that is an index, minus the largest of the other outputs."""

    def select(self, output: Output, rows: Tensor) -> Tensor:
        """Return scores ``(M,)``."""
        scores, out = self.target.select(output, rows), find_logits(output)
        index = self.target.index
        if index is None or out.dim() != 2 or out.shape[1] < 2:
            raise ValueError("contrastive: needs a class as the target, and several classes")
        chosen = index[rows, 0] if isinstance(index, Tensor) else torch.full_like(rows, index[0])
        return scores - out.scatter(1, chosen[:, None].to(out.device), -torch.inf).amax(1)
