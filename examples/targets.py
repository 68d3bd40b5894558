"""What is explained: a class, its probability, a class against another one, doubt; and all classes from one run.

python examples/targets.py [--out targets.png]
"""

from __future__ import annotations

import argparse

import torch

import torchwhy as tw
from torchwhy.models import shapes, shapes_resnet
from torchwhy.visualize import grid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="targets.png")
    out = parser.parse_args().out

    model, data = shapes_resnet(), shapes(3, seed=1)
    x, labels = data.images, data.labels
    with torch.no_grad():
        second = model(x).topk(2).indices[:, 1]  # what each image is taken for next
    targets = {
        "class": labels.tolist(),
        "probability": tw.targets.Probability(labels),
        "and not the next": tw.targets.Contrast(labels, second),
        "doubt": tw.targets.Entropy(),
        "of its own": lambda output, rows: output[torch.arange(len(rows)), labels[rows]].square(),
    }
    method = tw.KernelSHAP(model, n_samples=256, generator=0)
    each = method.explain_each(x, list(targets.values()), feature_mask=tw.patches(x, 8))
    print(f"{len(each)} targets by {each[0].evaluations} evaluations, as many as one takes")
    for name, e in zip(targets, each):
        inside = (e.attributions.sum(1, keepdim=True).abs() * data.mask).sum((1, 2, 3)) / e.attributions.sum(
            1
        ).abs().sum((1, 2))
        print(f"{name}: {inside.mean():.0%} on the object, which covers {data.mask.float().mean():.0%}")

    every = method.explain_each(x[:1], "all", feature_mask=tw.patches(x, 8))
    print("classes:", [round(float(e.attributions[0, 0].sum()), 2) for e in every])
    grid({name: e.attributions for name, e in zip(targets, each)}, images=list(x)).savefig(out)
    print(f"written: {out}")


if __name__ == "__main__":
    main()
