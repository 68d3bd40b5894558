"""The rules of modified backpropagation again, from their papers, one row at a time, with dense matrices in float64.

A linear layer is its matrix w (K, J) and bias b (K,); x (J,) goes in, relevance r (K,) comes back as (J,).
"""

import math

import torch

TINY = 1e-9


def matrix(layer, x):
    """The matrix and bias of an affine function at a row x."""
    shape = x.shape
    flat = lambda v: layer(v.view(1, *shape)).flatten()  # noqa: E731
    x = x.flatten()
    return torch.autograd.functional.jacobian(flat, x, vectorize=True), flat(torch.zeros_like(x)).detach()


def away(z, epsilon):
    return z + (epsilon if z >= 0 else -epsilon)


def share(z, r, denominators):
    """Relevance r (K,) in the proportions z (K, J) of the denominators (K,)."""
    out = torch.zeros(z.shape[1], dtype=z.dtype)
    for k in range(z.shape[0]):
        out += z[k] / denominators[k] * r[k]
    return out


def epsilon(w, b, x, r, epsilon=1e-6):
    return share(w * x, r, [away(v, epsilon) for v in w @ x + b])


def gamma(w, b, x, r, gamma=0.25):
    z, y = w * x, w @ x + b
    favoured = torch.stack([z[k].clamp(min=0) if y[k] > 0 else z[k].clamp(max=0) for k in range(len(y))])
    bias = [b[k].clamp(min=0) if y[k] > 0 else b[k].clamp(max=0) for k in range(len(y))]
    total = [away(y[k] + gamma * (favoured[k].sum() + bias[k]), TINY) for k in range(len(y))]
    return share(z + gamma * favoured, r, total)


def alpha_beta(w, b, x, r, alpha=2.0, beta=1.0):
    up, down = (w * x).clamp(min=0), (w * x).clamp(max=0)
    above = [away(v, TINY) for v in up.sum(1) + b.clamp(min=0)]
    below = [away(v, TINY) for v in down.sum(1) + b.clamp(max=0)]
    return alpha * share(up, r, above) - beta * share(down, r, below)


def zplus(w, b, x, r):
    return alpha_beta(w, b, x, r, 1.0, 0.0)


def excitation(w, b, x, r):
    z = w.clamp(min=0) * x.clamp(min=0)
    return share(z, r, [away(v, TINY) for v in z.sum(1)])


def flat(w, b, x, r):
    ones = (w != 0).to(w)
    return share(ones, r, [away(v, TINY) for v in ones.sum(1)])


def wsquare(w, b, x, r):
    return share(w**2, r, [away(v, TINY) for v in (w**2).sum(1)])


def zbox(w, b, x, r, low, high):
    z = w * x - w.clamp(min=0) * low - w.clamp(max=0) * high
    return share(z, r, [away(v, TINY) for v in z.sum(1)])


# ------------------------------------------------------------------------------------------------------ DeepLIFT
def rescale(f, x1, x0, m):
    """Multipliers of a pointwise f, elementwise, for x1 ≠ x0."""
    return torch.stack([m[i] * (f(x1[i]) - f(x0[i])) / (x1[i] - x0[i]) for i in range(len(x1))])


def softmax(x1, x0, m):
    """exp(s) rescaled, s = x - lse(x), and lse shared by the log-means: entry by entry."""
    n = len(x1)
    p1, p0 = ([math.exp(v - torch.logsumexp(x, 0).item()) for v in x.tolist()] for x in (x1, x0))
    mean = [
        (p1[i] - p0[i]) / (math.log(p1[i]) - math.log(p0[i])) if abs(p1[i] - p0[i]) > 1e-12 else p1[i] for i in range(n)
    ]
    back = sum(mean[i] * m[i].item() for i in range(n))
    return torch.tensor([mean[i] * (m[i].item() - back / sum(mean)) for i in range(n)], dtype=x1.dtype)


def layer_norm(x1, x0, m, weight, eps=1e-5):
    """Multipliers of one normalised row: the midpoint rules of c = y σ and σ² = mean(c²) + ε as matrices."""
    n = len(x1)
    centre = torch.eye(n, dtype=x1.dtype) - 1 / n
    c1, c0 = centre @ x1, centre @ x0
    s1, s0 = ((c**2).mean().add(eps).sqrt() for c in (c1, c0))
    y, s = (c1 / s1 + c0 / s0) / 2, (s1 + s0) / 2
    sigma = (c1 + c0) / 2 / n / s  # Δσ = sigma · Δc
    jacobian = (torch.eye(n, dtype=x1.dtype) - torch.outer(y, sigma)) / s
    return (weight * m) @ jacobian @ centre


def max_pool(x1, x0, m, size):
    """Windows of `size` without overlap along a row: the change of the maximum goes to one place."""
    out = torch.zeros_like(x1)
    for k in range(len(x1) // size):
        window = range(k * size, (k + 1) * size)
        i1, i0 = max(window, key=lambda i: x1[i]), max(window, key=lambda i: x0[i])
        i = i1 if x1[i1] >= x0[i0] else i0
        out[i] = m[k] * (x1[i1] - x0[i0]) / (x1[i] - x0[i])
    return out


def reveal_cancel(layers, x1, x0, m):
    """Multipliers of RevealCancel for layers (w, b) or functions, unit by unit: each unit has Δ = Δ⁺ + Δ⁻ and two multipliers.

    A layer (w,) averages what is before it, each part by itself. x1, x0 and m are lists of numbers; the input's changes are all
    on the side of their sign.
    """
    units = [(a, b, max(a - b, 0.0), min(a - b, 0.0)) for a, b in zip(x1, x0)]
    seen = []
    for layer in layers:
        seen.append(units)
        if callable(layer):
            units = [_revealed(layer, *unit) for unit in units]
            continue
        if len(layer) == 1:
            units = [tuple(sum(v * unit[p] for v, unit in zip(row, units)) for p in range(4)) for row in layer[0]]
            continue
        w, b = layer
        rows = [[(w[k][i], one - zero) for i, (one, zero, _, _) in enumerate(units)] for k in range(len(b))]
        units = [
            (
                b[k] + sum(w[k][i] * units[i][0] for i in range(len(units))),
                b[k] + sum(w[k][i] * units[i][1] for i in range(len(units))),
                sum(v * d for v, d in rows[k] if v * d > 0),
                sum(v * d for v, d in rows[k] if v * d < 0),
            )
            for k in range(len(b))
        ]
    above, below = list(m), list(m)
    for layer, before in zip(reversed(layers), reversed(seen)):
        if callable(layer):
            for i, unit in enumerate(before):
                _, _, up, down = _revealed(layer, *unit)
                above[i] = above[i] * up / unit[2] if unit[2] else 0.0
                below[i] = below[i] * down / unit[3] if unit[3] else 0.0
            continue
        w, back = layer[0], []
        if len(layer) == 1:
            above, below = (
                [sum(w[k][i] * m[k] for k in range(len(w))) for i in range(len(before))] for m in (above, below)
            )
            continue
        for i, (one, zero, _, _) in enumerate(before):
            back.append(0.0)
            for k in range(len(above)):
                worth = w[k][i] * (one - zero)
                share = above[k] if worth > 0 else below[k] if worth < 0 else (above[k] + below[k]) / 2
                back[i] += w[k][i] * share
        above, below = list(back), list(back)
    return [above[i] if x1[i] > x0[i] else below[i] for i in range(len(x1))]


def _revealed(f, one, zero, up, down):
    rise = (f(zero + up) - f(zero) + f(zero + down + up) - f(zero + down)) / 2
    fall = (f(zero + down) - f(zero) + f(zero + up + down) - f(zero + up)) / 2
    return f(one), f(zero), rise, fall
