"""The shares of the input and of every bias in the score, laid over the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from torchwhy.attribution import Attribution
from torchwhy.engine.images.filters import resize_maps
from torchwhy.engine.layers.grid_layout import find_grid, image_input_index, in_proportion, spatial_shape
from torchwhy.engine.layers.resolve import ResolvedLayer
from torchwhy.engine.layers.window_layout import BatchAxis, batch_axis_of_one_row
from torchwhy.engine.prepare import LayerRole
from torchwhy.engine.run.gradients import compute_gradients
from torchwhy.engine.run.rows import at_least_float32
from torchwhy.engine.torch_internals import ConvModule, NormModule
from torchwhy.problem import Problem
from torchwhy.result import Result

_NORM_MODULES = (nn.LayerNorm, nn.GroupNorm, NormModule)


class FullGrad(Attribution):
    r"""The input's and the biases' gradients, each brought to [0, 1] and added up over the picture:
    :math:`M_n = \sum_c \psi(x_n \odot \nabla_x f)_c + \sum_l \sum_c \psi(b_l \odot \nabla_{z_l} f)_c`.

    :math:`z_l` is what a layer l with a bias gives: convolutions, linear layers, norms (of a batch norm the constant that it
    adds). ψ takes absolute values, brings them to [0, 1] over the layer's channels and cells, and interpolates to the input's
    size. Maps are ``(N, 1, *size)``, never negative, without a unit; layers without a grid, and those
    inside attention windows, are left out of the map.

    Before ψ the terms add up to the score in networks of ReLUs and linear layers: the explanation's ``completeness_gap`` is how
    far they are from that (attention, smooth activations, biases outside of such modules).

    Paper: Srinivas and Fleuret 2019, arXiv:1905.00780, equations 2 and 4.
    """

    layer_role: ClassVar[LayerRole] = "own"
    paper: ClassVar[str] = "arXiv:1905.00780"

    def _attribute(self, problem: Problem) -> Result:
        if self.layer is not None:
            raise ValueError("layer: FullGrad adds up all layers; leave it out")
        if not isinstance(problem.model, nn.Module):
            raise TypeError("model: a plain callable has no layers whose biases FullGrad could read")
        passed = problem.run.trace([x[:1] for x in problem.x], problem.rows[:1])[1]
        calls = Counter(place.name for place, _ in passed)
        layers = [
            (place if calls[place.name] > 1 else replace(place, call=None), batch_axis_of_one_row(tuple(t.shape)))
            for place, t in passed
            if _adds(place.module)
        ]
        problem = problem.replace(read_layers=tuple(_own(place) for place, _ in layers))
        found = problem.run.batches(problem.n, lambda a, b: self._maps(problem, layers, problem.rows[a:b]))
        maps, gaps = map(torch.cat, zip(*found))
        return Result((maps[:, None],), gaps)

    def _maps(
        self, problem: Problem, layers: Sequence[tuple[ResolvedLayer, BatchAxis]], rows: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The maps ``(M, *size)`` of some rows, and how far their terms are from adding up."""
        inputs, picture = [x[rows] for x in problem.x], image_input_index(problem.x)
        leaves = [x.requires_grad_() for x in inputs if x.is_floating_point()]
        with torch.enable_grad():
            z = [x.clone() for x in inputs]
        scores, slopes, _ = problem.run.gradients_and_activations(
            z, rows, lambda s, at, what: compute_gradients(s, [*leaves, *at], what=what)
        )
        size, total, maps = spatial_shape(problem.x[picture]), at_least_float32(scores), []
        for x, g in zip(leaves, slopes):
            term = at_least_float32(x.detach() * g)
            total = total - term.flatten(1).sum(1)
            if x is inputs[picture]:
                maps.append(_normalized_map(term if term.dim() > 2 else term[:, None], size))
        for (place, layout), g in zip(layers, slopes[len(leaves) :]):
            term = layout.split(at_least_float32(g * _constant(place.module, g.shape)), len(rows))
            total = total - term.flatten(1).sum(1)
            view = None if layout.axis is None else find_grid(place, term, len(rows), size)
            if view is not None and in_proportion(view.size, size):
                maps.append(_normalized_map(view(term), size))
        return torch.stack(maps).sum(0), total.abs()


def _adds(module: nn.Module) -> bool:
    """Whether a module is known to add a constant, whatever comes in."""
    known = isinstance(module, (ConvModule, nn.Linear, *_NORM_MODULES))
    return known and (getattr(module, "bias", None) is not None or _fixed(module))


def _own(place: ResolvedLayer) -> ResolvedLayer:
    """Where a layer's own result passes: some norms, such as those of timm, hold an activation and apply it, too."""
    act = getattr(place.module, "act", None)
    if not isinstance(place.module, _NORM_MODULES) or not isinstance(act, nn.Module):
        return place
    return replace(place, name=f"{place.name}.act", module=act, input=True)


def _fixed(module: nn.Module) -> bool:
    """Whether a module is a norm whose mean and variance do not depend on what comes in."""
    return isinstance(module, NormModule) and module.running_mean is not None and not module.training


def _constant(module: Any, shape: torch.Size) -> Tensor:
    """What a module adds, laid along the channels of a result of this shape: its second axis, or the last ones."""
    bias, dims = module.bias, len(shape)
    if _fixed(module):
        scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
        bias = (0 if bias is None else bias) - module.running_mean * scale
    last = isinstance(module, nn.Linear)
    if isinstance(module, nn.LayerNorm):  # subclasses in vision models may have the channels second
        width, second = tuple(module.normalized_shape), tuple(shape[1:2])
        last = type(module) is nn.LayerNorm or dims < 4 or (shape[-1:] == width and second != width)
    return bias.detach() if last else bias.detach().reshape(-1, *[1] * (dims - 2))


def _normalized_map(term: Tensor, size: tuple[int, ...]) -> Tensor:
    """The sum over the channels of ψ(term ``(M, C, *grid)``), ``(M, *size)``; 0 where the term is the same everywhere."""
    values = term.abs()
    flat = values.flatten(1)
    low, high = (t.reshape(-1, *[1] * (term.dim() - 1)) for t in (flat.amin(1), flat.amax(1)))
    return resize_maps(torch.where(high > low, (values - low) / (high - low), 0).sum(1, keepdim=True), size)[:, 0]
