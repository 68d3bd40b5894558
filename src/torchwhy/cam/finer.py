"""The class activation map of what tells a class from those that are like it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ..engine.paths import count
from ..engine.problem import Problem
from ..target import Derived, only_tensor
from .base import ClassActivationMap
from .gradient_cams import GradCAM


@dataclass(kw_only=True, repr=False)
class FinerCAM(ClassActivationMap):
    r"""The map of a class's score less the scores of similar classes: :math:`y_k - \gamma \sum_d w_d y_d`, with
    :math:`\sum_d w_d = 1`, in the place of :math:`y_k`.

    Args:
        of: the method whose weights make the map; its other settings are not used. None is :class:`GradCAM`.
        strength: γ.
        n_references: how many classes are compared with, for each row those whose scores are nearest to the target's.
        references: these classes instead, for all rows.
        weighting: equal w, or proportional to exp(y_d) (``"softmax"``), held constant.

    Paper: Zhang et al. 2025, arXiv:2501.11309.
    """

    of: ClassActivationMap | None = None
    strength: float = 0.6
    n_references: int = 3
    references: Sequence[int] | None = None
    weighting: Literal["equal", "softmax"] = "equal"

    paper: ClassVar[str] = "arXiv:2501.11309"

    def maps(self, problem: Problem) -> list[Tensor]:
        """Those of the other method."""
        if self.weighting not in ("equal", "softmax"):
            raise ValueError(f"weighting={self.weighting!r}: expected 'equal' or 'softmax'")
        count("n_references", self.n_references)
        of = self.of or GradCAM(self.model)
        problem.target = _Difference(problem.target, self)
        return replace(of, layer=self.layer, reshape=self.reshape).maps(problem)


@dataclass
class _Difference(Derived):
    """The score of the target less the mean score of classes like it."""

    method: FinerCAM

    def select(self, output: Any, rows: Tensor) -> Tensor:
        y, own, method = only_tensor(output), self.target.select(output, rows), self.method
        index = self.target.take(rows)
        if y.dim() != 2 or not isinstance(index, (int, list)):
            raise TypeError(
                "target: FinerCAM compares classes; it needs an output (N, classes) and an int, or one per row"
            )
        classes = torch.as_tensor(index, device=y.device).expand(len(y))[:, None]
        if method.references is not None:
            others = torch.as_tensor(list(method.references), device=y.device).expand(len(y), -1)
            if bool((others == classes).any()) or bool((others >= y.shape[1]).any()):
                raise ValueError(
                    f"references={list(method.references)}: expected classes of the {y.shape[1]}, and not the target's"
                )
        else:
            n = min(method.n_references, y.shape[1] - 1)
            far = (y.detach() - own.detach()[:, None]).abs().scatter(1, classes, torch.inf)
            others = far.sort(dim=1, stable=True).indices[:, :n]
        near = y.gather(1, others)
        if method.weighting == "softmax":
            return own - method.strength * (near.detach().softmax(1) * near).sum(1)
        return own - method.strength * near.mean(1)
