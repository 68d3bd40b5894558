"""The types of what a call of a method is given: inputs, baselines and feature masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from torchwhy.arguments import Ragged
from torchwhy.baselines import AtLayer, BaselineLike
from torchwhy.engine.tables import Frame
from torchwhy.samples.sample import Sample

SingleInput = Tensor | np.ndarray | Frame | Sample  # whose attributions are one tensor
OneInput = Tensor | np.ndarray | Ragged | list[Tensor]
Inputs = OneInput | tuple[OneInput, ...] | Mapping[str, OneInput] | Frame | Sample
RowsOfBaselines = BaselineLike | np.ndarray | Frame | AtLayer | Ragged | list[Tensor] | Sample
Baselines = RowsOfBaselines | tuple[RowsOfBaselines, ...] | Mapping[str, RowsOfBaselines]
FeatureMasks = OneInput | tuple[OneInput, ...] | Mapping[str, OneInput] | None
