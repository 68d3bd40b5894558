"""Leave one feature out: replaced by a baseline."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.features.masks import score_drops
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class FeatureAblation(Attribution[GivenLayer]):
    r"""How far the score drops when a feature is replaced by its baseline: :math:`A_{ni} = f(x_n) - f(x_n \setminus i)`.

    In units of the score, positive where the feature speaks for the target. Every element of feature i carries all of
    :math:`A_{ni}`; with K baselines it is the mean over them. Exact for a linear score, where the features sum to
    f(x) − f(b); no such sum otherwise, as joint effects are counted not at all or several times. Takes K (d + 1)
    evaluations of a row with d features.

    Paper: Li et al. 2016, arXiv:1612.08220, equation 1, as a difference; for patches Zeiler & Fergus 2014,
    arXiv:1311.2901.
    """

    needs_gradient: ClassVar[bool] = False
    uses_baselines: ClassVar[bool] = True
    takes_weights: ClassVar[bool] = True
    uses_feature_mask: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    paper: ClassVar[str] = "arXiv:1612.08220"

    def _attribute(self, problem: Problem) -> Tensors:
        features = number_features(problem.x, problem.feature_mask)
        return features.to_elements(score_drops(problem, features.leave_one_out_masks, features.d), problem.x)
