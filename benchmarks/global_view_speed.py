"""What does the global view cost: SAGE and local effects against plain calls, clusters against scikit-learn's?

The model is the small classifier of breast_cancer() (30 columns), whose calls take so little that the work around them shows.
SpRAy and ``sklearn.cluster.SpectralClustering`` get the same graph of nearest neighbours, and must find the same groups.
"""

from __future__ import annotations

import warnings

import torch
from harness import Benchmark
from measure import floor, forward, void

import torchwhy as tw
from torchwhy.models import breast_cancer


def grouped_rows(n: int, d: int = 64, groups: int = 3) -> torch.Tensor:
    """Return attributions of rows in groups, each around a feature of its own."""
    noise = 0.3 * torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return noise + 3 * torch.eye(d)[torch.arange(n) % groups]


def by_scikit_learn(rows: torch.Tensor) -> torch.Tensor:
    """Return the groups that scikit-learn finds, told how many there are."""
    from sklearn.cluster import SpectralClustering
    from sklearn.neighbors import kneighbors_graph

    near = kneighbors_graph((rows / rows.abs().sum(1, keepdim=True)).double().numpy(), 10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a graph in several parts
        found = SpectralClustering(3, affinity="precomputed", random_state=0).fit(near.maximum(near.T))
    return torch.as_tensor(found.labels_)


def main() -> None:
    bench = Benchmark("global_view_speed", "The global view, against plain calls and scikit-learn", rounds=5)
    bench.text = (
        "The kept times are of a machine that was busy with other work: sides take turns, so that ratios hold better."
    )
    table = breast_cancer()
    x, y, model = table.x_test, table.y_test, table.model.requires_grad_(False)
    samples, background = (16, 16) if bench.quick else (64, 32)
    sage = tw.SAGE(model, n_samples=samples, n_background=background)
    evaluations = samples * (x.shape[1] - 1) * background + len(x)
    bench.case(
        f"SAGE, {samples} samples × 30 columns × {background} rows of background",
        {
            "floor": floor(forward(model, x), evaluations, (512, 2048, 8192)),
            "torchwhy": lambda: void(sage.measure(x, y).values),
        },
        base="floor",
    )
    effects = tw.AccumulatedLocalEffects(model)
    bench.case(
        f"accumulated local effects of 30 columns, {len(x)} rows",
        {
            "floor": floor(forward(model, x), 30 * 2 * len(x), (2 * len(x),)),
            "torchwhy": lambda: void([effects.measure(x, 0, feature=j).values for j in range(30)]),
        },
        base="floor",
    )
    rows = grouped_rows(600 if bench.quick else 4000)
    kept, spray = tw.Explanation(attributions=rows), tw.SpRAy()
    found, theirs = spray.cluster(kept), by_scikit_learn(rows)
    pairs = torch.unique(torch.stack([found.labels, theirs.long()]), dim=1)
    assert len(found.sizes) == pairs.shape[1] == 3  # the same groups, whatever their numbers
    bench.case(
        f"clusters of {len(rows)} rows of 64 features",
        {"scikit-learn": lambda: void(by_scikit_learn(rows)), "torchwhy": lambda: void(spray.cluster(kept).labels)},
        base="scikit-learn",
    )
    bench.finish()


if __name__ == "__main__":
    main()
