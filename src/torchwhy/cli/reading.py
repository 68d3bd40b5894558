"""Reading pictures as the command line names them: their range, and what is said where 16 bits are hardly used."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureReader:
    """Reads pictures by name; ``--range`` is for those of 16 or 32 bits, and leaves the others as they are.

    Args:
        names: of files and bundled photos.
        value_range: what ``--range`` says, if anything.

    Raises:
        ValueError: black is not below white, or files are read and none of them is deep.
    """

    def __init__(self, names: Iterable[str], value_range: Sequence[float] | None) -> None:
        self.value_range = value_range
        self.spans: list[tuple[float, float]] = []  # of the 16-bit pictures read without a range
        self.told = False
        if value_range is None:
            return
        low, high = value_range
        if not low < high:
            raise ValueError(f"--range {low:g} {high:g}: expected black below white")
        files = [name for name in names if Path(name).is_file()]
        if files and not any(map(_may_be_deep, files)):
            raise ValueError(
                "--range: is for pictures of 16 or 32 bits, and none of these has more than 8; leave it out"
            )

    def __call__(self, name: str) -> Image:
        """Return a bundled photo, or the picture in a file, in RGB.

        Raises:
            ValueError, OSError: it cannot be read.
        """
        from torchwhy.models import PHOTOS, photo
        from torchwhy.models.photos import open_image
        from torchwhy.models.picture_modes import as_rgb, is_deep, span_of_16_bits

        if name in PHOTOS and not Path(name).is_file():
            return photo(name)
        image = open_image(name)
        if self.value_range is None and (span := span_of_16_bits(image)) is not None:
            self.spans.append(span)
        try:
            return as_rgb(image, f"'{name}'", self.value_range if is_deep(image) else None)
        except ValueError as error:
            raise ValueError(re.sub(r"value_range=\((\S+), (\S+)\)", r"--range \1 \2", str(error))) from error

    def read_all(self, names: Iterable[str]) -> list[Image]:
        """Return pictures, and say where their 16 bits are hardly used.

        Raises:
            ValueError, OSError: one cannot be read.
        """
        pictures = [self(name) for name in names]
        self.tell()
        return pictures

    def tell(self) -> None:
        """Say, once, where the 16-bit pictures that were read use less than half of their range."""
        from torchwhy.models.picture_modes import narrow_range

        found = None if self.told else narrow_range(self.spans)
        self.told = True
        if found is not None:
            words, white = found
            print(f"torchwhy: {words}, give --range 0 {white}", file=sys.stderr)


def _may_be_deep(file: str) -> bool:
    """Say whether a file's picture is deep, as far as its head can be read."""
    from PIL import Image

    from torchwhy.models.picture_modes import is_deep

    with suppress(OSError, SyntaxError), Image.open(file) as image:
        return is_deep(image)
    return False
