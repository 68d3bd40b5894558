"""What the methods that look inside a transformer have in common."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.attribution import Attribution
from torchwhy.engine.asker import LayerRole
from torchwhy.engine.layers.layer import LayerLike


class CircuitMethod(Attribution[LayerLike]):
    """The base of the methods whose layers lie behind one another, and whose result is no map of the inputs."""

    layer_role: ClassVar[LayerRole] = "own"
    layers_may_depend: ClassVar[bool] = True
    finds_layers: ClassVar[bool] = True  # where none is named
    gives_one_map: ClassVar[bool] = True
    compares_inputs: ClassVar[bool] = False  # a sample has another one as its baselines
