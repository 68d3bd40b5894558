"""Why did a detector find that box? Grad-CAM with a callable target.

A torchvision detector gives a list of dicts, one for each image. The target turns it into one number a row: here the sum
of the scores of the boxes that overlap a region of interest. Boxes are chosen by sorting and thresholds, which have no
gradient; their scores have one.

    python examples/detection_cam.py [--out detection_cam.png]
"""

from __future__ import annotations

import argparse

import torch
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn
from torchvision.ops import box_iou

import torchwhy as tw
from torchwhy.models import shapes

REGION = torch.tensor([[16.0, 16.0, 80.0, 80.0]])  # x1, y1, x2, y2 in the image's pixels


def score_of_region(output: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Return the sum over the boxes of score times overlap with the region, one number a row."""
    return torch.stack([(box["scores"] * box_iou(box["boxes"].detach(), REGION)[:, 0]).sum() for box in output])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="detection_cam.png")
    out = parser.parse_args().out

    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=7, box_score_thresh=0.0, min_size=96, max_size=96
    ).eval()  # random weights: every box is kept
    x = shapes(2, size=96, seed=0).images

    e = tw.GradCAM(model, layer="backbone.body.16").explain(x, score_of_region)
    print(e)
    assert e.attributions.shape == (2, 1, 96, 96)

    e.plot().savefig(out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
