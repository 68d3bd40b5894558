"""Class activation maps from activations and their gradients, and the two methods that go back to the input.

``A``: one example's activations (C, *grid), for a picture (C, H, W). ``above``: A -> one number, the rest of the model.
Maps are (*grid), not up-sampled and not normalised. ``relu``: the map's negative part is cut off at the very end;
where a paper does not print that ReLU, its docstring says so. Maps made with masks are in ``cam_masks``.
"""

import math

import numpy as np
import torch

from .gradient import gradient


def weighted_map(A, weights, relu=True):
    """ReLU(sum_k w_k A_k)."""
    total = torch.zeros_like(A[0])
    for k in range(len(A)):
        total = total + float(weights[k]) * A[k]
    return total.clamp(min=0) if relu else total


def cam(A, head, relu=False):
    """sum_k w_k A_k, w the class's row of the linear layer that follows global average pooling.

    Zhou et al., arXiv:1512.04150, eq. 2. The paper has no ReLU; the bias is left out, as there.
    """
    return weighted_map(A, head, relu)


def gradcam(above, A, relu=True):
    """w_k = mean over the grid of dy/dA_k; Selvaraju et al., arXiv:1610.02391, eq. 1 and 2."""
    g = gradient(above, A)
    return weighted_map(A, [g[k].mean() for k in range(len(A))], relu)


def plusplus_weights(first, second, third, A, numerator=None):
    """w_k = sum_ij relu(first_kij) * numerator_kij / (2 second_kij + (sum_ab A_kab) third_kij); 0 where that is 0/0.

    Arguments are derivatives (C, *grid); the numerator is ``second`` unless given.
    """
    numerator = second if numerator is None else numerator
    weights = []
    for k in range(len(A)):
        total, weight = A[k].sum().item(), 0.0
        rows = (t[k].flatten().tolist() for t in (first, second, third, numerator))
        for d1, d2, d3, top in zip(*rows):
            bottom = 2 * d2 + total * d3
            if bottom != 0:
                weight += max(d1, 0.0) * top / bottom
        weights.append(weight)
    return weights


def gradcam_plusplus(above, A, relu=True):
    """w_k = sum_ij alpha_kij relu(g_kij), alpha_kij = g_kij^2 / (2 g_kij^2 + (sum_ab A_kab) g_kij^3).

    Chattopadhay et al., arXiv:1710.11063, eq. 19: for Y = exp(S) and a network that is piecewise linear up to S, the
    second and third derivatives of Y are exp(S) times the powers of g = dS/dA, and exp(S) cancels in alpha.
    Choices: in w_k the factor exp(S) of dY/dA, the same for all k, is left out; alpha is 0 where the denominator is 0;
    no epsilon in the denominator (2 g^2 is often below any epsilon that is not tiny).
    """
    g = gradient(above, A)
    return weighted_map(A, plusplus_weights(g, g**2, g**3, A), relu)


def smoothgrad_cam_plusplus(below, above, x, noise, sigma, numerator="second", relu=True):
    """Grad-CAM++ with g, g^2 and g^3 replaced by their means over the inputs x + sigma e_n, ``noise`` (n, *).

    Omeiza et al., arXiv:1908.01224. ``below``: x (1, *) -> activations (C, *grid).
    Choices: A, in the denominator and in the map, is that of the clean x; the numerator of alpha is the mean g^2
    ("second"), so that without noise this is Grad-CAM++; the paper prints the mean g ("first").
    """
    with torch.no_grad():
        A = below(x)
    sums = [torch.zeros_like(A) for _ in range(3)]
    for n in range(len(noise)):
        with torch.no_grad():
            noisy = below(x + sigma * noise[n : n + 1])
        g = gradient(above, noisy)
        sums = [s + g**p for s, p in zip(sums, (1, 2, 3))]
    first, second, third = (s / len(noise) for s in sums)
    return weighted_map(A, plusplus_weights(first, second, third, A, first if numerator == "first" else None), relu)


def xgradcam(above, A, relu=True):
    """w_k = sum_ij A_kij g_kij / sum_ij A_kij; Fu et al., arXiv:2008.02312. Choice: w_k = 0 if the sum is 0."""
    g = gradient(above, A)
    weights = []
    for k in range(len(A)):
        total = A[k].sum().item()
        weights.append((A[k] * g[k]).sum().item() / total if total != 0 else 0.0)
    return weighted_map(A, weights, relu)


def hirescam(above, A, relu=True):
    """sum_k g_k * A_k, element by element; Draelos and Carin, arXiv:2011.08891. ReLU: ours, for display."""
    g, total = gradient(above, A), torch.zeros_like(A[0])
    for k in range(len(A)):
        total = total + g[k] * A[k]
    return total.clamp(min=0) if relu else total


def elementwise_cam(above, A):
    """sum_k relu(g_k * A_k). No paper: the variant that pytorch-grad-cam calls GradCAMElementWise."""
    g, total = gradient(above, A), torch.zeros_like(A[0])
    for k in range(len(A)):
        total = total + (g[k] * A[k]).clamp(min=0)
    return total


def layercam(above, A, relu=True):
    """sum_k relu(g_k) * A_k; Jiang et al., IEEE TIP 30 (2021) 5875."""
    g, total = gradient(above, A), torch.zeros_like(A[0])
    for k in range(len(A)):
        total = total + g[k].clamp(min=0) * A[k]
    return total.clamp(min=0) if relu else total


def hessian_vector(above, A):
    """H A, with H the Hessian of ``above`` at A. Zero where ``above`` is linear."""
    A = A.detach().clone().requires_grad_(True)
    g = torch.autograd.grad(above(A).reshape(()), A, create_graph=True)[0]
    if not g.requires_grad:
        return torch.zeros_like(A)
    product = torch.autograd.grad((g * A.detach()).sum(), A, allow_unused=True)[0]
    return torch.zeros_like(A) if product is None else product


def shapleycam(above, A, elementwise=False, relu=True):
    """w_k = mean over the grid of (g - H A / 2)_k; Cai, arXiv:2501.06261.

    g - H A / 2 is the second-order (Taylor) Shapley value per unit of activation. ``elementwise`` does not average, as
    HiResCAM does not. The paper's ReST score is a matter of the target, that is of ``above``: y_c + log softmax_c(y).
    """
    slope = gradient(above, A) - hessian_vector(above, A) / 2
    if not elementwise:
        return weighted_map(A, [slope[k].mean() for k in range(len(A))], relu)
    total = sum(slope[k] * A[k] for k in range(len(A)))
    return total.clamp(min=0) if relu else total


def similar_classes(scores, target, n):
    """The n classes, not the target, whose scores are nearest to the target's; ties go to the lower index."""
    others = [c for c in range(len(scores)) if c != target]
    return sorted(others, key=lambda c: abs(scores[c].item() - scores[target].item()))[:n]


def finercam(above, A, target, references, strength, weights=None, base=gradcam, **options):
    """The base method's map of y_c - strength * sum_d w_d y_d, d in ``references``; Zhang et al., arXiv:2501.11309.

    ``above``: A -> all scores (classes,). Choices: the w_d add up to one; equal, unless ``weights`` are given, which
    are constants (no gradient goes through them), for example the references' softmax probabilities.
    """
    w = [1.0] * len(references) if weights is None else [float(v) for v in weights]
    w = [v / sum(w) for v in w]

    def difference(a):
        scores = above(a)
        return scores[target] - strength * sum(v * scores[d] for v, d in zip(w, references))

    return base(difference, A, **options)


# --- principal components -------------------------------------------------------------------------


def oriented(projection, rows):
    """The sign of a principal component: such that it agrees with the sum of each row, sum_i p_i sum_c M_ic >= 0.

    Choice: papers leave the sign open. ``rows`` are not centred. If the sum is exactly 0, the entry of the largest
    absolute value is positive.
    """
    agreement = float((projection * rows.sum(1)).sum())
    if agreement == 0:
        agreement = float(projection[np.abs(projection).argmax()])
    return -projection if agreement < 0 else projection


def principal_map(M, centre=True, relu=True):
    """The projection of M (C, *grid), a point of R^C per grid cell, onto its first principal direction."""
    rows = M.detach().reshape(len(M), -1).T.numpy()
    points = rows - rows.mean(0) if centre else rows
    _, directions = np.linalg.eigh(points.T @ points)
    projection = torch.tensor(oriented(points @ directions[:, -1], rows)).reshape(M.shape[1:])
    return projection.clamp(min=0) if relu else projection


def eigencam(A, centre=True, relu=True):
    """The activations projected onto their first principal direction; Muhammad and Yeasin, arXiv:2008.00299.

    It knows of no class. Choices: the points are centred (the paper takes the singular vectors of A as it is:
    ``centre=False``), the sign is that of ``oriented``, and the ReLU is ours.
    """
    return principal_map(A, centre, relu)


def eigengradcam(above, A, centre=True, relu=True):
    """``eigencam`` of gradient times activation. No paper of its own: pytorch-grad-cam."""
    return principal_map(gradient(above, A) * A, centre, relu)


def kernel(name, a, b, gamma, coef0, degree):
    dot = float(a @ b)
    if name == "linear":
        return dot
    if name == "rbf":
        return math.exp(-gamma * float((a - b) @ (a - b)))
    if name == "sigmoid":
        return math.tanh(gamma * dot + coef0)
    if name == "poly":
        return (gamma * dot + coef0) ** degree
    raise ValueError(f"kernel={name!r}")


def kpcacam(A, name="sigmoid", gamma=None, coef0=1.0, degree=3, relu=True):
    """``eigencam`` with kernel PCA: sqrt(lambda) v, the first eigenpair of the centred kernel matrix.

    Karmani et al., arXiv:2410.00267. Choices: scikit-learn's kernels and their constants, gamma = 1 / C unless given;
    points centred in R^C before the kernel (and the kernel matrix after it); "first" is the largest eigenvalue, not
    the largest in size; the sign and the ReLU as in ``eigencam``.
    """
    rows = A.detach().reshape(len(A), -1).T.numpy()
    points = rows - rows.mean(0)
    n, gamma = len(points), 1 / len(A) if gamma is None else gamma
    K = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            K[i, j] = kernel(name, points[i], points[j], gamma, coef0, degree)
    K = K - K.mean(0, keepdims=True) - K.mean(1, keepdims=True) + K.mean()
    values, vectors = np.linalg.eigh(K)
    projection = oriented(vectors[:, -1] * math.sqrt(max(values[-1], 0.0)), rows)
    projection = torch.tensor(projection).reshape(A.shape[1:])
    return projection.clamp(min=0) if relu else projection


# --- back to the input ----------------------------------------------------------------------------


def interpolation_matrix(n, m, align_corners=False):
    """The (m, n) matrix of linear interpolation from n to m points on a line; torch's two conventions.

    Point j lies at (j + 1/2) n / m - 1/2, cut off at the first and the last point; with ``align_corners`` at
    j (n - 1) / (m - 1).
    """
    matrix = torch.zeros(m, n, dtype=torch.float64)
    for j in range(m):
        at = (j + 0.5) * n / m - 0.5
        if align_corners:
            at = j * (n - 1) / (m - 1) if m > 1 else 0.0
        at = min(max(at, 0.0), n - 1)
        left = min(math.floor(at), n - 1)
        right = min(left + 1, n - 1)
        matrix[j, left] += 1 - (at - left)
        matrix[j, right] += at - left
    return matrix


def upsample(m, size, align_corners=False):
    """A map of any number of dimensions brought to ``size`` by linear interpolation along each of them."""
    for axis, n in enumerate(size):
        matrix = interpolation_matrix(m.shape[axis], n, align_corners)
        m = torch.tensordot(matrix, m, dims=([1], [axis])).movedim(0, axis)
    return m


def guided_backprop(layers, x):
    """The gradient of layers[-1](... layers[0](x)) in which every ReLU passes on only positive parts.

    Springenberg et al., arXiv:1412.6806: at a ReLU with input z the backward signal g becomes g [z > 0] [g > 0].
    ``layers``: functions, a ReLU being ``torch.relu`` itself; the last returns one number.
    """
    inputs = []
    for layer in layers:
        inputs.append(x.detach().clone().requires_grad_(True))
        x = layer(inputs[-1])
    signal = torch.ones_like(x)
    for layer, z in zip(reversed(layers), reversed(inputs)):
        if layer is torch.relu:
            signal = signal * (z.detach() > 0) * (signal > 0)
        else:
            signal = torch.autograd.grad(layer(z), z, signal)[0]
    return signal


def guided_gradcam(guided, grad_map, align_corners=False):
    """Guided backprop (1, C, *size) times the Grad-CAM map brought to *size; Selvaraju et al., arXiv:1610.02391.

    Choice: linear interpolation (the paper; Captum's default is nearest).
    """
    return guided * upsample(grad_map, guided.shape[2:], align_corners)


def full_gradients(f, x, biases, shapes):
    """(x * df/dx, [b_l * df/dz_l for each l]); Srinivas and Fleuret, arXiv:1905.00780.

    ``f``: (x, shifts) -> one number, where shifts[l], of shape shapes[l], is added to the output z_l of the l-th layer
    that has a bias; biases[l] (C_l,) is that bias (for a batch norm the constant it adds: beta - mean * gamma / std).
    For networks of ReLUs and linear layers all terms add up to f(x).
    """
    shifts = [torch.zeros(s, dtype=x.dtype, requires_grad=True) for s in shapes]
    x = x.detach().clone().requires_grad_(True)
    g_x, *g_z = torch.autograd.grad(f(x, shifts).reshape(()), [x, *shifts])
    terms = []
    for g, b in zip(g_z, biases):
        terms.append(g * b.reshape([1, -1] + [1] * (g.dim() - 2)))
    return (x * g_x).detach(), terms


def fullgrad(f, x, biases, shapes, align_corners=False):
    """S = sum_c psi(x df/dx)_c + sum over layers with a grid, sum_c psi(b_l df/dz_l)_c; arXiv:1905.00780.

    psi: absolute value, then (v - min) / (max - min), then up-sampled. Choices: minimum and maximum over all channels
    and positions of a layer (the authors' code), a constant layer becomes 0, no epsilon; layers without a grid (fully
    connected ones) are left out; S is (*size).
    """
    first, terms = full_gradients(f, x, biases, shapes)
    total = torch.zeros(x.shape[2:], dtype=x.dtype)
    for term in [first, *[t for t in terms if t.dim() == x.dim()]]:
        v = term[0].abs()
        low, high = v.min().item(), v.max().item()
        for c in range(len(v)):
            if high > low:
                total = total + upsample((v[c] - low) / (high - low), x.shape[2:], align_corners)
    return total
