"""Why did a detector find that box? Grad-CAM of a box of each image's own.

A torchvision detector gives a list of dicts, one for each image. The target turns it into one number a row: the largest overlap
with the row's box times score. Boxes are chosen by sorting and thresholds, which have no gradient; their places and scores have
one. The weights here are random: this shows the mechanics only.

    python examples/detection_cam.py [--out detection_cam.png]
"""

from __future__ import annotations

import argparse

import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

import torchwhy as tw
from torchwhy.models import shapes

BOXES = torch.tensor([[16.0, 16, 80, 80], [0, 0, 48, 96]])  # of each image: x1, y1, x2, y2 in its pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="detection_cam.png")
    out = parser.parse_args().out

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=7, box_score_thresh=0.0, min_size=96, max_size=96
    ).eval()  # random weights: every box is kept
    x = shapes(2, size=96, seed=0).images

    e = tw.GradCAM(model, layer="backbone.body.16").explain(x, tw.targets.Box(BOXES))
    print(e)
    assert e.attributions.shape == (2, 1, 96, 96)

    e.plot().savefig(out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
