"""Where does a segmentation network look when it calls a region an object? Grad-CAM with a callable target.

A target may be any function of the model's whole output that gives one number a row: here the mean score of a class over
the pixels that the network gives to it. The same works for Score-CAM, HiResCAM, integrated gradients and all others.

    python examples/segmentation_cam.py [--out segmentation_cam.png]
"""

from __future__ import annotations

import argparse

import torch
from torchvision.models.segmentation import fcn_resnet50

import torchwhy as tw
from torchwhy.models import shapes

CLASS = 8  # of 21; the weights here are random, so no class has a meaning


def region_score(output: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean score of CLASS over the pixels where it scores above its mean, one number a row."""
    scores = output["out"][:, CLASS]  # (N, H, W)
    inside = (scores > scores.mean((1, 2), keepdim=True)).detach().to(scores)
    return (scores * inside).sum((1, 2)) / inside.sum((1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="segmentation_cam.png")
    out = parser.parse_args().out

    torch.manual_seed(0)
    model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21).eval()
    x = shapes(2, size=96, seed=0).images

    # layer="auto" is for one answer a row: where the output is itself a map, the layer has a name
    e = tw.GradCAM(model, layer="backbone.layer4").explain(x, region_score)
    print(e)
    assert e.attributions.shape == (2, 1, 96, 96)

    fused = tw.LayerCAM(model, layer=["backbone.layer2", "backbone.layer4"]).attribute(x, region_score)
    print("two layers joined:", tuple(fused.shape))
    e.plot().savefig(out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
