"""Pictures inside prompts: what their units are, and how these lie on what a processor makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from torchwhy.samples.sample import AnyGiven, Given

PictureUnits: TypeAlias = "int | Tensor | np.ndarray | Callable[[Tensor], Tensor]"

NEAREST = 0  # how processors are told to resample without mixing neighbours
BASE = 256  # numbers of units go through a processor as the digits of a picture


class PromptPicture:
    """A picture in a prompt, and its units.

    Args:
        image: as PIL opens it; or ``(H, W)``, ``(H, W, 3)`` or ``(3, H, W)``, whole numbers to 255 or numbers from 0 to 1.
        units: k for k × k patches; a mask ``(H, W)`` of whole numbers, those of each pixel's unit, −1 for what is never one, or
            of bools, True for the only unit; or a function that makes one, from a picture ``(1, 3, H, W)`` of numbers from 0
            to 1, such as :func:`torchwhy.superpixels`.
        absent: what stands in the place of a unit that is absent: a number in the units of the processor's pixel values, where 0
            is mostly the mean colour; or another picture of the same size, such as a blurred one.

    Raises:
        TypeError, ValueError: no picture, no units, or none of the picture's size.

    >>> picture = PromptPicture(torch.zeros(3, 8, 8), units=2)
    >>> picture.units.unique().tolist(), picture.names
    ([0, 1, 2, 3], ['[0, 0]', '[0, 1]', '[1, 0]', '[1, 1]'])
    """

    def __init__(self, image: AnyGiven, units: PictureUnits = 4, absent: float | AnyGiven = 0.0) -> None:
        self.image = picture_as_bytes(image)
        self.units, self.names = _read_units(units, self.image)
        is_number = isinstance(absent, (int, float)) and not isinstance(absent, bool)
        self.absent: float | Tensor = float(absent) if is_number else picture_as_bytes(absent, "absent")
        if isinstance(self.absent, Tensor) and self.absent.shape != self.image.shape:
            raise ValueError(
                f"absent: a picture of {_size_of(self.absent)} pixels in the place of one of {_size_of(self.image)}"
            )

    def processed(self, processor: AnyGiven) -> tuple[dict[str, Tensor], Tensor, Tensor | float]:
        """Return what a processor makes of the picture: its tensors, the unit of each pixel value, and what stands for absence.

        The units go the same way as the picture does, resized, cropped and cut up, as a picture whose colours are their
        numbers.
        """
        found = _tensors(processor.image_processor(images=[_as_pil(self.image)], return_tensors="pt"))
        pixels = found["pixel_values"]
        number, units = (
            self.units + 1,
            torch.zeros(pixels.shape, dtype=torch.long),
        )  # 0 is what a processor puts around it
        digit = 1
        while bool((number > 0).any()):
            shown = (number % BASE).to(torch.uint8).expand(3, -1, -1)
            how = {"do_normalize": False, "do_rescale": False, "resample": NEAREST, "return_tensors": "pt"}
            seen = _tensors(processor.image_processor(images=[_as_pil(shown)], **how))["pixel_values"]
            if seen.shape != pixels.shape:
                raise ValueError(
                    f"pictures: {type(processor).__name__} cuts the units up in another way than the picture"
                )
            units += digit * seen.round().long()
            number, digit = number // BASE, digit * BASE
        absent = self.absent
        if isinstance(absent, Tensor):
            absent = _tensors(processor.image_processor(images=[_as_pil(absent)], return_tensors="pt"))["pixel_values"]
        return found, units - 1, absent


def _tensors(made: Mapping[str, object]) -> dict[str, Tensor]:
    return {k: v for k, v in dict(made).items() if isinstance(v, Tensor)}


def picture_as_bytes(image: Given, name: str = "image") -> Tensor:
    """Return a picture as whole numbers ``(3, H, W)`` to 255.

    Raises:
        TypeError: no picture.
        ValueError: of another shape, or of other numbers.
    """
    if hasattr(image, "convert"):
        image = np.array(image.convert("RGB"))
    if not isinstance(image, (Tensor, np.ndarray)):
        raise TypeError(f"{name}: expected a picture or an array (H, W, 3), got {type(image).__name__}")
    x = torch.as_tensor(image).detach().cpu()
    if x.dim() == 2:
        x = x.expand(3, -1, -1)
    if x.dim() == 3 and x.shape[0] != 3 and x.shape[2] == 3:
        x = x.permute(2, 0, 1)
    if x.dim() != 3 or x.shape[0] != 3:
        raise ValueError(f"{name}: shape {tuple(x.shape)}; expected (H, W), (H, W, 3) or (3, H, W)")
    if x.is_floating_point():
        if not bool(((x >= 0) & (x <= 1)).all()):
            raise ValueError(f"{name}: numbers from {float(x.min()):.3g} to {float(x.max()):.3g}; expected 0 to 1")
        x = x * 255
    elif x.dtype == torch.bool or int(x.min()) < 0 or int(x.max()) > 255:
        raise ValueError(f"{name}: {x.dtype} from {int(x.min())} to {int(x.max())}; expected 0 to 255")
    return x.round().to(torch.uint8).contiguous()


def _read_units(units: PictureUnits, image: Tensor) -> tuple[Tensor, list[str]]:
    """Return the number of the unit of each pixel ``(H, W)``, −1 for none, and the names of the units."""
    from torchwhy.perturbation.segments import patches

    if isinstance(units, int) and not isinstance(units, bool):
        found = patches(image[None], units)[0, 0]
        return found, [f"[{row}, {column}]" for row in range(units) for column in range(units)]
    made = units(image[None].float() / 255) if callable(units) else units
    if not isinstance(made, (Tensor, np.ndarray)):
        raise TypeError(f"units: expected the number of patches along a side, or a mask, got {type(made).__name__}")
    mask = torch.as_tensor(made).detach().cpu()
    while mask.dim() > 2 and len(mask) == 1:
        mask = mask[0]
    if mask.shape != image.shape[1:]:
        raise ValueError(f"units: a mask of shape {tuple(mask.shape)} for a picture of {_size_of(image)} pixels")
    if mask.is_floating_point() or mask.is_complex():
        raise TypeError(f"units: {mask.dtype}; expected whole numbers, or bools")
    mask = mask.long() - 1 if mask.dtype == torch.bool else mask.long()
    given = mask[mask >= 0].unique()
    if not len(given):
        raise ValueError("units: no pixel is of any unit")
    numbered = torch.where(mask < 0, -1, torch.searchsorted(given, mask.clamp(min=0)))
    return numbered, [f"[{int(u)}]" for u in given]


def _as_pil(image: Tensor) -> Given:
    from PIL import Image

    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def _size_of(image: Tensor) -> str:
    return " × ".join(map(str, image.shape[1:]))
