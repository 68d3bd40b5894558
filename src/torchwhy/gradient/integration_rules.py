"""Rules to integrate over [0, 1]: points and their weights."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from torchwhy.engine.run.checks import check_count

if TYPE_CHECKING:
    import numpy as np

IntegrationRule = Literal["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
SHIFTS = {"riemann_left": 0.0, "riemann_middle": 0.5, "riemann_right": 1.0}  # of the points, in steps


def check_points(method: IntegrationRule, n: int) -> None:
    """Refuse fewer points than a rule has.

    Raises:
        ValueError: there are too few.
    """
    check_count("n_steps", n, 2 if method == "riemann_trapezoid" else 1)


def nodes_and_weights(method: IntegrationRule, n: int) -> tuple[Tensor, Tensor]:
    """Return points in [0, 1] and weights that sum to 1, float64 ``(n,)`` each.

    Raises:
        ValueError: too few points for the rule.
    """
    check_points(method, n)
    if method == "gausslegendre":
        points, shares = _gauss_legendre(int(n))
        return torch.tensor(points), torch.tensor(shares)
    if method == "riemann_trapezoid":
        weights = torch.full((n,), 1 / (n - 1), dtype=torch.double)
        weights[0] = weights[-1] = 0.5 / (n - 1)
        return torch.linspace(0, 1, n, dtype=torch.double), weights
    return (torch.arange(n, dtype=torch.double) + SHIFTS[method]) / n, torch.full((n,), 1 / n, dtype=torch.double)


@lru_cache(maxsize=64)
def _gauss_legendre(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return nodes and weights on [0, 1], kept: a thousand of them take as long as some hundred rows on a GPU."""
    try:  # of a band matrix: numpy's dense one takes seconds for thousands
        from scipy.special import roots_legendre as rule
    except ModuleNotFoundError:
        from numpy.polynomial.legendre import leggauss as rule
    nodes, shares = rule(n)
    return (1 + nodes) / 2, shares / 2
