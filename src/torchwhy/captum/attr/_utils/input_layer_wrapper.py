"""A model whose inputs are layers, so that they can be named beside others."""

from inspect import signature

from torch import nn

from torchwhy.engine.structure import AnyForm, InForm

__all__ = ["ModelInputWrapper"]


class ModelInputWrapper(nn.Module):
    """A model with an identity layer for each argument of its forward pass, ``input_maps[name]``; it computes the same.

    For Captum's way to explain an image and the embedding of a question at once. torchwhy itself needs none:
    ``layer=[tw.Layer("cnn.0", input=True), "text.embedding"]`` names the layer that the image enters.

    Args:
        module_to_wrap: the model, which is ``module`` here.
    """

    def __init__(self, module_to_wrap: nn.Module) -> None:
        super().__init__()
        self.module = module_to_wrap
        self.arg_name_list = list(signature(module_to_wrap.forward).parameters)
        self.input_maps = nn.ModuleDict({name: nn.Identity() for name in self.arg_name_list})

    def forward(self, *args: InForm, **kwargs: InForm) -> AnyForm:
        """Return what the model does, its arguments through their layers."""
        given = signature(self.module.forward).bind(*args, **kwargs).arguments
        return self.module(**{name: self.input_maps[name](value) for name, value in given.items()})
