"""A network that is right for a wrong reason, found by clustering its explanations: python examples/clever_hans.py [FIGURE]

Half of the discs in the training data bear a stamp in a corner. The network learns the stamp; its accuracy does not say so.
"""

import sys

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import torchwhy as tw
from torchwhy.models import shapes


def stamped_shapes(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, whether each shows a disc, and which bear the stamp: every second disc."""
    data = shapes(n, size=32, seed=seed)
    x, discs = data.images.clone(), data.labels == 0
    stamped = discs & (discs.cumsum(0) % 2 == 0)
    x[stamped, :, -5:-1, 1:5] = torch.eye(4)
    return x, discs.long(), stamped


def trained(x: Tensor, y: Tensor) -> nn.Module:
    """Train a small network to tell discs from other shapes."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 5, 2, 2), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 2, 1)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(32, 2))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(8):
        for batch in torch.randperm(len(x)).split(64):
            loss = cross_entropy(model(x[batch]), y[batch], torch.tensor([1.0, 5.0]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def main() -> Figure:
    model = trained(*stamped_shapes(800, seed=0)[:2])
    x, y, stamped = stamped_shapes(400, seed=1)
    said = model(x).argmax(1)
    print(f"accuracy {(said == y).float().mean():.0%}")
    discs = y == 1
    e = tw.LRP(model).explain(x[discs], target=1)  # of one class: why a disc?
    found = tw.SpRAy(size=8).cluster(e)
    for k, rows in enumerate(found.representatives):
        share = stamped[discs][rows].float().mean()
        right = (said == y)[discs][rows].float().mean()
        print(f"cluster {k}: {len(rows)} discs, {right:.0%} of them recognized, {share:.0%} with the stamp")
    return found.plot()


if __name__ == "__main__":
    picture = main()
    if len(sys.argv) > 1:
        picture.savefig(sys.argv[1], dpi=110, bbox_inches="tight")
