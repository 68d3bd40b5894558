"""The types of what a call of a method is given, and of what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

import numpy as np
from torch import Tensor
from typing_extensions import TypeVar

from torchwhy.arguments import Ragged
from torchwhy.baselines import AtLayer, BaselineLike
from torchwhy.engine.axes import AxesLike
from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.tables import Frame
from torchwhy.samples.sample import Sample
from torchwhy.targets import TargetLike

EvenInput = Tensor | np.ndarray
UnevenInput = Tensor | Ragged | list[Tensor]  # of which the rows may have shapes of their own
OneInput = EvenInput | Frame | Sample  # whose attributions are one tensor
Several = tuple[EvenInput, ...] | list[np.ndarray]
ByName = Mapping[str, EvenInput]
Uneven = Ragged | list[Tensor] | tuple[UnevenInput, ...] | Mapping[str, UnevenInput]
Even = EvenInput | Frame | Several | ByName
Inputs = OneInput | Several | ByName | Uneven

Mask = EvenInput | UnevenInput
RowsOfBaselines = BaselineLike | np.ndarray | Frame | AtLayer | Ragged | list[Tensor] | Sample
Baselines = RowsOfBaselines | tuple[RowsOfBaselines, ...] | Mapping[str, RowsOfBaselines]
TargetList = Sequence[TargetLike] | str  # the word is "all"
FeatureMasks = Mask | tuple[Mask, ...] | Mapping[str, Mask] | None


class Rest(TypedDict, total=False):
    """What a call of a method is given by name, besides its target."""

    axes: AxesLike
    baselines: Baselines
    layer_baselines: Baselines
    feature_mask: FeatureMasks
    additional_forward_args: object


AnyResult = UnevenInput | tuple[UnevenInput, ...] | dict[str, UnevenInput]

# What a method's ``layer=`` is, for type checkers, who know by it in which form its results are: of one layer they are one
# tensor, of several a tuple; those of ``"embeddings"`` are for some of the inputs, one by itself, several as the inputs are;
# where no more is known than all of these they are as the inputs. A method whose results always have one of these forms says
# so in the same way, as a class activation map, which is one tensor, by ``LayerLike``.
SomeInputs = Literal["embeddings"]
LayerList = Sequence[LayerLike | None]
AnyLayer = LayerLike | LayerList | SomeInputs | None
GivenLayer = TypeVar("GivenLayer", bound=AnyLayer, covariant=True, default=AnyLayer)
