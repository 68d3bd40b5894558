"""The mask of a given area that keeps the score highest, or lets it fall lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.axes import Axes, axes_of, check_one_for_each, one_for_each
from torchwhy.engine.images.filters import gaussian_blur
from torchwhy.engine.run.rows import expand_like, index_rows
from torchwhy.engine.structure import Output
from torchwhy.input_types import GivenLayer
from torchwhy.perturbation.smooth_masks import SmoothMasks, ball, blend_levels
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Count, Fraction, Positive
from torchwhy.targets import DerivedTarget, find_logits

Reward = Literal["preserve", "delete", "hybrid"]

LEVELS = 8  # of blur, between none and max_blur
RATE, MOMENTUM = 1e-3, 0.9  # of a step, for each cell
RADIUS = 12 / 224  # of the smallest mask of a picture, as a share of the shorter side
SMALLEST = 0.01  # the share of a series or a video that the smallest mask covers
LARGER = 1.3  # than the area is the disc that the ascent begins with: a mask shrinks more easily than it grows
HALVINGS = 3  # of the distance between the places of discs
GROWTH = 10.0  # of the area's weight in the course of all steps: first the mask moves to what the score asks for


class ExtremalPerturbation(Attribution[GivenLayer]):
    r"""The smooth mask of area a that preserves the score best, averaged over the areas:

    :math:`m_a = \arg\max_m\ f(m \otimes x) - \lambda\, \| \mathrm{sort}(m) - r_a \|^2`,

    :math:`r_a` being 1 for a share a of the pixels and 0 for the others; :math:`m \otimes x` blurs what is masked.
    The mask is :math:`m(u) = \mathrm{smax}_i\, p_i\, k(|u - u_i| / \sigma)`, :math:`k(z) = e^{-2 \max(0, z - 1/2)^2}`, of
    parameters p on a coarse grid, mirrored beyond the image, so that its border is no other than its middle. Gradient ascent
    with momentum begins at the best disc of 1.3 times that area, found on a grid of places a radius apart and then around the
    best of them, three times half as far, and ends at the best mask that it met. Maps are ``(N, 1, H, W)``, in [0, 1], or in the
    layout of the inputs: where a pixel is kept. They rank pixels; they are no parts of the score. The masks ``(N, areas, 1,
    H, W)``, in the same layout, and their scores ``(N, areas)`` are in the explanation's ``details``. For each row, area
    and target it takes n_steps forward and backward passes, and about 1 / (0.3 area) + 27 forward passes for the discs;
    twice as many for ``"hybrid"``.

    Of a series ``(N, C, L)`` or a video ``(N, C, T, H, W)`` the mask lies along its steps, or its frames, rows and columns, and
    so does the blur; distances are :math:`\sqrt{\sum_k (u_k - u_{ik})^2 / \sigma_k^2}`, a radius for each axis, and maps are
    ``(N, 1, L)`` and ``(N, 1, T, H, W)``. A pixel is then a step, or a place of a frame.

    The reward is divided by f(x) − f(blurred x), so that the settings do not depend on the score's scale. The paper's profile,
    :math:`e^{-\max(0, z - 1)^2 / 4}`, is 0.78 at two radii: there the smallest mask, of a single point, is larger than most
    areas, but in a corner, where half of it is beyond the image, and the ascent ends there. The paper begins with the whole
    image kept and raises :math:`\lambda`; which pixels go first is then decided where all of them are still alike. Where the best
    mask is one, both end at it, and so does TorchRay, but for its settings: its area is a share of the picture and a margin of
    :math:`\sigma` around it, no points mirror those at the border, and its weight, 300 to 4,900, is of an undivided score.

    Args:
        areas: the shares of the image to keep (to delete, for ``reward="delete"``).
        reward: ``"preserve"`` the score with the mask alone, ``"delete"`` it by hiding the mask, or ``"hybrid"``, both.
        contrastive: explain the target's output minus the largest other one.
        n_steps: of the ascent.
        max_blur: standard deviation of the strongest blur, in pixels, or one for each axis of places, as ``(4, 20, 20)`` of a
            video's frames, rows and columns; None hides by the baselines instead.
        step: pixels between the points of the grid, or a number for each axis; None is half of ``sigma`` for pictures and
            series, ``sigma`` for videos. A coarser grid does not follow the outline of an object.
        sigma: the smallest radius of what a mask keeps, in pixels, or one for each axis; None is 12 of a picture of 224, and as
            large a share of the shorter side of others; for series and videos the same share of each axis, so that the smallest
            mask has a hundredth of all places, but at least half a step.
        area_weight: :math:`\lambda` at the last step, a tenth of it at the first. At 60 an area that is a sixtieth of the picture
            too large costs as much as the whole score: where more of a photo raises the score by far, masks of 0.1 cover 0.09 to
            0.12 of it; at 240, 0.09 to 0.11.

    Raises:
        ValueError: not one tensor of pictures, series or videos, ``(N, C, ...)`` or as ``axes=`` says, such as ``"NHWC"`` or
            ``"NTF"``; settings out of range.

    Paper: Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, equations 2 to 7.
    """

    areas: Sequence[Fraction] = (0.025, 0.05, 0.1, 0.2)
    reward: Reward = "preserve"
    contrastive: bool = False
    n_steps: Count = 100
    max_blur: Positive | Sequence[Positive] | None = 20.0
    step: Count | Sequence[Count] | None = None
    sigma: Positive | Sequence[Positive] | None = None
    area_weight: Positive = 60.0

    uses_baselines: ClassVar[bool] = True
    searches: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1910.08485"

    def _attribute(self, problem: Problem) -> Result:
        x, axes = problem.x[0], self._checked_axes(problem)
        if self.contrastive:
            problem = problem.replace(target=LeadOverOthers(problem.target))
        masks = SmoothMasks(axes.size_of(x), *self._step_and_sigma(axes.size_of(x)), x)
        search = MaskSearch.begin(problem, masks, self._levels(problem, axes), axes, self.areas, self.reward)
        found, scores = search.masks_and_scores(self._ascend(search))
        found = axes.restore(found)
        found = found.view(problem.n, -1, *found.shape[1:])
        return Result((found.mean(1),), details={"masks": found, "scores": scores.view(problem.n, -1)})

    def _ascend(self, search: MaskSearch) -> Tensor:
        """Return the parameters of the least loss that the ascent meets, ``(M, *cells)``."""
        p = best = search.best_discs()
        speed, least = torch.zeros_like(p), p.new_full((len(p),), torch.inf)
        rate = RATE * math.prod(search.masks.cells)  # a cell's gradient falls with their number
        for t in range(self.n_steps):
            done = t / self.n_steps
            errors, rewards, slopes = search.look(p, self.area_weight * GROWTH ** (done - 1))
            loss = self.area_weight * errors - rewards
            better = loss < least
            best, least = torch.where(expand_like(better, p).bool(), p, best), torch.where(better, loss, least)
            speed = MOMENTUM * speed - rate * min(1.0, 4 - 4 * done) * slopes
            p = (p + speed).clamp(0, 1)
        return best

    def _checked_axes(self, problem: Problem) -> Axes:
        """Return where the pictures, series or videos have their channels and their places.

        Raises:
            ValueError: none of these.
        """
        x = problem.x[0]
        have_places = x.dim() > (1 if problem.axes else 2) and x.is_floating_point()
        axes = axes_of(problem, 0) if len(problem.x) == 1 and have_places else None
        if axes is None or len(axes.spatial) > 3:
            got = ", ".join(f"{tuple(t.shape)} of {t.dtype}" for t in problem.x)
            raise ValueError(
                f"inputs: expected one tensor of pictures (N, C, H, W), series (N, C, L) or videos (N, C, T, H, W), got {got}"
                f"{'' if axes is None else f', axes {axes.letters}'}; axes= says where channels and places are where the "
                "shape does not; of other inputs LIME and KernelSHAP say which features matter"
            )
        return axes

    def _step_and_sigma(self, size: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[float, ...]]:
        """Return the pixels between points, and the smallest radius, along each axis of places."""
        share = (SMALLEST / ball(len(size))) ** (1 / len(size))
        usual = [max(0.5, RADIUS * min(size) if len(size) == 2 else share * n) for n in size]
        sigma = one_for_each("sigma", usual if self.sigma is None else self.sigma, size)
        apart = [max(1, round(s / 2) if len(size) < 3 else math.ceil(s)) for s in sigma]
        return one_for_each("step", apart if self.step is None else self.step, size), sigma

    def _levels(self, problem: Problem, axes: Axes) -> Tensor:
        """Return each image from sharp to wholly hidden, ``(N, levels, C, *size)``."""
        x = axes.channels_first(problem.x[0])
        if self.max_blur is None:
            hidden = axes.channels_first(index_rows(problem.baselines[0].mean(0), problem.rows))
            return torch.stack([x, hidden.expand_as(x)], 1)
        widest = torch.tensor(one_for_each("max_blur", self.max_blur, axes.size_of(problem.x[0])), dtype=torch.double)
        shares = torch.linspace(0, 1, LEVELS, dtype=torch.double)
        return torch.stack([gaussian_blur(x, (w * widest).expand(len(x), -1).to(x)) for w in shares], 1)

    def _check_settings(self) -> None:
        super()._check_settings()
        if not len(self.areas):
            raise ValueError(f"areas={self.areas!r}: expected shares between 0 and 1")
        for name in ("max_blur", "step", "sigma"):
            check_one_for_each(name, getattr(self, name))


@dataclass
class MaskSearch:
    r"""The search for a mask for each row and area with the least loss,
    :math:`\lambda\, \| \mathrm{sort}(m) - r_a \|^2 \mp f(m \otimes x) / s`.

    Args:
        problem: of one tensor of images, series or videos.
        axes: of this tensor.
        masks: parameters ``(M, *cells)`` → masks ``(M, 1, *size)``.
        levels: each image from sharp to hidden, ``(N, L, C, *size)``.
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
        last = axes.restore(levels[:, -1]).clone()  # the model may write to what it is given
        sharp, hidden = problem.run.all_scores((x,)), problem.run.all_scores((last,))
        scale = (sharp - hidden).abs().clamp(min=1e-6 * float(sharp.abs().max()) + 1e-30)
        each = torch.tensor(tuple(areas), dtype=x.dtype, device=x.device).repeat(problem.n)
        return cls(problem, axes, masks, levels, reward, problem.rows.repeat_interleave(len(areas)), each, scale)

    def best_discs(self) -> Tensor:
        """Return for each mask the parameters ``(M, *cells)`` of the disc with the highest reward.

        From the best of a grid of places, a radius apart, it goes on to the best around it, half as far apart each time.
        """
        n, found = self.problem.n, []
        for area in self.areas[: len(self.areas) // n].tolist():
            radius, apart = self.masks.radius(min(LARGER * area, (1 + area) / 2)), self.masks.ideal_radius(area)
            places = self.masks.places(area).expand(n, -1, -1)
            around = _steps_around(places)
            middle = self._best_place(places, radius)
            for _ in range(HALVINGS):
                apart /= 2
                middle = self._best_place(middle[:, None] + apart * around, radius)
            found.append(self.masks.within(middle, radius))
        return torch.stack(found, 1).flatten(0, 1)

    def _best_place(self, places: Tensor, radius: float) -> Tensor:
        """Return which of K places ``(N, K, axes)`` is the middle of the disc with the highest reward, ``(N, axes)``."""
        n, count, axes = places.shape
        flat = places.reshape(-1, axes)

        def work(start: int, stop: int) -> Tensor:
            rows = torch.arange(start, stop, device=flat.device) // count
            m = self.masks(self.masks.within(flat[start:stop], radius))
            parts = [
                sign * self.problem.run.scores((self._mixed(rows, kept),), rows) for sign, kept in self._rewards(m)
            ]
            return torch.stack(parts).sum(0)

        best = self.problem.run.concatenated(n * count, work).view(n, count).argmax(1)
        return places[torch.arange(n, device=flat.device), best]

    def look(self, p: Tensor, weight: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return the errors of the areas ``(M,)`` of parameters p ``(M, *cells)``, the rewards ``(M,)``, and slopes as p.

        The slopes are the gradients of the loss, in which the error of the area counts ``weight``.
        """

        def work(start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
            rows = self.rows[start:stop]
            with torch.inference_mode(False), torch.enable_grad():
                q = p[start:stop].detach().requires_grad_()
                m = self.masks(q)
                errors = self.masks.area_error(m, self.areas[start:stop])
                loss, rewards = weight * errors.sum(), torch.zeros_like(errors.detach())
                for sign, kept in self._rewards(m):
                    z = self._mixed(rows, kept)
                    scores, slopes = self.problem.run.gradients((z.detach(),), rows)
                    rewards = rewards + sign * scores / self.scale[rows]
                    loss = loss - sign * (z * slopes[0] / expand_like(self.scale[rows], z)).sum()
                return errors.detach(), rewards.to(errors), torch.autograd.grad(loss, q)[0]

        return self.problem.run.concatenated(len(self.rows), work)

    def masks_and_scores(self, p: Tensor) -> tuple[Tensor, Tensor]:
        """Return the masks ``(M, 1, *size)`` of parameters, and the scores ``(M,)`` with them, or without for ``"delete"``."""

        def work(start: int, stop: int) -> tuple[Tensor, Tensor]:
            m, rows = self.masks(p[start:stop]), self.rows[start:stop]
            kept = 1 - m if self.reward == "delete" else m
            return m, self.problem.run.scores((self._mixed(rows, kept),), rows)

        return self.problem.run.concatenated(len(self.rows), work)

    def _mixed(self, rows: Tensor, kept: Tensor) -> Tensor:
        """Return pictures of rows ``(M,)`` in the layout of the inputs, sharp where ``kept`` ``(M, 1, *size)`` is 1."""
        return self.axes.restore(blend_levels(self.levels[rows], kept))

    def _rewards(self, m: Tensor) -> list[tuple[float, Tensor]]:
        """Return what is kept, and 1 where the score there is to be high, −1 where it is to be low."""
        high, low = (1.0, m), (-1.0, 1 - m)
        return {"preserve": [high], "delete": [low], "hybrid": [high, low]}[self.reward]


def _steps_around(places: Tensor) -> Tensor:
    """Return steps of −1, 0 or 1 along each axis of places ``(..., axes)``, none at all first: ``(3 ** axes, axes)``."""
    line = torch.tensor([0.0, -1.0, 1.0], dtype=places.dtype, device=places.device)
    return torch.cartesian_prod(*[line] * places.shape[-1]).view(-1, places.shape[-1])


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
