"""Banzhaf values by regression over sampled coalitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from torchwhy.input_types import GivenLayer
from torchwhy.shapley.exact_shapley import banzhaf_interactions, banzhaf_values
from torchwhy.shapley.interactions import PairWeights, banzhaf_pair_weights
from torchwhy.shapley.kernel_shap import KernelSHAP
from torchwhy.shapley.paired_sampling import PairedDesign, banzhaf_design


class Banzhaf(KernelSHAP[GivenLayer]):
    r"""Banzhaf values, the mean gain over all coalitions: :math:`\beta_i = 2^{1-d} \sum_{S \not\ni i} v(S \cup i) - v(S)`.

    In units of the score; unlike Shapley values they do not sum to v(D) − v(∅), and vary less with noise in the scores.
    They are the least-squares fit of the score over all coalitions alike, which is solved as in :class:`KernelSHAP`, whose
    settings they share.

    Paper: Banzhaf 1965; Hammer & Holzman 1992 for the least squares; Wang & Jia 2023, arXiv:2205.15466.
    """

    is_complete: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2205.15466"

    _design: ClassVar[Callable[[int, list[int], torch.Generator], PairedDesign]] = staticmethod(banzhaf_design)
    _exact: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(banzhaf_values)
    _exact_pairs: ClassVar[Callable[[Tensor], Tensor]] = staticmethod(banzhaf_interactions)
    _pair_weights: ClassVar[PairWeights] = staticmethod(banzhaf_pair_weights)
