"""The metrics again, for one row, slow and plain, in float64.

``f``: one row (*) -> one number; ``x``, ``b``, ``a``: the input, the baseline and the attributions of one row, (*).
"""

import itertools
import math

import torch

from .gradient import value


def order_of(a):
    """Positions from the largest attribution to the smallest."""
    return sorted(range(a.numel()), key=lambda i: -float(a.flatten()[i]))


def replaced(x, b, positions):
    out = x.clone().flatten()
    for i in positions:
        out[i] = b.flatten()[i]
    return out.view_as(x)


def deletion(f, x, b, a, steps):
    order, d = order_of(a), a.numel()
    return [value(f, replaced(x, b, order[: round(k * d / steps)])) for k in range(steps + 1)]


def insertion(f, x, b, a, steps):
    order, d = order_of(a), a.numel()
    return [value(f, replaced(x, b, order[round(k * d / steps) :])) for k in range(steps + 1)]


def area(ys):
    """Trapezoidal rule on [0, 1]."""
    return sum((p + q) / 2 for p, q in itertools.pairwise(ys)) / (len(ys) - 1)


def irof(f, x, b, a, segments):
    """Segments by their mean attribution; area over the curve relative to f(x)."""
    n = int(segments.max()) + 1
    where = [[i for i in range(x.numel()) if int(segments.flatten()[i]) == s] for s in range(n)]
    mean = [sum(float(a.flatten()[i]) for i in w) / len(w) for w in where]
    gone, ys = [], [value(f, x)]
    for s in sorted(range(n), key=lambda s: -mean[s]):
        gone = gone + where[s]
        ys.append(value(f, replaced(x, b, gone)))
    return 1 - area([y / ys[0] for y in ys])


def sufficiency(f, x, b, a, fractions):
    order, d = order_of(a), a.numel()
    return sum(value(f, x) - value(f, replaced(x, b, order[round(q * d) :])) for q in fractions) / len(fractions)


def comprehensiveness(f, x, b, a, fractions):
    order, d = order_of(a), a.numel()
    return sum(value(f, x) - value(f, replaced(x, b, order[: round(q * d)])) for q in fractions) / len(fractions)


def monotonicity(f, x, b, a):
    """Features added one at a time, the smallest attribution first: the share of steps that do not lower f."""
    order = order_of(a)[::-1]
    ys = [value(f, replaced(x, b, order[k:])) for k in range(len(order) + 1)]
    return sum(q >= p for p, q in itertools.pairwise(ys)) / len(order)


def average_drop(f, x, b, a):
    heat = a.clamp(min=0) / a.max() if a.max() > 0 else 0 * a
    whole, shown = value(f, x), value(f, b + heat * (x - b))
    return max(0.0, whole - shown) / whole, float(shown > whole)


def infidelity(f, x, phi, perturbations, normalize=False):
    said = [float((i * phi).sum()) for i in perturbations]
    lost = [value(f, x) - value(f, x - i) for i in perturbations]
    beta = sum(s * t for s, t in zip(said, lost)) / sum(s * s for s in said) if normalize else 1.0
    return sum((beta * s - t) ** 2 for s, t in zip(said, lost)) / len(said)


def correlation(u, v):
    mu, mv = sum(u) / len(u), sum(v) / len(v)
    cov = sum((p - mu) * (q - mv) for p, q in zip(u, v))
    return cov / math.sqrt(sum((p - mu) ** 2 for p in u) * sum((q - mv) ** 2 for q in v))


def faithfulness_correlation(f, x, b, a, subsets):
    said = [sum(float(a.flatten()[i]) for i in s) for s in subsets]
    return correlation(said, [value(f, x) - value(f, replaced(x, b, s)) for s in subsets])


def set_sums(a, subsets):
    return [sum(float(a.flatten()[i]) for i in s) for s in subsets]


def moments_of_sets(a, size):
    """Mean and standard deviation of the sum of so many of the numbers, drawn without replacement."""
    d, mean = a.numel(), float(a.mean())
    variance = sum((float(v) - mean) ** 2 for v in a.flatten()) / (d - 1)
    return size * mean, math.sqrt(size * (d - size) / d * variance)


def corrected_correlation(f, x, b, a, subsets):
    """Thorndike 1949, case 2: the correlation of a selected sample brought to the range of all sets."""
    said, (_, spread) = set_sums(a, subsets), moments_of_sets(a, len(subsets[0]))
    mean = sum(said) / len(said)
    u = spread / math.sqrt(sum((s - mean) ** 2 for s in said) / (len(said) - 1))
    r = faithfulness_correlation(f, x, b, a, subsets)
    return r * u / math.sqrt(1 - r**2 + r**2 * u**2)


def faithfulness_estimate(f, x, b, a, groups):
    """Groups of consecutive ranks, of d / groups features rounded up or down."""
    order = order_of(a)
    cuts = [math.ceil(k * len(order) / groups) for k in range(groups + 1)]
    return faithfulness_correlation(f, x, b, a, [order[i:j] for i, j in itertools.pairwise(cuts)])


def linear_imputation(x, keep):
    """x (C, H, W), keep (H, W): the dense system of all dropped pixels, solved at once."""
    c, h, w = x.shape
    holes = [(i, j) for i in range(h) for j in range(w) if not keep[i, j]]
    number = {at: k for k, at in enumerate(holes)}
    left, right = torch.zeros(len(holes), len(holes), dtype=x.dtype), torch.zeros(len(holes), c, dtype=x.dtype)
    for (i, j), k in number.items():
        for di, dj in itertools.product((-1, 0, 1), repeat=2):
            at = (i + di, j + dj)
            if at == (i, j) or not (0 <= at[0] < h and 0 <= at[1] < w):
                continue
            weight = 1 / 6 if 0 in (di, dj) else 1 / 12
            left[k, k] += weight
            if at in number:
                left[k, number[at]] -= weight
            else:
                right[k] += weight * x[:, at[0], at[1]]
    out = x.clone()
    for at, v in zip(holes, torch.linalg.solve(left, right)):
        out[:, at[0], at[1]] = v
    return out


def gini(a):
    """From the Lorenz curve: 1 - 2 x its area, by trapezoids."""
    a = sorted(abs(float(v)) for v in a.flatten())
    lorenz = [sum(a[:k]) / sum(a) for k in range(len(a) + 1)]
    return 1 - 2 * area(lorenz)


def entropy(a):
    total = float(a.abs().sum())
    return -sum(float(v) / total * math.log(float(v) / total) for v in a.abs().flatten() if v > 0)


def roc_area(heat, mask):
    """Pairs of a pixel on the mask and one off it."""
    on, off = heat[mask].tolist(), heat[~mask].tolist()
    return sum((p > q) + 0.5 * (p == q) for p in on for q in off) / (len(on) * len(off))


def pointing_game(heat, mask, tolerance):
    """The largest pixel (no ties) is within a distance of some pixel of the mask."""
    top = divmod(int(heat.argmax()), heat.shape[1])
    return float(any(math.dist(top, at) <= tolerance for at in mask.nonzero().tolist()))
