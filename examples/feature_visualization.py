"""Images that a network takes for each of its classes: python examples/feature_visualization.py"""

from torchvision.utils import save_image

import torchwhy as tw
from torchwhy.models import SHAPES, shapes, shapes_resnet


def main() -> None:
    model = shapes_resnet()
    found = tw.FeatureVisualization(model, size=(64, 64), n_steps=100).generate(list(range(len(SHAPES))))
    for k, prediction in enumerate(model(found.images).argmax(1).tolist()):
        print(f"{SHAPES[k]}: score {found.scores[k]:.1f}, taken for a {SHAPES[prediction]}")
    dreamt = tw.DeepDream(model, layer="layer2").generate(shapes(1).images)
    save_image([*found.images, dreamt[0]], "visualized.png")


if __name__ == "__main__":
    main()
