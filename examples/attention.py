"""Where a vision transformer looks, and what of it speaks for the class: python examples/attention.py"""

import torchwhy as tw
from torchwhy.models import shapes, shapes_vit
from torchwhy.visualize import grid


def main() -> None:
    model, batch = shapes_vit(), shapes(4, seed=1)
    methods = [tw.RawAttention(model), tw.AttentionRollout(model), tw.AttentionRelevance(model)]
    maps = {type(m).__name__: m.attribute(batch.images, "predicted") for m in methods}
    for name, values in maps.items():
        share = (values * batch.mask).sum((1, 2, 3)) / values.sum((1, 2, 3))
        print(f"{name}: {share.mean():.0%} of the map on the object, which covers {batch.mask.float().mean():.0%}")
    grid(maps, images=list(batch.images)).savefig("attention.png")


if __name__ == "__main__":
    main()
