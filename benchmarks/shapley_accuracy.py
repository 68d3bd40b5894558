"""How far are sampled Shapley values from the exact ones, for a number of evaluations?

Four games whose exact values are known: a network with 12 features, gradient-boosted trees with 10 on scikit-learn's
diabetes data, and two sums of small games over 49 patches, a smooth and a rough one. For each budget the mean absolute error
over the features, as a share of their mean absolute value, is averaged over seeds; every method is charged for all rows that
it evaluates, which are counted.

    python benchmarks/shapley_accuracy.py --save
"""

import functools
import importlib.util
import itertools
import warnings

import numpy as np
import torch
from harness import CurveBenchmark
from torch import nn

import torchwhy as tw
from torchwhy.shapley.exact_shapley import shapley_values

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


def ours(v, d, budget, seed, method=tw.KernelSHAP, **options):
    model = lambda z: v(np.asarray(z))  # noqa: E731 (arrays at once, without a trial whether it takes tensors)
    method = method(model, **{"n_samples": budget, "generator": seed, **options})
    return method.attribute(torch.ones(1, d, dtype=torch.double))[0].numpy()


def plain_pairs(v, d, budget, seed):
    return ours(v, d, budget, seed, cubic=False)


def orders(v, d, budget, seed):
    pairs = max(1, (budget - 2) // (2 * (d - 1)))
    return ours(v, d, budget, seed, tw.ShapleySampling, n_samples=2 * pairs)


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


def with_shap_orders(v, d, budget, seed):
    import shap

    explainer = shap.PermutationExplainer(v, np.zeros((1, d)), seed=seed)
    return explainer(np.ones((1, d)), max_evals=budget, silent=True).values[0]


def with_shapiq(name, **options):
    def run(v, d, budget, seed):
        import shapiq

        method = getattr(shapiq.approximator, name)(n=d, random_state=seed, **options)
        found = method.approximate(budget, lambda z: v(np.atleast_2d(np.asarray(z, dtype=np.float64))))
        return np.array([found[(i,)] for i in range(d)])

    return run


def methods():
    """Name → function; those whose package is not installed are left out, which is said."""
    every = {
        "torchwhy KernelSHAP": ("torchwhy", ours),
        "torchwhy cubic=False": ("torchwhy", plain_pairs),
        "torchwhy ShapleySampling": ("torchwhy", orders),
        "captum KernelShap": ("captum", with_captum),
        "shap KernelExplainer": ("shap", with_shap),
        "shap PermutationExplainer": ("shap", with_shap_orders),
        "shapiq KernelSHAP": ("shapiq", with_shapiq("KernelSHAP")),
        "shapiq kADDSHAP": ("shapiq", with_shapiq("kADDSHAP", max_order=2)),
        "shapiq SVARM": ("shapiq", with_shapiq("SVARM")),
        "shapiq UnbiasedKernelSHAP": ("shapiq", with_shapiq("UnbiasedKernelSHAP")),
        "shapiq PermutationSamplingSV": ("shapiq", with_shapiq("PermutationSamplingSV")),
    }
    for package in dict.fromkeys(package for package, _ in every.values()):
        if not importlib.util.find_spec(package):
            print(f"{package} is not installed: left out")
    return {name: f for name, (package, f) in every.items() if importlib.util.find_spec(package)}


def errors(game, sides, budgets, seeds):
    """Method → mean relative error at each budget, and the most rows beyond it that a method took."""
    v, d, values = game
    scale, lines, over = np.abs(values).mean(), {}, {}
    for name, method in sides.items():
        lines[name], over[name] = [], 0
        for budget in budgets:
            found = []
            for seed in range(seeds):
                rows = []
                answer = method(lambda z, rows=rows: (rows.append(len(z)), v(z))[1], d, budget, seed)
                found.append(np.abs(answer - values).mean() / scale)
                over[name] = max(over[name], sum(rows) - budget)
            lines[name].append(float(np.mean(found)))
    return lines, over


def verdict(lines, over):
    """Our errors as shares of captum's, and of the best of shap and shapiq, at each budget."""
    mine, told = np.array(lines["torchwhy KernelSHAP"]), []
    for who, peers in (("captum", ("captum",)), ("the best of shap and shapiq", ("shap ", "shapiq "))):
        others = [row for name, row in lines.items() if name.startswith(peers)]
        if others:
            best = np.maximum(np.min(others, axis=0), 1e-12)
            shares = np.where(mine < 1e-6, 0, mine / best)  # exact: no share of a rounding error
            told.append(f"torchwhy KernelSHAP's error as a share of {who}: {', '.join(f'{s:.2f}' for s in shares)}")
    beyond = ", ".join(f"{name} by {rows}" for name, rows in over.items() if rows > 0)
    return "; ".join([*told, *([f"beyond the budget: {beyond} rows"] if beyond else [])])


class ShapleyAccuracy(CurveBenchmark):
    """Panels of games."""

    ylabel = "relative error"


def main():
    title = "How far are sampled Shapley values from the exact ones, for a number of evaluations?"
    bench = ShapleyAccuracy("shapley_accuracy", title, rounds=10)
    budgets, seeds = ([100, 500], 2) if bench.quick else (BUDGETS, bench.rounds)
    warnings.simplefilter("ignore")
    games = {"network, 12": network, "trees, 10": trees, "patches, 49": patches}
    if not bench.quick:
        games["rough patches, 49"] = functools.partial(patches, True)
    sides = methods()
    for name, game in games.items():
        if bench.only in name:
            lines, over = errors(game(), sides, budgets, seeds)
            bench.panel(name, budgets, lines, verdict(lines, over))
    bench.finish()


if __name__ == "__main__":
    main()
