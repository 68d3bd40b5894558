"""Operations on images, batched and on the device: blurring and resizing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def gaussian_blur(x: Tensor, sigma: Tensor, *, truncate: float = 4.0) -> Tensor:
    r"""Return each row blurred by its own Gaussian, :math:`x * \exp(-u^2 / 2\sigma_n^2)`, normalized, edges replicated.

    Args:
        x: ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, C, D, H, W)``.
        sigma: ``(N,)``, in pixels, or ``(N, axes)``, one for each axis of places; 0 leaves the row as it is.
        truncate: the kernel ends at this many standard deviations.

    Returns:
        The same shape. As ``scipy.ndimage.gaussian_filter`` with ``mode="nearest"``.

    Raises:
        ValueError: no spatial dimension.
    """
    if x.dim() not in (3, 4, 5):
        raise ValueError(f"a blur needs rows of shape (C, L), (C, H, W) or (C, D, H, W), got {tuple(x.shape[1:])}")
    widths = sigma if sigma.dim() == 2 else sigma[:, None].expand(-1, x.dim() - 2)
    for dim in range(2, x.dim()):
        matrices = _blur_matrices(widths[:, dim - 2], x.shape[dim], truncate).to(x)
        x = torch.einsum("nij,nc...j->nc...i", matrices, x.movedim(dim, -1)).movedim(-1, dim)
    return x


def _blur_matrices(sigma: Tensor, size: int, truncate: float) -> Tensor:
    """Return for each sigma the matrix ``(N, size, size)`` that blurs a line of ``size`` pixels with replicated ends."""
    sigma = sigma.double()[:, None]
    radius = int(truncate * float(sigma.max()) + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=sigma.device, dtype=torch.double)
    kernel = torch.where(
        offsets.abs() <= torch.floor(truncate * sigma + 0.5),
        torch.exp(-0.5 * (offsets / sigma.clamp(min=1e-6)).square()),
        0.0,
    )
    kernel = kernel / kernel.sum(1, keepdim=True)
    at = (torch.arange(size, device=sigma.device)[:, None] + offsets.long()).clamp(0, size - 1)  # (size, taps)
    matrix = kernel.new_zeros(len(sigma), size, size)
    return matrix.scatter_add_(2, at.expand(len(sigma), -1, -1), kernel[:, None].expand(-1, size, -1))


def inpaint_linearly(x: Tensor, keep: Tensor, *, tolerance: float = 1e-5, most: int = 4000) -> Tensor:
    r"""Return images whose dropped pixels are weighted means of their 8 neighbours: 1/6 beside, 1/12 across, less at edges.

    Solves :math:`x_i \sum_j w_{ij} = \sum_j w_{ij} x_j` for the dropped pixels by conjugate gradients, all rows together. The
    weights are :math:`1 / 6 d_{ij}^2`, d the distance: of a video with its 26 neighbours 1/18 at the corners. Of a series, whose
    steps have two neighbours, the solution is the line between the kept ones, level beyond the first and the last.

    Args:
        x: ``(N, C, L)``, ``(N, C, H, W)`` or ``(N, C, T, H, W)``.
        keep: ``(N, 1, ...)`` bool; where a row keeps none, each channel is its mean.
        tolerance: the largest residual, relative to that of zero.
        most: iterations.
    """
    given, x = x, x.to(torch.promote_types(x.dtype, torch.float))  # the squared residual is below what half can say
    if x.dim() == 3:
        return torch.where(keep, given, _between_kept(x, keep).to(given))
    axes = tuple(range(2, x.dim()))
    steps = torch.arange(-1, 2, device=x.device, dtype=x.dtype)
    offsets = torch.cartesian_prod(*[steps] * len(axes))
    squares = offsets.square().sum(1)
    kernel = torch.where(squares > 0, 1 / (6 * squares), 0.0).view(1, 1, *(3,) * len(axes))
    convolve = F.conv2d if len(axes) == 2 else F.conv3d

    def around(t: Tensor) -> Tensor:
        return convolve(t.flatten(0, 1)[:, None], kernel, padding=1).view_as(t)

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return (a * b).sum(axes, keepdim=True)

    def apply(t: Tensor) -> Tensor:
        return gap * (total * t - around(t))

    total = around(torch.ones_like(x[:1, :1]))
    gap = (~keep).to(x)
    found = gap * x.mean(axes, keepdim=True)
    # a row that keeps nothing has its mean already, and no other solution to look for
    residual = torch.where(
        keep.any(1).flatten(1).any(1).view(-1, *(1,) * (x.dim() - 1)), gap * around(x * keep) - apply(found), 0
    )
    direction, size = residual, inner(residual, residual)
    right = gap * around(x * keep)
    goal = tolerance**2 * inner(right, right)
    for step in range(most):
        if step % 16 == 0 and not bool((size > goal).any()):
            break
        moved = apply(direction)
        length = size / inner(direction, moved).clamp(min=torch.finfo(x.dtype).tiny)
        found, residual = found + length * direction, residual - length * moved
        size, before = inner(residual, residual), size
        direction = residual + size / before.clamp(min=torch.finfo(x.dtype).tiny) * direction
    return torch.where(keep, given, found.to(given))


def _between_kept(x: Tensor, keep: Tensor) -> Tensor:
    """Return series ``(N, C, L)`` in which a dropped step lies on the line between the kept ones around it."""
    last = x.shape[2] - 1
    at = torch.arange(last + 1, device=x.device)
    before = torch.where(keep, at, -1).cummax(2).values
    after = torch.where(keep, at, last + 1).flip(2).cummin(2).values.flip(2)
    nothing = before.max(2, keepdim=True).values < 0
    before, after = torch.where(before < 0, after, before), torch.where(after > last, before, after)
    share = (at - before).to(x) / (after - before).clamp(min=1)
    low, high = (x.gather(2, k.clamp(0, last).expand_as(x)) for k in (before, after))
    return torch.where(nothing, x.mean(2, keepdim=True), low + share * (high - low))
