"""Where does a segmentation network look when it calls a region an object? Grad-CAM of a region of each image's own.

The target is the sum of a class's scores over the region (Seg-Grad-CAM). The same works for Score-CAM, HiResCAM, integrated
gradients and all others. The weights here are random: this shows the mechanics only.

    python examples/segmentation_cam.py [--out segmentation_cam.png]
"""

from __future__ import annotations

import argparse

import torch
from torchvision.models.segmentation import fcn_resnet50

import torchwhy as tw
from torchwhy.models import shapes

CLASS = 8  # of 21; the weights here are random, so no class has a meaning


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="segmentation_cam.png")
    out = parser.parse_args().out

    torch.manual_seed(0)
    model = fcn_resnet50(weights=None, weights_backbone=None, num_classes=21).eval()
    data = shapes(2, size=96, seed=0)
    x, target = data.images, tw.targets.Region(CLASS, data.mask[:, 0])

    # layer="auto" is for one answer a row: where the output is itself a map, the layer has a name
    e = tw.GradCAM(model, layer="backbone.layer4").explain(x, target)
    print(e)
    assert e.attributions.shape == (2, 1, 96, 96)

    fused = tw.LayerCAM(model, layer=["backbone.layer2", "backbone.layer4"]).attribute(x, target)
    print("two layers joined:", tuple(fused.shape))
    e.plot().savefig(out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
