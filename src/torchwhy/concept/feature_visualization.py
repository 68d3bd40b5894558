"""Feature visualization: images made to excite a class, a channel or a unit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import torch
from torch import Tensor, nn

from torchwhy.analysis import Analysis
from torchwhy.concept.image_parameters import (
    Jitter,
    Parameterization,
    Transform,
    image_of,
    initial_parameters,
    total_variation,
)
from torchwhy.engine.layers.grid_layout import resize_maps
from torchwhy.engine.layers.layer import LayerLike, resolve_layer
from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import Seed, make_generator
from torchwhy.engine.run.warn import warn
from torchwhy.engine.structure import Model, Output
from torchwhy.problem import Problem
from torchwhy.settings import Bounds, Count, NotNegative, Positive, ShareBelowOne
from torchwhy.targets import Target, find_logits
from torchwhy.viewable import Table, Viewable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import PictureOption


MeanAndDeviation = tuple[Sequence[float], Sequence[Positive]]  # by channel


@dataclass(frozen=True, repr=False)
class Visualization(Viewable):
    """Images that excite their targets.

    Args:
        images: ``(targets, C, H, W)`` in [0, 1], before the model's normalization.
        scores: ``(targets,)`` of the images without random transformations; through ``transforms``.
        history: ``(steps, targets)``, the scores on the way, with them.
    """

    images: Tensor
    scores: Tensor
    history: Tensor

    def _picture(self, pictures: ModuleType, **options: PictureOption) -> Figure:
        captions = [f"score {score:.3g}" for score in self.scores.tolist()]
        return pictures.gallery(self.images, **{"captions": captions, **options})

    def _table(self) -> Table:
        lines: list[list[object]] = [[i, score] for i, score in enumerate(self.scores.tolist())]
        return ["target", "score"], lines


@dataclass
class _Excitation:
    """Scores at a layer, in the place of a problem's target: one unit of each row, or the mean of its channel."""

    target: Target
    given: None = None

    def select_rows(self, rows: Tensor) -> Any:
        return self.target.select_rows(rows)

    def select(self, output: Output, rows: Tensor) -> Tensor:
        values = find_logits(output)
        if values.dim() > 2 and len(self.target.largest) == 1:
            values = values.flatten(2).mean(2)
        return self.target.select(values, rows)


@dataclass
class _Energy:
    """The mean square of what passes a layer, in the place of a problem's target."""

    given: None = None

    def select_rows(self, rows: Tensor) -> None:
        return None

    def select(self, output: Output, rows: Tensor) -> Tensor:
        return find_logits(output).flatten(1).square().mean(1)


class FeatureVisualization(Analysis):
    r"""Images that excite a class, a channel or a unit.

    :math:`\arg\max_x \mathbb{E}_\tau f_t(\tau(x)) - \lambda R(x)`, over random small transformations :math:`\tau`, by Adam.
    What is seen is one of many such images: it shows what suffices to excite the target, not what the model needs.

    Args:
        layer: where the targets are; None is the model's output.
        size: of the images (H, W).
        channels: of the images.
        n_steps, learning_rate: of Adam.
        parameterization: ``"fourier"``, in which low frequencies move first, or ``"pixel"``.
        shift, degrees, zoom: the largest random shift (a share of the size), turn and change of size (a share).
        transforms: further ones, each images → images, differentiable; what comes out is what the model takes, also of
            another size or with further channels.
        tv_weight: of the total variation, the mean square difference of neighbouring pixels.
        l2_weight: of the mean square distance from grey.
        normalize: (mean, std) by channel, as the model was trained; None if it takes images in [0, 1].
        generator: of the start and of the transformations, both the same for all targets.

    Paper: Olah, Mordvintsev, Schubert 2017, doi:10.23915/distill.00007.
    """

    layer: LayerLike | None = None
    size: tuple[Count, Count] = (128, 128)
    channels: Count = 3
    n_steps: Count = 256
    learning_rate: Positive = 0.05
    parameterization: Parameterization = "fourier"
    shift: NotNegative = 0.04
    degrees: NotNegative = 5.0
    zoom: ShareBelowOne = 0.05
    transforms: Sequence[Transform] = ()
    tv_weight: NotNegative = 0.0
    l2_weight: NotNegative = 0.0
    normalize: MeanAndDeviation | None = None
    generator: Seed = 0

    @torch_defaults()
    def generate(self, target: int | tuple[int, ...] | Sequence[int | tuple[int, ...]]) -> Visualization:
        """Make an image for each target.

        Args:
            target: a class, or at a layer a channel (the mean of its map) or a unit (channel, row, column); a list of them
                gives an image each, made together.

        Raises:
            ValueError: no target, an index out of range.
        """
        targets = _several(target)
        if not targets:
            raise ValueError("target: an empty list; give at least one class, channel or unit")
        like = _floats(self.model)
        shape = (len(targets), self.channels, *self.size)
        generator = make_generator(self.generator)
        size = 0.01 if self.parameterization == "pixel" else 0.5
        jitter = Jitter(self.shift, self.degrees, self.zoom, generator)
        history = []
        with self._excited(like.new_zeros(shape), targets) as problem, torch.enable_grad():
            work = (
                like.float() if like.dtype in (torch.half, torch.bfloat16) else like
            )  # what is optimized, around the model
            numbers = initial_parameters(self.parameterization, shape, size, generator, work).requires_grad_()
            moved = torch.zeros(len(targets), dtype=torch.bool, device=like.device)
            optimizer = torch.optim.Adam([numbers], self.learning_rate)
            for _ in self.steps(self.n_steps):
                images = image_of(self.parameterization, numbers, self.size)
                shown = self._transformed(jitter(images))
                with self._naming_channels():
                    scores, gradients = _climb(problem, shown, like.dtype)
                moved |= gradients.flatten(1).abs().amax(1) > 0
                cost = self.tv_weight * total_variation(images) + self.l2_weight * (images - 0.5).square().flatten(
                    1
                ).mean(1)
                wrt = torch.autograd.grad([shown, cost.sum()], numbers, [-gradients, None])[0]
                numbers.grad = wrt
                optimizer.step()
                history.append(scores)
            images = image_of(self.parameterization, numbers, self.size).detach()
            scores = problem.run.all_scores([self._transformed(images).to(like.dtype)])
        if not bool(moved.all()):
            still = [targets[i] for i in (~moved).nonzero()[:, 0].tolist()]
            warn(
                f"{type(self).__name__}: no step moved the images of the targets {still[:10]}: no pixel changes their scores"
            )
        return Visualization(images.to(like.dtype), scores, torch.stack(history))

    def _transformed(self, images: Tensor) -> Tensor:
        """Return images in [0, 1] as the model takes them: normalized, and through the transforms."""
        shown = normalize_images(images, self.normalize)
        for transform in self.transforms:
            shown = transform(shown)
        return shown

    @contextmanager
    def _naming_channels(self) -> Iterator[None]:
        """Say what would do where the model does not take the images.

        Raises:
            ValueError: its first convolution takes images of other channels.
        """
        try:
            yield
        except RuntimeError as error:
            modules = self.model.modules() if isinstance(self.model, nn.Module) else ()
            first = next((m for m in modules if isinstance(m, nn.Conv2d)), None)
            if first is None or first.in_channels == self.channels or self.transforms:
                raise
            raise ValueError(
                f"channels={self.channels}: the model's first convolution takes {first.in_channels}; give "
                f"channels={first.in_channels} ({error})"
            ) from error

    @contextmanager
    def _excited(self, x: Tensor, targets: list) -> Iterator[Problem]:
        with self.problem(x, targets, gradient=True) as problem, problem.batching.without_bar():
            if self.layer is not None:
                layer = resolve_layer(self.model, self.layer)
                problem = problem.replace(neuron=layer, target=_Excitation(problem.target))  # type: ignore[arg-type]
            yield problem


class DeepDream(Analysis):
    r"""An image changed to excite all of a layer: :math:`\arg\max_x \, \mathrm{mean}(y(x)^2)`.

    By steps of one mean size, from coarse to fine.

    Args:
        layer: the layer.
        n_octaves, octave_scale: sizes of the image, each so many times the one before.
        n_steps: at each size.
        step_size: of a step, the mean absolute change of a pixel.
        shift: the largest random shift, as a share of the size.
        normalize: (mean, std) by channel; None if the model takes images in [0, 1].
        generator: of the shifts.

    Source: Mordvintsev, Olah, Tyka 2015, "Inceptionism: going deeper into neural networks".
    """

    layer: LayerLike
    n_octaves: Count = 4
    octave_scale: Annotated[float, Bounds(1)] = 1.4
    n_steps: Count = 10
    step_size: Positive = 0.01
    shift: NotNegative = 0.1
    normalize: MeanAndDeviation | None = None
    generator: Seed = 0

    @torch_defaults()
    def generate(self, images: Tensor) -> Tensor:
        """Dream on images ``(N, C, H, W)`` in [0, 1]; of the same shape.

        Raises:
            ValueError: not images in [0, 1].
        """
        if images.dim() != 4 or not images.numel() or not images.is_floating_point():
            raise ValueError(
                f"images: expected (N, C, H, W) in [0, 1], got {images.dtype} of shape {tuple(images.shape)}"
            )
        if float(images.min()) < 0 or float(images.max()) > 1:
            raise ValueError(f"images: expected values in [0, 1], got {images.min():.3g} to {images.max():.3g}")
        jitter = Jitter(self.shift, 0.0, 0.0, make_generator(self.generator))
        whole = images.float() if images.dtype in (torch.half, torch.bfloat16) else images
        dreamt = torch.zeros_like(whole)
        sizes = [
            tuple(max(1, round(s / self.octave_scale**k)) for s in images.shape[2:])
            for k in reversed(range(self.n_octaves))
        ]
        steps = iter(self.steps(self.n_octaves * self.n_steps))
        for size in sizes:
            base, dreamt = resize_maps(whole, size), resize_maps(dreamt, size)
            with (
                self.problem(base.to(images.dtype), gradient=True) as problem,
                problem.batching.without_bar(),
                torch.enable_grad(),
            ):
                problem = problem.replace(neuron=resolve_layer(self.model, self.layer), target=_Energy())
                for _ in range(self.n_steps):
                    next(steps)
                    image = (base + dreamt).clamp(0, 1).requires_grad_()
                    shown = normalize_images(jitter(image), self.normalize)
                    _, gradients = _climb(problem, shown, images.dtype)
                    (up,) = torch.autograd.grad(shown, image, gradients)
                    mean = up.abs().mean((1, 2, 3), keepdim=True)
                    dreamt = dreamt + self.step_size * up / torch.where(mean > 0, mean, torch.ones_like(mean))
        return (whole + dreamt).clamp(0, 1).detach().to(images.dtype)


def normalize_images(images: Tensor, by: MeanAndDeviation | None) -> Tensor:
    """Return images in [0, 1] as the model takes them.

    Raises:
        ValueError: not a mean and a deviation for each channel.
    """
    if by is None:
        return images
    if len(by) != 2 or any(len(v) not in (1, images.shape[1]) for v in by):
        raise ValueError(f"normalize={by!r}: expected (mean, std), each of {images.shape[1]} channels")
    mean, std = (torch.as_tensor(v, dtype=images.dtype, device=images.device).view(-1, 1, 1) for v in by)
    return (images - mean) / std


def _several(target: object) -> list[object]:
    """Return targets as a list: one, or those of a list, a range, an array or a tensor."""
    if hasattr(target, "tolist"):
        values = target.tolist()
        return values if isinstance(values, list) else [values]
    return list(target) if isinstance(target, (list, range)) else [target]


def _climb(problem: Problem, shown: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return scores ``(N,)`` and their gradients with respect to images ``(N, C, H, W)``, which the model takes in a type."""
    z = shown.detach().to(kind)
    parts = list(problem.run.batches(len(z), lambda a, b: problem.run.gradients([z[a:b]], problem.rows[a:b])))
    return torch.cat([s for s, _ in parts]), torch.cat([g[0] for _, g in parts]).to(shown.dtype)


def _floats(model: Model) -> Tensor:
    """Return a tensor of the model's type and device."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((p.detach() for p in parameters if p.is_floating_point()), torch.zeros(()))
