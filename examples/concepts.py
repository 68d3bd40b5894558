"""Does a network that names shapes look at stripes, and which units see the object? python examples/concepts.py"""

import torch

import torchwhy as tw
from torchwhy.models import shapes, shapes_resnet


def main() -> None:
    model, pool = shapes_resnet(), shapes(1600, seed=7)
    star = pool.images[pool.shape == 3]
    striped = pool.images[(pool.texture == 1) & (pool.shape != 3)][:40]
    stars, others = star[:40], pool.images[pool.shape != 3]
    random = list(others[: 19 * 40].split(40))
    method = tw.TCAV(model, layer=["layer2", "layer3"], pool=True).fit({"star": stars, "striped": striped}, random)
    for layer, scores in method.score(star[40:100], target=3).items():
        for concept, s in scores.items():
            print(f"{layer}, {concept}: score {s.score:.2f}, p {s.p_value:.2f}, accuracy {s.accuracy:.2f}")
    data = [
        (images, {"object": mask[:, 0], "distractor": other[:, 0]})
        for images, mask, other in zip(pool.images.split(100), pool.mask.split(100), pool.distractor.split(100))
    ]
    found = tw.NetworkDissection(model, layer="layer2", quantile=0.03).measure(data)
    for unit, concept, iou in found.detectors(0.15)[:5]:
        print(f"unit {unit} of {found.layer} sees the {concept}: IoU {iou:.2f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
