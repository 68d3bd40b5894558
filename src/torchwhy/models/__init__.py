"""Small real models, photos and data for the demo, the tests and the benchmarks.

Importing this loads torch and nothing heavier; torchvision, scikit-image and scikit-learn are imported when used.
"""

from typing import TYPE_CHECKING

from torchwhy.models.labels import find_label, imagenet_labels
from torchwhy.models.photos import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PHOTOS,
    Preprocess,
    photo,
    preprocess,
    read_image,
    to_image,
)
from torchwhy.models.shapes import SHAPES, TEXTURES, ShapesBatch, shapes
from torchwhy.models.small import ShapesResNet, ShapesViT, shapes_resnet, shapes_vit
from torchwhy.models.tabular import Tabular, breast_cancer, digits
from torchwhy.models.zoo import LoadedModel, load
from torchwhy.spelling import refusal_of

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PHOTOS",
    "SHAPES",
    "TEXTURES",
    "LoadedModel",
    "Preprocess",
    "ShapesBatch",
    "ShapesResNet",
    "ShapesViT",
    "Tabular",
    "breast_cancer",
    "digits",
    "find_label",
    "imagenet_labels",
    "load",
    "photo",
    "preprocess",
    "read_image",
    "shapes",
    "shapes_resnet",
    "shapes_vit",
    "to_image",
]

if not TYPE_CHECKING:  # type checkers are to find a misspelt name
    __getattr__ = refusal_of(__name__, __all__)
