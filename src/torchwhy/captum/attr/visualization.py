"""Captum's pictures of attributions, drawn by torchwhy.visualize."""

from torchwhy.captum.pictures import VisualizationDataRecord
from torchwhy.captum.pictures import draw_image_attr as visualize_image_attr
from torchwhy.captum.pictures import draw_image_attr_multiple as visualize_image_attr_multiple
from torchwhy.captum.pictures import draw_text as visualize_text
from torchwhy.captum.pictures import draw_timeseries_attr as visualize_timeseries_attr

__all__ = [
    "VisualizationDataRecord",
    "visualize_image_attr",
    "visualize_image_attr_multiple",
    "visualize_text",
    "visualize_timeseries_attr",
]
