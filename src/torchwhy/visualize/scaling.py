"""Numbers before they become colours: arrays are checked, channels joined, maps scaled and resized."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    Array: TypeAlias = "ArrayLike | torch.Tensor"

PictureOption = object  # an option of a picture
AnyOption = Any  # the same, handed on to the function that draws

LUMINANCE = (0.2126, 0.7152, 0.0722)  # Rec. 709: how bright red, green and blue look
VISIBLE = 1 / 256  # of the scale: less than this is not one step of colour


def as_array(values: Array, name: str, ndim: tuple[int, ...] = (), *, missing: bool = False) -> np.ndarray:
    """Return ``values`` as a float64 array on the host; refuse what is empty, not finite or of another ``ndim``.

    With ``missing``, NaN stands for a value that is not there and may pass.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().double().numpy()
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError(f"{name} is empty: its shape is {array.shape}")
    if ndim and array.ndim not in ndim:
        wanted = " or ".join(str(n) for n in ndim)
        raise ValueError(f"{name} must have {wanted} dimensions, but its shape is {array.shape}")
    if not (np.isfinite(array) | (missing & np.isnan(array))).all():
        raise ValueError(f"{name} has {int((~np.isfinite(array)).sum())} NaN or infinite values of {array.size}")
    return array


def to_map(attribution: Array, channels: str = "sum") -> np.ndarray:
    r"""Join the channels of an attribution: one number per pixel.

    Args:
        attribution: ``(C, H, W)``, ``(1, C, H, W)``, or ``(H, W)``, which is returned as it is.
        channels: ``"sum"`` :math:`\sum_c a_{cuv}` keeps the sign and the total; ``"max"`` :math:`\max_c |a_{cuv}|` and
            ``"norm"`` :math:`(\sum_c a_{cuv}^2)^{1/2}` do not.

    Returns:
        An array ``(H, W)``, float64.

    Raises:
        ValueError: another shape, NaN or infinite values, or an unknown word for ``channels``.

    >>> to_map([[[1.0, -2.0]], [[1.0, 3.0]]])
    array([[2., 1.]])
    """
    array = as_array(attribution, "attribution")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        return array
    if array.ndim != 3:
        hint = "; give one row of it, attribution[0]" if array.ndim == 4 else ""
        raise ValueError(f"attribution must be (C, H, W) or (H, W), but its shape is {array.shape}{hint}")
    if channels == "sum":
        return array.sum(0)
    if channels == "max":
        return np.abs(array).max(0)
    if channels == "norm":
        return np.sqrt((array**2).sum(0))
    raise ValueError(f"channels must be 'sum', 'max' or 'norm', not {channels!r}")


def find_scale(values: np.ndarray, percentile: float = 99.0, signed: bool | None = None) -> tuple[float, bool]:
    """Return the size that gets the full colour, and whether the map has two signs.

    The size is the percentile of the absolute values, or their maximum where that percentile is 0 (a sparse map).
    A map has two signs if its most negative value would be seen, unless ``signed`` says so.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile must be in (0, 100], not {percentile}")
    size = np.abs(values) if signed is not False else np.maximum(values, 0)
    limit = float(np.percentile(size, percentile)) or float(size.max())
    return limit, bool(values.min() < -limit * VISIBLE) if signed is None else signed


def is_clipped(values: np.ndarray, limit: float, signed: bool) -> bool:
    """Return whether some values are beyond the end of the scale."""
    return bool(values.max() > limit or (signed and values.min() < -limit))


def to_unit(values: np.ndarray, limit: float, signed: bool) -> np.ndarray:
    """Clip to the scale and divide by it: values in [-1, 1], or in [0, 1] where not signed."""
    if limit == 0:
        return np.zeros_like(values)
    return np.clip(values, -limit if signed else 0, limit) / limit


def normalize(attribution: Array, percentile: float = 99.0, signed: bool | None = None) -> np.ndarray:
    r"""Scale a map robustly, zero staying zero: :math:`a_k / p`, clipped to [-1, 1], or to [0, 1] where not signed.

    :math:`p` is the percentile of :math:`|a|`, so that a few very large values do not hide the others;
    where it is 0 (nearly all values are), the maximum is taken. A map that is zero everywhere stays zero.
    Nothing is shifted: a constant map is 1 everywhere, and what was positive stays positive.

    Args:
        attribution: of any shape.
        percentile: of the absolute values, above 0 and at most 100.
        signed: None looks at the data: a map has two signs if its most negative value is at least one step of colour
            (1/256 of the scale). False shows positive values alone, True always both.

    Returns:
        An array of the same shape, float64. The numbers have no unit any more: two maps scaled apart cannot be compared in
        size.

    Raises:
        ValueError: NaN or infinite values, an empty array, or a percentile outside (0, 100].

    >>> normalize([0.0, 1.0, -2.0], percentile=100)
    array([ 0. ,  0.5, -1. ])
    """
    values = as_array(attribution, "attribution")
    return to_unit(values, *find_scale(values, percentile, signed))


def as_photo(image: Array) -> np.ndarray:
    """Return an image ``(3, H, W)``, ``(1, H, W)``, ``(H, W)`` or ``(1, 3, H, W)`` as ``(H, W, 3)`` in [0, 1].

    Bytes are divided by 255, values within [0, 1] stay, and any other range is stretched to it.

    Raises:
        ValueError: another shape, or NaN or infinite values.
    """
    is_bytes = getattr(image, "dtype", None) in (torch.uint8, np.dtype("uint8"))
    array = as_array(image, "image")
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or len(array) not in (1, 3):
        hint = "; .permute(2, 0, 1) would do" if array.ndim == 3 and array.shape[2] in (1, 3) else ""
        raise ValueError(f"image must be (3, H, W) or (1, H, W), but its shape is {array.shape}{hint}")
    low, high = array.min(), array.max()
    if is_bytes:
        array = array / 255
    elif low < 0 or high > 1:
        array = (array - low) / (high - low) if high > low else np.full_like(array, 0.5)
    return np.repeat(array, 3 // len(array), axis=0).transpose(1, 2, 0)


def grey(image: Array) -> np.ndarray:
    """Return the brightness ``(H, W)`` of an image, lifted to [0.2, 1] so that dark heat stands out from it."""
    return 0.2 + 0.8 * (as_photo(image) @ np.array(LUMINANCE))


def under_map(image: Array, photo: str = "grey") -> np.ndarray:
    """Return what lies under a map: the brightness ``(H, W)`` of an image, or the image ``(H, W, 3)`` in its colours.

    Raises:
        ValueError: another word than ``"grey"`` or ``"colour"``.
    """
    if photo in ("colour", "color"):
        return as_photo(image)
    if photo not in ("grey", "gray"):
        raise ValueError(f"photo must be 'grey' or 'colour', not {photo!r}")
    return grey(image)


SIGNS = ("all", "positive", "negative", "absolute")


def of_sign(values: np.ndarray, sign: str) -> np.ndarray:
    """Return the values of one sign, the others 0: ``"all"``, ``"positive"``, ``"negative"`` or ``"absolute"`` values.

    Raises:
        ValueError: another word.
    """
    if sign not in SIGNS:
        raise ValueError(f"sign must be one of {', '.join(SIGNS)}, not {sign!r}")
    if sign == "absolute":
        return np.abs(values)
    low, high = (0 if sign == "positive" else -np.inf), (0 if sign == "negative" else np.inf)
    return values.clip(low, high)


def resize_image(values: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Bring a map (h, w) to the size (H, W) of its image by bilinear interpolation."""
    if values.shape == size:
        return values
    if values.shape[0] > size[0] or values.shape[1] > size[1]:
        raise ValueError(f"attribution has {values.shape} pixels, more than its image, {size}: give the image larger")
    grid = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    resized = torch.nn.functional.interpolate(grid, size=list(size), mode="bilinear", align_corners=False)
    return resized[0, 0].numpy()
