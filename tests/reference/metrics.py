"""The metrics again, for one row, slow and plain, in float64.

``f``: one row (*) -> one number; ``x``, ``b``, ``a``: the input, the baseline and the attributions of one row, (*).
"""

import copy
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
    """Groups of consecutive ranks, of d / groups features rounded up or down: means of each, not sums."""
    order = order_of(a)
    cuts = [math.ceil(k * len(order) / groups) for k in range(groups + 1)]
    sets = [order[i:j] for i, j in itertools.pairwise(cuts)]
    said = [sum(float(a.flatten()[i]) for i in s) / len(s) for s in sets]
    return correlation(said, [(value(f, x) - value(f, replaced(x, b, s))) / len(s) for s in sets])


def linear_imputation(x, keep):
    """x (C, *size), keep (*size): the dense system of all dropped pixels, solved at once."""
    size = x.shape[1:]
    holes = [at for at in itertools.product(*map(range, size)) if not keep[at]]
    number = {at: k for k, at in enumerate(holes)}
    left, right = torch.zeros(len(holes), len(holes), dtype=x.dtype), torch.zeros(len(holes), len(x), dtype=x.dtype)
    for hole, k in number.items():
        for step in itertools.product((-1, 0, 1), repeat=len(size)):
            at = tuple(i + d for i, d in zip(hole, step))
            if at == hole or not all(0 <= i < n for i, n in zip(at, size)):
                continue
            weight = {1: 1 / 6, 2: 1 / 12, 3: 1 / 18}[sum(map(abs, step))]
            left[k, k] += weight
            if at in number:
                left[k, number[at]] -= weight
            else:
                right[k] += weight * x[(slice(None), *at)]
    out = x.clone()
    for at, v in zip(holes, torch.linalg.solve(left, right)):
        out[(slice(None), *at)] = v
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


# --- of the map alone, or of the map and a mask -----------------------------------------------------


def effective_complexity(a, epsilon):
    largest = float(a.abs().max())
    return float(sum(abs(float(v)) > epsilon * largest for v in a.flatten()))


def relevance_mass(heat, mask):
    return float(heat[mask].sum()) / float(heat.sum())


def largest_on_mask(heat, mask, k):
    """The share of the k largest pixels (no ties) on the mask."""
    return sum(bool(mask.flatten()[i]) for i in order_of(heat)[:k]) / k


def iou(heat, mask, threshold):
    marked = heat > threshold * heat.max()
    return float((marked & mask).sum()) / float((marked | mask).sum())


# --- that run the model ------------------------------------------------------------------------------


def comprehensiveness(f, x, b, a, fractions):
    order, d = order_of(a), a.numel()
    return sum(value(f, x) - value(f, replaced(x, b, order[: round(q * d)])) for q in fractions) / len(fractions)


def road(f, x, a, fractions):
    """x (C, H, W), a (1, H, W); without noise."""
    order = order_of(a)
    ys = []
    for q in fractions:
        keep = torch.ones(a.numel(), dtype=torch.bool)
        keep[order[: round(q * len(order))]] = False
        ys.append(value(f, linear_imputation(x, keep.view_as(a[0]))))
    return ys


def completeness_gap(f, x, b, a):
    return abs(float(a.sum()) - (value(f, x) - value(f, b)))


def non_sensitivity(f, x, b, a, tolerance):
    """Features one by one: has it an effect, has it an attribution?"""
    d = a.numel()
    effect = [abs(value(f, x) - value(f, replaced(x, b, [i]))) for i in range(d)]
    size = [abs(float(v)) for v in a.flatten()]
    wrong = [(e > tolerance * max(effect)) != (s > tolerance * max(size)) for e, s in zip(effect, size)]
    return sum(wrong) / d


# --- that explain again: ``explain``: (f, x) -> attributions (*) -------------------------------------


def input_invariance(explain, f, x, shift):
    before, after = explain(f, x), explain(lambda z: f(z - shift), x + shift)
    return float((after - before).norm() / before.norm())


def cube(generator, shape, radius, count):
    """Uniform draws from a seed of their own, which the generator gives; in blocks of 64, in float32."""
    own = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    return (radius * (2 * torch.rand(64, *shape, generator=own) - 1))[:count].double()


def changes(explain, f, x, steps):
    """How far the explanation moves with each step."""
    start = explain(f, x)
    return [float((explain(f, x + s) - start).norm()) for s in steps]


def sensitivity(explain, f, x, steps):
    size = float(explain(f, x).norm())
    return [c / size for c in changes(explain, f, x, steps)]


def local_lipschitz(explain, f, x, steps):
    return max(c / float(s.norm()) for c, s in zip(changes(explain, f, x, steps), steps))


def continuity(explain, f, x, shifts):
    """x (..., W), pixel by pixel moved to the right, edges replicated."""
    start, found = explain(f, x), []
    for s in shifts:
        moved, width = x.clone(), x.shape[-1]
        for j in range(width):
            moved[..., j] = x[..., min(max(j - s, 0), width - 1)]
        found.append(float((explain(f, moved) - start).abs().sum() / (moved - x).norm()))
    return max(found)


def explanation_attack(explain, outputs, target, x, radius, steps, pairs, tolerance, generator):
    """Projected ascent on one minus the cosine, by pairs of points to either side; back to the prediction where it is lost."""
    f = lambda z: outputs(z)[target]  # noqa: E731
    start, own = explain(f, x).flatten(), value(f, x)
    with torch.no_grad():
        label = int(outputs(x).argmax())
    best = 0.0

    def look(z):
        nonlocal best
        found = explain(f, z).flatten()
        away = 1 - float(found @ start / (found.norm() * start.norm()))
        with torch.no_grad():
            out = outputs(z).tolist()
        lead = out[label] - max(v for c, v in enumerate(out) if c != label)
        margin = min(tolerance * abs(own) - abs(value(f, z) - own), lead)
        if margin >= 0:
            best = max(best, away)
        return away, margin

    def inside(z):
        return torch.minimum(torch.maximum(z, x - radius), x + radius)

    first = cube(generator, x.shape, radius, pairs)
    worth = [away if margin >= 0 else margin for away, margin in (look(x + d) for d in first)]
    here = x + first[worth.index(max(worth))]
    for _ in range(steps):
        probes = cube(generator, x.shape, radius, pairs) / 4
        which = 0 if look(here)[1] >= 0 else 1  # climb the distance, or the margin
        slopes = [look(inside(here + p))[which] - look(inside(here - p))[which] for p in probes]
        gradient = sum(s * p for s, p in zip(slopes, probes))
        here = inside(here + radius / 4 * gradient.sign())
    look(here)
    return best


def ranks(values):
    """From 0, rising; equal values share the mean of theirs."""
    values = [float(v) for v in values.flatten()]
    return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def rank_correlation(u, v):
    return correlation(ranks(u), ranks(v))


def with_random_weights(net, layers, generator, mode):
    """Copies of the network: the first layer is drawn anew, then the second one too ("cascading") or alone, ..."""
    found, latest = [], net
    for name in layers:
        latest = copy.deepcopy(latest if mode == "cascading" else net)
        with torch.no_grad():
            for p in latest.get_submodule(name).parameters():
                drawn = torch.randn(p.shape, generator=generator).to(p)
                p.copy_(p.mean() + drawn * (p - p.mean()).square().mean().sqrt())
        found.append(latest)
    return found
