"""Gradient, noise and straight-line path methods. ``f``: (1, *) -> one number; ``x`` and results: (1, *)."""

from itertools import pairwise

import numpy as np
import torch


def gradient(f, x):
    """df/dx at x. Everything else in this file is sums of these."""
    x = x.detach().clone().requires_grad_(True)
    return torch.autograd.grad(f(x).reshape(()), x)[0]


def value(f, x):
    """f(x) as a Python float."""
    with torch.no_grad():
        return f(x).reshape(()).item()


def saliency(f, x, channels=None, signed=False):
    """|df/dx|; Simonyan et al., arXiv:1312.6034.

    ``channels`` reduces dimension 1 to one map (1, 1, *): "max" (the paper: the largest |g| of a pixel's channels),
    "norm" (the root of the sum of squares) or "sum" (the sum of |g|).
    Choices: ``signed`` leaves the sign; then "sum" adds signed numbers, and "max" and "norm" have no meaning.
    """
    g = gradient(f, x)
    if signed and channels in ("max", "norm"):
        raise ValueError(f"channels={channels!r} has no signed form")
    if not signed and channels != "norm":
        g = g.abs()
    if channels is None:
        return g
    reduced = torch.zeros_like(g[:, :1])
    for c in range(g.shape[1]):
        one = g[:, c : c + 1]
        if channels == "max":
            reduced = torch.maximum(reduced, one)
        elif channels == "norm":
            reduced = reduced + one**2
        elif channels == "sum":
            reduced = reduced + one
        else:
            raise ValueError(f"channels={channels!r}")
    return reduced.sqrt() if channels == "norm" else reduced


def input_x_gradient(f, x):
    """x_i df/dx_i; Shrikumar et al., arXiv:1605.01713."""
    return x * gradient(f, x)


# --- noise ----------------------------------------------------------------------------------------


def relative_sigma(x, level):
    """The standard deviation of a noise level: level * (max - min) over all elements of this row (arXiv:1706.03825)."""
    return level * (x.max() - x.min()).item()


def noisy_maps(f, x, noise, sigma, of):
    """The maps ``of(f, x + sigma * noise_k)`` for each row of standard normal ``noise`` (n, *)."""
    return [of(f, x + sigma * noise[k : k + 1]) for k in range(len(noise))]


def smoothgrad(f, x, noise, sigma, of=gradient):
    """1/n sum_k M(x + sigma e_k), M the gradient; Smilkov et al., arXiv:1706.03825.

    Choices: the mean of *signed* gradients, as printed in the paper. ``of=saliency`` averages |g| (with sigma = 0 that
    is ``saliency`` itself), any other ``of(f, x)`` is averaged in the same way.
    """
    maps = noisy_maps(f, x, noise, sigma, of)
    total = torch.zeros_like(maps[0])
    for m in maps:
        total = total + m
    return total / len(maps)


def squaregrad(f, x, noise, sigma, of=gradient):
    """1/n sum_k M(x + sigma e_k)^2 (SmoothGrad-Squared); Hooker et al., arXiv:1806.10758."""
    maps = noisy_maps(f, x, noise, sigma, of)
    total = torch.zeros_like(maps[0])
    for m in maps:
        total = total + m**2
    return total / len(maps)


def vargrad(f, x, noise, sigma, of=gradient):
    """Variance over k of M(x + sigma e_k); Adebayo et al., arXiv:1810.03307 (and Hooker et al.).

    Choices: divided by n, not n - 1 (so that vargrad = squaregrad - smoothgrad^2); from the deviations, in two passes.
    """
    maps = noisy_maps(f, x, noise, sigma, of)
    mean = smoothgrad(f, x, noise, sigma, of)
    total = torch.zeros_like(mean)
    for m in maps:
        total = total + (m - mean) ** 2
    return total / len(maps)


# --- straight-line paths --------------------------------------------------------------------------


def integration_rule(method, n):
    """(alphas, weights) of n points on [0, 1]: integral of h = sum_k weights[k] h(alphas[k]).

    The names and numbers are Captum's. k counts from 0.

    - gausslegendre: the n Gauss-Legendre nodes and weights of [-1, 1], brought to [0, 1]. Exact up to degree 2n - 1.
    - riemann_left: alpha = k/n; riemann_right: (k+1)/n; riemann_middle: (k+1/2)/n; weights 1/n.
    - riemann_trapezoid: alpha = k/(n-1), weights 1/n and 1/(2n) at both ends. These weights add up to (n-1)/n and not
      to 1: on a linear function it is short by the factor (n-1)/n.
    - trapezoid: not in Captum; the textbook rule: alpha = k/(n-1), weights 1/(n-1) and 1/(2(n-1)) at both ends.
    """
    if method == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(n)
        return [float((1 + t) / 2) for t in nodes], [float(w / 2) for w in weights]
    if method in ("riemann_left", "riemann_middle", "riemann_right"):
        shift = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}[method]
        return [(k + shift) / n for k in range(n)], [1 / n] * n
    if method in ("riemann_trapezoid", "trapezoid"):
        step = 1 / n if method == "riemann_trapezoid" else 1 / (n - 1)
        return [k / (n - 1) for k in range(n)], [step / 2] + [step] * (n - 2) + [step / 2]
    raise ValueError(f"method={method!r}")


def integrated_gradients(f, x, baseline, n_steps, method="gausslegendre", multiply_by_inputs=True):
    """(x - b) * integral over alpha in [0, 1] of df/dx(b + alpha (x - b)).

    Sundararajan et al., arXiv:1703.01365, eq. 1; the integral by ``integration_rule(method, n_steps)``.
    Without ``multiply_by_inputs`` only the integral. The layer form is this function with ``above`` for f,
    ``below(x)`` for x and ``below(b)`` for the baseline.
    """
    total = torch.zeros_like(x)
    for alpha, weight in zip(*integration_rule(method, n_steps)):
        total = total + weight * gradient(f, baseline + alpha * (x - baseline))
    return (x - baseline) * total if multiply_by_inputs else total


def averaged_integrated_gradients(f, x, baselines, n_steps, method="gausslegendre", multiply_by_inputs=True):
    """The mean of the integrated gradients from every row of ``baselines`` (m, *).

    Expected gradients (Erion et al., arXiv:1906.10670) with the outer expectation taken over all rows and the
    inner integral by the rule.
    """
    total = torch.zeros_like(x)
    for j in range(len(baselines)):
        b = baselines[j : j + 1]
        total = total + integrated_gradients(f, x, b, n_steps, method, multiply_by_inputs)
    return total / len(baselines)


def gradient_shap(f, x, baselines, alphas, noise=None, sigma=0.0, multiply_by_inputs=True):
    """1/n sum_k (x_k - b_k) * df/dx(b_k + alpha_k (x_k - b_k)), with x_k = x + sigma e_k.

    Lundberg and Lee's gradient explainer. ``baselines`` (n, *), ``alphas`` n numbers in [0, 1] and ``noise`` (n, *),
    standard normal, are the n draws, used in order. Choices (Captum's): the noise moves the end of the path, so it is
    in the difference too; each draw has one baseline and one alpha.
    """
    total = torch.zeros_like(x)
    for k in range(len(baselines)):
        end = x if noise is None else x + sigma * noise[k : k + 1]
        b = baselines[k : k + 1]
        g = gradient(f, b + float(alphas[k]) * (end - b))
        total = total + ((end - b) * g if multiply_by_inputs else g)
    return total / len(baselines)


def expected_gradients(f, x, baselines, alphas):
    """E over b and alpha of (x - b) * df/dx(b + alpha (x - b)); Erion et al., arXiv:1906.10670.

    The k-th draw is (``baselines[k]``, ``alphas[k]``). The same as ``gradient_shap`` without noise.
    """
    return gradient_shap(f, x, baselines, alphas)


def completeness_gap(f, x, baseline, attributions):
    """|sum of attributions - (f(x) - f(b))|, the completeness axiom (arXiv:1703.01365, proposition 1)."""
    return abs(attributions.sum().item() - (value(f, x) - value(f, baseline)))


# --- a layer between ``below`` and ``above`` ------------------------------------------------------


def conductance(below, above, x, baseline, n_steps, method="gausslegendre"):
    """sum_k dF/dy(x_k) * (y(x_{k+1}) - y(x_k)) for the points x_k = b + alpha_k (x - b), k = 0 ... n_steps.

    Dhamdhere et al., arXiv:1805.12233, in the form of Shrikumar et al., arXiv:1807.09946 (conductance is the
    path integral of the layer's own gradient). ``below``: x -> y (1, *), ``above``: y -> one number.
    Choices (Captum's): n_steps + 1 alphas of the rule, the gradient taken at the left end of each of the n_steps
    pieces, the rule's weights not used. It is complete in the limit of many steps only, with an error of O(1/n); only
    riemann_trapezoid walks the whole way from b to x, the others leave out a piece at one end or both.
    """
    alphas, _ = integration_rule(method, n_steps + 1)
    points = [baseline + alpha * (x - baseline) for alpha in alphas]
    with torch.no_grad():
        layer = [below(p) for p in points]
    total = torch.zeros_like(layer[0])
    for k in range(n_steps):
        total = total + gradient(above, layer[k]) * (layer[k + 1] - layer[k])
    return total


def internal_influence(below, above, x, baseline, n_steps, method="gausslegendre"):
    """integral over alpha of dF/dy at y(b + alpha (x - b)); Leino et al., arXiv:1802.03788, definition 1.

    The distribution of interest is uniform on the line from b to x (the paper's example), integrated by the rule.
    Not multiplied by anything: an influence per unit of y, not a share of the output.
    """
    total = None
    for alpha, weight in zip(*integration_rule(method, n_steps)):
        with torch.no_grad():
            y = below(baseline + alpha * (x - baseline))
        part = weight * gradient(above, y)
        total = part if total is None else total + part
    return total


# --- any path, given by its points ----------------------------------------------------------------


def path_sum(f, points, method="left"):
    """sum_k g_k * (p_{k+1} - p_k) over a list of points (1, *): a path integral of the gradient.

    g_k is the gradient at the left point, at the right point, at the midpoint, or the mean of left and right
    ("left", "right", "middle", "trapezoid").
    """
    total = torch.zeros_like(points[0])
    for start, end in pairwise(points):
        if method == "left":
            g = gradient(f, start)
        elif method == "right":
            g = gradient(f, end)
        elif method == "middle":
            g = gradient(f, (start + end) / 2)
        elif method == "trapezoid":
            g = (gradient(f, start) + gradient(f, end)) / 2
        else:
            raise ValueError(f"method={method!r}")
        total = total + g * (end - start)
    return total


def idgi(f, points):
    """sum_k (f(p_{k+1}) - f(p_k)) * g_k^2 / (g_k . g_k), g_k the gradient at p_k.

    Yang et al., arXiv:2303.14242, algorithm 1: each step's change of the output is shared out along the gradient's
    direction only. Complete by construction: the steps telescope to f(last) - f(first).
    Choices: the gradient is that of the left point (as in algorithm 1), the last point's gradient is not used; a step
    whose gradient is exactly zero adds nothing (its change of output is lost).
    """
    total = torch.zeros_like(points[0])
    for start, end in pairwise(points):
        g = gradient(f, start)
        square = (g * g).sum().item()
        if square != 0:
            total = total + (value(f, end) - value(f, start)) * g * g / square
    return total


def straight_path(x, baseline, n_steps):
    """The n_steps + 1 points b + k/n (x - b), k = 0 ... n, for ``path_sum`` and ``idgi``."""
    return [baseline + (k / n_steps) * (x - baseline) for k in range(n_steps + 1)]
