"""How far are sampled Shapley values from the exact ones, for a number of evaluations?

Three games whose exact values are known: a network with 12 features, gradient-boosted trees with 10 on scikit-learn's
diabetes data, and a sum of small games over 49 patches. For each budget the mean absolute error over the features, as a
share of their mean absolute value, is averaged over seeds; every method is charged for all rows that it evaluates.

    python benchmarks/shapley_accuracy.py [--quick] [--plot docs/benchmarks/shapley_accuracy.png]

Peers that are not installed are left out.
"""

import argparse
import importlib.util
import itertools
import warnings

import numpy as np
import torch
from torch import nn

import torchwhy as tw
from torchwhy.shapley.exact import shapley_values

BUDGETS = [100, 200, 500, 1000, 2000]


def coalitions(d):
    return ((np.arange(2**d)[:, None] >> np.arange(d)) & 1).astype(np.float64)


def exact(v, d):
    return shapley_values(torch.from_numpy(v(coalitions(d)))[:, None])[0].numpy()


def network():
    """A network trained on products, a sine and a step of 12 features."""
    torch.manual_seed(0)
    x = torch.randn(2000, 12)
    y = x[:, 0] * x[:, 1] + torch.sin(2 * x[:, 2]) + x[:, 3] * x[:, 4].abs() + (x[:, 5:].sum(1) > 0)
    model = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        (model(x)[:, 0] - y).square().mean().backward()
        optimizer.step()
    row = x[3].double().numpy() * 1.5
    model = model.double()

    def v(z):
        with torch.no_grad():
            return model(torch.from_numpy(z * row))[:, 0].numpy()

    return v, 12, exact(v, 12)


def trees():
    """Gradient-boosted trees on the diabetes data, against the mean row."""
    from sklearn.datasets import load_diabetes
    from sklearn.ensemble import GradientBoostingRegressor

    x, y = load_diabetes(return_X_y=True)
    model = GradientBoostingRegressor(n_estimators=200, max_depth=4, random_state=0).fit(x, y)
    row, mean = x[10], x.mean(0)

    def v(z):
        return model.predict(z * row + (1 - z) * mean)

    return v, 10, exact(v, 10)


def patches(rough=False):
    """7 × 7 patches: each counts by itself, neighbours together, and seven groups of seven through a small network.

    With ``rough`` the groups' networks are saturated, so that interactions of all orders matter as much as single patches.
    """
    rng = np.random.default_rng(0)
    d, single = 49, rng.normal(size=49)
    pairs = [(i, j) for i, j in itertools.combinations(range(49), 2) if abs(i // 7 - j // 7) + abs(i % 7 - j % 7) == 1]
    strength = rng.normal(size=len(pairs))
    first, second = np.array(pairs).T
    order, inner, outer = rng.permutation(49).reshape(7, 7), rng.normal(size=(7, 7, 8)), rng.normal(size=(7, 8))
    if not rough:
        inner = inner / np.sqrt(7)

    def group(z, k):
        return np.tanh(z @ inner[k]) @ outer[k]

    values = single.copy()
    np.add.at(values, first, strength / 2)
    np.add.at(values, second, strength / 2)
    for k in range(7):
        values[order[k]] += exact(lambda z, k=k: group(z, k), 7)

    def v(z):
        return z @ single + (z[:, first] * z[:, second]) @ strength + sum(group(z[:, order[k]], k) for k in range(7))

    return v, d, values


def ours(v, d, budget, seed):
    method = tw.KernelSHAP(v, n_samples=budget, generator=seed)
    return method.attribute(torch.ones(1, d, dtype=torch.double))[0].numpy()


def plain_pairs(v, d, budget, seed):
    method = tw.KernelSHAP(v, n_samples=budget, generator=seed, cubic=False)
    return method.attribute(torch.ones(1, d, dtype=torch.double))[0].numpy()


def orders(v, d, budget, seed):
    pairs = max(1, (budget - 2) // (2 * (d - 1)))
    method = tw.ShapleySampling(v, n_samples=2 * pairs, generator=seed)
    return method.attribute(torch.ones(1, d, dtype=torch.double))[0].numpy()


def with_captum(v, d, budget, seed):
    from captum.attr import KernelShap

    torch.manual_seed(seed)
    method = KernelShap(lambda z: torch.from_numpy(v(z.double().numpy())))
    return method.attribute(torch.ones(1, d).double(), n_samples=budget, perturbations_per_eval=256)[0].numpy()


def with_shap(v, d, budget, seed):
    import shap

    np.random.seed(seed)
    explainer = shap.KernelExplainer(v, np.zeros((1, d)), silent=True)
    return explainer.shap_values(np.ones((1, d)), nsamples=budget - 2, silent=True, l1_reg=False)[0]


def with_shapiq(name, **options):
    def run(v, d, budget, seed):
        import shapiq

        method = getattr(shapiq.approximator, name)(n=d, random_state=seed, **options)
        found = method.approximate(budget, lambda z: v(np.asarray(z, dtype=np.float64)))
        return np.array([found[(i,)] for i in range(d)])

    return run


def methods():
    """Name → (package it needs, function)."""
    every = {
        "torchwhy KernelSHAP": ("torchwhy", ours),
        "torchwhy cubic=False": ("torchwhy", plain_pairs),
        "torchwhy ShapleySampling": ("torchwhy", orders),
        "captum KernelShap": ("captum", with_captum),
        "shap KernelExplainer": ("shap", with_shap),
        "shapiq KernelSHAP": ("shapiq", with_shapiq("KernelSHAP")),
        "shapiq kADDSHAP": ("shapiq", with_shapiq("kADDSHAP", max_order=2)),
        "shapiq SVARM": ("shapiq", with_shapiq("SVARM")),
    }
    return {name: f for name, (package, f) in every.items() if importlib.util.find_spec(package)}


def errors(game, budgets, seeds):
    """Method → mean relative error at each budget."""
    v, d, values = game
    scale = np.abs(values).mean()
    return {
        name: [np.mean([np.abs(f(v, d, b, s) - values).mean() / scale for s in range(seeds)]) for b in budgets]
        for name, f in methods().items()
    }


def table(name, found, budgets):
    print(f"\n{name}\n{'':26}" + "".join(f"{b:>10}" for b in budgets))
    for method, row in found.items():
        print(f"{method:26}" + "".join(f"{e:10.4f}" for e in row))
    mine = np.array(found["torchwhy KernelSHAP"])
    if "captum KernelShap" in found:
        print(f"{'share of captum':26}" + "".join(f"{r:10.2f}" for r in mine / found["captum KernelShap"]))
    peers = [row for method, row in found.items() if method.startswith("shap")]
    if peers:
        best = np.maximum(np.min(peers, axis=0), 1e-12)
        print(f"{'share of the best peer':26}" + "".join(f"{r:10.2f}" for r in np.where(mine < 1e-6, 0, mine / best)))


def plot(results, budgets, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(4.2 * len(results), 3.6), layout="constrained")
    for ax, (name, found) in zip(axes, results.items()):
        for method, row in found.items():
            style = "-" if method.startswith("torchwhy") else "--"
            ax.loglog(budgets, np.maximum(row, 1e-6), style, marker="o", markersize=3, label=method)
        ax.set(title=name, xlabel="evaluations", ylabel="relative error")
    axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds and three budgets")
    parser.add_argument("--plot", help="where to write the curves")
    args = parser.parse_args()
    budgets, seeds = (BUDGETS[:3], 2) if args.quick else (BUDGETS, 10)
    warnings.simplefilter("ignore")
    games = {
        "network, 12": network(),
        "trees, 10": trees(),
        "patches, 49": patches(),
        "rough patches, 49": patches(True),
    }
    results = {}
    for name, game in games.items():
        results[name] = errors(game, budgets, seeds)
        table(name, results[name], budgets)
    if args.plot:
        plot(results, budgets, args.plot)


if __name__ == "__main__":
    main()
