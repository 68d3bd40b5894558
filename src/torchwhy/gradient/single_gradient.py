"""Methods that are a function of one gradient."""

from __future__ import annotations

from torchwhy.attribution import Attribution
from torchwhy.engine.structure import Tensors
from torchwhy.problem import Problem


class GradientBased(Attribution):
    """The base of the methods that need one gradient."""

    def from_gradients(self, problem: Problem, gradients: Tensors) -> Tensors:
        """Return the attributions, from the gradients at ``problem.x``."""
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        return self.from_gradients(problem, problem.run.all_gradients(problem.x))
