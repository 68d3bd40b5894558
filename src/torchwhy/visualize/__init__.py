"""Pictures of attributions: pure functions over arrays.

Each takes arrays or tensors (any dtype and device, with or without a gradient) and returns a matplotlib figure: a new one
(pyplot does not know it: nothing to close), or that of the ``ax`` given. pyplot and matplotlib's settings are not touched,
and matplotlib is first imported when something is drawn. Blue is against, red is for; neither depends on seeing red apart
from green.
"""

import warnings
from typing import TYPE_CHECKING, Any

from torchwhy.spelling import refusal_of
from torchwhy.visualize.additive import decision, force, waterfall
from torchwhy.visualize.auto import plot
from torchwhy.visualize.bars import bars, beeswarm
from torchwhy.visualize.cohort_charts import clusters, panels_of_swarms, scatter_of_cohorts
from torchwhy.visualize.curves import convergence, curve, path_profile
from torchwhy.visualize.effects import before_after, intervals, panels_of_intervals, partial_dependence
from torchwhy.visualize.export import to_html, to_png
from torchwhy.visualize.gallery import before_after_images, gallery
from torchwhy.visualize.grid import grid
from torchwhy.visualize.many_rows import cohorts, importance, row_matrix, scatter, strongest_interaction
from torchwhy.visualize.maps import blend, heatmap, overlay, signed_map
from torchwhy.visualize.matrix import matrix, spectrogram
from torchwhy.visualize.page import page
from torchwhy.visualize.report import report
from torchwhy.visualize.scaling import as_photo, grey, normalize, to_map
from torchwhy.visualize.series import series
from torchwhy.visualize.slices import slices
from torchwhy.visualize.text import colored_text, text
from torchwhy.visualize.text_table import text_table

__all__ = [
    "as_photo",
    "bars",
    "beeswarm",
    "before_after",
    "before_after_images",
    "blend",
    "clusters",
    "cohorts",
    "colored_text",
    "convergence",
    "curve",
    "decision",
    "force",
    "gallery",
    "grey",
    "grid",
    "heatmap",
    "importance",
    "intervals",
    "matrix",
    "normalize",
    "overlay",
    "page",
    "panels_of_intervals",
    "panels_of_swarms",
    "partial_dependence",
    "path_profile",
    "plot",
    "report",
    "row_matrix",
    "scatter",
    "scatter_of_cohorts",
    "series",
    "signed_map",
    "slices",
    "spectrogram",
    "strongest_interaction",
    "text",
    "text_table",
    "to_html",
    "to_map",
    "to_png",
    "waterfall",
]


def _renamed(name: str) -> Any:
    """Return what a name of version 0.1 stands for, with a warning.

    Raises:
        AttributeError: there is no such name.
    """
    if name != "photo":
        refusal_of(__name__, __all__)(name)
    warnings.warn(
        "torchwhy.visualize.photo is called as_photo now; this name goes in 0.3", DeprecationWarning, stacklevel=2
    )
    return as_photo


if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = _renamed
