"""Methods that are a function of one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from torchwhy.attribution import Attribution, Inputs
from torchwhy.engine.run.device import cpu_default_device
from torchwhy.problem import Problem, Tensors
from torchwhy.targets import Neuron, Target, TargetLike


@dataclass(kw_only=True, repr=False)
class GradientBased(Attribution):
    """The base of the methods that need one gradient: several targets can share the forward pass."""

    def _of(self, problem: Problem, gradients: Tensors) -> Tensors:
        """The attributions, from the gradients at ``problem.x``."""
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        return self._of(problem, problem.all_gradients(problem.x))

    def attribute_each(
        self, inputs: Inputs, targets: Sequence[TargetLike], *, additional_forward_args: Any = None
    ) -> list[Any]:
        """As :meth:`attribute` for each of several targets, from one forward pass of the model.

        Args:
            inputs, additional_forward_args: as for :meth:`attribute`.
            targets: T targets, each in any of the forms of :meth:`attribute` but a neuron.

        Returns:
            T attributions, each of the form that :meth:`attribute` gives.

        Raises:
            ValueError: no target.
            FloatingPointError: as :meth:`attribute`, for any of the targets.
            TypeError: a neuron, which is read from another forward pass.
        """
        if not targets or any(isinstance(t, Neuron) for t in targets):
            raise (TypeError if targets else ValueError)("targets: expected one or more targets of the model's output")
        with cpu_default_device(), torch.inference_mode(False):
            problem = self._problem(inputs, targets[0], None, None, additional_forward_args)
            device = problem.data.inputs[0].device
            with problem.open():
                each = [
                    Target.of(self._predicted(problem, t) if isinstance(t, str) else t, problem.n, device)
                    for t in targets
                ]
                parts = list(problem.batches(problem.n, lambda a, b: problem.gradients_of_each(each, a, b)))
                joined = [tuple(map(torch.cat, zip(*(part[t] for part in parts)))) for t in range(len(each))]
                values = [self._of(problem, gradients) for gradients in joined]
            return [self._form(self._checked(problem, v), inputs) for v in values]
