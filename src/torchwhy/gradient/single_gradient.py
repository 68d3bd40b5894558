"""Methods that are a function of one gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from torchwhy.attribution import Attribution, Baselines, FeatureMasks, Inputs, checked_values, prepare_for
from torchwhy.engine.prepare import with_target
from torchwhy.engine.run.freeze import isolated
from torchwhy.engine.structure import Tensors, flatten
from torchwhy.problem import Problem
from torchwhy.targets import Neuron, TargetLike


class GradientBased(Attribution):
    """The base of the methods that need one gradient: several targets can share the forward pass."""

    def _of(self, problem: Problem, gradients: Tensors) -> Tensors:
        """The attributions, from the gradients at ``problem.x``."""
        raise NotImplementedError

    def _attribute(self, problem: Problem) -> Tensors:
        return self._of(problem, problem.run.all_gradients(problem.x))

    def attribute_each(
        self,
        inputs: Inputs,
        targets: Sequence[TargetLike],
        *,
        baselines: Baselines = None,
        feature_mask: FeatureMasks = None,
        additional_forward_args: Any = None,
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
        with isolated(self.model):
            problem = prepare_for(self, inputs, targets[0], baselines, feature_mask, additional_forward_args)
            with problem.open():
                each = [with_target(problem, t).target for t in targets]
                parts = problem.run.batches(problem.n, lambda a, b: problem.run.gradients_per_target(each, a, b))
                joined = [tuple(map(torch.cat, zip(*of_target))) for of_target in zip(*parts)]
                values = [self._of(problem, gradients) for gradients in joined]
            structure = self.result_structure(flatten(inputs)[1])
            return [structure.restore(checked_values(self, problem, v)) for v in values]
