"""Small real models, photos and data for the demo, the tests and the benchmarks.

Importing this loads torch and nothing heavier; torchvision, scikit-image and scikit-learn are imported when used.
"""

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
