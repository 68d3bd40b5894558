"""How many masks does a RISE map need?

For a small convolutional network trained on scikit-learn's digits: the correlation of the map from m masks with the
estimator's own map from 20,000 others, mean over seeds and images, with reduced variance and as in the paper.

    python benchmarks/rise_noise.py [--quick] [--plot docs/benchmarks/rise_noise.png]
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
from torch import nn

import torchwhy as tw

MASKS = [250, 500, 1000, 2000, 4000]


def digits():
    """A trained network that gives logits, and some images of 8 × 8 enlarged to 32 × 32."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    data = load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    x, y = nn.functional.interpolate(x, size=(32, 32), mode="bilinear"), torch.tensor(data.target)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 5, 2), nn.ReLU(), nn.Conv2d(8, 16, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 25, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(6):
        for rows in torch.randperm(1500).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return model.eval(), x[1500:1504], y[1500:1504].tolist()


def correlation(a, b):
    """Mean over the images of the correlation of two maps."""
    a, b = (t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (a, b))
    return float(torch.cosine_similarity(a, b).mean())


def make_rise(score, reduced, n, seed):
    return tw.RISE(score, n_samples=n, variance_reduced=reduced, generator=seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, up to 1,000 masks")
    parser.add_argument("--plot", help="where to write the curves")
    args = parser.parse_args()
    counts, seeds = (MASKS[:3], 2) if args.quick else (MASKS, 5)
    model, x, y = digits()
    found = {}
    for output, score in (("logit", model), ("probability", nn.Sequential(model, nn.Softmax(1)))):
        for name, reduced in (("torchwhy", True), ("the paper's estimator", False)):
            make = partial(make_rise, score, reduced)
            limit = make(20000, 999).attribute(x, y)
            row = [sum(correlation(make(n, s).attribute(x, y), limit) for s in range(seeds)) / seeds for n in counts]
            found[f"{name}, {output}"] = row
    print(f"{'masks':36}" + "".join(f"{n:>9}" for n in counts))
    for name, row in found.items():
        print(f"{name:36}" + "".join(f"{c:9.4f}" for c in row))
    if args.plot:
        plot(found, counts, args.plot)


def plot(found, counts, path) -> None:
    """Curves of 1 - correlation."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.6), layout="constrained")
    ax = figure.subplots()
    for name, row in found.items():
        ax.loglog(counts, [1 - c for c in row], "-" if name.startswith("torchwhy") else "--", marker="o", label=name)
    ax.set(xlabel="masks", ylabel="1 − correlation with 20,000 masks")
    ax.legend(fontsize=7)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
