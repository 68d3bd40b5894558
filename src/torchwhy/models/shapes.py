"""Shapes on photos: images whose label depends on one painted object, with the exact pixels of that object.

An explanation of a network that has learnt the label should lie on the target object, and not on the distractor or
the photo behind them: data on which attribution methods can be told apart by more than taste. (The idea is that of
BAM, arXiv:1907.09701, and CLEVR-XAI, arXiv:2003.07258: build the image, so that what matters in it is known.)
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from torchwhy.engine.run.defaults import torch_defaults
from torchwhy.engine.run.randomness import draw_uniform

__all__ = ["SHAPES", "TEXTURES", "ShapesBatch", "shapes"]

SHAPES = ("disc", "square", "triangle", "star", "cross", "ring")
TEXTURES = ("plain", "striped", "dotted", "checked")
_CHUNK = 256  # images rendered together: bounds the memory, never changes a pixel


class ShapesBatch(NamedTuple):
    """Images, labels and where in each image the evidence is.

    Attributes:
        images: ``(N, 3, S, S)`` float32 in [0, 1].
        labels: ``(N,)`` int64, an index into ``SHAPES`` or ``TEXTURES``.
        mask: ``(N, 1, S, S)`` bool: the pixels of the target object, which alone decides the label.
        distractor: ``(N, 1, S, S)`` bool: the other pixels, of an ellipse that says nothing about the label.
        shape, texture: ``(N,)`` int64: both attributes of the target object, whichever is the label.
    """

    images: Tensor
    labels: Tensor
    mask: Tensor
    distractor: Tensor
    shape: Tensor
    texture: Tensor


@torch_defaults()
def shapes(n: int, size: int = 64, seed: int = 0, label: str = "shape", without: str | None = None) -> ShapesBatch:
    r"""Draw random shapes on photos, with the pixels of the target and of the distractor.

    A random crop of a bundled photo is the background. On it lie an ellipse (the distractor) and, away from it, the
    target object: one of six shapes with one of four textures, its colours, size, angle and place independent of both.
    An object is blended in, :math:`x = (1 - \alpha) x + \alpha c`, with :math:`\alpha` falling from 1 to 0 over one
    pixel at its edge; its mask is :math:`\alpha > 0`, so it holds every pixel that the object changed, and no other.
    The target covers 7 % of the pixels, the distractor 5 %, on average. torch's global random state is neither read nor
    changed.

    Args:
        n: the number of images.
        size: the side of an image, 16 to 150 pixels.
        seed: the same seed gives the same images, and ``shapes(8)`` the first 8 of ``shapes(100)``.
        label: ``"shape"`` or ``"texture"``.
        without: ``"target"`` or ``"distractor"`` leaves that object out of the *same* scenes (the masks and labels still
            speak of it): the ideal baseline, and the proof of the mask.

    Raises:
        ValueError: ``n`` below 1, another ``size``, an unknown ``label`` or ``without``.

    >>> batch = shapes(4, seed=1)
    >>> batch.images.shape, batch.mask.shape, [SHAPES[k] for k in batch.labels]
    (torch.Size([4, 3, 64, 64]), torch.Size([4, 1, 64, 64]), [...])
    """
    if n < 1:
        raise ValueError(f"n: at least one image is needed, got {n}")
    if not 16 <= size <= 150:
        raise ValueError(f"size: 16 to 150 pixels, got {size}")
    if label not in ("shape", "texture"):
        raise ValueError(f"label: 'shape' or 'texture', got {label!r}")
    if without not in (None, "target", "distractor"):
        raise ValueError(f"without: None, 'target' or 'distractor', got {without!r}")
    # One row of random numbers per image, all drawn here: what an image shows does not depend on the others.
    draws = draw_uniform(n, _Scene.draws, generator=torch.Generator().manual_seed(seed))
    parts = [_render(_Scene(rows), size, label, without) for rows in draws.split(_CHUNK)]
    return ShapesBatch(*(torch.cat(field) for field in zip(*parts)))


class _Scene:
    """What is to be seen in each image, from uniform random numbers (N, draws); lengths in units of the image side."""

    draws = 22

    def __init__(self, u: Tensor):
        columns = iter(u.unbind(1))

        def uniform(low: float, high: float, *more: int) -> Tensor:
            count = math.prod(more)
            drawn = torch.stack([next(columns) for _ in range(count)], 1).view(-1, *(more or (1,)), 1, 1)
            return low + (high - low) * drawn

        def choice(k: int) -> Tensor:
            return (next(columns) * k).long()

        self.photo, self.top, self.left = choice(len(_backgrounds())), next(columns), next(columns)
        self.brightness = uniform(0.6, 1.1)
        self.shape, self.texture = choice(len(SHAPES)), choice(len(TEXTURES))
        self.x, self.y = uniform(0.22, 0.78), uniform(0.22, 0.78)
        self.radius, self.angle = uniform(9 / 64, 14 / 64), uniform(0, 2 * math.pi)
        self.frequency, self.phase = uniform(0.9 * 64, 1.3 * 64), uniform(0, 2 * math.pi)
        # A strong colour (one channel nearly off), and for the texture a dark one of what the first has least of.
        off = torch.nn.functional.one_hot(choice(3), 3)[..., None, None]
        self.colour = torch.where(off == 1, 0.05, uniform(0.25, 1, 3))
        self.second = uniform(0, 0.9) * (1 - self.colour.round())
        # The distractor lies half an image away from the target, going round at the borders: they hardly ever touch.
        away = uniform(0, 2 * math.pi)
        self.other_x = (self.x + 0.5 * torch.cos(away)) % 1
        self.other_y = (self.y + 0.5 * torch.sin(away)) % 1
        self.other_angle, self.other_colour = uniform(0, math.pi), uniform(0, 1, 3)


def _render(scene: _Scene, size: int, label: str, without: str | None) -> tuple[Tensor, ...]:
    """Return the fields of a :class:`ShapesBatch`."""
    images = _crops(scene, size)
    u, v = _rotated(scene.other_x, scene.other_y, scene.other_angle, size)
    radius = scene.radius * size
    ellipse = ((u / 1.9) ** 2 + (v * 1.1) ** 2).sqrt() - 0.55 * radius
    distractor = (0.5 - ellipse).clamp(0, 1)
    if without != "distractor":
        images = images + distractor * (scene.other_colour - images)

    u, v = _rotated(scene.x, scene.y, scene.angle, size)
    target = (0.5 - _pick_kind(_distances(u, v, radius), scene.shape)).clamp(0, 1)
    if without != "target":
        texture = _pick_kind(_textures(u, v, scene.frequency / size, scene.phase), scene.texture)
        images = images + target * (torch.where(texture, scene.second, scene.colour) - images)
    mask = target > 0
    labels = scene.shape if label == "shape" else scene.texture
    return images, labels, mask, (distractor > 0) & ~mask, scene.shape, scene.texture


def _distances(u: Tensor, v: Tensor, r: Tensor) -> list[Tensor]:
    """Return how far outside (positive) or inside each of ``SHAPES``, of radius r, the point (u, v) lies, in pixels."""
    d, angle = torch.hypot(u, v), torch.atan2(v, u)
    sector = 2 * math.pi / 3
    bars = [torch.maximum(a.abs() - 0.95 * r, b.abs() - 0.32 * r) for a, b in ((u, v), (v, u))]
    return [
        d - 0.9 * r,
        torch.maximum(u.abs(), v.abs()) - 0.8 * r,
        d * torch.cos(angle % sector - sector / 2) - r * math.cos(sector / 2),
        d - r * (0.62 + 0.38 * torch.cos(5 * angle)),
        torch.minimum(*bars),
        (d - 0.72 * r).abs() - 0.22 * r,
    ]


def _textures(u: Tensor, v: Tensor, frequency: Tensor, phase: Tensor) -> list[Tensor]:
    """Return where each of ``TEXTURES`` has the second colour."""
    along, across = torch.sin(frequency * u + phase), torch.sin(frequency * v)
    return [torch.zeros_like(along, dtype=torch.bool), along > 0, along * across > 0.3, (along > 0) ^ (across > 0)]


def _pick_kind(kinds: list[Tensor], index: Tensor) -> Tensor:
    """Return row n of ``kinds[index[n]]``."""
    return torch.stack(kinds)[index, torch.arange(len(index))]


def _rotated(x: Tensor, y: Tensor, angle: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return pixel coordinates ``(N, 1, S, S)`` seen from an object at (x, y), turned by ``angle``."""
    pixels = torch.arange(size, dtype=torch.float32)
    dy, dx = pixels[:, None] - y * size, pixels - x * size
    cos, sin = torch.cos(angle), torch.sin(angle)
    return dx * cos + dy * sin, dy * cos - dx * sin


def _crops(scene: _Scene, size: int) -> Tensor:
    crops = []
    for k, top, left in zip(scene.photo.tolist(), scene.top.tolist(), scene.left.tolist()):
        photo = _backgrounds()[k]
        y, x = (int(u * (side - size + 1)) for u, side in zip((top, left), photo.shape[1:]))
        crops.append(photo[:, y : y + size, x : x + size])
    return (torch.stack(crops) * scene.brightness).clamp(0, 1)


@lru_cache(maxsize=1)
def _backgrounds() -> tuple[Tensor, ...]:
    """Return photos and textures ``(3, H, W)`` in [0, 1], at half their size, so that a small crop holds more than a blur."""
    import numpy as np
    import skimage.data
    from sklearn.datasets import load_sample_image

    pictures = [getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket")]
    pictures += [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    pictures += [np.stack([getattr(skimage.data, name)()] * 3, -1) for name in ("grass", "gravel", "brick")]
    halved = [torch.tensor(p).permute(2, 0, 1)[None].to(torch.float32) / 255 for p in pictures]
    return tuple(torch.nn.functional.avg_pool2d(p, 2)[0] for p in halved)
