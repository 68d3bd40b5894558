"""Photos: bundled ones, one from a file, and the way from a picture to a tensor and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchwhy.models.picture_modes import as_rgb, warn_of_narrow_range
from torchwhy.spelling import did_you_mean

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "PHOTOS", "Preprocess", "photo", "preprocess", "read_image", "to_image"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def _skimage(name: str) -> np.ndarray:
    import skimage.data

    return getattr(skimage.data, name)()


def _motorcycle() -> np.ndarray:
    import skimage.data

    left, _right, _disparity = skimage.data.stereo_motorcycle()
    return left


def _sklearn(name: str) -> np.ndarray:
    from sklearn.datasets import load_sample_image

    return load_sample_image(name)


def _matplotlib(name: str) -> Image:
    from matplotlib import cbook

    return read_image(cbook.get_sample_data(name, asfileobj=False))


_SOURCES: dict[str, Callable[[], Image | np.ndarray]] = {
    "chelsea": partial(_skimage, "chelsea"),
    "coffee": partial(_skimage, "coffee"),
    "camera": partial(_skimage, "camera"),
    "rocket": partial(_skimage, "rocket"),
    "motorcycle": _motorcycle,
    "china": partial(_sklearn, "china.jpg"),
    "flower": partial(_sklearn, "flower.jpg"),
    "hopper": partial(_matplotlib, "grace_hopper.jpg"),
}
PHOTOS = tuple(_SOURCES)


def photo(name: str) -> Image:
    """Return a photo that comes with scikit-image, scikit-learn or matplotlib, in RGB; nothing is downloaded.

    The names are in ``PHOTOS``. Chelsea is a cat, camera is grey, hopper is Grace Hopper in uniform. All but
    china and flower (CC BY 2.0, see scikit-learn) are in the public domain.

    Raises:
        ValueError: another name; the nearest are listed.

    >>> photo("chelsea").size
    (451, 300)
    """
    if name not in _SOURCES:
        raise ValueError(f"name: no photo {name!r}{did_you_mean(name, PHOTOS)}. There are: {', '.join(PHOTOS)}")
    return _as_picture(_SOURCES[name]())


def read_image(path: str | Path, value_range: Sequence[float] | None = None) -> Image:
    """Read the image file at ``path``, in RGB, turned upright as its EXIF data say.

    Pictures of 16 bits and of floats in [0, 1] are scaled to 8 bits. Without a range, 16 bits that stay below half of theirs are
    warned of: mostly they hold a scan of 12.

    Args:
        path: of the file.
        value_range: which values are black and white, for a picture of 16 or 32 bits, such as ``(0, 4095)`` of a scan with 12;
            what lies beyond is cut off. None is (0, 65535) for 16 bits, and (0, 1) for floats.

    Raises:
        FileNotFoundError: no such file; the nearest names of its folder, and of the photos that :func:`photo` gives, are
            listed.
        ValueError: no readable image, or one that does not say which value is white.
    """
    image = open_image(path)
    if value_range is None:
        warn_of_narrow_range(image)
    return as_rgb(image, f"path: '{path}'", value_range)


def open_image(path: str | Path) -> Image:
    """Return the image in a file as it is kept, of any mode, turned upright.

    Raises:
        FileNotFoundError, ValueError: as :func:`read_image`.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = Path(path)
    if not path.is_file():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise FileNotFoundError(f"path: no image file at '{path}'{did_you_mean(path.name, [*beside, *PHOTOS])}")
    try:
        with Image.open(path) as image:
            image.load()
            kind, upright = image.format, ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow raises SyntaxError on a broken PNG
        raise ValueError(f"path: '{path}' cannot be read as an image ({error})") from error
    upright.format = kind  # a turned copy has none
    return upright


def preprocess(
    image: Image | np.ndarray,
    size: int = 224,
    mean: float | Sequence[float] = IMAGENET_MEAN,
    std: float | Sequence[float] = IMAGENET_STD,
    *,
    resize: int | None = None,
    interpolation: str = "bicubic",
    channels: int = 3,
) -> Tensor:
    r"""Turn a picture into a network's input: resized, cut to the centre square, scaled to [0, 1], standardized.

    .. math:: x_{chw} = (p_{chw} / 255 - \text{mean}_c) / \text{std}_c

    Pixel for pixel as torchvision's Resize and CenterCrop do it.

    Args:
        image: a Pillow picture, or a uint8 array ``(H, W)``, ``(H, W, 3)`` or ``(H, W, 4)``.
        size: the side of the square that is kept, in pixels.
        mean: one number, or one per channel, of values in [0, 1].
        std: the same.
        resize: to how many pixels the short side is brought first; None is 8/7 of ``size``: 256 for 224.
        interpolation: ``"nearest"``, ``"bilinear"``, ``"bicubic"`` or ``"lanczos"``.
        channels: 3, or 1 for a network of grey pictures: the luma of ITU-R 601-2. Means and standard deviations of three
            channels are averaged then.

    Returns:
        A float32 tensor ``(1, channels, size, size)``.

    Raises:
        ValueError: an array of another shape or type, a ``resize`` below ``size``, or another number of channels.

    >>> preprocess(photo("coffee")).shape
    torch.Size([1, 3, 224, 224])
    """
    import numpy as np
    from PIL import Image

    if channels not in (1, 3):
        raise ValueError(f"channels: {channels!r}; pictures have 3, or 1 if grey")
    picture = _as_picture(image).convert("RGB" if channels == 3 else "L")
    short = round(size * 8 / 7) if resize is None else resize
    if short < size:
        raise ValueError(f"resize: the short side, {short} pixels, has no square of size={size} in it")
    width, height = (int(short * side / min(picture.size)) for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    picture = picture.resize((width, height), Image.Resampling[interpolation.upper()])
    pixels = np.array(picture.crop((left, top, left + size, top + size))).reshape(size, size, channels)
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(torch.float32) / 255
    return (x - _per_channel(mean, x)) / _per_channel(std, x)


def to_image(
    x: Tensor, mean: float | Sequence[float] = IMAGENET_MEAN, std: float | Sequence[float] = IMAGENET_STD
) -> np.ndarray:
    """Undo :func:`preprocess`, for showing: values are put back to 0..255, rounded, and cut off there.

    Args:
        x: ``(3, H, W)`` or ``(1, 3, H, W)``, or of one channel, on any device.
        mean: as of :func:`preprocess`.
        std: as of :func:`preprocess`.

    Returns:
        A uint8 array ``(H, W, 3)``; of one channel, three that are equal.

    Raises:
        ValueError: another shape.

    >>> x = preprocess(photo("coffee"))
    >>> to_image(x).shape, bool((preprocess(to_image(x), resize=224) - x).abs().max() < 1e-5)
    ((224, 224, 3), True)
    """
    if x.dim() == 3:
        x = x[None]
    if x.dim() != 4 or x.shape[:2] not in ((1, 3), (1, 1)):
        raise ValueError(f"x: one image of shape (3, H, W) or (1, 3, H, W) is needed, got {tuple(x.shape)}")
    x = x.detach().to("cpu", torch.float32)
    x = (x * _per_channel(std, x) + _per_channel(mean, x)) * 255
    return x[0].round().clamp(0, 255).to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Preprocess:
    """Turn a picture into what a particular network wants to see: :func:`preprocess` with its settings fixed.

    >>> wanted = Preprocess(size=64, mean=0, std=1)
    >>> wanted(photo("chelsea")).shape
    torch.Size([1, 3, 64, 64])
    """

    size: int = 224
    mean: float | Sequence[float] = IMAGENET_MEAN
    std: float | Sequence[float] = IMAGENET_STD
    resize: int | None = None
    interpolation: str = "bicubic"
    channels: int = 3

    def __call__(self, image: Image | np.ndarray) -> Tensor:
        """Return the picture as a tensor ``(1, channels, size, size)``."""
        return preprocess(
            image, self.size, self.mean, self.std,
            resize=self.resize, interpolation=self.interpolation, channels=self.channels,
        )  # fmt: skip

    def to_image(self, x: Tensor) -> np.ndarray:
        """Return the tensor as a uint8 picture ``(H, W, 3)``, for showing."""
        return to_image(x, self.mean, self.std)


def _as_picture(image: Image | np.ndarray) -> Image:
    import numpy as np
    from PIL import Image

    if isinstance(image, Image.Image):
        warn_of_narrow_range(image)
        return as_rgb(image, "image")
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            "image: a Pillow picture or a uint8 array (H, W), (H, W, 3) or (H, W, 4) is needed, "
            f"got {type(image).__name__} of {array.dtype} {array.shape}"
        )
    return Image.fromarray(array).convert("RGB")


def _per_channel(value: float | Sequence[float], x: Tensor) -> Tensor:
    """Return one number for each channel of x ``(N, C, H, W)``, ``(C or 1, 1, 1)``; of three for one channel their mean."""
    values = torch.as_tensor(value, dtype=x.dtype).reshape(-1, 1, 1)
    return values.mean(0, keepdim=True) if x.shape[1] == 1 else values
