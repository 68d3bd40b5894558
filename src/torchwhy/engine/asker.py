"""Who asks a model, and what preparing the question has to know of them: a method, by its settings and facts, or another."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from torchwhy.engine.layers.layer import LayerLike
from torchwhy.engine.run.randomness import Seed
from torchwhy.engine.structure import AnyModel

LayerRole = Literal["input", "read", "own"]


AskerType = TypeVar("AskerType", bound="Asker")


class Asker(Protocol):
    """What is asked of whoever puts a question to a model: a method has this as its settings and facts, others as a
    :class:`Question`."""

    model: AnyModel
    attribute_to_layer_input: bool
    batch_size: int | None
    precision: Literal["bf16", "fp16"] | None
    progress: bool
    check: bool

    @property
    def layer(self) -> LayerLike | Sequence[LayerLike | None] | None:
        """By what the score is explained, None for the inputs; what is no method may read layers by it."""

    @property
    def needs_gradient(self) -> bool:
        """Whether the model is differentiated, and so must take tensors."""

    @property
    def needs_float_inputs(self) -> bool | None:
        """Whether to refuse inputs that have no gradient; None: where a gradient is needed."""

    @property
    def uses_baselines(self) -> bool:
        """Whether baselines are wanted, zero without any."""

    @property
    def takes_baselines(self) -> bool:
        """Whether baselines mean something, without any being taken where none are given."""

    @property
    def uses_feature_mask(self) -> bool:
        """Whether a feature mask means something."""

    @property
    def baselines_are_rows(self) -> bool:
        """Whether a tensor of baselines is K rows to draw from."""

    @property
    def layer_role(self) -> LayerRole:
        """What a layer is for: ``"input"`` the model begins there, ``"read"`` it is read, ``"own"`` the method's business."""

    @property
    def layers_may_depend(self) -> bool:
        """Whether layers with the role ``"input"`` may lie behind one another."""

    @property
    def reads_gradient(self) -> bool:
        """Whether layers with the role ``"input"`` are left as they are, and the gradient is read there in one pass."""


@dataclass(kw_only=True)
class Question:
    """How a model is asked by what is no method: see :class:`Asker`, and ``generator`` and ``label`` besides."""

    model: AnyModel
    layer: LayerLike | Sequence[LayerLike | None] | None = None
    attribute_to_layer_input: bool = False
    batch_size: int | None = None
    precision: Literal["bf16", "fp16"] | None = None
    progress: bool = False
    check: bool = True
    needs_gradient: bool = False
    needs_float_inputs: bool | None = False
    uses_baselines: bool = False
    takes_baselines: bool = False
    uses_feature_mask: bool = True
    baselines_are_rows: bool = False
    layer_role: LayerRole = "own"
    layers_may_depend: bool = False
    reads_gradient: bool = False
    generator: Seed = None
    label: str = ""


def with_model(asker: AskerType, model: object) -> AskerType:
    """Return a copy of who asks that has another model for the same one, such as one that takes tensors for tables."""
    found = copy(asker)
    vars(found)["model"] = (
        model  # past the checks of a method's settings, whose own methods keep the one that they have
    )
    return found
