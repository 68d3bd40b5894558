"""Attribution patching: activation patching to first order, for all units at once."""

from __future__ import annotations

from typing import ClassVar

from torchwhy.circuits.activation_patching import Patching
from torchwhy.gradient.single_gradient import change_from_baselines, read_layers
from torchwhy.problem import Problem
from torchwhy.result import Result


class AttributionPatching(Patching):
    r"""Activation patching to first order, for all units of all layers at once:
    :math:`A_{nlu} = \sum_{j \in u} (a_{lj}(x_n) - a_{lj}(b_n)) \, \partial f / \partial a_{lj}(x_n)`.

    Shape and sign as :class:`ActivationPatching`, and the same numbers where f is linear in what passes a layer; two evaluations
    of a row, whatever the number of layers. Where attention saturates, or a norm rescales what is left, the two differ: check
    the largest by activation patching.

    Args:
        layer, units, heads: as for :class:`ActivationPatching`.
        denoise: the gradient at b, not at x.

    Raises:
        LookupError, TypeError, ValueError: as :class:`ActivationPatching`.

    Paper: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Syed et al. 2023, arXiv:2310.10348,
    equation 2.
    """

    paper: ClassVar[str] = "arXiv:2310.10348"

    def _attribute(self, problem: Problem) -> Result:
        layers = self.places(problem)
        at, gradients = read_layers(self.run_that_is_patched(problem).replace(read_layers=layers))
        found = []
        for layer, x, change, g in zip(layers, at.x, change_from_baselines(at), gradients):
            units = self.units_at(problem, layer, x)
            units.shape(x)
            found.append(units.sums(change * g))
        return self.result(problem, layers, found)
