"""Images as they are: generated ones, examples, dreams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torchwhy.visualize.panels import Panel, break_lines, draw_panels, share_scale
from torchwhy.visualize.scaling import as_array, as_photo

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchwhy.visualize.scaling import Array


def gallery(
    images: Array | Sequence[Array],
    titles: Sequence[str] | None = None,
    *,
    captions: Sequence[str] | None = None,
    max_columns: int = 6,
    panel: float = 1.8,
) -> Figure:
    """Draw images side by side, in their own colours.

    Args:
        images: ``(N, 3, H, W)`` or ``(N, 1, H, W)``, or a list of images; each is brought to [0, 1] by itself where it is not
            within.
        titles: N strings, above the images.
        captions: N strings, below them.
        max_columns: the most images of a line.
        panel: the width of one, in inches.

    Raises:
        ValueError: no images, other numbers of texts, or another shape.

    >>> import numpy
    >>> len(gallery(numpy.zeros((3, 3, 4, 4)), ["a", "b", "c"]).get_axes())
    3
    """
    shown = [as_photo(image) for image in images]  # type: ignore[union-attr]
    if not shown:
        raise ValueError("images: none given")
    for name, texts in (("titles", titles), ("captions", captions)):
        if texts is not None and len(texts) != len(shown):
            raise ValueError(f"{name} has {len(texts)} texts, but there are {len(shown)} images")
    above, below = list(titles or [""] * len(shown)), list(captions or [""] * len(shown))
    panels = [Panel(as_array(p, "image"), None, t, c) for p, t, c in zip(shown, above, below)]
    return draw_panels(break_lines([panels], max_columns), panel, 1.0, "", 1.0, None, colorbar=False)


def before_after_images(
    maps: Mapping[str, Array],
    images: Array,
    titles: Sequence[str],
    captions: Mapping[str, Sequence[str]] | None = None,
    panel: float = 1.6,
) -> Figure:
    """Draw images, what became of them, and the change in two colours, an image a row.

    Args:
        maps: ``"counterfactual"`` and ``"change"``, ``(N, 1 or 3, H, W)``.
        images: ``(N, 1 or 3, H, W)``, before the change.
        titles: N strings.
        captions: N strings for the counterfactuals, under the key ``"counterfactual"``; None writes nothing.
        panel: the width of one, in inches.

    Raises:
        ValueError: other maps, or another number of titles or captions than of images.
    """
    if set(maps) != {"counterfactual", "change"}:
        raise ValueError(f"maps: 'counterfactual' and 'change', expected; got {sorted(maps)}")
    before, after, change = (
        as_array(v, n, ndim=(4,))
        for v, n in ((images, "images"), *((maps[k], k) for k in ("counterfactual", "change")))
    )
    below = list((captions or {}).get("counterfactual", [""] * len(before)))
    for name, given in (("titles", titles), ("captions", below), ("counterfactual", after), ("change", change)):
        if len(given) != len(before):
            raise ValueError(f"{name}: {len(given)} given for {len(before)} images")
    low, high = min(before.min(), after.min()), max(before.max(), after.max())
    span = (high - low) or 1.0
    lines = []
    for i, title in enumerate(titles):
        photos = [
            Panel(as_photo((v[i] - low) / span), None, t) for v, t in ((before, title), (after, "counterfactual"))
        ]
        photos[1].caption = below[i]
        lines.append([*photos, Panel(change[i].sum(0), None, "change")])
    end = share_scale([line[2] for line in lines], "absolute", True, 99.0)
    return draw_panels(break_lines(lines, 6), panel, end, "change, channels summed", 0.9, None, colorbar=True)
