"""Methods that are a function of one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from torchwhy.attribution import Attribution
from torchwhy.baselines import resolve_baseline, same_number
from torchwhy.engine.explained_layers import activations_at_baselines
from torchwhy.engine.layers.row_axes import RowAxes
from torchwhy.engine.run.rows import rows_between
from torchwhy.engine.structure import Tensors
from torchwhy.input_types import GivenLayer
from torchwhy.problem import Problem


class GradientBased(Attribution[GivenLayer]):
    """The base of the methods that need one gradient.

    With ``layer=`` the model runs as it is, and the gradient is read where it passes the layers: these may lie behind one
    another, and all are read in one pass forward and one back.
    """

    reads_gradient: ClassVar[bool] = True

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the attributions, from the gradients at ``problem.x``."""
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        if problem.read_layers:
            return self.from_gradients(*read_layers(problem))
        return self.from_gradients(problem, problem.run.all_gradients(problem.x))


def read_layers(problem: Problem) -> tuple[Problem, Tensors]:
    """Return the problem with what passes the read layers as ``x``, and its gradients there, all with the rows first.

    Its baselines are what passes there when the input is a baseline, which is one more run.
    """
    layers, rows = problem.read_layers, problem.rows
    axes = RowAxes(problem, layers)

    def work(start: int, stop: int) -> Tensors:
        _, slopes, passed = problem.run.gradients_and_activations(
            rows_between(problem.x, start, stop), rows[start:stop]
        )
        return axes(slopes, stop - start) + axes(passed, stop - start)

    found = problem.run.concatenated(len(rows), work)
    gradients, x = found[: len(layers)], found[len(layers) :]
    baselines = activations_at_baselines(problem, layers, axes) if problem.baselines else ()
    if problem.absence:
        baselines = same_number([resolve_baseline(b, t, problem.generator) for b, t in zip(problem.absence, x)])
    return problem.replace(x=x, baselines=baselines), gradients


def change_from_baselines(problem: Problem) -> Sequence[Tensor]:
    """Return what is explained less the mean of its baselines, ``(N, ...)``; as it is where there are none."""
    if not problem.baselines:
        return problem.x
    return [x - b.mean(0) if x.is_floating_point() else x for x, b in zip(problem.x, problem.baselines)]
