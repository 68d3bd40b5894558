"""Shapley values of a linear model."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import evaluate_all
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.run.rows import expand_like
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.settings import Bounds


class LinearSHAP(Attribution[GivenLayer]):
    r"""Shapley values of a score that is linear in its features:
    :math:`\varphi_i = v(\{i\}) - v(\emptyset) = w_i (x_i - \mathbb{E} b_i)`.

    In units of the score; the features sum to f(x) − E f(b). No weights are read, so that it serves any callable, such as
    a scikit-learn regression; explain logits, not probabilities. Takes K (d + 2) evaluations of a row, one of them to
    check that the features add up.

    Args:
        rtol: how far from adding up the features may be, as a share of the scores.

    Raises:
        ValueError: the score is not additive over the features; ExactShapley and KernelSHAP need no such thing.

    Paper: Lundberg & Lee 2017, arXiv:1705.07874, corollary 1.
    """

    rtol: Annotated[float, Bounds(0, math.inf)] = 1e-3

    needs_gradient: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    uses_feature_mask: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    is_complete: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1705.07874"

    def _attribute(self, problem: Problem) -> Result:
        features = number_features(problem.x, problem.feature_mask)

        def masks(index: Tensor, rows: Tensor) -> Tensors:  # 0 keeps nothing, 1 to d one feature, d + 1 everything
            full = index.to(rows.device) == features.d + 1
            return tuple(~m | expand_like(full, m) for m in features.leave_one_out_masks(index, rows))

        s = evaluate_all(problem, masks, (0, features.d + 2))
        values, whole = (s[1:-1] - s[0]).T, s[-1] - s[0]
        gap = (values.sum(1) - whole).abs()
        if bool((gap > self.rtol * (values.abs().sum(1) + s[0].abs() + s[-1].abs())).any()):
            n = int(gap.argmax())
            raise ValueError(
                f"model: not linear; the features of row {n} add up to {float(values[n].sum()):.4g} one by one and to "
                f"{float(whole[n]):.4g} together; explain the logits, or use ExactShapley or KernelSHAP"
            )
        return Result(features.to_elements(values, problem.x), gap)
