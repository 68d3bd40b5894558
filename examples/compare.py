"""Which explanation is true? Methods and metrics on images whose evidence is known. python examples/compare.py"""

import functools

import torch

import torchwhy as tw
from torchwhy.models import shapes, shapes_resnet


def edges(images: torch.Tensor) -> torch.Tensor:
    """Return a map that looks like an explanation and knows nothing of the network."""
    grey = images.mean(1, keepdim=True)
    return (grey - grey.roll(1, 3)).abs() + (grey - grey.roll(1, 2)).abs()


def table() -> tw.Comparison:
    model, data = shapes_resnet(), shapes(16, seed=4)  # a photo, an object that is the label, another that is not
    x, y = data.images, data.labels
    methods = {
        "Saliency": tw.Saliency(model),
        "IntegratedGradients": tw.IntegratedGradients(model, n_steps=8),
        "LRP": tw.LRP(model),
        "GradCAM": tw.GradCAM(model, layer="layer3"),
        "Occlusion": tw.Occlusion(model, sliding_window_shapes=(3, 16, 16), strides=(3, 8, 8)),
        "edges": edges(x),
        "random": torch.rand(len(x), 1, 64, 64, generator=torch.Generator().manual_seed(0)),
    }
    metrics = {
        "deletion": functools.partial(tw.metrics.deletion, softmax=True),
        "insertion": functools.partial(tw.metrics.insertion, softmax=True),
        "pointing game": tw.metrics.pointing_game,
        "relevance mass": tw.metrics.relevance_mass,
        "model randomization": tw.metrics.model_randomization,
        "sparseness": tw.metrics.sparseness,
    }
    return tw.compare(model, x, y, methods, metrics, mask=data.mask, baselines="blur")


def main() -> None:
    found = table()
    print(found, "\n")
    for d in found.differences("deletion", against="random"):
        print(f"deletion, {d.first} − {d.second}: {d.mean:.3f}, p {d.adjusted:.1g}")
    found.plot().savefig("compare.png", dpi=110)


if __name__ == "__main__":
    main()
