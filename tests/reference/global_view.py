"""What explanations of many rows say together, from the papers, in loops over NumPy arrays."""

import itertools
import math

import numpy as np


def laplacian(rows, n_neighbors):
    """I - D^(-1/2) W D^(-1/2) of the graph of nearest neighbours, either way; Ng, Jordan, Weiss 2001."""
    n = len(rows)
    w = np.zeros((n, n))
    for i in range(n):
        away = sorted((float(((rows[i] - rows[j]) ** 2).sum()), j) for j in range(n) if j != i)
        for _, j in away[:n_neighbors]:
            w[i, j] = w[j, i] = 1.0
    degree = w.sum(1)
    return np.eye(n) - w / np.sqrt(np.outer(degree, degree))


def eigengap(values, most):
    """The number of clusters by the largest gap among the first ``most``; von Luxburg 2007."""
    gaps = [values[k + 1] - values[k] for k in range(most)]
    return gaps.index(max(gaps)) + 1


def kept_features(weights, n_features):
    """The sizes of each row's largest features, 0 elsewhere."""
    found = np.zeros_like(weights)
    for i, row in enumerate(weights):
        for j in sorted(range(len(row)), key=lambda j: -abs(row[j]))[:n_features]:
            found[i, j] = abs(row[j])
    return found


def coverage(kept, importance, rows):
    """Ribeiro et al. 2016, equation 3."""
    return sum(importance[j] for j in range(kept.shape[1]) if any(kept[i, j] > 0 for i in rows))


def submodular_pick(weights, n, n_features):
    """Algorithm 2: the rows, and the importance of the features."""
    kept = kept_features(weights, n_features)
    importance = [math.sqrt(kept[:, j].sum()) for j in range(kept.shape[1])]
    rows = []
    for _ in range(n):
        gains = [coverage(kept, importance, [*rows, i]) for i in range(len(kept))]
        if rows and max(gains) - coverage(kept, importance, rows) < 1e-12:
            break
        rows.append(int(np.argmax([round(g, 12) for g in gains])))
    return rows, importance, kept


def best_coverage(kept, importance, n):
    """What the best n rows cover, of all sets."""
    return max(coverage(kept, importance, rows) for rows in itertools.combinations(range(len(kept)), n))


def distance_of_distributions(a, b):
    """The largest distance of the two empirical distribution functions."""
    return max(abs(np.mean([x <= t for x in a]) - np.mean([x <= t for x in b])) for t in (*a, *b))


def exact_ks_p(a, b):
    """The share of all ways to divide the numbers that lie as far apart; no two are equal."""
    every, seen = [*a, *b], distance_of_distributions(a, b)
    found = []
    for chosen in itertools.combinations(range(len(every)), len(a)):
        first = [every[i] for i in chosen]
        found.append(distance_of_distributions(first, [every[i] for i in range(len(every)) if i not in chosen]))
    return np.mean([d >= seen - 1e-12 for d in found])


def rank_biserial(change):
    """(R+ - R-) / (R+ + R-) of the ranks of the sizes; no two are equal, none is 0."""
    order = sorted(range(len(change)), key=lambda i: abs(change[i]))
    ranks = {i: rank + 1 for rank, i in enumerate(order)}
    return sum(math.copysign(ranks[i], change[i]) for i in ranks) / sum(ranks.values())


def exact_wilcoxon_p(change):
    """The share of all signs whose rank sums are as far from even."""
    seen = abs(rank_biserial(change))
    signs = itertools.product((1, -1), repeat=len(change))
    return np.mean([abs(rank_biserial([s * abs(c) for s, c in zip(of, change)])) >= seen - 1e-12 for of in signs])


def holm(p):
    """Holm 1979: the k-th smallest times how many are left, never below the one before."""
    order, found, largest = sorted(range(len(p)), key=lambda i: p[i]), [0.0] * len(p), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        found[i] = largest
    return found


def benjamini_hochberg(p):
    """Benjamini and Hochberg 1995: the least k p(i) / i of those that are no smaller."""
    ranks = {i: rank + 1 for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i]))}
    return [min(min(1.0, len(p) * p[j] / ranks[j]) for j in ranks if ranks[j] >= ranks[i]) for i in range(len(p))]
