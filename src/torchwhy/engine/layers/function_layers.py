"""Functions as models that have layers: a hook sits on the layer, whoever calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from torch import nn

from torchwhy.engine.layers.layer import Layer
from torchwhy.engine.structure import AnyModel, AnyOutput, Model, Output


class FunctionWithLayers(nn.Module):
    """A function as a module, so that layers that run inside it can be found.

    A method of a module has that module's layers, by their names there; others are held beside them.

    Args:
        function: any callable that runs the layers.
        layers: the modules.
    """

    def __init__(self, function: Callable[..., Output], layers: Sequence[nn.Module]) -> None:
        super().__init__()
        owner = function if isinstance(function, nn.Module) else getattr(function, "__self__", None)
        self.called = (function,)  # in a tuple, so that a module is not registered
        self.training = isinstance(owner, nn.Module) and owner.training
        if isinstance(owner, nn.Module):
            for name, parameter in owner.named_parameters(recurse=False):
                self.register_parameter(name, parameter)
            for name, buffer in owner.named_buffers(recurse=False):
                self.register_buffer(name, buffer)
            for name, child in owner.named_children():
                self.add_module(name, child)
        for layer in layers:
            if layer not in set(self.modules()):
                self.add_module(f"{type(layer).__name__} {len(list(self.children()))}", layer)

    def forward(self, *args: object, **kwargs: object) -> AnyOutput:
        """Return the function's output."""
        return self.called[0](*args, **kwargs)


def with_layers(function: AnyModel, layers: Sequence[nn.Module]) -> Model:
    """Return the model itself where the layers are parts of it, else as a module with them."""
    inside = set(function.modules()) if isinstance(function, nn.Module) else set()
    return function if all(layer in inside for layer in layers) else FunctionWithLayers(function, layers)


def function_with_places(function: Model, places: Iterable[object]) -> Model:
    """Return a function that is no module as one that has the layers of ``places``; itself where none is a module of its own.

    ``places`` are layers in the forms of ``layer=``: those that are names mean something in a method of a module only.
    """
    given = [place.module if isinstance(place, Layer) else place for place in places]
    modules = [module for module in given if isinstance(module, nn.Module)]
    is_method = isinstance(getattr(function, "__self__", None), nn.Module)
    named = is_method and any(isinstance(place, str) for place in given)
    return FunctionWithLayers(function, modules) if callable(function) and (modules or named) else function
