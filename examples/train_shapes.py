"""Train the two small networks of ``torchwhy.models`` on shapes painted on photos.

    python examples/train_shapes.py resnet        # some 3 minutes on one core, 99 % right on fresh images
    python examples/train_shapes.py vit           # some 5 minutes on one core, 97 % right

Writes ``shapes-resnet.safetensors`` or ``shapes-vit.safetensors`` into the folder given by ``--out`` ("." by default).
The package's own weights, in ``src/torchwhy/models/weights/``, were made by these two commands.
"""

import argparse
import time
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import trange

from torchwhy.models import ShapesResNet, ShapesViT, shapes

TRAIN_SEED, TEST_SEED = 0, 1_000_000
BATCH = 64


class Recipe(NamedTuple):
    """What is trained, on how much, for how long."""

    model: type[nn.Module]
    images: int
    epochs: int
    lr: float


RECIPES = {
    "resnet": Recipe(ShapesResNet, images=9_000, epochs=8, lr=5e-3),
    "vit": Recipe(ShapesViT, images=10_000, epochs=18, lr=2e-3),
}


def train(recipe: Recipe, progress: bool = True) -> nn.Module:
    """Return a network trained by AdamW with a one-cycle learning rate; images are turned and flipped at random."""
    torch.manual_seed(TRAIN_SEED)
    data = shapes(recipe.images, seed=TRAIN_SEED)
    model = recipe.model().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.05)
    batches = recipe.images // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, total_steps=recipe.epochs * batches)
    for _ in trange(recipe.epochs, unit="epoch", disable=not progress):
        for rows in torch.randperm(recipe.images)[: batches * BATCH].view(batches, BATCH):
            loss = nn.functional.cross_entropy(model(turned(data.images[rows])), data.labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def turned(images: Tensor) -> Tensor:
    """Return the batch in one of its 8 orientations, which leave a shape what it is."""
    quarter_turns, mirrored = torch.randint(4, ()), torch.randint(2, ())
    return torch.rot90(images.flip(3) if mirrored else images, int(quarter_turns), (2, 3))


@torch.no_grad()
def accuracy(model: nn.Module, n: int = 2_000, seed: int = TEST_SEED) -> float:
    """Return the share of n images, drawn by a seed never trained on, whose shape the network names."""
    data = shapes(n, seed=seed)
    scores = torch.cat([model(images) for images in data.images.split(100)])
    return (scores.argmax(1) == data.labels).float().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--out", type=Path, default=Path())
    args = parser.parse_args()

    start = time.perf_counter()
    model = train(RECIPES[args.name])
    path = args.out / f"shapes-{args.name}.safetensors"
    save_file(model.state_dict(), path)
    size = sum(p.numel() for p in model.parameters())
    print(f"{args.name}: {size:,} parameters, {time.perf_counter() - start:.0f} s, wrote {path}")
    print(f"accuracy on fresh images: {accuracy(model):.2%}")


if __name__ == "__main__":
    main()
