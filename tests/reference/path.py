"""Path methods whose path is not a straight line: Blur IG and Guided IG. ``f``: (1, *) -> one number."""

import math
from itertools import pairwise

import torch

from .gradient import gradient

# --- Blur IG --------------------------------------------------------------------------------------


def gaussian_weights(sigma, radius):
    """exp(-j^2 / (2 sigma^2)) for j = -radius ... radius, divided by their sum. sigma = 0 is the identity."""
    if sigma == 0:
        return [1.0 if j == 0 else 0.0 for j in range(-radius, radius + 1)]
    raw = [math.exp(-(j**2) / (2 * sigma**2)) for j in range(-radius, radius + 1)]
    return [r / sum(raw) for r in raw]


def blur_line(values, weights, boundary):
    """The convolution of a list of numbers with odd, symmetric weights.

    ``boundary``: what lies outside. "constant": 0; "nearest": the edge value; "reflect": mirrored with the edge value
    repeated (d c b a | a b c d | d c b a). The names are scipy.ndimage's.
    """
    n, radius, out = len(values), len(weights) // 2, []
    for i in range(n):
        total = 0.0
        for j in range(-radius, radius + 1):
            at = i + j
            if boundary == "constant" and not 0 <= at < n:
                continue
            if boundary == "nearest":
                at = min(max(at, 0), n - 1)
            elif boundary == "reflect":
                at = at % (2 * n)
                at = at if at < n else 2 * n - 1 - at
            total += weights[j + radius] * values[at]
        out.append(total)
    return out


def gaussian_blur(x, sigma, radius=None, boundary="constant"):
    """x (1, C, H, W) blurred over H and W, every channel by itself; a Gaussian is separable, so line by line.

    Choices: ``radius=None`` cuts the kernel at 4 sigma, int(4 sigma + 1/2), as scipy.ndimage.gaussian_filter does. That
    radius jumps as sigma grows, which a derivative with respect to sigma sees; a fixed number has no jumps.
    """
    if sigma == 0:
        return x.clone()
    radius = int(4 * sigma + 0.5) if radius is None else radius
    weights, (_, channels, height, width) = gaussian_weights(sigma, radius), x.shape
    out = x.clone()
    for c in range(channels):
        for i in range(height):
            out[0, c, i] = torch.tensor(blur_line(out[0, c, i].tolist(), weights, boundary), dtype=x.dtype)
        for j in range(width):
            out[0, c, :, j] = torch.tensor(blur_line(out[0, c, :, j].tolist(), weights, boundary), dtype=x.dtype)
    return out


def blur_sigmas(max_sigma, n_steps, sqrt=False):
    """The n_steps + 1 widths 0 ... max_sigma: evenly spaced, or (``sqrt``) with evenly spaced squares.

    The paper's scale alpha is proportional to sigma^2, so ``sqrt`` is evenly spaced in alpha. Even in sigma is the
    authors' default.
    """
    return [max_sigma * (math.sqrt(i / n_steps) if sqrt else i / n_steps) for i in range(n_steps + 1)]


def blur_path(x, sigmas, radius=None, boundary="constant"):
    """The points of the path from the most blurred picture to x itself: a list for ``path_sum`` or ``idgi``."""
    return [gaussian_blur(x, s, radius, boundary) for s in sorted(sigmas, reverse=True)]


def blur_ig(f, x, sigmas, grad_step=0.01, radius=None, boundary="constant"):
    """- sum_i df/dL(L_i) * (L(sigma_i + h) - L_i)/h * (sigma_{i+1} - sigma_i), L_i = x blurred with width sigma_i.

    Xu, Venugopalan, Sundararajan, CVPR 2020, arXiv:2004.03383, as a Riemann sum: the integral from the widest blur to
    the sharp picture of df/dL dL/dsigma, per pixel; the minus sign turns the direction of the path. ``sigmas`` ascend
    from 0 to the widest. Choices (the authors' published code): sums over the left ends of the pieces (so x itself
    counts and the widest blur does not), dL/dsigma by a forward difference of step h = ``grad_step``, zeros outside the
    picture. Sums to f(x) - f(x blurred with the widest) in the limit of small steps and small h.

    >>> x = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    >>> float(blur_ig(lambda t: 0 * t.sum(), x, [0.0, 1.0]).abs().sum())
    0.0
    """
    total = torch.zeros_like(x)
    for start, end in pairwise(sigmas):
        here = gaussian_blur(x, start, radius, boundary)
        slope = (gaussian_blur(x, start + grad_step, radius, boundary) - here) / grad_step
        total = total - gradient(f, here) * slope * (end - start)
    return total


# --- Guided IG ------------------------------------------------------------------------------------


def guided_ig(f, x, baseline, n_steps, fraction=0.25, max_dist=0.02, anchors=0):
    """Integrated gradients along a path that moves the features of smallest |df/dx_i| first.

    Kapishnikov et al., CVPR 2021, arXiv:2106.09788, algorithm 1. ``anchors`` = K cuts the straight line
    into K + 1 equal pieces and walks each from anchor to anchor with n_steps / (K + 1) steps; with K = 0 one walk.
    ``max_dist`` (the authors' published code) bounds how far a feature's own alpha may be from that of the straight
    line: 0 is plain IG, 1 leaves the path free.
    """
    if n_steps % (anchors + 1):
        raise ValueError(f"n_steps={n_steps} is not a multiple of anchors + 1 = {anchors + 1}")
    total = torch.zeros_like(x)
    for k in range(anchors + 1):
        start = baseline + k / (anchors + 1) * (x - baseline)
        end = x if k == anchors else baseline + (k + 1) / (anchors + 1) * (x - baseline)
        total = total + guided_walk(f, end, start, n_steps // (anchors + 1), fraction, max_dist)
    return total


def guided_walk(f, x, baseline, n_steps, fraction, max_dist):
    """One walk of Guided IG from the baseline to x.

    Feature i stands at t_i in [0, 1], x_i(t) = (1 - t_i) b_i + t_i x_i. After step s the distance to x,
    D = sum_i |x_i - b_i| (1 - t_i), is D_0 (1 - s / n_steps). In a step, with the gradient taken once at its beginning:
    (1) features behind alpha - max_dist are moved up to it, alpha = s / n_steps; (2) of the features not yet at
    alpha + max_dist those with the smallest |gradient| are chosen; (3) they are moved towards alpha + max_dist, all by
    the same fraction of what is left to each, by as much as D needs, or all the way, and then (1) to (3) are repeated.
    Every movement is multiplied by the gradient and added up.

    Choices (the authors' published code): "smallest" is |g| <= the floor(fraction * (d - 1))-th order statistic
    (from 0) over all d features, where finished features count as infinite; ties are all chosen; if the order statistic
    is infinite every unfinished feature is chosen. A feature with x_i = b_i is finished. D is reached when it is within
    1e-9 of its goal, relative or absolute.
    """
    end, begin = x.flatten().tolist(), baseline.flatten().tolist()
    d = len(end)
    width = [abs(e - b) for e, b in zip(end, begin)]
    t = [1.0 if w == 0 else 0.0 for w in width]
    total = [0.0] * d

    def point():
        return [(1 - ti) * b + ti * e for ti, b, e in zip(t, begin, end)]

    for step in range(1, n_steps + 1):
        g = gradient(f, torch.tensor(point(), dtype=x.dtype).reshape(x.shape)).flatten().tolist()
        low, high = max(step / n_steps - max_dist, 0.0), min(step / n_steps + max_dist, 1.0)
        goal = sum(width) * (1 - step / n_steps)
        while True:
            before = point()
            t = [max(ti, low) for ti in t]
            distance = sum(w * (1 - ti) for w, ti in zip(width, t))
            reached = math.isclose(distance, goal, rel_tol=1e-9, abs_tol=1e-9)
            move = 0.0 if reached else guided_move(g, t, width, fraction, high, distance - goal)
            total = [a + (now - old) * gi for a, now, old, gi in zip(total, point(), before, g)]
            if reached or move <= 1:
                break
    return torch.tensor(total, dtype=x.dtype).reshape(x.shape)


def guided_move(g, t, width, fraction, high, needed):
    """Steps (2) and (3) of ``guided_walk``, in place on ``t``; returns the part of the way needed (> 1: not enough)."""
    ranked = [math.inf if ti >= high else abs(gi) for gi, ti in zip(g, t)]
    threshold = sorted(ranked)[math.floor(fraction * (len(g) - 1))]
    chosen = [i for i in range(len(g)) if ranked[i] <= threshold and ranked[i] < math.inf]
    if not chosen:
        raise RuntimeError("no feature left to move, and the distance is not reached")
    room = sum(width[i] * (high - t[i]) for i in chosen)
    part = needed / room
    for i in chosen:
        t[i] = high if part > 1 else t[i] + part * (high - t[i])
    return part
