"""Class activation maps whose weights come from changed inputs or activations: no gradients but in Opti-CAM.

``f``: input (1, *) -> one number; ``x``: the input; ``A``: its activations (C, *grid). Maps are (*grid), see ``cam``.
"""

import math

import torch

from .cam import upsample, weighted_map
from .gradient import gradient, value


def softmax(scores):
    high = max(scores)
    powers = [math.exp(s - high) for s in scores]
    return [p / sum(powers) for p in powers]


def unit_range(m):
    """(m - min) / (max - min). Choice: a constant map becomes 0."""
    low, high = m.min(), m.max()
    return (m - low) / (high - low) if high > low else 0 * m


def masks_of(x, A, align_corners=False):
    """The mask of every channel: up-sampled to the input's size, then brought to [0, 1]; a list of (*size)."""
    return [unit_range(upsample(A[k], x.shape[2:], align_corners)) for k in range(len(A))]


def scorecam(f, x, A, align_corners=False, relu=True):
    """w = softmax over k of f(x * mask_k); Wang et al., arXiv:1910.01279.

    The paper subtracts f(baseline input), which does not change the softmax. Removed pixels are 0.
    """
    scores = [value(f, x * mask) for mask in masks_of(x, A, align_corners)]
    return weighted_map(A, softmax(scores), relu)


def sscam(f, x, A, noise, sigma, where="mask", align_corners=False, relu=True):
    """w = softmax over k of 1/n sum_i f(noisy masked input); Wang et al., arXiv:2006.14255.

    ``where="mask"``: f(x * (mask_k + sigma e_ik)), noise (n, C, *size). ``where="input"``: f(x * mask_k + sigma e_ik),
    noise (n, C, *x.shape[1:]). Choices: the noise is added after the mask was brought to [0, 1], and the noisy mask is
    not brought back to it; each channel has draws of its own.
    """
    scores = []
    for k, mask in enumerate(masks_of(x, A, align_corners)):
        total = 0.0
        for i in range(len(noise)):
            e = sigma * noise[i, k]
            total += value(f, x * (mask + e) if where == "mask" else x * mask + e)
        scores.append(total / len(noise))
    return weighted_map(A, softmax(scores), relu)


def iscam(f, x, A, coefficients, align_corners=False, relu=True):
    """w = softmax over k of 1/N sum_i f(c_i * x * mask_k); Naidu et al., arXiv:2010.03023.

    ``coefficients`` c_i, i = 1 ... N. Choice: i/N, the integral from nothing to the masked picture that the paper
    describes, is what to pass. Its formula, read literally, adds up the i/N as it goes (i (i + 1) / (2 N), which grows
    to (N + 1) / 2 and over-exposes the picture); torchcam does that.
    """
    scores = []
    for mask in masks_of(x, A, align_corners):
        total = 0.0
        for c in coefficients:
            total += value(f, c * x * mask)
        scores.append(total / len(coefficients))
    return weighted_map(A, softmax(scores), relu)


def ablationcam(above, A, relu=True):
    """w_k = (y - y_k) / y, y_k the score with channel k set to 0; Desai and Ramaswamy, WACV 2020.

    ``above``: A -> one number. Choices: as printed, so a negative y turns the signs; y = 0 raises.
    """
    y = value(above, A)
    if y == 0:
        raise ZeroDivisionError("the score is 0: the drop has no relative size")
    weights = []
    for k in range(len(A)):
        without = A.clone()
        without[k] = 0
        weights.append((y - value(above, without)) / y)
    return weighted_map(A, weights, relu)


def adam(objective, u, n_steps, lr, betas=(0.9, 0.999), eps=1e-8):
    """n_steps of gradient ascent with Adam (arXiv:1412.6980, algorithm 1)."""
    m, v = torch.zeros_like(u), torch.zeros_like(u)
    for t in range(1, n_steps + 1):
        g = -gradient(objective, u)
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        u = u - lr * (m / (1 - betas[0] ** t)) / ((v / (1 - betas[1] ** t)).sqrt() + eps)
    return u


def opticam(f, x, A, n_steps, lr=0.1, align_corners=False):
    """S = sum_k softmax(u)_k A_k with u that maximises f(x * unit_range(upsampled S)).

    Zhang et al., arXiv:2301.07002. Choices: Adam from u = 0 (equal weights), learning rate 0.1 and the "plain"
    objective, the score itself, both from the paper; the last u, not the best. Minimum and maximum in ``unit_range``
    are differentiated. No ReLU is needed for activations that are not negative, and none is taken.
    """

    def combine(u):
        weights = torch.exp(u - u.max().detach())
        weights = weights / weights.sum()
        total = torch.zeros_like(A[0])
        for k in range(len(A)):
            total = total + weights[k] * A[k]
        return total

    def score(u):
        return f(x * unit_range(upsample(combine(u), x.shape[2:], align_corners)))

    return combine(adam(score, torch.zeros(len(A), dtype=A.dtype), n_steps, lr))
