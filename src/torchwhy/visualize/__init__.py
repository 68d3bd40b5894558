"""Pictures of attributions: pure functions over arrays.

Each takes arrays or tensors (any dtype and device, with or without a gradient) and returns a matplotlib figure, new
or that of the `ax` given; pyplot and matplotlib's settings are not touched, and matplotlib is first imported when
something is drawn. Blue is against, red is for; neither depends on seeing red apart from green.
"""

from torchwhy.visualize._scale import as_photo, grey, normalize, to_map
from torchwhy.visualize.auto import plot
from torchwhy.visualize.bars import bars, beeswarm
from torchwhy.visualize.curves import convergence, curve, path_profile
from torchwhy.visualize.export import to_html, to_png
from torchwhy.visualize.grid import grid
from torchwhy.visualize.maps import blend, heatmap, overlay, signed_map
from torchwhy.visualize.series import series
from torchwhy.visualize.text import colored_text, text

__all__ = [
    "as_photo",
    "bars",
    "beeswarm",
    "blend",
    "colored_text",
    "convergence",
    "curve",
    "grey",
    "grid",
    "heatmap",
    "normalize",
    "overlay",
    "path_profile",
    "plot",
    "series",
    "signed_map",
    "text",
    "to_html",
    "to_map",
    "to_png",
]
