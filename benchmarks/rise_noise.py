"""How many masks does a RISE map need?

For a small convolutional network trained on scikit-learn's digits: the correlation of the map from m masks with the
estimator's own map from 20,000 others, mean over seeds and images, with reduced variance and as in the paper. The paper's
map from 20,000 masks is itself noisy, so its estimator is also compared with the other's.

    python benchmarks/rise_noise.py --save
"""

from __future__ import annotations

import torch
from harness import CurveBenchmark
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


class RiseNoise(CurveBenchmark):
    """What is kept is how much correlation is missing."""

    ylabel = "1 − correlation with 20,000 masks"


def main() -> None:
    bench = RiseNoise("rise_noise", "How many masks does a RISE map need?", rounds=5)
    counts, seeds = ([1000, 4000], 1) if bench.quick else (MASKS, bench.rounds)
    model, x, y = digits()
    for output, score in (("logit", model), ("probability", nn.Sequential(model, nn.Softmax(1)))):
        lines: dict[str, list[float]] = {}
        sides = {"torchwhy": True, "the paper's estimator": False}
        limits = {name: make_rise(score, reduced, 20000, 999).attribute(x, y) for name, reduced in sides.items()}
        for name, reduced in sides.items():
            maps = {n: [make_rise(score, reduced, n, s).attribute(x, y) for s in range(seeds)] for n in counts}
            for other in dict.fromkeys((name, "torchwhy")):
                label = name if other == name else f"{name}, with torchwhy's 20,000"
                lines[label] = [1 - sum(correlation(m, limits[other]) for m in maps[n]) / seeds for n in counts]
        few, many = counts.index(1000), counts.index(4000)
        at = {name: 1 - values[few if name == "torchwhy" else many] for name, values in lines.items()}
        told = "; ".join(f"{name} {value:.4f}" for name, value in at.items())
        bench.panel(output, counts, lines, f"Correlation of torchwhy with 1,000 masks, the others with 4,000: {told}")
    bench.finish()


if __name__ == "__main__":
    main()
