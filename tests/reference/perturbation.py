"""Perturbation and Shapley methods from their papers. ``f`` takes x of shape (1, *) and gives one number; a game ``v``
takes a tuple of 0s and 1s, one for each feature."""

import itertools
import math

import torch


def game(f, x, b, mask):
    """The game of the features of one row: v(z) is the score with the features of z from x and the others from b."""
    mask, known = mask.expand(x.shape), {}  # definitions ask for the same coalitions again and again

    def v(z):
        z = tuple(bool(there) for there in z)
        if z not in known:
            point = b.clone()
            for i, there in enumerate(z):
                if there:
                    point[mask == i] = x[mask == i]
            known[z] = float(f(point))
        return known[z]

    return v


def feature_ablation(f, x, b, mask):
    mask, out = mask.expand(x.shape), torch.zeros_like(x)
    for i in range(int(mask.max()) + 1):
        point = x.clone()
        point[mask == i] = b[mask == i]
        out[mask == i] = float(f(x)) - float(f(point))
    return out


def occlusion(f, x, b, size, step):
    """Windows start at multiples of the step until one reaches the far edge, and are cut off there."""
    shape, total, number = x.shape[1:], torch.zeros_like(x), torch.zeros_like(x)
    starts = [[0] for _ in shape]
    for dim, n in enumerate(shape):
        while starts[dim][-1] + size[dim] < n:
            starts[dim].append(starts[dim][-1] + step[dim])
    for corner in itertools.product(*starts):
        at = (slice(None), *(slice(c, c + w) for c, w in zip(corner, size)))
        point = x.clone()
        point[at] = b[at]
        total[at] += float(f(x)) - float(f(point))
        number[at] += 1
    return total / number


def feature_permutation(f, x, mask, orders):
    """``orders[r][i]`` is the row that each row takes feature i from; x has all rows."""
    mask, out = mask.expand(x.shape), torch.zeros_like(x)
    for n in range(len(x)):
        for i in range(int(mask.max()) + 1):
            drops = []
            for order in orders:
                point = x[n : n + 1].clone()
                point[0][mask[n] == i] = x[order[i][n]][mask[n] == i]
                drops.append(float(f(x[n : n + 1])) - float(f(point)))
            out[n][mask[n] == i] = sum(drops) / len(drops)
    return out


def rise(f, x, b, masks, p):
    """Equation 6, for masks that are given."""
    out = torch.zeros_like(x[0, 0])
    for m in masks:
        out += float(f(x * m + b * (1 - m))) * m
    return out / (p * len(masks))


def rise_mask(grid, shift, shape):
    """Enlarge a grid to one cell more than the image by bilinear interpolation and cut the image out at a whole offset."""
    cell = [math.ceil(n / len(grid)) for n in shape]
    size = [(len(grid) + 1) * c for c in cell]
    large = torch.nn.functional.interpolate(grid[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
    i, j = (math.floor(s * c) for s, c in zip(shift, cell))
    return large[i : i + shape[0], j : j + shape[1]]


def shapley(v, d):
    """The mean gain over all orders in which the features can enter."""
    return _mean_gain(v, d, itertools.permutations(range(d)))


def owen(v, groups):
    """The mean gain over the orders that keep every group together."""
    d = len(groups)

    def together(order):
        turns = [g for g, _ in itertools.groupby(groups[i] for i in order)]
        return len(turns) == len(set(turns))

    return _mean_gain(v, d, filter(together, itertools.permutations(range(d))))


def _mean_gain(v, d, orders):
    total, count = torch.zeros(d, dtype=torch.double), 0
    for order in orders:
        z, before = [0] * d, v((0,) * d)
        for i in order:
            z[i] = 1
            after = v(tuple(z))
            total[i] += after - before
            before = after
        count += 1
    return total / count


def banzhaf(v, d):
    out = torch.zeros(d, dtype=torch.double)
    for z in itertools.product((0, 1), repeat=d):
        for i in range(d):
            out[i] += (1 if z[i] else -1) * v(z) / 2 ** (d - 1)
    return out


def shapley_interactions(v, d):
    """Grabisch & Roubens 1999, equation 3, for pairs."""
    out = torch.zeros(d, d, dtype=torch.double)
    for i, j in itertools.permutations(range(d), 2):
        rest = [k for k in range(d) if k not in (i, j)]
        for s in range(d - 1):
            for chosen in itertools.combinations(rest, s):
                value = lambda *more, chosen=chosen: v(tuple(int(k in chosen or k in more) for k in range(d)))  # noqa: E731
                gain = value(i, j) - value(i) - value(j) + value()
                out[i, j] += math.factorial(s) * math.factorial(d - s - 2) / math.factorial(d - 1) * gain
    return out


def banzhaf_interactions(v, d):
    """Grabisch & Roubens 1999, equation 5, for pairs: the mean over all coalitions of the others."""
    out = torch.zeros(d, d, dtype=torch.double)
    for i, j in itertools.permutations(range(d), 2):
        for chosen in itertools.product((0, 1), repeat=d):
            if not chosen[i] and not chosen[j]:
                value = lambda *more, chosen=chosen: v(tuple(int(c or k in more) for k, c in enumerate(chosen)))  # noqa: E731
                out[i, j] += (value(i, j) - value(i) - value(j) + value()) / 2 ** (d - 2)
    return out


def kernel_shap(v, d):
    """Theorem 2 over all coalitions, the two infinite weights replaced by large ones."""
    rows, weights, scores = [], [], []
    for z in itertools.product((0, 1), repeat=d):
        s = sum(z)
        weights.append((d - 1) / (math.comb(d, s) * s * (d - s)) if 0 < s < d else 1e8)
        rows.append((1, *z))
        scores.append(v(z))
    x, w, y = (torch.tensor(t, dtype=torch.double) for t in (rows, weights, scores))
    return torch.linalg.solve(x.T @ (w[:, None] * x), x.T @ (w * y))[1:]


def lime(z, scores, weights, penalty):
    """Weighted ridge regression with a free intercept, by solving the stacked least-squares problem."""
    x = torch.cat([torch.ones(len(z), 1, dtype=torch.double), z], 1)
    free = torch.eye(x.shape[1], dtype=torch.double)
    free[0, 0] = 0
    stacked = torch.cat([weights.sqrt()[:, None] * x, math.sqrt(penalty) * free])
    return torch.linalg.lstsq(stacked, torch.cat([weights.sqrt() * scores, torch.zeros(x.shape[1])])).solution[1:]


def smooth_mask(p, step, sigma, reach, size):
    """Fong et al. 2019, the smooth maximum of p_i k(|(u - u_i) / sigma|) over the points at most ``reach`` cells away.

    Steps, radii and reach are given for each axis. The first point is ``reach`` cells before the image.
    """
    out = torch.zeros(size, dtype=torch.double)
    for u in itertools.product(*map(range, size)):
        values = []
        near = [range(c // k - r, c // k + r + 1) for c, k, r in zip(u, step, reach)]
        for i in itertools.product(*near):
            apart = [(c - n * k - (k - 1) / 2) / s for c, n, k, s in zip(u, i, step, sigma)]
            distance = math.sqrt(sum(a**2 for a in apart))
            point = tuple(n + r for n, r in zip(i, reach))
            values.append(float(p[point]) * math.exp(-2 * max(0.0, distance - 0.5) ** 2))
        weights = [math.exp(20 * v) for v in values]
        out[u] = sum(w * v for w, v in zip(weights, values)) / sum(weights)
    return out


def area_error(m, area):
    """Fong et al. 2019, the mean square distance of the sorted mask from 1 for a share of its pixels and 0 for the others."""
    values = m.flatten().sort().values
    ones = torch.tensor([float(k + 0.5 >= (1 - area) * len(values)) for k in range(len(values))], dtype=values.dtype)
    return (values - ones).square().sum() / len(values)


def mixed(levels, m):
    """Fong et al. 2019, each pixel (C,) between two of L levels (C, H, W): the first where m is 1, the last where it is 0."""
    out = torch.empty_like(levels[0])
    for u in itertools.product(*map(range, m.shape)):
        at = (1 - m[u]) * (len(levels) - 1)
        low = min(int(at), len(levels) - 2)
        out[(slice(None), *u)] = (low + 1 - at) * levels[low][(slice(None), *u)] + (at - low) * levels[low + 1][
            (slice(None), *u)
        ]
    return out


class SlowMasks:
    """``smooth_mask`` in float64 and with a gradient, as one table of all pixels and points, those of the mirror image included.

    Sizes, steps and radii are given for each axis; parameters (*cells) → masks (*size). The smooth maximum is over the points
    at most two radii, in whole cells, from a pixel's cell: each more would draw it down, even one that is 0 there.
    """

    def __init__(self, size, step, sigma):
        self.size, self.cells = tuple(size), tuple(-(-n // k) for n, k in zip(size, step))
        reach = [math.ceil(2 * s / k) for k, s in zip(step, sigma)]
        points = list(itertools.product(*(range(-r, n + r) for n, r in zip(self.cells, reach))))
        places = torch.tensor(list(itertools.product(*map(range, size))), dtype=torch.double)
        radii = torch.tensor(sigma, dtype=torch.double)
        middles = (torch.tensor(points) + 0.5) * torch.tensor(step, dtype=torch.double) - 0.5
        self.kernel = torch.exp(-2 * (torch.cdist(places / radii, middles / radii) - 0.5).clamp(min=0) ** 2)
        apart = (places[:, None] // torch.tensor(step) - torch.tensor(points)).abs()
        self.far = (apart > torch.tensor(reach)).any(-1)
        mirrored = [[min(i % (2 * n), 2 * n - 1 - i % (2 * n)) for i, n in zip(q, self.cells)] for q in points]
        self.points = tuple(torch.tensor(mirrored).T)

    def __call__(self, p):
        v = self.kernel * p[self.points]
        return (torch.softmax((20 * v).masked_fill(self.far, -torch.inf), 1) * v).sum(1).view(self.size)


def extremal_reward(f, x, b, m, reward="preserve"):
    """Fong et al. 2019, equation 7: the score with the mask, minus that without it, or both, in units of its whole fall."""
    high, low = f(m * x + (1 - m) * b), f((1 - m) * x + m * b)
    return {"preserve": high, "delete": -low, "hybrid": high - low}[reward] / abs(f(x) - f(b))


def extremal_loss(f, x, b, m, area, weight, reward="preserve"):
    """Fong et al. 2019, what the mask is to make small."""
    return weight * area_error(m, area) - extremal_reward(f, x, b, m, reward)


def extremal_ascent(f, x, b, area, masks, n_steps, weights, start=None, reward="preserve", rates=None):
    """Fong et al. 2019, equation 7, λ growing from the first of two weights to the last: the parameters (*cells) at every step.

    It begins with all of the picture kept, or at ``start``; x, b (C, *size), one level between them. ``rates`` are shares of
    the full step for each step.
    """
    p, speed, path = torch.ones(masks.cells, dtype=torch.double) if start is None else start.double(), 0, []
    for t in range(n_steps):
        path.append(p)
        q = p.clone().requires_grad_()
        m = masks(q)
        weight = weights[0] * (weights[1] / weights[0]) ** (t / n_steps)
        loss = extremal_loss(f, x, b, m, area, weight, reward)
        share = 1 if rates is None else rates[t]
        speed = 0.9 * speed - 1e-3 * share * math.prod(masks.cells) * torch.autograd.grad(loss, q)[0]
        p = (p + speed).clamp(0, 1)
    return [*path, p]


def extremal_mask(f, x, b, area, step, sigma, n_steps):
    """Fong et al. 2019, equation 7: the ascent that begins with all of it kept, λ growing; x, b (C, *size) → (*size)."""
    masks = SlowMasks(x.shape[1:], step, sigma)
    return masks(extremal_ascent(f, x, b, area, masks, n_steps, (0.3, 30.0))[-1])
