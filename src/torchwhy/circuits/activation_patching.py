"""Activation patching: a unit gets the value that it has on another input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from torchwhy.circuits.circuit_method import CircuitMethod
from torchwhy.circuits.transformer_parts import find_blocks, find_head_layers, names_of_layers, number_of_heads
from torchwhy.circuits.units import LayerUnits, UnitKind, stack_layers
from torchwhy.engine.explained_layers import explain_by_layers
from torchwhy.engine.features.masks import score_drops
from torchwhy.engine.features.numbering import number_features
from torchwhy.engine.layers.layer import LayerLike, ResolvedLayer, resolve_layer
from torchwhy.engine.structure import Keywords, flatten
from torchwhy.problem import Problem
from torchwhy.result import Result
from torchwhy.samples.sample import Sample
from torchwhy.samples.token_sample import TokenSample
from torchwhy.settings import Count


class Patching(CircuitMethod):
    """The base of the methods that patch units of layers: which layers, which units, in which direction."""

    layer: LayerLike | Sequence[LayerLike | None] | None = None  # type: ignore[assignment]  # one tensor of them all
    units: UnitKind = "position"
    heads: Count | None = None
    denoise: bool = False

    needs_float_inputs: ClassVar[bool | None] = False
    uses_baselines: ClassVar[bool] = True
    multiplies_by_input: ClassVar[bool] = True
    compares_inputs: ClassVar[bool] = True

    def places(self, problem: Problem) -> tuple[ResolvedLayer, ...]:
        """Return the layers that are patched: those that were given, or all of the model."""
        model = problem.model
        if not isinstance(model, nn.Module):
            raise TypeError(
                "model: a plain callable has no layers to patch; give a module, or layer= modules that it runs"
            )
        given = self.layer
        if given is None:
            given = find_head_layers(model) if "head" in self.units else find_blocks(model)
        return tuple(resolve_layer(model, one, input=self.attribute_to_layer_input) for one in flatten(given)[0])

    def units_at(self, problem: Problem, layer: ResolvedLayer, t: Tensor) -> LayerUnits:
        """Return the units of what passes a layer."""
        if "head" not in self.units:
            return LayerUnits(self.units)
        return LayerUnits(self.units, self.heads or number_of_heads(problem.model, layer.name, t.shape[-1]))

    def run_that_is_patched(self, problem: Problem) -> Problem:
        """Return the problem about the run into which values are put: with ``denoise`` that of the baselines.

        Raises:
            ValueError: several baselines for each row, with ``denoise``.
        """
        if not self.denoise:
            return problem
        if problem.n_baselines != 1:
            raise ValueError("baselines: with denoise=True one for each row, whose run is patched")
        x = tuple(b[0].expand(t.shape) for b, t in zip(problem.baselines, problem.x))
        inputs = x if problem.n_targets == 1 else tuple(t[:: problem.n_targets] for t in x)
        turned = replace(problem.inputs, tensors=inputs)
        return problem.replace(inputs=turned, x=x, baselines=tuple(t[None] for t in problem.x))

    def result(self, problem: Problem, layers: Sequence[ResolvedLayer], each: Sequence[Tensor]) -> Result:
        """Return what was found for the units of each layer, with what the axes are, and the tokens of a text."""
        found = stack_layers(each)
        columns = {"head": ["head"], "position and head": ["position", "head"], "layer": ["layer"]}.get(self.units)
        axes = ["layer", *(columns or ["position"])]
        details: Keywords = {"axes": axes, "layers": names_of_layers(layers)}
        if problem.sample is not None and columns is None and problem.n == 1:
            details |= token_columns(problem.sample.sample, found.shape[2])
        return Result((-found if self.denoise else found,), details=details)


def token_columns(sample: Sample, positions: int) -> Keywords:
    """Return the text of each token of a sample's first row, as ``columns``; nothing where its layers have other positions."""
    if not isinstance(sample, TokenSample) or sample.tokenizer is None or sample.ids().shape[1] != positions:
        return {}
    return {"columns": [sample.tokenizer.decode([i]) for i in sample.ids()[0].tolist()]}


class ActivationPatching(Patching):
    r"""How far the score drops when a unit has the value that it has on another input:
    :math:`A_{nlu} = f(x_n) - f(x_n \mid a_{lu} := a_{lu}(b_n))`, for every layer l and each of its units u, one at a time.

    Shape ``(N, layers, units)``, in units of the score: positive where what the unit knows of x, and not of b, speaks for the
    target. ``baselines=`` is the other input, which differs in what is asked about, and has as many tokens: token ids, or for a
    ``tw.Prompt`` or ``tw.Text`` another one, with the same response. Takes for each layer one evaluation more than it has
    units, and two to begin with. The mean over several baselines.

    Args:
        layer: the layers; None is every block, and with heads what goes into every attention's output projection.
        units: ``"position"`` ``(N, layers, positions)``, ``"head"`` ``(N, layers, heads)``, ``"position and head"``
            ``(N, layers, positions, heads)``, or ``"layer"`` ``(N, layers, 1)``, the whole of it. 0 where a layer has fewer units
            than others.
        heads: how many there are; None asks the attention around the layer, and the model's configuration.
        denoise: put what the unit is on x into the run on b, :math:`f(b_n \mid a_{lu} := a_{lu}(x_n)) - f(b_n)`: what is enough
            to bring the answer back, where the other direction finds what it needs.

    Raises:
        LookupError: no blocks were found: name the layers.
        TypeError: a text or prompt without another one as its baseline.
        ValueError: a layer without positions, a number of heads that does not fit, two texts of different lengths.

    Paper: Meng et al. 2022, arXiv:2202.05262, section 2.1 (causal tracing); Heimersheim & Nanda 2024, arXiv:2404.15255, on both
    directions.
    """

    needs_gradient: ClassVar[bool] = False
    paper: ClassVar[str] = "arXiv:2202.05262"

    def _attribute(self, problem: Problem) -> Result:
        layers = self.places(problem)
        at = explain_by_layers(self.run_that_is_patched(problem), layers, self)
        found = []
        for layer, x, b in zip(at.input_layers, at.x, at.baselines):
            units = self.units_at(problem, layer, x)
            shape = units.shape(x)
            features = number_features((x,), (units.numbers(x),))
            one = at.replace(input_layers=(layer,), x=(x,), baselines=(b,))
            found.append(score_drops(one, features.leave_one_out_masks, features.d).to(x.dtype).unflatten(1, shape))
        return self.result(problem, layers, found)
