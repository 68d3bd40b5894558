"""Draw the pictures that the demo's photos cannot show: attention, counterfactuals, feature visualization, metrics.

``python docs/pictures.py``; a minute.
"""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

import torchwhy as tw
from torchwhy.models import SHAPES, digits, shapes, shapes_resnet, shapes_vit
from torchwhy.visualize import grid

PICTURES = Path(__file__).resolve().parent / "pictures"


def attention() -> None:
    """Draw the attention methods on images whose evidence is known, by the small vision transformer."""
    model, data = shapes_vit(), shapes(3, seed=1)
    kinds = (tw.RawAttention, tw.AttentionRollout, tw.AttentionFlow, tw.ALTI, tw.AttentionRelevance)
    maps = {kind.__name__: kind(model).attribute(data.images, data.labels) for kind in kinds}
    names = [SHAPES[k] for k in data.labels.tolist()]
    grid(maps, images=list(data.images), titles=names).savefig(PICTURES / "attention.png", dpi=110, bbox_inches="tight")


def counterfactuals() -> None:
    """Draw digits, the nearest images that the network takes for another, and the change between them."""
    data = digits()
    x = data.x_test[[0, 1, 2, 4]]
    was = data.model(x).argmax(1)
    found = tw.Counterfactual(data.model, bounds=(x.min(), x.max())).generate(x)
    now = data.model(found.counterfactuals).argmax(1)
    maps = {"digit": x, "counterfactual": found.counterfactuals, "change": found.counterfactuals - x}
    names = {
        "digit": [f"taken for {k}" for k in was.tolist()],
        "counterfactual": [f"taken for {k}" for k in now.tolist()],
        "change": [f"length {d:.2f}" for d in found.distance.tolist()],
    }
    figure = grid(maps, captions=names, shared_scale=False, panel=1.4)
    figure.savefig(PICTURES / "counterfactual.png", dpi=110, bbox_inches="tight")


def visualizations() -> None:
    """Make an image for each class of the small network, and a photo that is changed to excite a layer."""
    from torchvision.utils import save_image

    model = shapes_resnet()
    made = tw.FeatureVisualization(model, size=(64, 64), n_steps=200).generate(list(range(len(SHAPES)))).images
    photo = shapes(1).images
    dreamt = tw.DeepDream(model, layer="layer2").generate(photo)
    big = torch.nn.functional.interpolate(torch.cat([made, photo, dreamt]), scale_factor=2)
    save_image(big, PICTURES / "visualization.png", nrow=8)


def metrics() -> None:
    """Draw methods and metrics on images whose evidence is known."""
    example = runpy.run_path(str(PICTURES.parent.parent / "examples" / "compare.py"))
    example["table"]().plot().savefig(PICTURES / "metrics.png", dpi=110)


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for draw in (attention, counterfactuals, visualizations, metrics):
        draw()
