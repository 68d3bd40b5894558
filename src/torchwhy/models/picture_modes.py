"""Pictures of every mode of Pillow as 8-bit RGB: scaled where their range is known, refused where it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torchwhy.engine.run.warn import warn

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

WHITE_OF_16_BITS = 65535.0
BITS_OF_SCANS = (8, 10, 12, 14, 15)  # that are kept in 16
DEEP_MODES = ("I", "F")  # and all that begin with "I;16": what Pillow's own conversion cuts off at 255


def as_rgb(image: Image, name: str, value_range: Sequence[float] | None = None) -> Image:
    """Return a picture in RGB.

    Modes of 8 bits are converted as Pillow does it. Of 16 bits, black is 0 and white 65535. Floats in [0, 1] are taken as
    such. Of other floats, and of 32-bit integers, nothing says which value is white.

    Args:
        image: of any mode.
        name: of the argument, for the message.
        value_range: the values of black and white, for pictures of 16 or 32 bits; what lies beyond is cut off.

    Raises:
        ValueError: a mode whose white is not known, values that are not finite, or a range of nothing.
    """
    if not is_deep(image):
        if value_range is not None:
            raise ValueError(f"{name} has mode {image.mode}; value_range= is for pictures of 16 or 32 bits")
        return image.convert("RGB")
    import numpy as np
    from PIL import Image as Images

    values = np.asarray(image, dtype=np.float64)
    low, high = _range(values, image, name) if value_range is None else map(float, value_range)
    if not low < high:
        raise ValueError(f"value_range=({low:g}, {high:g}): expected black below white")
    grey = ((values - low) / (high - low) * 255).clip(0, 255).round().astype(np.uint8)
    return Images.fromarray(grey).convert("RGB")


def is_deep(image: Image) -> bool:
    """Say whether a picture has 16 or 32 bits."""
    return image.mode in DEEP_MODES or image.mode.startswith("I;16")


def span_of_16_bits(image: Image) -> tuple[float, float] | None:
    """Return the smallest and the largest value of a picture of 16 bits, None of any other."""
    if not is_deep(image) or image.mode == "F":
        return None
    import numpy as np

    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    return (low, high) if image.mode.startswith("I;16") or _is_16_bit_png(image, low, high) else None


def narrow_range(spans: Sequence[tuple[float, float]]) -> tuple[str, int] | None:
    """Return words for pictures of 16 bits that stay below half of the range, and which value may be their white.

    None where one of them reaches above half, all are black, or there are none.

    Args:
        spans: the smallest and the largest value of each.
    """
    low, high = min((s[0] for s in spans), default=0.0), max((s[1] for s in spans), default=0.0)
    if not 0 < high < WHITE_OF_16_BITS / 2:
        return None
    bits = next(bits for bits in BITS_OF_SCANS if high < 2**bits)
    words = f"16-bit pictures use only {low:g} to {high:g} of {WHITE_OF_16_BITS:g}; if they hold {bits} bits"
    return words, 2**bits - 1


def warn_of_narrow_range(image: Image) -> None:
    """Warn of a picture of 16 bits that stays below half of the range: it may be a scan of 12, and would be nearly black."""
    span = span_of_16_bits(image)
    found = None if span is None else narrow_range([span])
    if found is not None:
        words, white = found
        warn(f"{words}, read them with value_range=(0, {white})")


def _range(values: np.ndarray, image: Image, name: str) -> tuple[float, float]:
    """Return what is black and what is white in a deep picture."""
    import numpy as np

    if not np.isfinite(values).all():
        raise ValueError(f"{name}: the picture holds NaN or infinite values")
    low, high = float(values.min()), float(values.max())
    if image.mode.startswith("I;16") or _is_16_bit_png(image, low, high):
        return 0.0, WHITE_OF_16_BITS
    if image.mode == "F" and low >= 0 and high <= 1:
        return 0.0, 1.0
    what = "floats" if image.mode == "F" else "32-bit integers"
    raise ValueError(
        f"{name}: mode {image.mode}, {what} from {low:g} to {high:g}, does not say which value is black and which "
        f"is white; say it with value_range=({low:g}, {high:g}), or save it with 8 bits"
    )


def _is_16_bit_png(image: Image, low: float, high: float) -> bool:
    """Say whether integers come from a PNG, whose deepest have 16 bits; older versions of Pillow read these as 32."""
    return image.mode == "I" and image.format == "PNG" and low >= 0 and high <= WHITE_OF_16_BITS
